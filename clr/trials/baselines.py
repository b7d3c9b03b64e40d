"""What a cyclical schedule is compared with: the field's usual alternatives, each at its own best rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from clr.run import Run
from clr.schedules.cycles import TrainingLength

SHARES = (1.0, 0.5, 0.25)
"""Of our max_lr, where a baseline's own best rate is looked for: a fixed rate has no descent to settle in, and prefers
at most what a cycle may peak at; the paper's rule of thumb puts it within a factor of four."""


@dataclass(frozen=True)
class Baseline:
    """An alternative to a cyclical schedule.

    Args:
        policy: name in ``clr.POLICIES``.
        start: initial rate as a share of the largest.
        shares: of our max_lr, to be tried on one seed.
        rate: the one rate it is meant to be used at, instead of ``shares``.
        optimizer: instead of the task's own; see ``clr.training.optimizers``.
        points, patience: evaluations in the whole training, and how many of them in a row without an improvement make
            the rate fall to a tenth (torch's ``ReduceLROnPlateau``).
    """

    policy: str = "fixed"
    start: float = 1.0
    shares: tuple[float, ...] = SHARES
    rate: float | None = None
    optimizer: str | None = None
    points: int = 1
    patience: int | None = None

    def rates(self, max_lr: float) -> Sequence[float]:
        """Where its own best rate is looked for."""
        return [max_lr * share for share in self.shares] if self.rate is None else [self.rate]

    @property
    def probes(self) -> int:
        """Trainings that it takes to find its own best rate."""
        return len(self.shares) if self.rate is None else 0

    def run(self, lr: float, length: TrainingLength, seed: int) -> Run:
        """A run over the whole training, at most at ``lr``."""
        steps = 2 * (length.steps // 2)
        return Run(
            policy=self.policy,
            base_lr=lr * self.start,
            max_lr=lr,
            step_size_up=steps // 2,
            steps=steps,
            seed=seed,
            evaluate_every=max(1, steps // self.points),
            optimizer=self.optimizer,
            patience=self.patience,
        )


BASELINES = {
    "fixed": Baseline(),
    "one_cycle": Baseline("one_cycle", start=1 / 25),  # torch's OneCycleLR
    "cosine": Baseline("cosine", start=0.0),
    "reduce_on_plateau": Baseline(points=20, patience=2),
    # averaging stands in for the descent, and wants a rate well above one that is lowered (Defazio et al., 2405.15682)
    "schedule_free": Baseline(shares=(1.0, 4.0, 16.0), optimizer="schedule_free"),
    "prodigy": Baseline(rate=1.0, optimizer="prodigy"),
}
"""By the name in a job's ``confirm.baselines``."""

USUAL_BASELINES = ("fixed", "one_cycle", "cosine")
"""What a schedule is compared with where nobody names others."""
