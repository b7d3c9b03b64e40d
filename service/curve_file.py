"""The curves of a range test as CSV, one row a step: ``lr,loss[,metric][,seed]``."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clr.errors import InvalidArgument
from clr.range_tests.recorded import read_bounds
from clr.run import Direction

REQUIRED = ("lr", "loss")
COLUMNS = (*REQUIRED, "metric", "seed")

Row = tuple[str, float, float | None, float | None]
"""Seed, lr, loss and metric of one step."""


@dataclass
class Curve:
    """One seed's curve; NaN where a cell is empty."""

    lr: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)


def parse(lines: Iterable[str]) -> list[Curve]:
    """The curves, in the order of their seeds' first rows."""
    try:
        curves = collect(_rows(lines))
    except csv.Error as error:
        raise InvalidArgument("curve", f"must be CSV ({error})") from error
    if not curves:
        raise InvalidArgument("curve", "must have at least one row below its header")
    return curves


def collect(rows: Iterable[Row]) -> list[Curve]:
    """The curves of rows of seed, lr, loss and metric, in the order of their seeds' first rows."""
    curves: dict[str, Curve] = defaultdict(Curve)
    for seed, lr, loss, metric in rows:
        curve = curves[seed]
        curve.lr.append(lr)
        curve.loss.append(math.nan if loss is None else loss)
        curve.metric.append(math.nan if metric is None else metric)
    return list(curves.values())


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    rows = csv.DictReader(lines, skipinitialspace=True)
    _check(rows.fieldnames or [])
    for row in rows:
        if None in row:
            raise InvalidArgument(
                "curve",
                f"must have no more cells in line {rows.line_num} than in the first; give each a column",
                row[None],
            )
        lr, loss, metric = (_number(column, row.get(column), rows.line_num) for column in ("lr", "loss", "metric"))
        yield row.get("seed") or "", lr, loss, metric


def arguments(curves: Sequence[Curve]) -> dict[str, Any]:
    """``curves`` as ``clr.read_bounds`` takes them: one curve, or of each name a list over the seeds."""
    measured = any(math.isfinite(value) for curve in curves for value in curve.metric)
    values = {name: [getattr(curve, name) for curve in curves] for name in ("lr", "loss", "metric")[: 2 + measured]}
    return {name: each[0] if len(each) == 1 else each for name, each in values.items()}


def bounds(curves: list[Curve] | str, direction: Direction) -> dict[str, Any]:
    """The bounds that curves give, or a CSV's text does."""
    parsed = parse(curves.splitlines()) if isinstance(curves, str) else curves
    return read_bounds(**arguments(parsed), direction=direction).to_dict()


def _check(columns: Iterable[str]) -> None:
    names = list(columns)
    if not set(REQUIRED) <= set(names) <= set(COLUMNS):
        raise InvalidArgument(
            "curve", "must have lr,loss[,metric][,seed] as its first line; rename the columns", ",".join(names)
        )


def _number(column: str, cell: str | None, line: int) -> float:
    try:
        value = float(cell) if cell else math.nan
    except ValueError:
        raise InvalidArgument(column, f"must be a number, also in line {line}", cell) from None
    if column == "lr" and not 0 <= value < math.inf:
        raise InvalidArgument("lr", f"must be a finite number of at least 0, also in line {line}", cell)
    return value
