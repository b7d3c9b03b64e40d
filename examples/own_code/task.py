"""A task of one's own: a function that returns what to train. Its arguments come from the job's `args`."""

import torch
import torch.nn.functional as F
from net import convolutional
from sklearn.datasets import load_digits

import clr

VAL_SIZE = 400


def digits(channels: int = 8) -> clr.Task:
    """Handwritten digits, 8x8 pixels, from scikit-learn; a small convolutional network."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float() / 16
    target = torch.from_numpy(labels).long()
    return clr.Task(
        model=lambda: convolutional(channels),
        train=(images[VAL_SIZE:], target[VAL_SIZE:]),
        val=(images[:VAL_SIZE], target[:VAL_SIZE]),
        loss=F.cross_entropy,
        metric="accuracy",
    )
