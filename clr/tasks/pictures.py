"""Pictures in one folder per class, read by Pillow."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from clr.errors import DataMissing, InvalidArgument
from clr.tasks.split import split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

IN_MEMORY = 2**31
"""Bytes of pixels up to which a set of pictures is held in memory."""

SAMPLE = 2000
"""So many training pictures tell mean and spread of the pixels."""


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures of ``size`` x ``size`` pixels with the numbers of their classes, read when asked for.

    Args:
        files: path and class of each.
        classes: names, by number.
        size: in pixels.
    """

    def __init__(self, files: list[tuple[Path, int]], classes: list[str], size: int) -> None:
        self.files, self.classes, self.size = files, classes, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """(3, size, size) uint8, and the class, an int64 scalar."""
        path, label = self.files[index]
        return torch.from_numpy(read(path, self.size)), torch.tensor(label)

    def stacked(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The first ``count`` pictures in one tensor, and their classes in another."""
        files = self.files[:count]
        with ThreadPoolExecutor() as pool:
            images = np.stack(list(pool.map(lambda file: read(file[0], self.size), files)))
        return torch.from_numpy(images), torch.tensor([label for _, label in files])

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Of each channel, float32, shape (3,); a channel without spread has a standard deviation of 1."""
        pixels = self.stacked(SAMPLE)[0].double()
        std, mean = torch.std_mean(pixels, (0, 2, 3), correction=0)
        return mean.float(), torch.where(std > 0, std, 1.0).float()


def loaded(pictures: Pictures) -> tuple[Tensor, Tensor] | Pictures:
    """All pictures as tensors where they fit in memory, else as they are."""
    return pictures.stacked() if len(pictures) * 3 * pictures.size**2 <= IN_MEMORY else pictures


def read(path: Path, size: int) -> NDArray[np.uint8]:
    """A picture as (3, size, size) bytes: turned as its camera says, cut to a square in its middle, and scaled.

    Raises:
        InvalidArgument: the file is no picture, or a damaged one.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.fit(ImageOps.exif_transpose(file).convert("RGB"), (size, size))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        rule = f"must hold pictures that can be read ({type(error).__name__})"
        raise InvalidArgument("args.data", rule, str(path)) from None
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def find(folder: Path, size: int, val_share: float) -> tuple[Pictures, Pictures]:
    """Training and validation pictures below ``folder``.

    Raises:
        DataMissing: there is no such folder, or no class with a picture in it.
    """
    val = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    if (folder / "train").is_dir() and val is not None:
        classes = _classes(folder / "train")
        parts = _files(folder / "train", classes), _files(val, classes)
    else:
        classes = _classes(folder)
        files = _files(folder, classes)
        train, held_out = split(len(files), val_share)
        parts = [files[i] for i in train], [files[i] for i in held_out]
    return Pictures(parts[0], classes, size), Pictures(parts[1], classes, size)


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataMissing(f"args.data: must be a folder that can be read, but there is none at {folder}")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    unknown = set(_classes(folder)) - set(classes)
    if unknown:
        raise InvalidArgument(
            "args.data", f"must have the classes of train/ in {folder.name}/, and no others", sorted(unknown)[0]
        )
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    Random(0).shuffle(found)  # the first of them stand for all: they tell the mean, and are scored in between
    if not found:
        raise DataMissing(f"args.data: must hold pictures, one folder per class, but {folder} has none")
    return found
