"""Eight tasks of other networks, data and optimizers, written down before anything was measured on them.

Nothing in the range test was chosen by what they say: they judge it.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from benchmarks.kinds import Pair, random, small_images, split, text, weights_of
from clr.tasks.networks import layers
from clr.training.task import Task, optimizer


class RowReader(nn.Module):
    """A plain recurrent network that reads an image row by row: (n, 1, 8, 8) to (n, 10) logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, width, batch_first=True)
        self.out = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, from what is left after the last row."""
        logits: Tensor = self.out(self.rnn(images.reshape(-1, 8, 8))[0][:, -1])
        return logits


def row_reader() -> Task:
    """A plain recurrent network on the rows of digits under SGD with momentum, gradients clipped at a norm of 1."""
    digits = clr.load_task("digits")
    train, val = ((images.float() / 16, labels) for images, labels in (digits.train, digits.val))  # type: ignore[misc]
    return Task(
        model=lambda: RowReader(48),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        clip_norm=1.0,
    )


def normalised_cnn() -> Task:
    """Two batch-normalised convolutions on small images under SGD with Nesterov's momentum."""
    train, val = small_images()

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 9, 10)),
        )

    return Task(
        model=network,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", nesterov=True, weight_decay=1e-3),
        batch_size=64,
    )


class Embedded(nn.Module):
    """Rows of 8 numbers and 3 categories of 20 values: (n, 11) to (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = nn.ModuleList(nn.Embedding(20, 4) for _ in range(3))
        self.rest = layers(20, [64, 32], 1)

    def forward(self, rows: Tensor) -> Tensor:
        """What is to be predicted."""
        known = [table(rows[:, 8 + at].long()) for at, table in enumerate(self.categories)]
        predicted: Tensor = self.rest(torch.cat([rows[:, :8], *known], 1))[:, 0]
        return predicted


def table_regression() -> Task:
    """A table of numbers and categories under Adamax."""
    made = random(11)
    numbers = torch.randn(9_000, 8, generator=made)
    categories = torch.randint(20, (9_000, 3), generator=made)
    effects = torch.randn(3, 20, generator=made)
    target = numbers[:, 0] * numbers[:, 1] + torch.sin(2 * numbers[:, 2]) + numbers[:, 3].abs()
    target = target + effects[0, categories[:, 0]] + effects[1, categories[:, 1]] * numbers[:, 4]
    target = target + 0.5 * torch.randn(9_000, generator=made)
    return Task(
        model=Embedded,
        **split(torch.cat([numbers, categories.float()], 1), target, 8_000),
        loss=F.mse_loss,
        optimizer=optimizer("Adamax"),
        batch_size=64,
    )


class Window(nn.Module):
    """Two layers over a window of eight characters: (n, 8) numbers to (n, letters) logits of the ninth."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.token = nn.Embedding(letters, 16)
        self.rest = layers(8 * 16, [96], letters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.rest(self.token(tokens).flatten(1))
        return logits


def windows(pieces: Pair) -> Pair:
    """Three windows of each piece of 24 characters, and what follows each."""
    inputs, targets = pieces
    return inputs.reshape(-1, 8).contiguous(), targets[:, 7::8].reshape(-1).contiguous()


def window() -> Task:
    """Characters from the eight before them, under Adagrad."""
    train, val, letters = text(24)
    return Task(
        model=lambda: Window(letters),
        train=windows(train),
        val=windows(val),
        loss=F.cross_entropy,
        optimizer=optimizer("Adagrad"),
        batch_size=32,
    )


def denoiser() -> Task:
    """A convolutional autoencoder takes noise off small images, under Adam."""
    made = random(12)
    parts = []
    for images, _ in small_images():
        parts.append((images + 0.7 * torch.randn(images.shape, generator=made), images))

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)),
        )

    return Task(
        model=network,
        train=parts[0],
        val=parts[1],
        loss=F.mse_loss,
        optimizer=optimizer("Adam"),
        batch_size=32,
    )


@lru_cache
def upright() -> dict[str, Tensor]:
    """Weights of a small convolutional network, trained on upright images."""
    images, labels = small_images()[0]
    return weights_of(small_cnn, images, labels, seed=13, lr=2e-3)


def small_cnn() -> nn.Module:
    """Two convolutions and two dense layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 9, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def turned() -> Task:
    """All weights of a network that knows upright images learn turned ones, from 1,500 of them, under Adam."""
    (images, labels), (val_images, val_labels) = small_images()

    def network() -> nn.Module:
        made = small_cnn()
        made.load_state_dict(upright())
        return made

    return Task(
        model=network,
        train=(images[:1_500].rot90(1, (2, 3)), labels[:1_500]),
        val=(val_images.rot90(1, (2, 3)), val_labels),
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("Adam"),
        batch_size=32,
    )


def softmax_regression() -> Task:
    """One layer on small images under plain SGD: a convex problem."""
    train, val = small_images()
    return Task(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(196, 10)),
        train=train,
        val=val,
        loss=F.cross_entropy,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=32,
    )


class PixelRows(nn.Module):
    """A transformer over the rows of an image: (n, 1, 14, 14) to (n, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Linear(14, 32)
        self.position = nn.Parameter(0.02 * torch.randn(14, 32))
        block = nn.TransformerEncoderLayer(32, 2, 64, 0.0, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, from the mean over the rows."""
        logits: Tensor = self.out(self.blocks(self.row(images[:, 0]) + self.position).mean(1))
        return logits


def pixel_rows() -> Task:
    """A transformer over the rows of small images under AdamW, gradients clipped at a norm of 1."""
    train, val = small_images()
    return Task(
        model=PixelRows,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("AdamW", weight_decay=0.05),
        batch_size=32,
        clip_norm=1.0,
    )
