"""The three forms in which people have CIFAR-10 on disk, read into arrays."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clr.errors import DataMissing

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""(n, 3, 32, 32) uint8 and (n,) int64, labels 0 to 9."""

PIXELS = 3 * 32 * 32


def read(folder: Path) -> tuple[Images, Images]:
    """Training and test images of whatever form lies in ``folder`` or in the folder it was unpacked to in there.

    Raises:
        DataMissing: none of the forms is there, or a file is damaged.
    """
    for place in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        if (place / "data_batch_1.bin").is_file():
            return _batches(place, "data_batch_*.bin", _binary), _batches(place, "test_batch.bin", _binary)
        if (place / "data_batch_1").is_file():
            return _batches(place, "data_batch_?", _pickled), _batches(place, "test_batch", _pickled)
        if (place / "train").is_dir() and (place / "test").is_dir():
            classes = sorted(path.name for path in (place / "train").iterdir() if path.is_dir())
            return _pictures(place / "train", classes), _pictures(place / "test", classes)
    raise DataMissing(
        "args.data: must be a folder with data_batch_1.bin or data_batch_1, or with train/<class>/ and test/<class>/, "
        f"but {folder} has neither; unpack CIFAR-10 there, or pass args.data"
    )


def _batches(folder: Path, pattern: str, read_one: Callable[[Path], Images]) -> Images:
    parts = [read_one(path) for path in sorted(folder.glob(pattern))]
    if not parts:
        raise DataMissing(f"args.data: must hold the test images too, but {folder} has no {pattern}; unpack it again")
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _binary(path: Path) -> Images:
    """Records of one byte of label and 3,072 of pixels, channel by channel."""
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % (1 + PIXELS):
        raise _damaged(path, f"its size must be a multiple of {1 + PIXELS} bytes, but is {raw.size}")
    records = raw.reshape(-1, 1 + PIXELS)
    return _checked(path, records[:, 1:], records[:, 0])


def _pickled(path: Path) -> Images:
    """A pickled dict with the pixels under b"data" and the labels under b"labels"."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        return _checked(path, batch[b"data"], batch[b"labels"])
    except DataMissing:
        raise
    except Exception as error:  # whatever bytes can make the unpickler raise
        raise _damaged(path, f"it is no batch of pictures: {type(error).__name__}") from None


def _checked(path: Path, pixels: Any, labels: Any) -> Images:
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise _damaged(path, f"its pixels must be bytes, {PIXELS} a label, but are {pixels.dtype} {pixels.shape}")
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.min() < 0 or labels.max() > 9:
        raise _damaged(path, "its labels must be whole numbers from 0 to 9")
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes containers, numbers and NumPy arrays, and refuses to look up anything else."""

    _ALLOWED = {  # noqa: RUF012
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
    }

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # as NumPy before 2.0 called it
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"must hold NumPy arrays alone, but asks for {module}.{name}")
        return super().find_class(module, name)


def _pictures(folder: Path, classes: list[str]) -> Images:
    """Images below one folder per class; the classes are numbered in the order of their names."""
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    ]
    if not paths or len(classes) > 10:
        raise DataMissing(
            f"args.data: {folder} must hold PNG or JPEG images in up to 10 class folders; unpack it again"
        )
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter
        images = np.stack(list(pool.map(_picture, (path for path, _ in paths))))
    return images, np.array([label for _, label in paths], np.int64)


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(path, f"it is no picture: {type(error).__name__}") from None
    if pixels.shape != (32, 32, 3):
        raise _damaged(path, f"it must be 32x32 pixels, but is {pixels.shape[1]}x{pixels.shape[0]}")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _damaged(path: Path, why: str) -> DataMissing:
    return DataMissing(f"args.data: {path} is damaged: {why}; fetch it again")
