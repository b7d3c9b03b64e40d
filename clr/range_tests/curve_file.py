"""Files in which others keep the curve of a range test: CSV of any delimiter, JSON, JSON lines, TensorBoard's events.

Whatever a file is, it becomes a table of named columns. Of these the rate, the loss and, where there is one, the metric
are found by name, or picked; the others are left out, and it is said which.
"""

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clr.errors import InvalidArgument, NotGiven
from clr.range_tests.bounds import Bounds
from clr.range_tests.event_file import is_event_file, scalars
from clr.range_tests.recorded import Recording, read_recordings
from clr.run import Direction

COLUMNS = ("lr", "loss", "metric", "seed")
"""Of a file of our own."""

NAMED = 12
"""Columns that a message names."""

EMPTY = frozenset({"", "none", "null", "na", "n/a", "-"})
"""Cells in which nothing was recorded."""

DELIMITERS = "\t;,|"

HELD_OUT = frozenset({"val", "valid", "validation", "test", "eval", "dev"})
PLAIN = frozenset({"train", "training", "batch", "step", "optimizer", "scheduler"})
"""Words that leave a rate a rate, and a training loss one."""

SMALLER_IS_BETTER = frozenset({"loss", "error", "err", "mse", "mae", "rmse", "nll", "ppl", "perplexity"})

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


@dataclass(frozen=True)
class _Table:
    """Columns of cells, equally long; ``lines``: where each row stands in the file."""

    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    decimal_comma: bool = False


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
    return _read(_table(data), picked)


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


def _table(data: bytes) -> _Table:
    if is_event_file(data):
        return _of_scalars(scalars(data))
    text = _text(data)
    return _of_json(text) if text.lstrip()[:1] in ("{", "[") else _of_csv(text)


def _text(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # as Excel writes it
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidArgument("curve", f"must be text in UTF-8: {error.reason} at byte {error.start}") from None


def _of_scalars(found: Mapping[str, Mapping[int, float]]) -> _Table:
    steps = sorted({step for values in found.values() for step in values})
    return _Table({tag: [values.get(step) for step in steps] for tag, values in found.items()}, steps)


def _of_csv(text: str) -> _Table:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    first = lines[0][1].lstrip("# ") if lines else ""
    delimiter = max(DELIMITERS, key=first.count)
    cells = _cells((line for _, line in lines[1:]), delimiter if delimiter in first else None)
    names = [name.strip() for name in next(_cells([first], delimiter if delimiter in first else None), [])]
    if not names or all(map(_is_number, names)):
        raise InvalidArgument("curve", "must have the names of its columns in its first line, such as lr,loss", first)
    rows = list(zip((number for number, _ in lines[1:]), cells, strict=True))
    if rows and len(rows[0][1]) == len(names) + 1 and rows[0][1][-1].strip():
        names.insert(0, "")  # an index that has no name
    for number, row in rows:
        if any(cell.strip() for cell in row[len(names) :]):
            raise InvalidArgument(
                "curve", f"must have no more cells in line {number} than in the first", row[len(names) :]
            )
    columns = {name: [row[at] if at < len(row) else "" for _, row in rows] for at, name in enumerate(names)}
    return _Table(columns, [number for number, _ in rows], decimal_comma=delimiter != "," or delimiter not in first)


def _cells(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    """Those of each line; without a delimiter they are apart by space."""
    if delimiter is None:
        yield from (line.split() for line in lines)
        return
    try:
        yield from csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except csv.Error as error:
        raise InvalidArgument("curve", f"must be CSV: {error}") from None


def _of_json(text: str) -> _Table:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            document = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise InvalidArgument("curve", f"must be JSON: {error}") from None
    columns = _columns(document)
    if columns is None:
        raise InvalidArgument("curve", "must be JSON of columns, or of one object for each step")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise InvalidArgument("curve", "must have columns of equal length", {n: len(v) for n, v in columns.items()})
    return _Table(columns, range(1, 1 + max(lengths, default=0)))


def _columns(document: Any) -> dict[str, Sequence[Any]] | None:
    """The table in a document: records, columns, or the first of these in one of its fields."""
    if isinstance(document, list):
        if not document or not all(isinstance(record, dict) for record in document):
            return None
        names = dict.fromkeys(str(name) for record in document for name in record)
        return {name: [record.get(name) for record in document] for name in names}
    if not isinstance(document, dict):
        return None
    whole = {name: values for name, values in document.items() if _is_column(values)}
    if len(whole) > 1:
        return {
            str(name): list(values.values() if isinstance(values, dict) else values) for name, values in whole.items()
        }
    return next((table for part in document.values() if (table := _columns(part)) is not None), None)


def _is_column(values: Any) -> bool:
    """A list of plain values, or pandas' object of them by index."""
    cells = list(values.values()) if isinstance(values, dict) else values
    return isinstance(cells, list) and bool(cells) and not any(isinstance(cell, dict) for cell in cells)


def _read(table: _Table, picked: Picked) -> CurveFile:
    if not table.lines:
        raise InvalidArgument("curve", "must have at least one row below its header")
    names = {
        "lr": _found("lr", picked.lr, table, _rate_likeness),
        "loss": _found("loss", picked.loss, table, _loss_likeness),
        "metric": picked.metric and _found("metric", picked.metric, table, _metric_likeness),
    }
    if names["metric"] is None:
        names["metric"] = _metric(table)
    columns = {name: _numbers(name, column, table) for name, column in names.items() if column is not None}
    seeds = [str(cell) for cell in table.columns["seed"]] if "seed" in table.columns else [""] * len(table.lines)
    metrics = columns.get("metric", [math.nan] * len(table.lines))
    rows, carried = _with_rates(list(zip(seeds, columns["lr"], columns["loss"], metrics, strict=True)))
    if not rows:
        raise InvalidArgument("lr", "must be recorded in at least one row", names["lr"])
    notes = _notes(names, table)
    if carried:
        notes.append(f"{carried} rows without a rate have that of the row before")
    words = _words(names["metric"] or "")
    return CurveFile(recordings_of(rows), "minimize" if words & SMALLER_IS_BETTER else "maximize", notes)


def _with_rates(rows: list[tuple[str, float, float, float]]) -> tuple[list[Row], int]:
    """Rows that have a rate: their own, or else the last before, where trainers log the rate in a row of its own."""
    if not any(math.isnan(lr) and math.isfinite(loss) for _, lr, loss, _ in rows):
        return [row for row in rows if not math.isnan(row[1])], 0
    kept: list[Row] = []
    carried, last = 0, math.nan
    for seed, lr, loss, metric in rows:
        last = last if math.isnan(lr) else lr
        if not math.isnan(last) and not (math.isnan(loss) and math.isnan(metric)):
            kept.append((seed, last, loss, metric))
            carried += math.isnan(lr)
    return kept, carried


def _found(role: str, picked: str | None, table: _Table, likeness: Any) -> str:
    """The column that was picked, or the only one whose name is most like the role."""
    there = [name for name in table.columns if name and not name.startswith("Unnamed:")]
    shown = ", ".join(there[:NAMED]) + (", ..." if len(there) > NAMED else "") or "none"
    if picked is not None:
        if picked not in table.columns:
            raise InvalidArgument(role, f"must be one of the curve's columns: {shown}", picked)
        return picked
    by_likeness = defaultdict(list)
    for name in there:
        by_likeness[likeness(name)].append(name)
    best = by_likeness[max(by_likeness, default=0)] if max(by_likeness, default=0) > 0 else []
    if len(best) == 1:
        return best[0]
    if {"wall time", "step", "value"} == {name.lower() for name in there}:
        rule = "must be a column; this is one series of TensorBoard's: give its event file in its place"
        raise InvalidArgument("curve", rule, shown)
    if best:
        raise InvalidArgument(role, "must be one column; several may be it, so pick one", best[:NAMED])
    raise InvalidArgument(role, f"must be one of the curve's columns: {shown}; pick it by its name", NotGiven)


def _metric(table: _Table) -> str | None:
    """The only column of the validation data's accuracy, or that which is called metric."""
    alike = [name for name in table.columns if _metric_likeness(name) > 0]
    return "metric" if "metric" in table.columns else alike[0] if len(alike) == 1 else None


def _rate_likeness(name: str) -> int:
    words = _word_list(name)
    plain = [word for word in words if word not in PLAIN]
    joined = "".join(plain)
    is_rate = joined in ("lr", "lrs", "learningrate", "learningrates")
    is_group = bool(plain) and (plain[0] == "lr" or plain[:2] == ["learning", "rate"])
    return 3 if name.strip().lower() == "lr" else 2 if is_rate else 1 if is_group else 0


def _loss_likeness(name: str) -> int:
    words = _words(name)
    if not words & {"loss", "losses"} or words & HELD_OUT:
        return 0
    is_plain = words - PLAIN in ({"loss"}, {"losses"})
    return 3 if name.strip().lower() == "loss" else 2 if is_plain else 1


def _metric_likeness(name: str) -> int:
    words = _words(name)
    return int(bool(words & {"accuracy", "acc"}) and bool(words & HELD_OUT)) + 2 * (name == "metric")


def _words(name: str) -> set[str]:
    return set(_word_list(name))


def _word_list(name: str) -> list[str]:
    """Lower-case words of a column's name; of W&B's "run - name" those of the name, none of its extremes."""
    if re.search(r"__(MIN|MAX)$", name):
        return []
    return re.findall(r"[a-z]+|\d+", name.rpartition(" - ")[2].lower())


def _numbers(role: str, name: str, table: _Table) -> list[float]:
    return [_number(role, cell, line, table) for cell, line in zip(table.columns[name], table.lines, strict=True)]


def _number(role: str, cell: Any, line: int, table: _Table) -> float:
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
        raise InvalidArgument("lr", f"must be a finite number of at least 0, also in line {line}", cell)
    return value


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _notes(names: Mapping[str, str | None], table: _Table) -> list[str]:
    if all(name in (None, role) for role, name in names.items()) and set(table.columns) <= {*COLUMNS, ""}:
        return []
    read = ", ".join(f"{role} from {name!r}" for role, name in names.items() if name is not None)
    left = [name for name in table.columns if name and name not in (*names.values(), "seed")]
    shown = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
    return [f"columns read: {read}" + (f"; not read: {shown}" if left else "")]
