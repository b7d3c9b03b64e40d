import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clr.errors import DataMissing
from clr.run import Run
from clr.tasks import load_task
from clr.tasks.cifar10 import LessMean
from clr.training.loop import train
from clr.training.task import Task


def finite_losses(trained: Task) -> list[float]:
    run = Run(policy="fixed", base_lr=1e-4, max_lr=1e-4, step_size_up=1, steps=3, seed=0, evaluate_every=3)
    (point,) = train(replace(trained, device="cpu"), run)
    assert point.metric is not None
    assert 0 <= point.metric <= 1
    assert np.isfinite(point.loss).all()
    return point.loss


TRAIN, TEST = 60, 20
LABELS = np.arange(TRAIN + TEST) % 10
PIXELS = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 3, 32, 32), np.uint8)
PIXELS[:, :, 0, 0] = LABELS[:, None]


def write_binary(folder: Path) -> None:
    records = np.concatenate([LABELS[:, None].astype(np.uint8), PIXELS.reshape(-1, 3072)], axis=1)
    for number, part in enumerate(np.split(records[:TRAIN], 5), 1):
        part.tofile(folder / f"data_batch_{number}.bin")
    records[TRAIN:].tofile(folder / "test_batch.bin")


def write_pickles(folder: Path, protocol: int = 2) -> None:
    def write(name: str, part: slice) -> None:
        batch = {b"data": PIXELS[part].reshape(-1, 3072), b"labels": LABELS[part].tolist(), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))

    for number in range(5):
        write(f"data_batch_{number + 1}", slice(number * 12, number * 12 + 12))
    write("test_batch", slice(TRAIN, None))


def write_pictures(folder: Path) -> None:
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        place = folder / ("train" if index < TRAIN else "test") / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(place / f"{index:04}.png")


@pytest.mark.parametrize(
    ("write", "below"),
    [
        (write_binary, ""),
        (write_binary, "cifar-10-batches-bin"),
        (write_pickles, ""),
        (write_pickles, "cifar-10-batches-py"),
        (lambda folder: write_pickles(folder, 5), ""),
        (write_pictures, ""),
    ],
    ids=["binary", "binary below", "python", "python below", "python protocol 5", "pictures"],
)
def test_cifar10_is_read_in_each_form_people_have_it_in(
    tmp_path: Path, write: Callable[[Path], None], below: str
) -> None:
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    write(folder)
    cifar = load_task("cifar10", data=str(tmp_path), train_size=TRAIN, val_size=TEST)
    (x, y), (val_x, val_y) = cifar.train, cifar.val  # type: ignore[misc]
    assert (x.shape, x.dtype, y.dtype) == ((TRAIN, 3, 32, 32), torch.uint8, torch.int64)
    assert torch.equal(x[:, 0, 0, 0], y.byte())
    assert torch.equal(val_x[:, 2, 0, 0], val_y.byte())
    assert sorted(map(bytes, x.numpy())) == sorted(map(bytes, PIXELS[:TRAIN]))
    assert sorted(map(bytes, val_x.numpy())) == sorted(map(bytes, PIXELS[TRAIN:]))


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    write_binary(tmp_path)
    return tmp_path


def test_cifar10s_images_lose_the_mean_image_of_the_training_set(cifar10_folder: Path) -> None:
    cifar = load_task("cifar10", data=str(cifar10_folder), train_size=TRAIN, val_size=TEST)
    less_mean = next(module for module in cifar.model().modules() if isinstance(module, LessMean))
    centred = less_mean(cifar.train[0])
    assert centred.dtype == torch.float32
    assert centred.mean(0).abs().max() < 1e-4
    assert centred.abs().max() > 100, "the scale of 0 to 255 is kept"


@pytest.mark.parametrize("network", ["cifar10_full", "cifar10_quick"])
def test_cifar10_trains_each_of_caffes_networks(cifar10_folder: Path, network: str) -> None:
    cifar = load_task("cifar10", data=str(cifar10_folder), train_size=50, val_size=10, network=network)
    assert finite_losses(cifar)[0] == pytest.approx(2.3, abs=0.1)
    assert cifar.batch_size == 100


def test_cifar10s_files_are_read_once_a_process(cifar10_folder: Path) -> None:
    first = load_task("cifar10", data=str(cifar10_folder), train_size=30, val_size=10)
    (cifar10_folder / "data_batch_1.bin").unlink()
    again = load_task("cifar10", data=str(cifar10_folder), train_size=30, val_size=10, network="cifar10_quick")
    assert again.train[0] is first.train[0]


def test_without_its_files_cifar10_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"data_batch_1\.bin or data_batch_1, or with train/") as raised:
        load_task("cifar10", data=str(tmp_path))
    assert str(tmp_path) in str(raised.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


def test_a_pickle_that_asks_for_anything_but_arrays_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pickles(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(DataMissing, match="data_batch_3 is damaged: it is no batch of pictures: UnpicklingError"):
        load_task("cifar10", data=str(tmp_path), train_size=10)
    assert not (tmp_path / "touched").exists()


def broken_pickle(value: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "data_batch_2").write_bytes(pickle.dumps(value)) and None


def short_binary(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(b"\0" * 3074)


def label_ten(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(b"\x0a" + b"\0" * 3072)


def wide_picture(folder: Path) -> None:
    Image.new("RGB", (33, 32)).save(folder / "train" / "class0" / "0000.png")


def no_picture(folder: Path) -> None:
    (folder / "test" / "class0" / "x.jpg").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("write", "damage", "says"),
    [
        (write_binary, short_binary, "data_batch_1.bin is damaged: its size must be a multiple of 3073 bytes"),
        (write_binary, label_ten, "data_batch_1.bin is damaged: its labels must be whole numbers from 0 to 9"),
        (write_binary, lambda folder: (folder / "test_batch.bin").unlink(), "must hold the test images too"),
        (write_pickles, broken_pickle([1, 2]), "data_batch_2 is damaged: it is no batch of pictures: TypeError"),
        (
            write_pickles,
            broken_pickle({b"labels": [1]}),
            "data_batch_2 is damaged: .*: KeyError",
        ),
        (
            write_pickles,
            broken_pickle({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}),
            r"must be bytes, 3072 a label, but are uint8 \(1, 3071\)",
        ),
        (write_pictures, wide_picture, "0000.png is damaged: it must be 32x32 pixels, but is 33x32"),
        (write_pictures, no_picture, "x.jpg is damaged: it is no picture"),
    ],
)
def test_a_damaged_file_of_cifar10_is_named(
    tmp_path: Path, write: Callable[[Path], None], damage: Callable[[Path], None], says: str
) -> None:
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataMissing, match=says):
        load_task("cifar10", data=str(tmp_path), train_size=10, val_size=10)
