"""``cifar10``: 60,000 colour pictures of 32x32 pixels in ten classes, under Caffe's networks of the CLR paper."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clr.tasks import networks
from clr.tasks.cifar10_files import read
from clr.tasks.registry import task
from clr.tasks.subset import subset
from clr.training.task import Task

Examples = tuple[Tensor, Tensor]


@task("cifar10")
def cifar10(
    data: Annotated[
        Path, Field(description="folder of the binary or python batches, or of train/<class>/ and test/<class>/")
    ] = Path("data/cifar10"),
    train_size: Annotated[int, Field(ge=1, le=50_000, description="training examples, a fixed choice")] = 50_000,
    val_size: Annotated[int, Field(ge=1, le=10_000, description="test examples, a fixed choice")] = 10_000,
    network: Literal["cifar10_full", "cifar10_quick"] = "cifar10_full",
) -> Task:
    """CIFAR-10, 32x32 pixels in colour; Caffe's networks and parameter groups, batches of 100; test accuracy.

    ``data`` is a folder with the official binary or python batches, or with one folder of PNG or JPEG images per
    class below train/ and test/. The pixels keep their scale of 0 to 255, less the training images' mean.
    """
    train, val, mean = _load(str(data.resolve()), train_size, val_size)
    build, groups = networks.CIFAR10[network]
    return Task(
        model=lambda: nn.Sequential(LessMean(mean), build()),
        groups=groups,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        batch_size=100,
    )


class LessMean(nn.Module):
    """Bytes to float32, less the mean image: done per batch, the data set takes a quarter of the memory."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 32, 32) uint8 to float32, in the layout of the networks."""
        return images.to(torch.float32, memory_format=torch.channels_last) - self.mean


@lru_cache(maxsize=2)
def _load(data: str, train_size: int, val_size: int) -> tuple[Examples, Examples, Tensor]:
    """Images, (n, 3, 32, 32) uint8, with labels, (n,) int64, and the mean training image, (3, 32, 32) float32."""
    train, val = read(Path(data))
    images, labels = subset("train_size", *train, train_size)
    mean = images.mean(0, dtype=np.float64).astype(np.float32)
    val_images, val_labels = subset("val_size", *val, val_size)
    return (
        (torch.from_numpy(images), torch.from_numpy(labels)),
        (torch.from_numpy(val_images), torch.from_numpy(val_labels)),
        torch.from_numpy(mean),
    )
