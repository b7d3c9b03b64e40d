"""``image-folder``: pictures of one's own, one folder per class."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from clr.tasks.named_networks import network_maker
from clr.tasks.networks import Normalised
from clr.tasks.pictures import find, loaded
from clr.tasks.registry import task
from clr.training.data import Data
from clr.training.task import Task


@task("image-folder")
def image_folder(
    data: Path,
    network: str = "conv_net",
    size: Annotated[int, Field(ge=8, le=1024)] = 32,
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    workers: Annotated[int, Field(ge=0, le=64)] = 0,
) -> Task:
    """Pictures in one folder per class; a small network of its own, or any of torchvision's or timm's; accuracy.

    Every picture is brought to ``size`` x ``size`` pixels in colour, cut at its longer sides. Those that take up to
    2 GiB are held in memory, others are read from the disk at each step. Networks begin untrained.

    Args:
        data: folder with one folder of pictures per class, or with such folders below train/ and val/ (or test/).
        network: conv_net, torchvision/NAME or timm/NAME, such as torchvision/resnet18, where that package is installed.
        size: height and width that the network sees, in pixels.
        val_share: share of the pictures, a fixed random choice, to score on; without effect where there is a val/.
        workers: processes that read pictures which are not held in memory; 0: the one that trains.
    """
    train, val, classes, normalised = _load(str(data.resolve()), size, val_share)
    make = network_maker(network, classes)
    return Task(
        model=lambda: nn.Sequential(normalised(), make()),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        batch_size=64,
        workers=workers,
    )


@lru_cache(maxsize=2)
def _load(data: str, size: int, val_share: float) -> tuple[Data, Data, int, Callable[[], nn.Module]]:
    """Training and validation pictures, the number of classes, and what makes the network's first module."""
    train, val = find(Path(data), size, val_share)
    return loaded(train), loaded(val), len(train.classes), partial(Normalised, *train.mean_and_std())
