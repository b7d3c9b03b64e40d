"""The schedules that a search may try at any rate: what its ranges hold, for trainings of one length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import Candidate, TrainingLength, default_multipliers, whole_cycles
from clr.spec import SearchSpec

Range = tuple[float, float]


@dataclass(frozen=True)
class SearchSpace:
    """Ranges of what makes a schedule, but for its rate.

    Args:
        length: of a training.
        multipliers, ratio, rise: lowest and highest.
        policies: at least one.
    """

    length: TrainingLength
    multipliers: Range
    ratio: Range
    rise: Range
    policies: list[Any]

    @classmethod
    def of(cls, spec: SearchSpec, length: TrainingLength, epochs: float | None = None) -> Self:
        """What a search allows.

        Args:
            spec: its ranges.
            length: of a training.
            epochs: of the trainings that the multipliers are meant for; a shorter one has as many cycles as those.
        """
        low, high = spec.stepsize_multiplier or default_multipliers(length.epochs)
        share = min(1.0, length.epochs / (epochs or length.epochs))
        return cls(length, (share * low, share * high), spec.ratio, spec.rise, spec.policies)

    @property
    def cycles(self) -> range:
        """Numbers of whole cycles; empty where the multipliers hold none."""
        return whole_cycles(self.length.epochs, *self.multipliers)

    def own(self, bounds: Bounds) -> Candidate | None:
        """The range test's own schedule, as near as the ranges allow; None where it is inconclusive."""
        return None if bounds.max_lr is None else self.length.propose(**self.own_params(bounds))

    def own_params(self, bounds: Bounds) -> dict[str, Any]:
        """The same by its parameters: max_lr, ratio, cycles, rise and policy."""
        own = bounds.candidate(self.length)
        assert own is not None
        assert bounds.max_lr is not None
        assert bounds.base_lr is not None
        policy = own.policy if own.policy in self.policies else self.policies[0]
        shape = {"ratio": bounds.max_lr / bounds.base_lr, "cycles": own.cycles, "rise": own.rise}
        return {"max_lr": bounds.max_lr} | self.within(shape) | {"policy": policy}

    def within(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters moved into their ranges."""
        nearest = max(1, round(self.length.epochs / sum(self.multipliers)))
        cycles = self.cycles or range(nearest, nearest + 1)
        ranges = {"ratio": self.ratio, "rise": self.rise, "cycles": (cycles[0], cycles[-1])}
        clipped = {name: min(max(params[name], low), high) for name, (low, high) in ranges.items() if name in params}
        return dict(params) | clipped

    def nearest(self, multiplier: float) -> int:
        """The number of cycles whose stepsize multiplier is nearest: one of the two around the exact quotient."""
        below = int(self.length.epochs / (2 * multiplier))
        within = (min(max(k, self.cycles[0]), self.cycles[-1]) for k in (below, below + 1))
        return min(within, key=lambda k: abs(self.length.epochs / (2 * k) - multiplier))
