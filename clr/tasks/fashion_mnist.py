"""``fashion-mnist``: 70,000 grey pictures of clothes, 28x28 pixels, in the idx files of Debian's package."""

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from clr.errors import DataMissing
from clr.tasks.networks import mlp, small_cnn
from clr.tasks.registry import task
from clr.tasks.subset import subset
from clr.training.task import Task

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
Examples = tuple[Tensor, Tensor]
Bytes = NDArray[np.uint8]


@task("fashion-mnist")
def fashion_mnist(
    data: Annotated[Path, Field(description="folder of the four idx files, .gz or unpacked")] = DEBIAN,
    train_size: Annotated[int, Field(ge=1, le=60_000, description="training examples, a fixed choice")] = 10_000,
    val_size: Annotated[int, Field(ge=1, le=10_000, description="test examples, a fixed choice")] = 2_000,
    network: Literal["small_cnn", "mlp"] = "small_cnn",
) -> Task:
    """Fashion-MNIST, 28x28 pixels; a small convolutional network or one hidden layer of 128; test accuracy.

    The images come from Debian's dataset-fashion-mnist or from the folder ``data``.
    """
    train, val = _load(str(data.resolve()), train_size, val_size)
    return Task(
        model=small_cnn if network == "small_cnn" else lambda: mlp(784, 128),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        batch_size=64,
    )


@lru_cache(maxsize=2)
def _load(data: str, train_size: int, val_size: int) -> tuple[Examples, Examples]:
    """Images, (n, 1, 28, 28) float32, and labels, (n,) int64; the training pixels have mean 0 and std 1."""
    folder = Path(data)
    train = subset("train_size", _idx(folder, "train-images-idx3"), _idx(folder, "train-labels-idx1"), train_size)
    val = subset("val_size", _idx(folder, "t10k-images-idx3"), _idx(folder, "t10k-labels-idx1"), val_size)
    mean, std = float(train[0].mean()), float(train[0].std())
    return _tensors(*train, mean, std), _tensors(*val, mean, std)


def _tensors(images: Bytes, labels: Bytes, mean: float, std: float) -> Examples:
    return (torch.from_numpy(images)[:, None].float() - mean) / std, torch.from_numpy(labels).long()


def _idx(folder: Path, name: str) -> Bytes:
    """The array of an idx file: two zero bytes, the type (8: bytes), the number of sizes, the sizes, the bytes."""
    packed, plain = folder / f"{name}-ubyte.gz", folder / f"{name}-ubyte"
    if packed.is_file():
        raw = _unpacked(packed)
    elif plain.is_file():
        raw = plain.read_bytes()
    else:
        raise DataMissing(
            f"args.data: must be a folder with Fashion-MNIST's idx files, but {folder} has no {packed.name}; "
            "run `apt-get install dataset-fashion-mnist`, or pass args.data"
        )
    try:
        shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except (ValueError, IndexError):
        raise DataMissing(f"args.data: {name} in {folder} is damaged, it is no idx file; fetch it again") from None


def _unpacked(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error):
        raise DataMissing(f"args.data: {file} is damaged, it is no gzip file; fetch it again") from None
