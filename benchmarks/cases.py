"""What is trained: four short tasks, two as long as real trainings are, and others of other kinds."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from benchmarks import judges, kinds, scarce, small, unseen, unsteady
from clr.schedules.cycles import TrainingLength
from clr.tasks.cifar10_files import read
from clr.tasks.fashion_mnist import DEBIAN
from clr.tasks.subset import subset
from clr.training.data import to_device
from clr.training.task import Task, optimizer


class Place(NamedTuple):
    """Where and how precisely to train."""

    device: str = "cpu"
    precision: Any = "fp32"


@dataclass(frozen=True)
class Case:
    """A task with the length of its training and what its results are measured by.

    Args:
        task: makes it; on the host, in single precision.
        length: of the training to find bounds for.
        lowest, rates: the grid of max_lr for the reference: that many rates from the lowest, each twice the last.
        floor: score of a constant predictor; what a training that diverges scores. A score is the metric, or the
            validation loss times -1: more is better.
        long: whether the reference is a coarse grid of rates alone, since one training takes long or ratio and cycles
            are not the question.
    """

    name: str
    task: Callable[[], Task]
    length: TrainingLength
    lowest: float
    rates: int = 11
    floor: float = 0.1
    long: bool = False

    def load(self, place: Place = Place()) -> Task:  # noqa: B008
        """The task with its data on the device."""
        return _load(self.name, place)


@lru_cache
def _load(name: str, place: Place) -> Task:
    task, device = CASES[name].task(), torch.device(place.device)
    return replace(
        task,
        train=to_device(task.train, device),
        val=to_device(task.val, device),
        device=place.device,
        precision=place.precision,
    )


def fashion(train_size: int = 10_000, val_size: int = 2_000) -> Task:
    """Fashion-MNIST under the small convolutional network, batch 64."""
    folder = os.environ.get("FASHION_MNIST", DEBIAN)
    return clr.load_task("fashion-mnist", data=folder, train_size=train_size, val_size=val_size)


def cifar_folder() -> str:
    """Where CIFAR-10 lies."""
    return os.environ.get("CIFAR10", "data/cifar10")


def quarter_quick() -> nn.Module:
    """Caffe's quick network with a quarter of its channels and torch's own initial weights."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()),
        *(nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Flatten(), nn.Linear(256, 32), nn.Linear(32, 10)),
    ).to(memory_format=torch.channels_last)


def cifar(train_size: int, val_size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A part of CIFAR-10 to train on and one to validate, each channel of mean 0 and standard deviation 1."""
    train, val = read(Path(cifar_folder()))
    images, labels = subset("train_size", *train, train_size)
    mean, std = (value.astype(np.float32) for value in (images.mean((0, 2, 3)), images.std((0, 2, 3))))

    def tensors(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        scaled = (images - mean[:, None, None]) / std[:, None, None]
        return torch.from_numpy(scaled).to(memory_format=torch.channels_last), torch.from_numpy(labels)

    return tensors(images, labels), tensors(*subset("val_size", *val, val_size))


def small_cifar() -> Task:
    """A part of CIFAR-10 under ``quarter_quick``, batch 64."""
    train, val = cifar(10_000, 2_000)
    return Task(
        model=quarter_quick,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", weight_decay=4e-3),
    )


def of_steps(steps: int, iterations_per_epoch: int) -> TrainingLength:
    """The length of that many steps."""
    return TrainingLength(steps / iterations_per_epoch, iterations_per_epoch)


CASES = {
    case.name: case
    for case in (
        Case("digits_mlp_sgdm", lambda: clr.load_task("digits"), of_steps(160, 18), 0.0025),
        Case("fashion_cnn_sgdm", fashion, of_steps(320, 156), 0.001),
        Case("fashion_cnn_adamw", lambda: replace(fashion(), optimizer=optimizer("AdamW")), of_steps(320, 156), 1e-4),
        Case("cifar_quick_sgdm", small_cifar, of_steps(320, 156), 0.0005),
        Case("fashion_long", lambda: fashion(60_000, 10_000), TrainingLength(10, 937), 0.004, 8, long=True),
        Case(
            "cifar_long",
            lambda: clr.load_task("cifar10", data=cifar_folder()),
            TrainingLength(20, 500),
            0.001,
            5,
            long=True,
        ),
        Case("fmnist_2c2d", kinds.fmnist_2c2d, TrainingLength(20, 468), 0.02, 6, long=True),
        Case(
            "cifar10_3c3d",
            lambda: kinds.cifar10_3c3d(*cifar(50_000, 10_000)),
            TrainingLength(20, 390),
            0.01,
            6,
            long=True,
        ),
    )
}

OTHER = {
    case.name: case
    for case in (
        Case("factors_adagrad", kinds.factors, of_steps(940, 187), 0.02, 8, -1.0483, long=True),
        Case("factors_adam", lambda: kinds.factors("Adam"), of_steps(940, 187), 0.001, 8, -1.0483, long=True),
        Case("lstm_clipped_sgd", kinds.lstm, of_steps(2400, 1046), 2.0, 8, -3.2252, long=True),
        Case("transformer_adamw", kinds.transformer, of_steps(3000, 1046), 5e-4, 8, -3.2252, long=True),
        Case("resnet_sgdm", kinds.resnet, of_steps(1200, 375), 0.01, 8, long=True),
        Case("resnet_long", kinds.resnet, of_steps(3000, 375), 0.01, 8, long=True),
        Case("mlp_rmsprop", lambda: kinds.image_mlp("RMSprop"), of_steps(375, 375), 5e-4, 8, long=True),
        Case("mlp_adadelta", lambda: kinds.image_mlp("Adadelta"), of_steps(750, 375), 0.2, 8, long=True),
        Case("mlp_long", lambda: kinds.image_mlp("SGD"), of_steps(3750, 375), 0.005, 8, long=True),
        Case("imbalanced_adam", kinds.imbalanced, of_steps(780, 156), 5e-4, 8, -0.2524, long=True),
        Case("fine_tuning_sgdm", kinds.fine_tuning, of_steps(155, 31), 5e-4, 8, 0.2, long=True),
        Case("fine_tuning_adamw", lambda: kinds.fine_tuning("AdamW"), of_steps(155, 31), 1e-4, 8, 0.2, long=True),
        Case("adapters_adamw", kinds.adapters, of_steps(310, 31), 5e-4, 8, 0.2, long=True),
        Case("frozen_head_sgd", kinds.frozen_head, of_steps(500, 500), 0.002, 8, -6.289, long=True),
        Case("autoencoder_sgd", kinds.autoencoder, of_steps(740, 37), 2.0, 8, -0.1504, long=True),
    )
}
"""Tasks of other kinds, on which, beside the open ones, the range test's constants were chosen."""

FRESH = {
    case.name: case
    for case in (
        Case("gru_adamw", kinds.gru, of_steps(1500, 1046), 0.001, 8, -3.2252, long=True),
        Case("deep_tanh_sgdm", kinds.deep_tanh, of_steps(360, 18), 0.005, 8, long=True),
        Case("outliers_nadam", kinds.outliers, of_steps(625, 125), 5e-4, 8, -2.5311, long=True),
        Case("layer_norm_sgd", kinds.layer_norm_sgd, of_steps(460, 46), 0.1, 8, long=True),
        Case("factors_sgdm", lambda: kinds.factors("SGD"), of_steps(1500, 187), 0.1, 8, -1.0483, long=True),
        Case("mlp_adagrad", lambda: kinds.image_mlp("Adagrad"), of_steps(1125, 375), 0.005, 8, long=True),
        Case("mlp_radam_long", lambda: kinds.image_mlp("RAdam"), of_steps(5000, 375), 5e-4, 8, long=True),
    )
}
"""Tasks that no rule was chosen on; how far the exponent is believed was."""

UNSEEN = {
    case.name: case
    for case in (
        Case("row_reader_sgdm", unseen.row_reader, of_steps(450, 18), 0.005, 8, long=True),
        Case("normalised_cnn_nesterov", unseen.normalised_cnn, of_steps(374, 187), 0.005, 8, long=True),
        Case("table_adamax", unseen.table_regression, of_steps(1000, 125), 5e-4, 8, -3.5454, long=True),
        Case("window_adagrad", unseen.window, of_steps(2500, 1569), 0.005, 8, -3.2198, long=True),
        Case("denoiser_adam", unseen.denoiser, of_steps(750, 375), 5e-4, 8, -0.5817, long=True),
        Case("turned_adam", unseen.turned, of_steps(230, 46), 2e-4, 8, long=True),
        Case("softmax_sgd", unseen.softmax_regression, of_steps(750, 375), 0.005, 8, -2.3026, long=True),
        Case("pixel_rows_adamw", unseen.pixel_rows, of_steps(750, 375), 5e-4, 8, long=True),
    )
}
"""Tasks that were written down before anything was measured on them."""

JUDGES = {
    case.name: case
    for case in (
        Case("wrong_labels_sgdm", judges.wrong_labels, of_steps(748, 187), 0.005, 8, 0.108, long=True),
        Case("dropped_sgdm", judges.dropped, of_steps(4000, 187), 0.005, 8, 0.108, long=True),
        Case("mixer_adamw", judges.mixer, of_steps(3500, 375), 5e-4, 8, 0.108, long=True),
        Case("variational_adam", judges.variational, of_steps(935, 187), 5e-4, 8, -0.5817, long=True),
        Case("mixture_adam", judges.mixture, of_steps(1000, 125), 5e-4, 8, -0.0344, long=True),
        Case("counts_sgd", judges.counts, of_steps(750, 250), 0.005, 8, 0.9245, long=True),
        Case("full_batch_rmsprop", judges.full_batch, of_steps(300, 1), 1e-4, 8, -1.0358, long=True),
        Case("neighbours_sgd", judges.neighbours, of_steps(3000, 421), 0.5, 8, -0.6931, long=True),
        Case("same_digit_nesterov", judges.same_digit, of_steps(500, 125), 0.005, 8, -0.6863, long=True),
        Case("factored_adafactor", judges.factored, of_steps(444, 37), 0.005, 8, 0.115, long=True),
    )
}
"""Tasks that were written down when the method of decision 27 stood, and that nothing was chosen on."""

SCARCE = {
    case.name: case
    for case in (
        Case("few_images_sgdm", scarce.few_images, of_steps(360, 9), 0.002, 8, -2.3026, long=True),
        Case("few_rows_adam", scarce.few_rows, of_steps(720, 12), 5e-4, 8, -2.5415, long=True),
        Case("few_pages_adamw", scarce.few_pages, of_steps(1250, 25), 5e-4, 8, -3.2252, long=True),
        Case("few_labels_adam", scarce.few_labels, of_steps(600, 15), 5e-4, 8, 0.108, long=True),
    )
}
"""Tasks of little data, on which what a validation score says beside the loss was chosen."""

UNSTEADY = {
    case.name: case
    for case in (
        Case("letters_radam", unsteady.letters_radam, of_steps(1500, 1046), 5e-4, 8, -3.2252, long=True),
        Case("images_radam", unsteady.images_radam, of_steps(561, 187), 5e-4, 8, 0.108, long=True),
        Case("plain_lstm_sgdm", unsteady.plain_lstm, of_steps(1500, 1046), 0.02, 8, -3.2252, long=True),
        Case("charges_sgdm", unsteady.charges, of_steps(750, 250), 5e-4, 8, -1.6456, long=True),
        Case("heavy_tails_sgd", unsteady.heavy_tails, of_steps(750, 250), 0.002, 8, -0.8466, long=True),
        Case("deep_convolutions_sgdm", unsteady.deep_convolutions, of_steps(561, 187), 0.002, 8, 0.108, long=True),
    )
}
"""Tasks that were written down when the method of decision 28 stood, and that nothing was chosen on."""

SEARCHED = {
    case.name: case
    for case in (
        Case("spirals_nesterov", small.spirals, of_steps(620, 62), 0.0025, floor=1 / 3),
        Case("digits_conv_adam", small.digits_convolution, of_steps(180, 18), 5e-4),
        Case("letters_adamw", small.next_letter, of_steps(750, 375), 5e-4, floor=-3.2578),
        Case("lenet_sgdm", small.lenet, of_steps(312, 156), 0.001),
    )
}
"""Tasks for the figures of the search, which nothing was chosen on."""

SHORT = [case.name for case in CASES.values() if not case.long]
"""The open tasks."""

CASES |= OTHER | FRESH | UNSEEN | JUDGES | SCARCE | UNSTEADY | SEARCHED
