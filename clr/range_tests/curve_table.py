"""Tables of named columns in the files that others write: CSV of any delimiter, JSON, JSON lines, event files.

Whatever its shape, a table has a row for each step: one of a row for each value, or of columns for each of some runs,
is turned into that, with a column ``run`` that tells the runs apart.
"""

import csv
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clr.errors import InvalidArgument
from clr.range_tests.event_file import is_event_file, scalars

DELIMITERS = "\t;,|"

GZIP = b"\x1f\x8b"

LARGEST = 2**26
"""Bytes of a curve that was gzipped: a million rows."""

NAMES, RUNS = ("key", "metric", "tag"), ("run", "run_id", "run id", "run_name", "run name", "name")
"""Columns, in lower case, of the names of values where each has a row, and of the run that a row is of."""

BINARY = {
    b"PK": "a ZIP archive, as of Excel or NumPy",
    b"PAR1": "Parquet",
    b"\x93NUMPY": "a NumPy array",
    b"\x80": "a pickle",
}
"""How files begin that people have and that are not read."""


EXTREME = re.compile(r"__(MIN|MAX)$")
"""How W&B's columns end that hold extremes of another."""


@dataclass(frozen=True)
class Table:
    """Columns of cells, equally long; ``lines``: where each row stands in the file."""

    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    decimal_comma: bool = False


def table_of(data: bytes) -> Table:
    """The table in a file's content.

    Raises:
        InvalidArgument: there is none.
    """
    data = _unpacked(data)
    if is_event_file(data):
        return _of_scalars(scalars(data))
    text = _text(data)
    return _by_step(_of_json(text) if text.lstrip()[:1] in ("{", "[") else _of_csv(text))


def run_column(table: Table) -> str | None:
    """The column that says which run a row is of."""
    return next(
        (name for name in table.columns if name.lower() in RUNS and not all(map(_is_gap, table.columns[name]))), None
    )


def of_each_run(table: Table) -> Table:
    """The table whose columns are those of several runs, named "run - column" as W&B does, with a row for each run."""
    owned = {name: tuple(name.rsplit(" - ", 1)) for name in table.columns if " - " in name and not EXTREME.search(name)}
    runs = list(dict.fromkeys(run for run, _ in owned.values()))
    if len(runs) < 2:
        return table
    shared = [name for name in table.columns if " - " not in name]
    count = len(table.lines)
    columns: dict[str, list[Any]] = {"run": [run for run in runs for _ in range(count)]}
    columns |= {name: [*table.columns[name]] * len(runs) for name in shared}
    for column in dict.fromkeys(column for _, column in owned.values()):
        names = [f"{run} - {column}" for run in runs]
        columns[column] = [cell for name in names for cell in table.columns.get(name, [None] * count)]
    return Table(columns, [*table.lines] * len(runs), table.decimal_comma)


def _by_step(table: Table) -> Table:
    """The table with a column for each name, where it has a row for each value, as MLflow and tbparse write it."""
    known = {name.lower(): name for name in table.columns}
    label = next((known[name] for name in NAMES if name in known), None)
    if (
        label is None
        or not {"step", "value"} <= known.keys()
        or any(_is_number(str(cell)) for cell in table.columns[label])
    ):
        return table
    run = run_column(table)
    runs = table.columns[run] if run else [""] * len(table.lines)
    rows: dict[tuple[Any, float], dict[str, Any]] = defaultdict(dict)
    each = (table.columns[label], table.columns[known["step"]], table.columns[known["value"]])
    for of, name, step, value, line in zip(runs, *each, table.lines, strict=True):
        if not _is_number(str(step)):
            raise InvalidArgument("curve", f"must have the number of a step in line {line}", step)
        rows[of, float(step)][str(name)] = value
    steps = sorted(rows, key=lambda at: at[1])
    names = dict.fromkeys(name for row in rows.values() for name in row)
    columns = {name: [rows[at].get(name) for at in steps] for name in names}
    return Table({"run": [of for of, _ in steps]} | columns, range(1, 1 + len(steps)), table.decimal_comma)


def _is_gap(cell: Any) -> bool:
    return cell is None or not str(cell).strip()


def _unpacked(data: bytes) -> bytes:
    """The content of a file that was gzipped."""
    if not data.startswith(GZIP):
        return data
    unpacking = zlib.decompressobj(wbits=31)
    try:
        whole = unpacking.decompress(data, LARGEST)
    except zlib.error as error:
        raise InvalidArgument("curve", f"must be whole where it is gzipped ({error})") from None
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise InvalidArgument("curve", f"must be whole where it is gzipped, and of at most {LARGEST:,} bytes")
    return whole


def _text(data: bytes) -> str:
    for beginning, kind in BINARY.items():
        if data.startswith(beginning):
            raise InvalidArgument("curve", f"must be text (CSV or JSON) or TensorBoard's event file, but is {kind}")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # as Excel writes it
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidArgument("curve", f"must be text in UTF-8: {error.reason} at byte {error.start}") from None


def _of_scalars(found: Mapping[str, Mapping[int, float]]) -> Table:
    steps = sorted({step for values in found.values() for step in values})
    return Table({tag: [values.get(step) for step in steps] for tag, values in found.items()}, steps)


def _of_csv(text: str) -> Table:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    while len(lines) > 1 and _is_preface(lines[0][1], lines[1][1]):
        del lines[0]
    first = lines[0][1].lstrip("# ") if lines else ""
    delimiter = max(DELIMITERS, key=first.count)
    cells = _cells((line for _, line in lines[1:]), delimiter if delimiter in first else None)
    names = [name.strip() for name in next(_cells([first], delimiter if delimiter in first else None), [])]
    if not names or all(map(_is_number, names)):
        raise InvalidArgument("curve", "must have the names of its columns in its first line, such as lr,loss", first)
    rows = list(zip((number for number, _ in lines[1:]), cells, strict=True))
    if rows and len(rows[0][1]) == len(names) + 1 and rows[0][1][-1].strip():
        names.insert(0, "")  # an index that has no name
    names = [name if name not in names[:at] else f"{name} ({at + 1})" for at, name in enumerate(names)]
    for number, row in rows:
        if any(cell.strip() for cell in row[len(names) :]):
            raise InvalidArgument(
                "curve", f"must have no more cells in line {number} than in the first", row[len(names) :]
            )
    columns = {name: [row[at] if at < len(row) else "" for _, row in rows] for at, name in enumerate(names)}
    return Table(columns, [number for number, _ in rows], decimal_comma=delimiter != "," or delimiter not in first)


def _is_preface(line: str, following: str) -> bool:
    """Whether a line comes before the header: Excel's word on the delimiter, or a comment."""
    no_row = not any(map(_is_number, re.split(f"[{DELIMITERS} ]+", following)))
    return line.startswith("sep=") or (line.startswith("#") and no_row)


def _cells(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    """Those of each line; without a delimiter they are apart by space."""
    if delimiter is None:
        yield from (line.split() for line in lines)
        return
    try:
        yield from csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except csv.Error as error:
        raise InvalidArgument("curve", f"must be CSV: {error}") from None


def _of_json(text: str) -> Table:
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
    return Table(columns, range(1, 1 + max(lengths, default=0)))


def _columns(document: Any) -> dict[str, Sequence[Any]] | None:
    """The table in a document: records, columns, or the longest of these in one of its fields."""
    if isinstance(document, list):
        if not document or not all(isinstance(record, dict) for record in document):
            return None
        names = dict.fromkeys(str(name) for record in document for name in record)
        return {name: [record.get(name) for record in document] for name in names}
    if not isinstance(document, dict):
        return None
    if _is_split(document):
        return _columns([dict(zip(document["columns"], row, strict=False)) for row in document["data"]])
    whole = {name: values for name, values in document.items() if _is_column(values)}
    if len(whole) > 1:
        return {
            str(name): list(values.values() if isinstance(values, dict) else values) for name, values in whole.items()
        }
    parts = list(document.values())
    if len(parts) > 1 and all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return _columns(parts)  # pandas' objects of records by index
    tables = [table for part in parts if (table := _columns(part))]
    return max(tables, key=lambda table: len(next(iter(table.values()))), default=None)


def _is_split(document: Mapping[str, Any]) -> bool:
    """Whether names and rows stand apart, as pandas writes them by ``orient="split"``."""
    names, rows = document.get("columns"), document.get("data")
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(rows, list)
        and all(isinstance(row, list) for row in rows)
    )


def _is_column(values: Any) -> bool:
    """A list of plain values, or pandas' object of them by index."""
    if isinstance(values, dict):
        return all(_is_number(str(key)) for key in values) and _is_column(list(values.values()))
    return isinstance(values, list) and bool(values) and not any(isinstance(cell, dict) for cell in values)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
