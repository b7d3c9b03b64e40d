"""Four tasks of little data, which a training of the length given fits better than it should."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.kinds import random, small_images, split, text
from benchmarks.unseen import small_cnn
from clr.tasks.networks import LanguageModel, layers
from clr.tasks.text_lm import next_token_loss
from clr.training.task import Task, optimizer


def few_images() -> Task:
    """300 small images under SGD with momentum, judged by their loss; 40 epochs."""
    (images, labels), val = small_images()
    return Task(
        model=lambda: nn.Sequential(nn.Flatten(), layers(196, [64], 10)),
        train=(images[:300], labels[:300]),
        val=val,
        loss=F.cross_entropy,
        batch_size=32,
    )


def few_rows() -> Task:
    """400 rows of fifteen columns, of which three matter, under Adam; 60 epochs."""
    made = random(31)
    rows = torch.randn(2_400, 15, generator=made)
    target = rows[:, 0] * rows[:, 1] + torch.sin(2 * rows[:, 2]) + torch.randn(2_400, generator=made)
    return Task(
        model=lambda: nn.Sequential(layers(15, [64, 32], 1), nn.Flatten(0)),
        **split(rows, target, 400),
        loss=F.mse_loss,
        optimizer=optimizer("Adam"),
        batch_size=32,
    )


def few_pages() -> Task:
    """A transformer on 9,600 characters under AdamW; 50 epochs."""
    (inputs, targets), val, letters = text(24)
    return Task(
        model=lambda: LanguageModel(letters, 24, 48, 2, 2),
        train=(inputs[:400], targets[:400]),
        val=val,
        loss=next_token_loss,
        optimizer=optimizer("AdamW", weight_decay=0.01),
        batch_size=16,
    )


def few_labels() -> Task:
    """500 small images, one label of four wrong, judged by their accuracy, under Adam; 40 epochs."""
    (images, labels), val = small_images()
    made = random(32)
    noise = torch.randint(10, (500,), generator=made)
    told = torch.where(torch.rand(500, generator=made) < 0.25, noise, labels[:500])
    return Task(
        model=small_cnn,
        train=(images[:500], told),
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("Adam"),
        batch_size=32,
    )
