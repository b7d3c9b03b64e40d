"""What passes between a session and whoever trains for it: what is trained, orders of runs, and runs as told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clr.run import ConstantOutput, Curve, Direction, Point, Run
from clr.schedules.cycles import TrainingLength

Stage = Literal["range_test", "search", "confirm"]
RunState = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Training:
    """What is trained, as far as a session must know.

    Args:
        length: of one training.
        metric: name of what a run is judged by.
        direction: whether larger values of it are better.
        optimizer: name and arguments of the optimizer trained with, where known, and the ``lr_mult`` of its groups.
        batch_size: examples per batch, where known.
        constant: what the best constant output does, where known.
        remarks: what people should know of it, in sentences.
    """

    length: TrainingLength
    metric: str
    direction: Direction
    optimizer: dict[str, Any] | None = None
    batch_size: int | None = None
    constant: ConstantOutput | None = None
    remarks: Sequence[str] = ()

    @classmethod
    def of(cls, length: TrainingLength, metric: str, direction: Direction, told: Mapping[str, Any]) -> "Training":
        """From what a task is trained with, as JSON values; see ``clr.tasks.reference.inspect_task``."""
        used = {name: told[name] for name in ("optimizer", "batch_size", "remarks") if told.get(name) is not None}
        constant = ConstantOutput(**told["constant"]) if told.get("constant") else None
        return cls(length, metric, direction, constant=constant, **used)


@dataclass(frozen=True)
class Order:
    """A run to train: its stage, its number within it, the run, and what people read of it."""

    stage: Stage
    number: int
    run: Run
    params: dict[str, Any] = field(compare=False)


class Waiting:
    """There is nothing to train until a run that is under way has ended."""


@dataclass(frozen=True)
class Over:
    """There is nothing more to train, and why."""

    reason: str


@dataclass(frozen=True)
class Advice:
    """Whether to stop a run that is under way, and why."""

    stop: bool
    reason: str | None = None


@dataclass(frozen=True)
class ToldRun:
    """A run as it was recorded: what was ordered, and what came of it.

    Args:
        order: as the session gave it.
        state: running, or how it ended.
        points: all that its last attempt recorded.
        value: what it was judged by; None: it diverged, was pruned or failed.
        repeated: optimizer steps of attempts before the last, which were trained anew.
    """

    order: Order
    state: RunState
    points: Sequence[Point]
    value: float | None
    repeated: int = 0

    @property
    def curve(self) -> Curve:
        """Its points joined."""
        return Curve.of(self.points)

    @property
    def steps(self) -> int:
        """Optimizer steps of its last attempt."""
        whole = self.order.run.steps if self.state == "complete" and self.value is not None else 0
        return max(whole, self.points[-1].step if self.points else 0)
