"""A CSV file as numbers: columns standardised or counted on the training rows, a target as classes or as a number.

Messages name rows and columns by number and quote none: whoever reads them need not be one who may read the file.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clr.errors import DataMissing, InvalidArgument
from clr.tasks.split import Index

Kind = Literal["classification", "regression"]
Columns = dict[str, list[str]]

FEW = 20
"""At most so many different whole numbers are taken for classes."""

MOST_CATEGORIES = 1000
"""A column of text with more different values is a name or a remark rather than a category."""


def read(path: Path) -> Columns:
    """The cells of each column, by the header's names.

    Raises:
        DataMissing: there is no such file.
        InvalidArgument: it is no CSV file with a header, unique names and equally long rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=max(",;\t", key=header.count)) if row]
    except OSError as error:
        raise DataMissing(f"args.data: must be a CSV file that can be read, but {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        rule = f"must be a CSV file in UTF-8 ({error.reason} at byte {error.start})"
        raise InvalidArgument("args.data", rule, str(path)) from None
    except csv.Error:
        raise InvalidArgument("args.data", "must be a CSV file that can be cut into cells", str(path)) from None
    names, *rest = [[cell.strip() for cell in row] for row in rows] or [[]]
    if not names or len(set(names)) < len(names):
        twice = f"{len(names) - len(set(names))} of {len(names)} again" if names else "nothing"
        raise InvalidArgument("args.data", f"must begin with a header of unique names, and has {twice}", str(path))
    for number, row in enumerate(rest, 2):
        if len(row) != len(names):
            raise InvalidArgument("args.data", f"must have {len(names)} cells a row, also in row {number}", len(row))
    return {name: [row[i] for row in rest] for i, name in enumerate(names)}


def numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """The cells as numbers, NaN where empty; None where one of them is text."""
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return None


def encoded(columns: Mapping[str, Sequence[str]], train: Index) -> NDArray[np.float32]:
    """Inputs of a network, (rows, inputs): one per column of numbers, one per category of a column of text."""
    parts = [_encoded(number, cells, train) for number, cells in enumerate(columns.values(), 1)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _encoded(number: int, cells: Sequence[str], train: Index) -> NDArray[Any]:
    values = numbers(cells)
    if values is not None:
        return np.nan_to_num(_standardised(values, train))  # an empty cell is the mean
    from sklearn.preprocessing import OneHotEncoder  # slow to import, here as below

    text = np.array(cells, object)[:, None]
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(text[train])
    if (count := len(categories.categories_[0])) > MOST_CATEGORIES:
        raise InvalidArgument(
            "args.ignore",
            f"must name number {number} of the inputs too: a column of text may have {MOST_CATEGORIES} different "
            f"values, and it has {count}",
        )
    return np.asarray(categories.transform(text))


def _standardised(values: NDArray[np.float64], train: Index) -> NDArray[np.float64]:
    """(rows, 1): mean 0 and standard deviation 1 on the training rows; a column without spread becomes 0."""
    column = np.where(np.isfinite(values), values, np.nan)[:, None]
    if np.isnan(column[train]).all():
        return np.zeros_like(column)
    from sklearn.preprocessing import StandardScaler

    return np.asarray(StandardScaler().fit(column[train]).transform(column))


def targets(cells: Sequence[str], train: Index, kind: Kind | None) -> tuple[NDArray[Any], int | None]:
    """The target, (rows,): classes as int64 with their number, or standardised float32 and None."""
    values = numbers(cells)
    if "" in cells:
        raise InvalidArgument("args.target", f"must have no empty cell, also in row {cells.index('') + 2}", "")
    if kind is None:
        few = values is None or (bool(np.all(values == np.round(values))) and len(np.unique(values)) <= FEW)
        kind = "classification" if few else "regression"
    if kind == "classification":
        from sklearn.preprocessing import LabelEncoder

        classes = LabelEncoder().fit(cells)
        return classes.transform(cells).astype(np.int64), len(classes.classes_)
    if values is None or not np.isfinite(values).all():
        row = next(row for row, cell in enumerate(cells, 2) if numbers([cell]) is None or not np.isfinite(float(cell)))
        raise InvalidArgument("args.target", f"must be a column of finite numbers for a regression, also in row {row}")
    return _standardised(values, train)[:, 0].astype(np.float32), None
