"""Checked by mypy and never run: what an editor knows of the library's surface, lazy imports or not."""

from collections.abc import Callable
from typing import assert_type

from torch.optim import Optimizer

import clr
from clr.client import AsyncClient, Job


def of_a_range_test(task: clr.Task) -> None:
    bounds = clr.range_test(task, epochs=20, seeds=2).bounds
    assert_type(bounds, clr.Bounds)
    assert_type(bounds.max_lr, float | None)


def of_a_curve() -> None:
    assert_type(clr.read_bounds([0.1, 0.2], [2.0, 1.0], direction="minimize"), clr.Bounds)


def of_a_recommendation(task: clr.Task, optimizer: Optimizer) -> None:
    found = clr.recommend(task, epochs=20, budget=6, progress=False)
    assert_type(found, clr.Recommendation)
    assert_type(found.stepsize, int | None)
    assert_type(found.to_python(), str)


def of_a_search(task: clr.Task, bounds: clr.Bounds) -> None:
    found = clr.search(task, bounds, trials=5, policies=["triangular", "hann"])
    assert_type(found.steps, int)


def of_the_policies() -> None:
    assert_type(clr.POLICIES, dict[str, Callable[..., float]])


def of_the_clients() -> None:
    assert_type(clr.Client("http://127.0.0.1:8000").submit({"task": "digits"}).wait(), Job)
    assert_type(clr.AsyncClient("http://127.0.0.1:8000"), AsyncClient)


def of_mistakes(task: clr.Task) -> None:
    clr.recommend(task, epoch=20)  # type: ignore[call-arg]
    clr.search(task, trails=3)  # type: ignore[call-arg]
    clr.nothing  # type: ignore[attr-defined]  # noqa: B018
