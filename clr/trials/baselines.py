"""What a cyclical schedule is compared with: the field's usual alternatives, each at its own best rate."""

from dataclasses import dataclass

from clr.run import Run
from clr.schedules.cycles import TrainingLength, significant


@dataclass(frozen=True)
class Baseline:
    """An alternative to a cyclical schedule.

    Args:
        policy: name in ``clr.POLICIES``.
        start: initial rate as a share of the largest.
        octaves: where its best peak lies above that of our cycle, as a power of two: medians over fourteen tasks where
            they were measured (benchmarks/README.md); a basin of good rates is 1.8 octaves wide.
        rate: the one rate it is meant to be used at, instead.
        optimizer: instead of the task's own; see ``clr.training.optimizers``.
        points, patience: evaluations in the whole training, and how many of them in a row without an improvement make
            the rate fall to a tenth (torch's ``ReduceLROnPlateau``).
    """

    policy: str = "fixed"
    start: float = 1.0
    octaves: float = 0.0
    rate: float | None = None
    optimizer: str | None = None
    points: int = 1
    patience: int | None = None

    def best_rate(self, max_lr: float) -> float:
        """Where it does best, by what is known of it, if our cycle does at ``max_lr``."""
        return self.rate or significant(max_lr * 2.0**self.octaves)

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
    "fixed": Baseline(octaves=-1.3),
    "one_cycle": Baseline("one_cycle", start=1 / 25, octaves=0.0),  # torch's OneCycleLR
    "cosine": Baseline("cosine", start=0.0, octaves=-0.1),
    "reduce_on_plateau": Baseline(points=20, patience=2, octaves=-1.0),
    # averaging stands in for the descent, and wants a rate well above one that is lowered (Defazio et al., 2405.15682)
    "schedule_free": Baseline(optimizer="schedule_free", octaves=2.0),
    "prodigy": Baseline(rate=1.0, optimizer="prodigy"),
}
"""By the name in a job's ``confirm.baselines``."""

USUAL_BASELINES = ("fixed", "one_cycle", "cosine")
"""What a schedule is compared with where nobody names others, as far as the budget goes."""

_LINES = {
    "fixed": "{setting}",
    "one_cycle": "scheduler = torch.optim.lr_scheduler.OneCycleLR(\n    optimizer, max_lr={lr!r}, total_steps={steps}, "
    "pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=False\n)\n",
    "cosine": "{setting}scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max={steps})\n",
    "reduce_on_plateau": "{setting}scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)"
    "  # step(metric), {points} times in all\n",
    "schedule_free": "# pip install schedulefree: AdamWScheduleFree or SGDScheduleFree, lr={lr!r}, and no scheduler\n",
    "prodigy": "# pip install prodigyopt: prodigyopt.Prodigy(parameters, lr={lr!r}), and no scheduler\n",
}


_SETTING = 'for group in optimizer.param_groups:\n    group["lr"] = {lr!r}\n'
_SETTING_EACH = 'for group, lr in zip(optimizer.param_groups, {lr!r}):\n    group["lr"] = lr\n'


def did_better(name: str, lr: float) -> str:
    """How the warning begins that a baseline did clearly better than what is recommended.

    Args:
        name: of the baseline.
        lr: its highest rate.
    """
    return f"{name} at {lr:.3g} did better by "


def lines(name: str, lr: float | list[float], steps: int) -> str:
    """Lines to paste that train by a baseline.

    Args:
        name: of the baseline.
        lr: its highest rate; a list gives one for each parameter group.
        steps: of the whole training.
    """
    lr = BASELINES[name].rate or lr
    setting = (_SETTING_EACH if isinstance(lr, list) else _SETTING).format(lr=lr)
    made = _LINES[name].format(lr=lr, steps=steps, points=BASELINES[name].points, setting=setting)
    return made if made.startswith(("#", "for")) and "torch." not in made else f"import torch\n\n{made}"
