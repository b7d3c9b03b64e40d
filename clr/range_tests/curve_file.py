"""Files in which others keep the curve of a range test.

Whatever a file is, it becomes a table of named columns. Of these the rate, the loss and, where there is one, the metric
are found by name, or picked; the others are left out, and it is said which.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clr.errors import InvalidArgument, NotGiven
from clr.range_tests.bounds import Bounds
from clr.range_tests.curve_table import EXTREME, Table, of_each_run, run_column, table_of
from clr.range_tests.recorded import Recording, read_recordings
from clr.run import Direction, direction_of, words_of

COLUMNS = ("lr", "loss", "metric", "seed")
"""Of a file of our own."""

NAMED = 12
"""Columns that a message names."""

EMPTY = frozenset({"", "none", "null", "na", "n/a", "-"})
"""Cells in which nothing was recorded."""

HELD_OUT = frozenset({"val", "valid", "validation", "test", "eval", "dev"})
ACCURACY = frozenset({"accuracy", "acc"})
PLAIN = frozenset({"train", "training", "batch", "step", "optimizer", "scheduler"})
"""Words that leave a rate a rate, and a training loss one."""

LOGARITHM = frozenset({"log", "log10", "ln"})

SAME = 0.01
"""How far the proportions of parameter groups' rates may vary from row to row, for the digits they are written with."""

Row = tuple[str, float, float | None, float | None]
"""Seed, lr, loss and metric of one step."""


@dataclass(frozen=True)
class Picked:
    """Names of the columns to read; None: the one whose name says so."""

    lr: str | None = None
    loss: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class CurveFile:
    """What a file holds.

    Args:
        recordings: one for each seed, in the order of their first rows.
        direction: whether a larger metric is better, by the metric's name.
        notes: which columns were read and which were not, in plain words; empty where nothing had to be found.
    """

    recordings: list[Recording]
    direction: Direction
    notes: list[str]


def read_curve_file(data: bytes, picked: Picked = Picked()) -> CurveFile:
    """The curves in a file of any of these kinds.

    Args:
        data: its content.
        picked: columns, or tags, to read in the place of those found by name.

    Raises:
        InvalidArgument: it is no such file, a column is missing or may be any of several, or a cell is no number.

    >>> file = read_curve_file(b"step;learning_rate;train/loss\\n0;0,1;2,5\\n1;0,2;2,0\\n")
    >>> file.recordings[0].lr, file.recordings[0].loss
    ([0.1, 0.2], [2.5, 2.0])
    """
    table = table_of(data)
    named = {picked.lr, picked.loss, picked.metric} & {*table.columns}
    return _read(table if any(" - " in name for name in named if name) else of_each_run(table), picked)


def bounds_of_file(data: bytes, picked: Picked = Picked(), direction: Direction | None = None) -> Bounds:
    """The bounds that a file's curves give, with what was read of it among the reasons.

    Args:
        data, picked: as of ``read_curve_file``.
        direction: whether a larger metric is better; None: by its name.

    Raises:
        InvalidArgument: as ``read_curve_file``, and where a rate breaks its rule.
    """
    file = read_curve_file(data, picked)
    return read_recordings(file.recordings, direction or file.direction).noting(*file.notes)


def recordings_of(rows: Iterable[Row]) -> list[Recording]:
    """One for each seed, in the order of their first rows."""
    recordings: dict[str, Recording] = defaultdict(Recording)
    for seed, lr, loss, metric in rows:
        one = recordings[seed]
        one.lr.append(lr)
        one.loss.append(math.nan if loss is None else loss)
        one.metric.append(math.nan if metric is None else metric)
    return list(recordings.values())


def _read(table: Table, picked: Picked) -> CurveFile:
    if not table.lines:
        raise InvalidArgument("curve", "must have at least one row below its header")
    rate, rates, said = _rates(table, picked.lr)
    is_alone = picked.loss is None and not any(map(_loss_likeness, table.columns))
    metric = _found("metric", picked.metric, table, _metric_likeness) if picked.metric else _metric(table, is_alone)
    loss = None if is_alone and metric is not None else _found("loss", picked.loss, table, _loss_likeness)
    names = {"lr": rate, "loss": loss, "metric": metric}
    losses, metrics = (_numbers(role, name, table) for role, name in (("loss", loss), ("metric", metric)))
    apart = "seed" if "seed" in table.columns else run_column(table)
    seeds = [""] * len(table.lines) if apart is None else [str(cell) for cell in table.columns[apart]]
    rows, carried = _with_rates(list(zip(seeds, rates, losses, metrics, strict=True)))
    if not rows:
        raise InvalidArgument("lr", "must be recorded in at least one row", rate)
    notes = _notes(names, table) + said
    runs = list(dict.fromkeys(seed for seed, *_ in rows))
    if apart not in (None, "seed") and len(runs) > 1:
        told = ", ".join(runs[:NAMED]) + (", ..." if len(runs) > NAMED else "")
        notes.append(f"{len(runs)} runs, read as repetitions of one test: {told}")
    if carried:
        notes.append(f"{carried} rows without a rate have that of the row before")
    return CurveFile(recordings_of(rows), direction_of(_plain_name(metric or "")), notes)


def _rates(table: Table, picked: str | None) -> tuple[str, list[float], list[str]]:
    """Name and values of the rate's column, and what to say of them: of several parameter groups, the largest."""
    alike = [picked] if picked is not None else _alike(table, _rate_likeness)
    groups = [(name, values) for name in alike if name in table.columns for values in _groups(name, table)]
    shares = _shares([values for _, values in groups])
    if shares is None:
        name = _found("lr", picked, table, _rate_likeness)
        return name, _numbers("lr", name, table), []
    name, values = groups[shares.index(max(shares))]
    told = ", ".join(f"{share:.3g}" for share in shares)
    return name, values, [f"rates of parameter groups in the proportions {told}: the largest was read"]


def _groups(name: str, table: Table) -> list[list[float]]:
    """A column's numbers; several where each cell is a list, of a rate for each parameter group."""
    cells = table.columns[name]
    count = len(cells[0]) if isinstance(cells[0], list) else 1
    if count == 1 or not all(isinstance(cell, list) and len(cell) == count for cell in cells):
        return [_numbers("lr", name, table)]
    return [
        [_number("lr", cell, line, table) for cell, line in zip(each, table.lines, strict=True)]
        for each in zip(*cells, strict=True)
    ]


def _shares(groups: Sequence[Sequence[float]]) -> list[float] | None:
    """What the first is multiplied by to get each; None where there is but one, or the proportions change."""
    if len(groups) < 2:
        return None
    shares = []
    for values in groups:
        pairs = list(zip(values, groups[0], strict=True))
        quotients = [value / first for value, first in pairs if first and not math.isnan(value / first)]
        alike = all(math.isnan(value) == math.isnan(first) for value, first in pairs)
        if not alike or not quotients or max(quotients) > (1 + SAME) * min(quotients):
            return None
        shares.append(sorted(quotients)[len(quotients) // 2])
    return shares


def _with_rates(rows: list[tuple[str, float, float, float]]) -> tuple[list[Row], int]:
    """Rows that have a rate: their own, or else the last before, where trainers log the rate in a row of its own.

    A metric that stands alone, without rate and loss, is of the row before.
    """
    if not any(math.isnan(lr) and not (math.isnan(loss) and math.isnan(metric)) for _, lr, loss, metric in rows):
        return [row for row in rows if not math.isnan(row[1])], 0
    kept: list[tuple[str, float, float, float]] = []
    carried, last = 0, math.nan
    for seed, lr, loss, metric in rows:
        last = last if math.isnan(lr) else lr
        if math.isnan(last) or (math.isnan(loss) and math.isnan(metric)):
            continue
        carried += math.isnan(lr)
        if math.isnan(lr) and math.isnan(loss) and kept and math.isnan(kept[-1][-1]):
            kept[-1] = (*kept[-1][:-1], metric)
        else:
            kept.append((seed, last, loss, metric))
    return list(kept), carried


def _found(role: str, picked: str | None, table: Table, likeness: Callable[[str], int]) -> str:
    """The column that was picked, or the only one whose name is most like the role."""
    there = _named(table)
    shown = ", ".join(there[:NAMED]) + (", ..." if len(there) > NAMED else "") or "none"
    if picked is not None:
        if picked not in table.columns:
            raise InvalidArgument(role, f"must be one of the curve's columns: {shown}", picked)
        return picked
    best = _alike(table, likeness)
    if len(best) == 1:
        return best[0]
    if {"wall time", "step", "value"} == {name.lower() for name in there}:
        rule = "must be a column; this is one series of TensorBoard's: give its event file in its place"
        raise InvalidArgument("curve", rule, shown)
    if best:
        raise InvalidArgument(role, "must be one column; several may be it, so pick one", best[:NAMED])
    raise InvalidArgument(role, f"must be one of the curve's columns: {shown}; pick it by its name", NotGiven)


def _named(table: Table) -> list[str]:
    return [name for name in table.columns if name and not name.startswith("Unnamed:")]


def _alike(table: Table, likeness: Callable[[str], int]) -> list[str]:
    """The columns whose names are most like a role; none where no name is like it."""
    by_likeness = defaultdict(list)
    for name in _named(table):
        by_likeness[likeness(name)].append(name)
    most = max(by_likeness, default=0)
    return by_likeness[most] if most > 0 else []


def _metric(table: Table, is_alone: bool) -> str | None:
    """The only column of the validation data's accuracy, or that which is called metric.

    Args:
        table: in which it may be.
        is_alone: whether there is no loss; then an accuracy of whatever data will do.
    """
    if "metric" in table.columns:
        return "metric"
    alike = [name for name in table.columns if _metric_likeness(name) > 0]
    alike = alike or [name for name in table.columns if is_alone and _words(name) & ACCURACY]
    return alike[0] if len(alike) == 1 else None


def _rate_likeness(name: str) -> int:
    words = _word_list(name)
    plain = [word for word in words if word not in PLAIN]
    if not plain or LOGARITHM & set(words):
        return 0
    joined = "".join(plain)
    is_rate = joined in ("lr", "lrs", "learningrate", "learningrates")
    named = [word for word in plain if not word.isdigit()]
    begins_or_ends = [named[:1], named[-1:], named[:2], named[-2:]]
    is_group = ["lr"] in begins_or_ends or ["learning", "rate"] in begins_or_ends
    return 3 if name.strip().lower() == "lr" else 2 if is_rate else 1 if is_group else 0


def _loss_likeness(name: str) -> int:
    words = _words(name)
    if not words & {"loss", "losses"} or words & HELD_OUT:
        return 0
    is_plain = words - PLAIN in ({"loss"}, {"losses"})
    return 3 if name.strip().lower() == "loss" else 2 if is_plain else 1


def _metric_likeness(name: str) -> int:
    words = _words(name)
    return int(bool(words & ACCURACY) and bool(words & HELD_OUT)) + 2 * (name == "metric")


def _words(name: str) -> set[str]:
    return set(_word_list(name))


def _word_list(name: str) -> list[str]:
    """Words of a column's name, none of W&B's extremes."""
    if EXTREME.search(name):
        return []
    return words_of(_plain_name(name))


def _plain_name(name: str) -> str:
    """Of W&B's "run - name" the name."""
    return name.rpartition(" - ")[2]


def _numbers(role: str, name: str | None, table: Table) -> list[float]:
    """A column's numbers; NaN where there is none."""
    if name is None:
        return [math.nan] * len(table.lines)
    return [_number(role, cell, line, table) for cell, line in zip(table.columns[name], table.lines, strict=True)]


def _number(role: str, cell: Any, line: int, table: Table) -> float:
    if isinstance(cell, list) and len(cell) == 1:  # one rate for each of one parameter group
        cell = cell[0]
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in EMPTY):
        return math.nan
    try:
        if isinstance(cell, str) and table.decimal_comma and "." not in cell:
            cell = cell.replace(",", ".")
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(role, f"must be a number, also in line {line}", cell) from None
    if role == "lr" and (value < 0 or math.isinf(value)):
        rule = f"must be a finite number of at least 0, no logarithm, also in line {line}"
        raise InvalidArgument("lr", rule, cell)
    return value


def _notes(names: Mapping[str, str | None], table: Table) -> list[str]:
    if all(name in (None, role) for role, name in names.items()) and set(table.columns) <= {*COLUMNS, ""}:
        return []
    read = ", ".join(f"{role} from {name!r}" for role, name in names.items() if name is not None)
    apart = ("seed", run_column(table))
    left = [name for name in table.columns if name and name not in (*names.values(), *apart)]
    shown = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
    return [f"columns read: {read}" + (f"; not read: {shown}" if left else "")]
