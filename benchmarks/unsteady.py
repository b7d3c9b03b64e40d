"""Six tasks that are thrown back now and then, or whose optimizer takes its time, written down before any result.

They judge what cycles say that were thrown back, and rates whose steps' size depends on how many were taken.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.kinds import gru, lstm, random, small_images, split
from benchmarks.unseen import small_cnn
from clr.tasks.networks import layers
from clr.training.task import Task, optimizer


def letters_radam() -> Task:
    """A GRU on characters under RAdam, for 1,500 steps."""
    return replace(gru(), optimizer=optimizer("RAdam"))


def images_radam() -> Task:
    """A small convolutional network on small images under RAdam, for three epochs."""
    train, val = small_images()
    return Task(
        model=small_cnn,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("RAdam"),
        batch_size=64,
    )


def plain_lstm() -> Task:
    """An LSTM on characters under SGD with momentum whose gradients are not clipped, for 1,500 steps."""
    return replace(lstm(), optimizer=optimizer("SGD"), clip_norm=None)


def charges_loss(told: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of (n,) amounts, exponentially distributed: the logarithms of the means are told."""
    return (told + target * (-told).exp()).mean()


def charges() -> Task:
    """Skewed amounts from ten columns, the logarithm of whose mean is learnt, under SGD with momentum."""
    made = random(41)
    rows = torch.randn(9_000, 10, generator=made)
    mean = (rows[:, 0] * torch.sigmoid(rows[:, 1]) + 0.5 * torch.sin(2 * rows[:, 2]) + 0.5 * rows[:, 3].abs()).exp()
    amounts = -mean * torch.rand(9_000, generator=made).clamp_min(1e-6).log()
    return Task(
        model=lambda: nn.Sequential(layers(10, [32, 32], 1), nn.Flatten(0)),
        **split(rows, amounts, 8_000),
        loss=charges_loss,
        optimizer=optimizer("SGD"),
        batch_size=32,
    )


def heavy_tails() -> Task:
    """A regression on eight columns with heavy tails, Student's of three degrees of freedom, under plain SGD."""
    made = random(42)
    rows = torch.randn(9_000, 8, generator=made)
    rows = rows / (torch.randn(9_000, 3, generator=made).square().mean(1, keepdim=True)).sqrt()
    target = torch.tanh(rows @ torch.randn(8, generator=made)) + 0.5 * torch.sin(rows[:, 0])
    return Task(
        model=lambda: nn.Sequential(layers(8, [48, 48], 1), nn.Flatten(0)),
        **split(rows, target + 0.2 * torch.randn(9_000, generator=made), 8_000),
        loss=F.mse_loss,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=32,
    )


def deep_convolutions() -> Task:
    """Six convolutions without normalisation on small images under SGD with momentum."""
    train, val = small_images()

    def network() -> nn.Module:
        inner = [layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *inner,
            *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)),
        )

    return Task(model=network, train=train, val=val, loss=F.cross_entropy, metric="accuracy", batch_size=64)
