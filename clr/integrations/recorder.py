"""One run of a range test whose steps a framework's own trainer makes."""

import math
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.run import Curve, Point, Run
from clr.schedules.cycles import rate_of
from clr.schedules.torch_scheduler import multipliers
from clr.training.divergence import Explosion
from clr.training.network import check_holds
from clr.training.optimizers import described


class Recorder:
    """Sets the rates of a run and keeps its losses.

    Args:
        run: whose optimizer and patience are the framework's: None.
        metric: the validation loss as the model is now; None: there are no validation data.

    ``optimizer`` tells what the steps were made with, once one was.
    """

    def __init__(self, run: Run, metric: Callable[[], float | None] | None = None) -> None:
        self.run, self.metric = run, metric
        self.ended = False
        self._rate = rate_of(run)
        self._explosion = None if run.explode is None else Explosion(run.explode)
        self.optimizer: dict[str, Any] | None = None
        self._multipliers: list[float] = []
        self._points: list[Point] = []
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._step, self._without_loss = 0, 0

    def set_rates(self, optimizer: Optimizer, network: nn.Module) -> None:
        """Before a step.

        Raises:
            InvalidArgument: the optimizer trains another network.
        """
        if not self._multipliers:
            self._multipliers = multipliers(optimizer.param_groups)
            plain = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
            whole = isinstance(plain, Optimizer) and not (dist.is_available() and dist.is_initialized())
            if whole:  # else parameters may lie flat, or in other processes
                check_holds(plain, network)
            self.optimizer = described(plain, network if whole else None, self._multipliers)
        lr = self._rate(self._step)
        for group, factor in zip(optimizer.param_groups, self._multipliers, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr * factor)
            else:
                group["lr"] = lr * factor

    def keep(self, loss: float | None) -> None:
        """After a step. One that had no loss is taken to have had its neighbour's."""
        self._rates.append(self._rate(self._step))
        self._step += 1
        if loss is None and not self._losses and not self._points:
            self._without_loss += 1
        else:
            before = [loss] * self._without_loss if loss is not None else []
            now = loss if loss is not None else (self._losses or self._points[-1].loss)[-1]
            self._without_loss = 0
            self._read([*before, now])
        if self._step == self.run.steps:
            self.ended = True

    def _read(self, losses: list[float]) -> None:
        self._losses += losses
        finite = math.isfinite(losses[-1])
        if not finite or (self._explosion is not None and self._explosion.after(losses)):
            self._point(None, diverged=True)
        elif self._step % self.run.evaluate_every == 0 or self._step == self.run.steps:
            metric = self.metric() if self.metric is not None else None
            diverged = metric is not None and not math.isfinite(metric)
            self._point(None if diverged else metric, diverged)

    def _point(self, metric: float | None, diverged: bool) -> None:
        self._points.append(Point(self._step, self._rates, self._losses, metric, diverged))
        self._rates, self._losses = [], []
        self.ended = self.ended or diverged

    @property
    def curve(self) -> Curve:
        """All that was recorded."""
        return Curve.of(self._points)
