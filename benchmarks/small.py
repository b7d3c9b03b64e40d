"""Small tasks for the search's figures: written down before anything was measured on them, and part of no choice."""

import os
from functools import lru_cache
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from benchmarks.kinds import Pair, random, split, text
from clr.tasks.fashion_mnist import DEBIAN
from clr.tasks.networks import layers
from clr.training.task import Task, optimizer

CONTEXT = 6


def spirals() -> Task:
    """Three arms that wind around each other, under Nesterov's momentum: wide networks fall over the edge at once."""
    made = random(21)
    arm = torch.randint(3, (5_000,), generator=made)
    radius = torch.rand(5_000, generator=made)
    angle = 2 * pi * (arm / 3 + radius) + 0.25 * torch.randn(5_000, generator=made)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) * 2
    return Task(
        model=lambda: layers(2, [48, 48], 3),
        **split(points, arm, 4_000),
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", momentum=0.9, nesterov=True),
    )


def digits_convolution() -> Task:
    """A batch-normalised convolution on digits of 8x8 pixels under Adam."""
    digits = clr.load_task("digits")

    def images(examples: Pair) -> Pair:
        return examples[0].reshape(-1, 1, 8, 8), examples[1]

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(24, 10)),
        )

    train, val = images(digits.train), images(digits.val)
    return Task(
        model=network, train=train, val=val, loss=F.cross_entropy, metric="accuracy", optimizer=optimizer("Adam")
    )


@lru_cache
def windows() -> tuple[Pair, Pair, int]:
    """(n, ``CONTEXT``) characters and the one that follows, to train on and to validate, and how many there are."""

    def pairs(part: Pair) -> Pair:
        pieces = part[0]
        cut = pieces.unfold(1, CONTEXT + 1, CONTEXT + 1).reshape(-1, CONTEXT + 1)
        return cut[:, :-1], cut[:, -1]

    train, val, letters = text(34)
    inputs, target = pairs(train)
    return (inputs[:24_000], target[:24_000]), pairs(val), letters


def next_letter() -> Task:
    """The character after six others, by a network of one hidden layer over their vectors, under AdamW."""
    train, val, letters = windows()

    def network() -> nn.Module:
        return nn.Sequential(nn.Embedding(letters, 16), nn.Flatten(), layers(16 * CONTEXT, [96], letters))

    return Task(model=network, train=train, val=val, loss=F.cross_entropy, optimizer=optimizer("AdamW"))


def lenet_network() -> nn.Module:
    """LeNet-5's shape with ReLU: without normalisation, it dies at a rate not far above its best."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def lenet() -> Task:
    """LeNet-5 on a part of Fashion-MNIST under SGD with momentum."""
    pictures: Task = clr.load_task(
        "fashion-mnist", data=os.environ.get("FASHION_MNIST", DEBIAN), train_size=10_000, val_size=2_000
    )
    return Task(model=lenet_network, train=pictures.train, val=pictures.val, loss=F.cross_entropy, metric="accuracy")


def constant_loss(target: Tensor) -> float:
    """Cross-entropy of whoever always predicts how frequent each class is."""
    shares = torch.bincount(target).float() / len(target)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())
