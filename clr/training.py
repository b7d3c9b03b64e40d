"""The one training loop. Range test, trial and confirmation are this loop under different policies."""

import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clr.data import training_batches, validation_batches
from clr.errors import InvalidArgument
from clr.policies import schedule
from clr.run import Curve, Plan, Point, Result, Run
from clr.task import Task

SYNC_STEPS = 16
"""Losses are read from the device at least this often: rarely enough not to stall a GPU, often enough to stop soon
after a loss is no longer finite."""


class _Rng:
    """The global random states of python, numpy and torch, swapped with the caller's at every yield."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._outer: Any = None
        if device.type == "cuda":
            # a state that is not there yet could not be put back
            torch.cuda.init()
        outer = self._get()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed would also seed a GPU that the caller alone uses
        (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)
        self._inner = self._get()
        self._set(outer)

    @staticmethod
    def _get() -> tuple[Any, ...]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda

    @staticmethod
    def _set(state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        if state[3] is not None:
            torch.cuda.set_rng_state_all(state[3])

    def enter(self) -> None:
        self._outer = self._get()
        self._set(self._inner)

    def leave(self) -> None:
        if self._outer is not None:
            self._inner = self._get()
            self._set(self._outer)
            self._outer = None


def train(task: Task, run: Run) -> Iterator[Point]:
    """Train, yielding a point every ``run.evaluate_every`` steps and at the end; stop pulling to stop training.

    The caller's random states are untouched between and after points. A loss that is no longer finite ends the run
    with a point that says so.

    Raises:
        InvalidArgument: a rule of ``run`` is broken.
    """
    for field in ("steps", "stepsize", "evaluate_every"):
        if getattr(run, field) < 1:
            raise InvalidArgument(f"{field}: must be at least 1, but got {getattr(run, field)!r}")
    device = torch.device(task.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rng = _Rng(run.seed, device)
    rng.enter()
    try:
        for point in _steps(task, run, device):
            rng.leave()
            yield point
            rng.enter()
    finally:
        rng.leave()


def _steps(task: Task, run: Run, device: torch.device) -> Iterator[Point]:
    model = task.model().to(device)
    optimizer = task.optimizer(task.groups(model))
    multipliers = [group.get("lr_mult", 1.0) for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=task.precision == "fp16")
    batches = training_batches(task.train, task.batch_size, run.seed, device, task.collate, task.workers)
    rate = schedule(run.policy, base_lr=run.base_lr, max_lr=run.max_lr, stepsize=run.stepsize, gamma=run.gamma)

    rates: list[float] = []
    losses: list[float] = []
    unread: list[Tensor] = []
    explosion = _Explosion(run.explode) if run.explode is not None else None
    model.train()
    for step in range(1, run.steps + 1):
        lr = rate(step - 1)
        rates.append(lr)
        for group, multiplier in zip(optimizer.param_groups, multipliers, strict=True):
            group["lr"] = lr * multiplier
        unread.append(_update(task, model, optimizer, scaler, batches, device))
        at_point = step % run.evaluate_every == 0 or step == run.steps
        if not at_point and len(unread) < SYNC_STEPS:
            continue
        read = torch.stack(unread).tolist()
        unread.clear()
        bad = next((i for i, loss in enumerate(read) if not math.isfinite(loss)), None)
        if bad is not None:
            losses += read[: bad + 1]
            yield Point(step - len(read) + bad + 1, rates[: len(losses)], losses, None, diverged=True)
            return
        losses += read
        if explosion is not None and explosion.after(read):
            yield Point(step, rates, losses, None, diverged=True)
            return
        if at_point:
            limit = None if step == run.steps else run.val_limit
            metric = evaluate(task, model, device, limit)
            diverged = metric is not None and not math.isfinite(metric)
            yield Point(step, rates, losses, None if diverged else metric, diverged)
            if diverged:
                return
            rates, losses = [], []


class _Explosion:
    """Says when the last three losses lie ``falls`` times the deepest fall, or the scatter, above the start."""

    def __init__(self, falls: float) -> None:
        self.falls = falls
        self.head: list[float] = []
        self.last: list[float] = []
        self.lowest = math.inf

    def after(self, losses: list[float]) -> bool:
        self.head = (self.head + losses)[:8]
        self.last = (self.last + losses)[-3:]
        self.lowest = min(self.lowest, *losses)
        start = median(self.head)
        scale = max(start - self.lowest, max(self.head) - min(self.head), 1e-3 * abs(start))
        return min(self.last) > start + self.falls * scale


def _update(
    task: Task, model: nn.Module, optimizer: Any, scaler: Any, batches: Iterator[Any], device: torch.device
) -> Tensor:
    """One optimizer step over ``task.accumulate`` batches; the mean loss, detached, still on the device."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    for _ in range(task.accumulate):
        with _autocast(task, device):
            loss = task.loss(*task.forward(model, next(batches)))
        scaler.scale(loss / task.accumulate).backward()
        total += loss.detach().float() / task.accumulate
    if task.clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return total


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, device: torch.device, limit: int | None = None) -> float | None:
    """Metric over the first ``limit`` validation examples (None: all); None when the task has no validation data."""
    if task.val is None:
        return None
    _, _, score = task.score
    model.eval()
    try:
        total, weight = torch.zeros((), device=device), 0
        for batch, size in validation_batches(task.val, max(task.batch_size, 256), limit, device, task.collate):
            with _autocast(task, device):
                output, target = task.forward(model, batch)
            total += torch.as_tensor(score(output, target), device=device).float() * size
            weight += size
    finally:
        model.train()
    if weight == 0:
        raise InvalidArgument("val: must hold at least one example, but is empty")
    return total.item() / weight


def _autocast(task: Task, device: torch.device) -> Any:
    if task.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if task.precision == "bf16" else torch.float16)


def curve_of(task: Task, run: Run) -> Curve:
    """Train to the end of ``run`` and return all that it recorded."""
    return Curve.of(train(task, run))


def execute(task: Task, plan: Plan[Result]) -> Result:
    """Carry out a plan here, one run after the other."""
    curves: list[Curve] | None = None  # as for any generator, what is sent first
    while True:
        try:
            runs = plan.send(curves)  # type: ignore[arg-type]
        except StopIteration as stop:
            result: Result = stop.value
            return result
        curves = [curve_of(task, run) for run in runs]
