from dataclasses import replace

import pytest
import torch

import clr
from clr.run import Run
from clr.tasks import load_task
from clr.training.loop import train


def test_digits_has_1197_examples_to_train_on_and_600_others() -> None:
    digits = clr.load_task("digits", hidden=8)
    (x, y), (val_x, val_y) = digits.train, digits.val  # type: ignore[misc]
    assert (x.shape, y.shape, val_x.shape, val_y.shape) == ((1197, 64), (1197,), (600, 64), (600,))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.mean().item(), x.std().item()) == pytest.approx((0, 1), abs=1e-5)
    assert set(y.tolist()) == set(range(10))
    assert digits.model()(x[:2]).shape == (2, 10)
    assert digits.iterations_per_epoch == 1197 // 64


def test_digits_are_learnt() -> None:
    run = Run(
        policy="triangular", base_lr=0.01, max_lr=0.2, step_size_up=18 * 2, steps=18 * 4, seed=0, evaluate_every=72
    )
    (point,) = train(replace(load_task("digits"), device="cpu"), run)
    assert point.metric is not None
    assert point.metric > 0.93


def test_a_smaller_training_set_begins_a_larger_one_and_keeps_the_validation_set() -> None:
    small, whole = load_task("digits", train_size=100), load_task("digits")
    assert torch.equal(small.train[1], whole.train[1][:100])
    assert torch.equal(small.val[1], whole.val[1])  # type: ignore[index]
