"""``tabular``: the rows of a CSV file, one of whose columns is to be told from the others."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from clr.errors import InvalidArgument
from clr.tasks.networks import layers
from clr.tasks.registry import task
from clr.tasks.split import split
from clr.tasks.table import Kind, encoded, read, targets
from clr.training.task import Task

Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=32)]
Examples = tuple[Tensor, Tensor]


@task("tabular")
def tabular(
    data: Path,
    target: str,
    kind: Kind | None = None,
    ignore: tuple[str, ...] = (),
    hidden: Widths = (64, 64),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
) -> Task:
    """A table in a CSV file with a header: classification (accuracy) or regression (mean squared error) by an MLP.

    Numbers are standardised and categories counted on the training rows alone; a category of one row in validation
    only is none of the known ones, and an empty cell of a number is the column's mean. The target of a regression is
    standardised too, so an error of 1 is that of always saying the mean.

    Args:
        data: path of the CSV file, in UTF-8; its separator is a comma, a semicolon or a tab.
        target: name of the column to predict.
        kind: what to predict: left out, a column of text or of at most 20 different whole numbers is a classification.
        ignore: names of columns to leave out, such as an id.
        hidden: units of each hidden layer.
        dropout: share of hidden units left out at each training step.
        val_share: share of the rows, a fixed random choice, that the network is scored on.
    """
    train, val, classes = _load(str(data.resolve()), target, kind, ignore, val_share)
    return Task(
        model=lambda: layers(train[0].shape[1], hidden, classes or 1, dropout),
        train=train,
        val=val,
        loss=F.cross_entropy if classes else squared_error,
        metric="accuracy" if classes else "loss",
    )


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences between (n, 1) predictions and (n,) targets."""
    return F.mse_loss(output.squeeze(1), target)


@lru_cache(maxsize=2)
def _load(
    data: str, target: str, kind: Kind | None, ignore: tuple[str, ...], val_share: float
) -> tuple[Examples, Examples, int | None]:
    """Training and validation inputs, (n, columns) float32, with targets; the number of classes, or None."""
    columns = read(Path(data))
    for field, names in (("ignore", ignore), ("target", (target,))):
        unknown = [name for name in names if name not in columns]
        if unknown:
            rule = f"must name columns of the file's header, which has {len(columns)}"
            raise InvalidArgument(f"args.{field}", rule, unknown[0])
    answers = columns.pop(target)
    inputs = {name: cells for name, cells in columns.items() if name not in ignore}
    if not inputs:
        raise InvalidArgument("args.ignore", "must leave a column besides the target", ignore)
    train, val = split(len(answers), val_share)
    labels, classes = targets(answers, train, kind)
    x, y = torch.from_numpy(encoded(inputs, train)), torch.from_numpy(labels)
    return (x[train], y[train]), (x[val], y[val]), classes
