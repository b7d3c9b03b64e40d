import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clr.errors import DataMissing, InvalidArgument
from clr.run import Run
from clr.tasks import load_task
from clr.tasks.fashion_mnist import DEBIAN
from clr.training.loop import train
from clr.training.task import Task

needs_fashion_mnist = pytest.mark.skipif(
    not Path(DEBIAN).is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


def finite_losses(trained: Task) -> list[float]:
    run = Run(policy="fixed", base_lr=1e-4, max_lr=1e-4, step_size_up=1, steps=3, seed=0, evaluate_every=3)
    (point,) = train(replace(trained, device="cpu"), run)
    assert point.metric is not None
    assert 0 <= point.metric <= 1
    assert np.isfinite(point.loss).all()
    return point.loss


@needs_fashion_mnist
@pytest.mark.parametrize("network", ["small_cnn", "mlp"])
def test_fashion_mnist_comes_from_debians_package(network: str) -> None:
    fashion = load_task("fashion-mnist", train_size=640, val_size=100, network=network)
    x, y = fashion.train
    assert (x.shape, y.dtype, len(fashion.val[0])) == ((640, 1, 28, 28), torch.int64, 100)  # type: ignore[index]
    assert (x.mean().item(), x.std().item()) == pytest.approx((0, 1), abs=1e-3)
    assert len(set(y.tolist())) == 10
    assert len(finite_losses(fashion)) == 3


def write_idx(folder: Path, name: str, array: np.ndarray, *, packed: bool) -> None:
    raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    if packed:
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(raw))
    else:
        (folder / f"{name}-ubyte").write_bytes(raw)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_comes_from_a_folder_of_ones_own(tmp_path: Path, packed: bool) -> None:
    random = np.random.default_rng(0)
    for name, size in (("train", 90), ("t10k", 30)):
        images, labels = random.integers(0, 256, (size, 28, 28), np.uint8), np.arange(size, dtype=np.uint8) % 10
        images[:, 0, 0] = labels
        write_idx(tmp_path, f"{name}-images-idx3", images, packed=packed)
        write_idx(tmp_path, f"{name}-labels-idx1", labels, packed=packed)
    fashion = load_task("fashion-mnist", data=str(tmp_path), train_size=80, val_size=20)
    (x, y), (val_x, _) = fashion.train, fashion.val  # type: ignore[misc]
    assert (len(x), len(val_x)) == (80, 20)
    corner = x[:, 0, 0, 0]
    assert all(len(corner[y == label].unique()) == 1 for label in range(10)), "labels stay with their images"
    assert len(finite_losses(fashion)) == 3
    with pytest.raises(InvalidArgument, match=r"args\.train_size: must be at most 90, .*but got 91"):
        load_task("fashion-mnist", data=str(tmp_path), train_size=91)


def test_without_its_files_fashion_mnist_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="apt-get install dataset-fashion-mnist") as raised:
        load_task("fashion-mnist", data=str(tmp_path))
    assert str(tmp_path) in str(raised.value)


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, "train-images-idx3", np.zeros((3, 28, 28), np.uint8), packed=False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataMissing, match=r"train-images-idx3 .* is damaged"):
        load_task("fashion-mnist", data=str(tmp_path))
