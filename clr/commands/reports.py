"""What a program reports, line by line, as the points of its run."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from clr.errors import BrokenProgram
from clr.run import Point, Run
from clr.schedules.cycles import rate_of
from clr.schedules.policies import is_number
from clr.training.divergence import Explosion

LONGEST_LINE = 10_000
"""Bytes; a report of four numbers has a hundredth of that."""

SHOWN = 200
"""Bytes of a line that an error shows."""

SAME_LR = 0.01
"""A reported rate may differ from the run's by this share: a program may round it to three digits."""

STEADY = 8
"""A loss that stands for so many steps or more has lasted, as far as an explosion goes."""

_NOT_FINITE = re.compile(rb":\s*[-+]?(?:nan|inf(?:inity)?)\b", re.IGNORECASE)
"""What C, awk and their like print for a number that is not finite; JSON has no word for it."""


class Reports:
    """Makes the points of one run of the lines that its program wrote.

    A line is a JSON object with ``step``, the optimizer steps taken so far, counted from 1 (or from 0, where the first
    line says 0); ``loss``, which stands for all steps since the line before; ``metric`` where it was taken, in the
    same line or in a later one of the same step; and ``lr`` if it likes.

    Args:
        run: what the program was started for.
    """

    def __init__(self, run: Run) -> None:
        self.run, self._rate = run, rate_of(run)
        self._explosion = None if run.explode is None else Explosion(run.explode)
        self._lines, self._line = 0, b""
        self._from: int | None = None
        self.step, self.diverged = 0, False
        self.measured = 0
        """The last step that has a metric."""
        self._stride = 1
        """Steps that each loss since the last point stands for: equally many, as a point has it."""
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._metric: float | None = None

    def take(self, line: bytes) -> Iterator[Point]:
        """Read a line; the point that it completes, if it does. Once ``diverged``, nothing is read any more.

        Raises:
            BrokenProgram: it is no report, or none that may come now.
        """
        if self.diverged:
            return
        self._lines, self._line = self._lines + 1, line
        report = self._parsed()
        step, loss, metric = self._step(report), self._value(report, "loss"), self._value(report, "metric")
        self._check_lr(report, step)
        if step > self.step:
            if loss is None:
                raise self._invalid("the first line of a step must have its loss")
            if self._metric is not None or step - self.step != self._stride:
                yield from self.due()
            self._advance(step, loss)
        elif loss is not None:
            raise self._invalid(f"steps must rise, but {self.step} was told already")
        if metric is not None:
            self._measure(metric)
        if self.diverged:
            yield from self.due()

    def due(self) -> Iterator[Point]:
        """A point of all that came since the last, if anything did."""
        if self._losses or self._metric is not None or self.diverged:
            metric = None if self.diverged else self._metric
            yield Point(self.step, self._rates, self._losses, metric, self.diverged)
            self._rates, self._losses, self._metric = [], [], None

    @property
    def is_whole(self) -> bool:
        """Whether the run was reported to its end."""
        return self.diverged or self.step == self.run.steps

    def _parsed(self) -> dict[str, Any]:
        try:
            report = json.loads(_NOT_FINITE.sub(b": NaN", self._line))
        except (ValueError, RecursionError):
            report = None
        if not isinstance(report, dict):
            raise self._invalid('must be a JSON object such as {"step": 1, "loss": 0.5}')
        return report

    def _step(self, report: dict[str, Any]) -> int:
        step = report.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise self._invalid("step must be a whole number, the optimizer steps taken so far")
        if self._from is None:
            self._from = 0 if step == 0 else 1
        step += 1 - self._from
        if step < max(1, self.step):
            raise self._invalid(f"steps must rise, but {self.step} was told before")
        if step > self.run.steps:
            raise self._invalid(f"the run has {self.run.steps} steps: train for the steps that CLR_RUN says")
        return step

    def _value(self, report: dict[str, Any], name: str) -> float | None:
        """A number, NaN for null; None where there is none."""
        if name not in report:
            return None
        value = report[name]
        if value is None:
            return math.nan if name == "loss" else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._invalid(f"{name} must be a number")
        return float(value)

    def _check_lr(self, report: dict[str, Any], step: int) -> None:
        """A program that tells its rate must have trained at the run's: else every result would be of another run."""
        if report.get("lr") is None:
            return
        lr, expected = report["lr"], [self._rate(step - 1), self._rate(step)]  # of the step, or already of the next
        if not (is_number(lr) and any(abs(lr - rate) <= SAME_LR * rate for rate in expected)):
            raise self._invalid(f"lr must be the run's, {expected[0]:g} at this step; report one without a multiplier")

    def _advance(self, step: int, loss: float) -> None:
        self._rates.append(self._rate(step - 1))
        self._losses.append(loss)
        self._stride, self.step = step - self.step, step
        steady = [loss] * min(self._stride, STEADY)
        exploded = self._explosion is not None and math.isfinite(loss) and self._explosion.after(steady)
        self.diverged = not math.isfinite(loss) or exploded

    def _measure(self, metric: float) -> None:
        if self.measured == self.step:
            raise self._invalid(f"the metric after {self.step} steps was told already")
        if self.step == 0:
            raise self._invalid("a metric must follow the loss of its step")
        self._metric, self.measured = metric, self.step
        self.diverged = self.diverged or not math.isfinite(metric)

    def _invalid(self, rule: str) -> BrokenProgram:
        cut = f"... ({len(self._line)} bytes)" if len(self._line) > SHOWN else ""
        return BrokenProgram(f"CLR_POINTS, line {self._lines}: {rule}, but got {self._line[:SHOWN]!r}{cut}")
