"""Pictures in one folder per class: scikit-learn's digits, written as PNG files."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from clr.errors import DataMissing, InvalidArgument
from clr.run import Run
from clr.tasks import check_args, image_folder, load_task, pictures
from clr.tasks.named_networks import network_maker
from clr.training.loop import curve_of

DIGITS, LABELS = load_digits(return_X_y=True)


def write(folder: Path, first: int, last: int) -> None:
    for number in range(first, last):
        place = folder / str(LABELS[number])
        place.mkdir(parents=True, exist_ok=True)
        pixels = (DIGITS[number].reshape(8, 8) * 15).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write(folder, 0, 600)
    return folder


def test_digits_in_folders_are_learnt(digits: Path) -> None:
    task = replace(load_task("image-folder", data=str(digits), size=8), device="cpu")
    assert (len(task.train[0]), len(task.val[0])) == (480, 120)
    run = Run(policy="triangular", base_lr=0.01, max_lr=0.1, step_size_up=42, steps=84, seed=0, evaluate_every=84)
    assert curve_of(task, run).value > 0.9


def test_a_picture_is_its_pixels_and_its_folders_number(digits: Path) -> None:
    task = load_task("image-folder", data=str(digits), size=8)
    images = {tuple(image[0].flatten().tolist()): label for image, label in zip(*map(list, task.train), strict=True)}
    known = {tuple((DIGITS[i] * 15).astype(int).tolist()): LABELS[i] for i in range(600)}
    assert len(images) == 480
    assert all(known[pixels] == int(label) for pixels, label in images.items())
    normalised = task.model()[0](task.train[0])
    assert normalised.mean().abs() < 0.05
    assert (normalised.std() - 1).abs() < 0.05


def test_a_split_of_ones_own_is_kept_and_its_classes_are_those_of_train(tmp_path: Path) -> None:
    write(tmp_path / "train", 0, 60)
    write(tmp_path / "test", 60, 90)
    task = load_task("image-folder", data=str(tmp_path), size=8)
    assert (len(task.train[0]), len(task.val[0])) == (60, 30)
    assert sorted(task.val[1].tolist()) == sorted(LABELS[60:90].tolist())
    assert task.val[1].tolist() != sorted(task.val[1].tolist()), "the first of them stand for all"
    (tmp_path / "test" / "ten").mkdir()
    image_folder._load.cache_clear()
    with pytest.raises(InvalidArgument, match=r"args\.data: must have the classes of train/.*'ten'"):
        load_task("image-folder", data=str(tmp_path), size=8)


def test_pictures_too_many_for_memory_are_read_as_they_are_needed(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder._load.cache_clear()
    monkeypatch.setattr(pictures, "IN_MEMORY", 1000)
    task = replace(load_task("image-folder", data=str(digits), size=8), device="cpu")
    image_folder._load.cache_clear()
    assert isinstance(task.train, pictures.Pictures)
    run = Run(policy="triangular", base_lr=0.02, max_lr=0.2, step_size_up=21, steps=42, seed=0, evaluate_every=42)
    assert curve_of(task, run).value > 0.8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_every_kind_of_picture_becomes_a_square_in_colour(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.new(mode, (40, 20)).save(file)
    assert pictures.read(file, 16).shape == (3, 16, 16)


def test_what_is_no_picture_and_what_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"args\.data: .*there is none at .*nowhere"):
        load_task("image-folder", data=str(tmp_path / "nowhere"))
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataMissing, match=r"args\.data: must hold pictures, one folder per class"):
        load_task("image-folder", data=str(tmp_path))
    (tmp_path / "cats" / "tom.jpg").write_text("not a picture")
    (tmp_path / "cats" / "tim.jpg").write_text("not a picture")
    with pytest.raises(InvalidArgument, match=r"args\.data: must hold pictures that can be read .*got '.*t[io]m\.jpg'"):
        load_task("image-folder", data=str(tmp_path))


@pytest.mark.parametrize("name", ["resnet18", "torchvision/", "keras/resnet18", ""])
def test_a_network_of_no_known_package_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"args\.network: must be conv_net, torchvision/NAME or timm/NAME"):
        network_maker(name, 10)


@pytest.mark.parametrize(
    ("name", "module"), [("torchvision/resnet18", "torchvision.models"), ("timm/resnet18", "timm")]
)
def test_a_network_whose_package_is_not_installed_says_so(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidArgument, match=rf"args\.network: must be of a package .* {name.split('/')[0]} cannot"):
        network_maker(name, 10)


def test_conv_net_takes_pictures_of_any_size_from_eight_pixels() -> None:
    net = network_maker("conv_net", 7)()
    assert [net(torch.zeros(2, 3, size, size)).shape for size in (8, 33)] == [(2, 7), (2, 7)]


@pytest.mark.parametrize("args", [{"size": 4}, {"val_share": 1.0}, {"workers": -1}])
def test_arguments_out_of_range_are_refused(args: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=f"args.{next(iter(args))}: "):
        check_args(image_folder.image_folder, {"data": "x"} | args)
