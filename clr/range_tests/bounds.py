"""Bounds: base_lr and max_lr with intervals, or why there are none."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from clr.schedules.cycles import Candidate, TrainingLength

Confidence = Literal["high", "medium", "low", "inconclusive"]
Interval = tuple[float, float]

RATIO = 10.0
"""max_lr / base_lr read from a loss: one triangle over the whole budget does equally well from 6 to 20."""


@dataclass(frozen=True)
class Bounds:
    """What a range test says.

    Args:
        base_lr, max_lr: the bounds, per step; None when inconclusive.
        interval: name -> (low, high); None when inconclusive.
        confidence: how far the repetitions and the curves' shapes agree.
        reasons: why, in plain words.
    """

    base_lr: float | None
    max_lr: float | None
    interval: dict[str, Interval] | None
    confidence: Confidence
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def inconclusive(cls, *reasons: str) -> "Bounds":
        """No bounds, and why."""
        return cls(None, None, None, "inconclusive", list(reasons))

    def noting(self, *reasons: str) -> "Bounds":
        """The same, and further reasons."""
        return replace(self, reasons=[*self.reasons, *reasons])

    def candidate(self, length: TrainingLength) -> Candidate | None:
        """What the range test alone recommends for a training of ``length``; None when it is inconclusive."""
        if self.max_lr is None or self.base_lr is None:
            return None
        return length.propose(self.max_lr, self.max_lr / self.base_lr, length.fewest_cycles)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)
