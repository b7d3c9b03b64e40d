"""Ten more tasks, of kinds that no earlier one is of, written down before anything was measured on them.

They judge the method of decision 27, which was chosen before they were there.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from benchmarks.kinds import random, small_images, split, text
from benchmarks.unseen import small_cnn
from clr.tasks.networks import layers
from clr.training.task import Task, optimizer


def wrong_labels() -> Task:
    """A small convolutional network on small images, two labels of five wrong, under SGD with momentum."""
    (images, labels), val = small_images()
    made = random(21)
    noise = torch.randint(10, labels.shape, generator=made)
    told = torch.where(torch.rand(labels.shape, generator=made) < 0.4, noise, labels)
    return Task(
        model=small_cnn,
        train=(images, told),
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", weight_decay=5e-4),
        batch_size=64,
    )


def dropped() -> Task:
    """Two hidden layers of which half is dropped, on small images, under SGD with momentum, for 4,000 steps."""
    train, val = small_images()
    return Task(
        model=lambda: nn.Sequential(nn.Flatten(), layers(196, [128, 128], 10, dropout=0.5)),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        batch_size=64,
    )


class Mixer(nn.Module):
    """A mixer over the rows of an image: (n, 1, 14, 14) to (n, 10) logits."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.row = nn.Linear(14, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.across = nn.ModuleList(layers(14, [28], 14) for _ in range(depth))
        self.within = nn.ModuleList(layers(width, [2 * width], width) for _ in range(depth))
        self.out = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, from the mean over the rows."""
        rows = self.row(images[:, 0])
        for at, (across, within) in enumerate(zip(self.across, self.within, strict=True)):
            rows = rows + across(self.norms[2 * at](rows).transpose(1, 2)).transpose(1, 2)
            rows = rows + within(self.norms[2 * at + 1](rows))
        logits: Tensor = self.out(self.norms[-1](rows).mean(1))
        return logits


def mixer() -> Task:
    """A mixer on small images under AdamW, for 3,500 steps."""
    train, val = small_images()
    return Task(
        model=lambda: Mixer(24, 2),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("AdamW", weight_decay=0.05),
        batch_size=32,
    )


class Variational(nn.Module):
    """(n, 1, 14, 14) images to their reconstruction beside the code's mean and log variance: (n, 196 + 2 * codes)."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = layers(196, [96], 2 * codes), layers(codes, [96], 196)

    def forward(self, images: Tensor) -> Tensor:
        """What ``evidence`` takes apart."""
        told = self.encoder(images.flatten(1))
        mean, log_variance = told.chunk(2, 1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return torch.cat([self.decoder(code), told], 1)


def evidence(told: Tensor, images: Tensor) -> Tensor:
    """Squared error of a pixel, and the divergence of the codes, as a share of as many pixels."""
    mean, log_variance = told[:, 196:].chunk(2, 1)
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
    return F.mse_loss(told[:, :196], images.flatten(1)) + divergence / 196


def variational() -> Task:
    """A variational autoencoder on small images under Adam."""
    (images, _), (val_images, _) = small_images()
    return Task(
        model=lambda: Variational(8),
        train=(images, images),
        val=(val_images, val_images),
        loss=evidence,
        optimizer=optimizer("Adam"),
        batch_size=64,
    )


def density_loss(told: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of (n,) under mixtures of five normal distributions, told as (n, 15)."""
    share, mean, log_deviation = told.chunk(3, 1)
    of_each = -(((target[:, None] - mean) / log_deviation.exp()) ** 2) / 2 - log_deviation - math.log(2 * math.pi) / 2
    return -(share.log_softmax(1) + of_each).logsumexp(1).mean()


def mixture() -> Task:
    """A mixture density network on a relation of several branches, turned round, under Adam."""
    made = random(22)
    cause = torch.rand(9_000, generator=made)
    effect = cause + 0.3 * torch.sin(2 * math.pi * cause) + 0.05 * torch.randn(9_000, generator=made)
    rows = torch.stack([effect, torch.randn(9_000, generator=made)], 1)
    return Task(
        model=lambda: layers(2, [48, 48], 15),
        **split(rows, cause, 8_000),
        loss=density_loss,
        optimizer=optimizer("Adam"),
        batch_size=64,
    )


def counts() -> Task:
    """Counts whose logarithm is not linear in ten columns, under plain SGD."""
    made = random(23)
    rows = torch.randn(9_000, 10, generator=made)
    rate = (0.5 * rows[:, 0] - 0.4 * rows[:, 1] * rows[:, 2] + 0.5 * torch.tanh(2 * rows[:, 3]) + 1).exp()
    return Task(
        model=lambda: nn.Sequential(layers(10, [32, 32], 1), nn.Flatten(0)),
        **split(rows, torch.poisson(rate, generator=made), 8_000),
        loss=F.poisson_nll_loss,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=32,
    )


def full_batch() -> Task:
    """Scikit-learn's table of diabetes, all rows in each step, under RMSprop with momentum."""
    from sklearn.datasets import load_diabetes

    rows, target = (torch.tensor(part, dtype=torch.float32) for part in load_diabetes(return_X_y=True, scaled=False))
    order = torch.randperm(len(rows), generator=random(24))
    rows, target = ((part - part.mean(0)) / part.std(0) for part in (rows[order], target[order]))
    return Task(
        model=lambda: nn.Sequential(layers(10, [32], 1), nn.Flatten(0)),
        **split(rows, target, 342),
        loss=F.mse_loss,
        optimizer=optimizer("RMSprop", momentum=0.9, weight_decay=1e-2),
        batch_size=342,
    )


class Pairs(nn.Module):
    """Whether two letters stand near each other: (n, 2) numbers to (n,) logits, the product of two rows."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Embedding(letters, width), nn.Embedding(letters, width)
        nn.init.normal_(self.inner.weight, std=0.1)
        nn.init.normal_(self.outer.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits."""
        product: Tensor = (self.inner(pairs[:, 0]) * self.outer(pairs[:, 1])).sum(1)
        return product


def neighbours() -> Task:
    """Skip-grams of characters with as many drawn at random, under plain SGD, for 3,000 steps."""
    (pieces, _), _, letters = text(24)
    made = random(25)
    near = torch.stack([pieces[:, 3:-1:5], pieces[:, 4::5]], 2).reshape(-1, 2)
    near = near[torch.randperm(len(near), generator=made)[:30_000]]
    far = torch.stack([near[:, 0], near[torch.randperm(len(near), generator=made), 1]], 1)
    order = torch.randperm(2 * len(near), generator=made)
    labels = torch.cat([torch.ones(len(near)), torch.zeros(len(far))])[order]
    return Task(
        model=lambda: Pairs(letters, 16),
        **split(torch.cat([near, far])[order], labels, 54_000),
        loss=F.binary_cross_entropy_with_logits,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=128,
    )


def same_digit() -> Task:
    """Whether two images show the same digit, one network for both, under SGD with Nesterov's momentum."""
    digits = clr.load_task("digits")
    made = random(26)
    parts = []
    for (images, labels), count in zip((digits.train, digits.val), (8_000, 1_500), strict=True):  # type: ignore[misc]
        first = torch.randint(len(labels), (count,), generator=made)
        other = torch.randint(len(labels), (count,), generator=made)
        alike = torch.stack([torch.nonzero(labels == labels[at])[:, 0][:40].flip(0)[at % 20] for at in first])
        second = torch.where(torch.rand(count, generator=made) < 0.5, alike, other)
        both = torch.stack([images[first], images[second]], 1).flatten(2).float() / 16
        parts.append((both, (labels[first] == labels[second]).float()))
    return Task(
        model=Siamese,
        train=parts[0],
        val=parts[1],
        loss=F.binary_cross_entropy_with_logits,
        optimizer=optimizer("SGD", nesterov=True),
        batch_size=64,
    )


class Siamese(nn.Module):
    """(n, 2, 64) pixels of two images to (n,) logits, from how far apart one network puts them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.scale = layers(64, [64], 16), nn.Parameter(torch.tensor([1.0, 1.0]))

    def forward(self, both: Tensor) -> Tensor:
        """Logits."""
        apart = (self.seen(both[:, 0]) - self.seen(both[:, 1])).square().mean(1)
        logits: Tensor = self.scale[0] - self.scale[1] * apart
        return logits


def factored() -> Task:
    """Digits under Adafactor, whose rate is relative to the weights."""
    digits = clr.load_task("digits")
    train, val = ((images.float() / 16, labels) for images, labels in (digits.train, digits.val))  # type: ignore[misc]
    return Task(
        model=lambda: nn.Sequential(nn.Flatten(), layers(64, [64, 64], 10)),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("Adafactor"),
        batch_size=32,
    )
