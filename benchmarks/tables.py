"""What tables of finished trainings say of the best rate and the training's length, and how our rule does on them.

    python -m benchmarks.tables FOLDER
    python -m benchmarks.tables FOLDER --lr lr --length D --batch bs --score "smooth loss" --by N
    python -m benchmarks.tables FOLDER --score accuracy --maximize --floor 0.1

Every CSV file of FOLDER is a table somebody published, which you downloaded: a row for each training, with its rate,
its length (steps, tokens, epochs: any unit) and its final loss. Rows of the same batch size, and of the same values of
the columns that ``--by`` names, belong together; several rows of one setting are seeds, and averaged.

At each length the best rate is the vertex of the parabola through the grid's best and its neighbours; lengths whose
best lies on the grid's edge tell nothing. Where two lengths or more are left:

- exponent: g where the best rate goes as length ** -g, by least squares, with its standard error; for batches likewise,
  as batch ** +g.
- regret: of the rate that each shorter length predicts for the longest, in per cent of the best loss (of the best score
  less ``--floor``, where that is given): with no shift, with our exponent, and with our rule on the two shortest
  lengths, which measures the exponent and shrinks it towards what is believed.
"""

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.table import markdown
from clr.range_tests.evidence import at_length
from clr.range_tests.method import METHOD

Scores = dict[float, float]
"""Rate -> mean final score; more is better."""


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns.

    Args:
        lr, length, score: of the rate, the training's length and the final loss, or score.
        batch: of the batch size; a table need not have it.
        by: of whatever else tells trainings apart.
        sign: -1 where less is better.
    """

    lr: str = "lr"
    length: str = "steps"
    score: str = "loss"
    batch: str = "batch"
    by: tuple[str, ...] = ()
    sign: int = -1


@dataclass(frozen=True)
class Setting:
    """What trainings share that differ in rate alone."""

    group: tuple[str, ...]
    batch: float
    length: float


def read(path: Path, columns: Columns) -> dict[Setting, Scores]:
    """The settings of a table. Trainings without a finite score diverged, and are left out.

    Raises:
        ValueError: the table lacks a column, or a number in it.
    """
    found: dict[tuple[Setting, float], list[float]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        names = rows.fieldnames or []
        if lacking := [name for name in (columns.lr, columns.length, columns.score, *columns.by) if name not in names]:
            raise ValueError(f"{path.name} must have the columns {', '.join(lacking)}, but has {', '.join(names)}")
        for number, row in enumerate(rows, 2):
            try:
                lr, length = float(row[columns.lr]), float(row[columns.length])
                batch = float(row[columns.batch]) if columns.batch in names else math.nan
                score = columns.sign * float(row[columns.score] or "nan")
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, line {number}: {error}") from None
            if math.isfinite(score):
                setting = Setting(tuple(row[name] for name in columns.by), 0.0 if math.isnan(batch) else batch, length)
                found[setting, lr].append(score)
    settings: dict[Setting, Scores] = defaultdict(dict)
    for (setting, lr), scores in found.items():
        settings[setting][lr] = fmean(scores)
    return dict(settings)


def best_rate(scores: Scores) -> float | None:
    """Logarithm of the best rate; None where it lies on the grid's edge."""
    x = np.log(sorted(scores))
    y = np.array([scores[rate] for rate in sorted(scores)])
    at = int(y.argmax())
    if not 0 < at < len(x) - 1:
        return None
    curvature, slope, _ = np.polyfit(x[at - 1 : at + 2] - x[at], y[at - 1 : at + 2] - y[at], 2)
    away = -slope / (2 * curvature) if curvature < 0 else 0.0
    return float(x[at] + np.clip(away, (x[at - 1] - x[at]) / 2, (x[at + 1] - x[at]) / 2))


def exponent(best: Mapping[float, float]) -> tuple[float, float]:
    """Slope of the logarithm of the best rate over that of what it is known at, and its standard error."""
    x, y = np.log(list(best)), np.array(list(best.values()))
    slope, level = np.polyfit(x, y, 1)
    left = float(((y - slope * x - level) ** 2).sum())
    spread = float(((x - x.mean()) ** 2).sum())
    return float(slope), math.sqrt(left / (len(x) - 2) / spread) if len(x) > 2 else math.nan


def regret(scores: Scores, x: float, floor: float | None) -> float:
    """Of a rate, given as its logarithm, in per cent; between rates of the grid on a line, beyond it as at its edge."""
    rates = sorted(scores)
    top = max(scores.values())
    score = float(np.interp(x, np.log(rates), [scores[rate] for rate in rates]))
    return 100 * (top - score) / (abs(top) if floor is None else top - floor)


def regrets(best: Mapping[float, float], longest: Scores, floor: float | None) -> dict[str, list[float]]:
    """Of what shorter lengths predict for the longest, by rule."""
    *shorter, length = sorted(best)
    of = METHOD.length
    found = {
        "no shift": [regret(longest, best[n], floor) for n in shorter],
        "one length": [regret(longest, at_length([(best[n], n, of.error)], length).x, floor) for n in shorter],
    }
    if len(shorter) > 1:
        two = at_length([(best[n], n, of.error) for n in shorter[:2]], length)
        found["two lengths"] = [regret(longest, two.x, floor)]
    return found


RULES = "no shift", "one length", "two lengths"


def by_length(settings: Mapping[Setting, Scores], floor: float | None) -> list[list[str]]:
    """A row for each group and batch with two lengths or more."""
    groups: dict[tuple[tuple[str, ...], float], dict[float, Scores]] = defaultdict(dict)
    for setting, scores in settings.items():
        groups[setting.group, setting.batch][setting.length] = scores
    rows = []
    for (group, batch), lengths in sorted(groups.items()):
        best = {n: x for n, scores in sorted(lengths.items()) if (x := best_rate(scores)) is not None}
        if len(best) > 1:
            slope, error = exponent(best)
            found = regrets(best, lengths[max(best)], floor)
            said = [_mean_and_worst(found.get(rule, [])) for rule in RULES]
            rows.append([_name(group, batch), f"{len(best)} of {len(lengths)}", _with_error(-slope, error), *said])
    return rows


def by_batch(settings: Mapping[Setting, Scores]) -> list[list[str]]:
    """A row for each group and length with two batch sizes or more."""
    groups: dict[tuple[tuple[str, ...], float], dict[float, float]] = defaultdict(dict)
    for setting, scores in sorted(settings.items(), key=lambda one: one[0].batch):
        if setting.batch and (x := best_rate(scores)) is not None:
            groups[setting.group, setting.length][setting.batch] = x
    known = [(key, best) for key, best in sorted(groups.items()) if len(best) > 1]
    return [[_name(group, length), str(len(best)), _with_error(*exponent(best))] for (group, length), best in known]


def _name(group: Iterable[str], number: float) -> str:
    return " ".join([*group, *([f"{number:g}"] if number else [])]) or "all"


def _with_error(value: float, error: float) -> str:
    return f"{value:+.2f}" if math.isnan(error) else f"{value:+.2f} ± {error:.2f}"


def _mean_and_worst(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ({max(values):.2f})" if values else ""


def report(folder: Path, columns: Columns, floor: float | None = None) -> str:
    """The tables of every CSV file in a folder.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise ValueError(f"{folder} must hold CSV files, but has none")
    texts = []
    for path in paths:
        settings = read(path, columns)
        rows, batches = by_length(settings, floor), by_batch(settings)
        head = ["group, batch", "lengths", "exponent", *(f"{rule}, regret %" for rule in RULES)]
        texts.append(f"### {path.stem}\n")
        texts.append(markdown(head, rows) if rows else "No two lengths have their best rate within the grid.")
        if batches:
            texts.append("\n" + markdown(["group, length", "batch sizes", "exponent of the batch"], batches))
    return "\n".join(texts)


def main() -> None:
    """Report on the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("lr", "lr"), ("length", "steps"), ("score", "loss"), ("batch", "batch")):
        parser.add_argument(f"--{name}", default=default, metavar="COLUMN", help=f"default: {default}")
    parser.add_argument("--by", nargs="+", default=[], metavar="COLUMN", help="what else tells trainings apart")
    parser.add_argument("--maximize", action="store_true", help="whether more of the score is better")
    parser.add_argument("--floor", type=float, help="score of a constant predictor")
    chosen = parser.parse_args()
    sign = 1 if chosen.maximize else -1
    columns = Columns(chosen.lr, chosen.length, chosen.score, chosen.batch, tuple(chosen.by), sign)
    try:
        print(report(chosen.folder, columns, None if chosen.floor is None else sign * chosen.floor))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
