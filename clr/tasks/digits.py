"""``digits``: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. No files needed."""

from functools import lru_cache
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from clr.tasks.networks import mlp
from clr.tasks.registry import task
from clr.tasks.subset import subset
from clr.training.task import Task

VAL_SIZE = 600
TRAIN_SIZE = 1797 - VAL_SIZE


@task("digits")
def digits(
    hidden: Annotated[int, Field(ge=1, le=4096, description="units of the hidden layer")] = 64,
    train_size: Annotated[int, Field(ge=1, le=TRAIN_SIZE, description="training examples")] = TRAIN_SIZE,
) -> Task:
    """Handwritten digits, 8x8 pixels, from scikit-learn; a network with one hidden layer; accuracy on 600 others.

    Trains in seconds on a CPU and needs no download.
    """
    train, val = _load(train_size)
    return Task(
        model=lambda: mlp(64, hidden), train=train, val=val, loss=F.cross_entropy, metric="accuracy", batch_size=64
    )


@lru_cache(maxsize=4)
def _load(train_size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and validation images, (n, 64) float32, and labels, (n,) int64; training pixels have mean 0, std 1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = subset("train_size", pixels, labels, len(pixels))
    images = torch.from_numpy(pixels).float()
    target = torch.from_numpy(labels).long()
    train = images[VAL_SIZE:][:train_size]
    images = (images - train.mean()) / train.std()
    end = VAL_SIZE + train_size
    return (images[VAL_SIZE:end], target[VAL_SIZE:end]), (images[:VAL_SIZE], target[:VAL_SIZE])
