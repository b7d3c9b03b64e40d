"""A candidate: the schedule that fills a training with whole cycles between two bounds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, floor, isclose
from statistics import fmean
from typing import Any

from clr.errors import InvalidArgument
from clr.run import Run
from clr.schedules.policies import CYCLIC, DECAYING, is_number, schedule

LONGEST_MULTIPLIER = 10.0
"""The paper's longest stepsize, in epochs (section 3.2)."""

SHORTEST_STEPSIZE = 100
"""Steps of half a cycle that need not be fewer, however few an epoch has: where all data are one batch, ten epochs are
ten steps, and no cycle."""

SIGNIFICANT = 4
"""Digits of a proposed rate: finer than any interval, short enough to read out."""

RISE = 0.3
"""Share of a single cycle that rises: over fourteen tasks, each shape at its own best peak, 30 % up and 70 % down ended
0.49 +- 0.18 % of the way from the floor to the best nearer to it than half and half (benchmarks/README.md)."""

EXP_RANGE_DECAY = 0.1
"""What the exp_range policies have decayed to when the training ends: one decade, the paper's own drop at a step."""


def whole_cycles(epochs: float, low: float, high: float) -> range:
    """Numbers k of whole cycles in ``epochs`` whose stepsize multiplier epochs / (2 k) lies in [low, high].

    >>> list(whole_cycles(20, 2, 5))
    [2, 3, 4, 5]
    """
    tiny = 1e-9  # a multiplier that is on the edge but for rounding is inside
    return range(max(1, ceil(epochs / (2 * high) - tiny)), floor(epochs / (2 * low) + tiny) + 1)


def default_multipliers(epochs: float) -> tuple[float, float]:
    """1 to 10 epochs, widened so that one whole cycle always fits.

    >>> default_multipliers(20), default_multipliers(50), default_multipliers(0.5)
    ((1.0, 10.0), (1.0, 25.0), (0.25, 10.0))
    """
    return min(1.0, epochs / 2), max(LONGEST_MULTIPLIER, epochs / 2)


def significant(value: float) -> float:
    """``value`` to the digits in which a rate can be told from its neighbours.

    >>> significant(0.01234567)
    0.01235
    """
    return float(f"{value:.{SIGNIFICANT}g}")


@dataclass(frozen=True)
class Candidate:
    """A schedule for a training: whole cycles of a policy between two bounds.

    Args:
        policy: name in ``clr.POLICIES``.
        base_lr, max_lr: the bounds, per step; ``ratio`` is max_lr / base_lr.
        cycles: whole cycles in the training, >= 1.
        step_size_up, step_size_down: steps of a cycle's rising and falling half, >= 1.
        stepsize: their mean, half a cycle; ``stepsize_multiplier`` the same in epochs.
        rise: share of a cycle that rises, in (0, 1).
        gamma: decay per step, for the exp_range policies.
    """

    policy: str
    base_lr: float
    max_lr: float
    ratio: float
    cycles: int
    step_size_up: int
    step_size_down: int
    stepsize: int
    stepsize_multiplier: float
    rise: float
    gamma: float | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole schedule; it ends where a cycle ends."""
        return 2 * self.cycles * self.stepsize

    def has_shape_of(self, other: "Candidate") -> bool:
        """Whether they differ in their rates alone, but for rounding."""
        shapes = [(one.policy, one.cycles, one.step_size_up, one.step_size_down) for one in (self, other)]
        return shapes[0] == shapes[1] and isclose(self.ratio, other.ratio, rel_tol=0.01)

    def run(self, seed: int) -> Run:
        """The training run that scores this schedule; it has a point at each cycle's end."""
        return Run(
            policy=self.policy,
            base_lr=self.base_lr,
            max_lr=self.max_lr,
            step_size_up=self.step_size_up,
            step_size_down=self.step_size_down,
            steps=self.steps,
            seed=seed,
            evaluate_every=2 * self.stepsize,
            gamma=self.gamma,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TrainingLength:
    """The length of one training.

    Args:
        epochs: > 0, finite.
        iterations_per_epoch: optimizer steps in one pass over the training data, >= 1.

    Raises:
        InvalidArgument: a rule above is broken.
    """

    epochs: float
    iterations_per_epoch: int

    def __post_init__(self) -> None:
        if not is_number(self.epochs) or self.epochs <= 0:
            raise InvalidArgument("epochs", "must be above 0 and finite", self.epochs)
        if self.iterations_per_epoch < 1:
            raise InvalidArgument("iterations_per_epoch", "must be at least 1", self.iterations_per_epoch)

    @property
    def steps(self) -> int:
        """Optimizer steps in the training, >= 2 (one up, one down)."""
        return max(2, round(self.epochs * self.iterations_per_epoch))

    def propose(
        self, max_lr: float, ratio: float, cycles: int, policy: str = "triangular", rise: float | None = None
    ) -> Candidate:
        """The schedule of ``cycles`` whole cycles that fills the training to within 2 * cycles steps.

        A cycle takes at least two steps, so there are at most half as many cycles as steps. ``rise`` is the share of a
        cycle that rises; None: ``RISE`` for a single cycle, else half.

        >>> candidate = TrainingLength(epochs=20, iterations_per_epoch=500).propose(max_lr=0.006, ratio=6, cycles=5)
        >>> candidate.base_lr, candidate.stepsize, candidate.stepsize_multiplier, candidate.steps
        (0.001, 1000, 2.0, 10000)
        """
        cycles = min(cycles, self.steps // 2)
        stepsize = self.steps // (2 * cycles)
        if rise is None:
            rise = RISE if cycles == 1 else 0.5
        up = min(max(1, round(2 * stepsize * rise)), 2 * stepsize - 1)
        base_lr, max_lr = significant(max_lr / ratio), significant(max_lr)
        return Candidate(
            policy=policy,
            base_lr=base_lr,
            max_lr=max_lr,
            ratio=significant(max_lr / base_lr),
            cycles=cycles,
            step_size_up=up,
            step_size_down=2 * stepsize - up,
            stepsize=stepsize,
            stepsize_multiplier=significant(stepsize / self.iterations_per_epoch),
            rise=rise,
            gamma=EXP_RANGE_DECAY ** (1 / self.steps) if policy in DECAYING else None,
        )

    def stretch(self, candidate: Candidate) -> Candidate:
        """A candidate made for another length, filling this one: its stepsize as near as whole cycles allow.

        >>> found = TrainingLength(epochs=5, iterations_per_epoch=500).propose(max_lr=0.006, ratio=6, cycles=1)
        >>> stretched = TrainingLength(epochs=20, iterations_per_epoch=500).stretch(found)
        >>> stretched.cycles, stretched.stepsize == found.stepsize
        (4, True)
        """
        if candidate.steps <= self.steps < candidate.steps + 2 * candidate.cycles:
            return candidate
        cycles = max(1, round(self.steps / (2 * candidate.stepsize)))
        ratio = candidate.max_lr / candidate.base_lr
        return self.propose(candidate.max_lr, ratio, cycles, candidate.policy, candidate.rise)

    @property
    def fewest_cycles(self) -> int:
        """As few whole cycles as keep the stepsize within the paper's ten epochs, or a hundred steps."""
        longest = max(LONGEST_MULTIPLIER, SHORTEST_STEPSIZE / self.iterations_per_epoch)
        return whole_cycles(self.epochs, default_multipliers(self.epochs)[0], longest)[0]


def way_of(run: Run, steps: int) -> float:
    """How far ``run`` goes in its first steps: the sum of their rates, read off a thousand where there are more.

    Args:
        steps: >= 1.
    """
    rate, each = rate_of(run), max(1, steps // 1000)
    return steps * fmean(map(rate, range(each // 2, steps, each)))


def rate_of(run: Run) -> Callable[[int], float]:
    """The rate of each step of ``run``, counted from 0.

    Raises:
        InvalidArgument: its policy and bounds do not go together; see ``schedule``.
    """
    up, down = run.step_size_up, run.step_size_down
    if run.policy not in CYCLIC and down is not None:
        up, down = (up + down) // 2, None
    return schedule(
        run.policy, base_lr=run.base_lr, max_lr=run.max_lr, stepsize=up, stepsize_down=down, gamma=run.gamma
    )
