"""The search: Optuna over max_lr, the ratio max_lr / base_lr and the number of whole cycles, at equal steps."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.run import Direction, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength, default_multipliers, whole_cycles
from clr.spec import JobSpec, SearchSpec
from clr.trials.pruning import falls_behind

if TYPE_CHECKING:  # imported where it is used: a range test does without Optuna
    import optuna

PAPER = ((4.0, 8.0), (3.0, 2.0), (6.0, 4.0), (1.5, 6.0))
"""(ratio, stepsize multiplier) pairs the paper trained with or recommends (sections 3.2, 3.3, 4): among the first."""

PAPER_SHARE = 1 / 4
"""Share of the trials that the paper's settings may take: they repeat one max_lr, and few trials have better uses."""

MARGIN = 2.0
"""max_lr is searched this factor around its reading: the optimum is usually within a factor of two of the largest
rate that converges (section 3.3)."""

EARLIER = ("job_id", "policy", "max_lr", "ratio", "stepsize_multiplier")
"""What a warm start takes from an earlier recommendation, and the study keeps as its attribute ``warm_start``."""


class Search:
    """Asks an Optuna study for schedules and tells it how they fared. Every trial has the steps of ``length``.

    Args:
        study: an Optuna study in the metric's direction, new or taken up again.
        spec: ranges of ratio and multiplier, and the policies.
        bounds: conclusive bounds of the range test.
        length: of a trial.
        earlier: recommendations for the same task, as documents, to try first, at rates outside the bounds too. A
            study keeps those that it began with.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: SearchSpec,
        bounds: Bounds,
        length: TrainingLength,
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        if bounds.max_lr is None or bounds.interval is None:
            raise InvalidArgument("bounds.max_lr", "must be known to search around it", None)
        self.study, self.spec, self.length = study, spec, length
        low, high = bounds.interval["max_lr"]
        self.max_lr = (min(low, bounds.max_lr / MARGIN), max(high, bounds.max_lr * MARGIN))
        low, high = spec.stepsize_multiplier or default_multipliers(length.epochs)
        self.cycles = whole_cycles(length.epochs, low, high)
        if not self.cycles:
            raise InvalidArgument(
                "stepsize_multiplier",
                f"must hold {length.epochs:g} epochs / (2 k) for some whole number of cycles k",
                [low, high],
            )
        first = self._first(bounds)
        self.earlier = self._begun_with(earlier)
        rates = [*self.max_lr, *(one["max_lr"] for one in self.earlier)]
        self.max_lr = (min(rates), max(rates))
        for params in [*self._warm(), *first]:
            study.enqueue_trial(params, skip_if_exists=True)

    def _begun_with(self, earlier: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The recommendations that the study was begun with, whatever has been found since."""
        kept: list[dict[str, Any]] | None = self.study.user_attrs.get("warm_start")
        if kept is None and self.spec.warm_start:
            kept = [{name: one[name] for name in EARLIER} for one in earlier if one["policy"] in self.spec.policies]
            self.study.set_user_attr("warm_start", kept)
        return kept or []

    @property
    def reasons(self) -> list[str]:
        """What a recommendation says of how the search began."""
        ids = ", ".join(one["job_id"] for one in self.earlier)
        return [f"the search began with what earlier jobs recommended: {ids}"] if ids else []

    def _warm(self) -> list[dict[str, Any]]:
        """Earlier recommendations, their ratio and stepsize as near as this search's ranges allow."""
        low, high = self.spec.ratio
        return [
            {
                "max_lr": one["max_lr"],
                "ratio": min(max(one["ratio"], low), high),
                "cycles": self._nearest(one["stepsize_multiplier"]),
                "policy": one["policy"],
            }
            for one in self.earlier
        ]

    def _first(self, bounds: Bounds) -> list[dict[str, Any]]:
        """The range test's own schedule, the same at twice the rate, and the paper's, as far as the ranges allow.

        Twice the rate, because short proofs err low rather than high, and a factor of two is the paper's rule of thumb
        (section 3.3).
        """
        low, high = self.spec.ratio
        assert bounds.max_lr is not None
        assert bounds.base_lr is not None
        own = (bounds.max_lr / bounds.base_lr, self.length.epochs / (2 * self.length.fewest_cycles))
        schedules = [(bounds.max_lr, own), (self.max_lr[1], own)]
        schedules += [(bounds.max_lr, pair) for pair in PAPER[: int(PAPER_SHARE * (self.spec.trials or 20))]]
        return [
            {"max_lr": max_lr, "ratio": min(max(ratio, low), high), "cycles": self._nearest(multiplier)}
            for max_lr, (ratio, multiplier) in schedules
        ]

    def _nearest(self, multiplier: float) -> int:
        """The number of cycles whose stepsize multiplier is nearest: one of the two around the exact quotient."""
        below = int(self.length.epochs / (2 * multiplier))
        within = (min(max(k, self.cycles[0]), self.cycles[-1]) for k in (below, below + 1))
        return min(within, key=lambda k: abs(self.length.epochs / (2 * k) - multiplier))

    def ask(self) -> tuple[int, Candidate]:
        """Number and schedule of the next trial."""
        trial = self.study.ask()
        candidate = self.length.propose(
            max_lr=trial.suggest_float("max_lr", *self.max_lr, log=True),
            ratio=trial.suggest_float("ratio", *self.spec.ratio, log=True),
            cycles=trial.suggest_int("cycles", self.cycles[0], self.cycles[-1], log=True),
            policy=trial.suggest_categorical("policy", self.spec.policies),
        )
        for name, value in (candidate.to_dict() | {"steps": candidate.steps}).items():
            if name not in trial.params:
                trial.set_user_attr(name, value)
        return trial.number, candidate

    def tell(self, number: int, value: float | None) -> None:
        """Tell what trial ``number`` ended at; as the function ``tell``."""
        tell(self.study, number, value)

    def should_prune(self, number: int, points: Sequence[tuple[int, float]]) -> bool:
        """Whether trial ``number`` is worth no more steps; shown in the study at the ends of its cycles.

        Args:
            number: of a trial that is under way.
            points: (steps taken, value) so far, in order; those within a cycle are left out.
        """
        trials = self.study.get_trials(deepcopy=False)
        asked = trials[number]
        cycle = 2 * asked.user_attrs["stepsize"]
        ends = [(step, value) for step, value in points if step % cycle == 0]
        for step, value in ends:
            _report(self.study, asked, step, value)
        others = [self._shares(trial) for trial in trials if trial.number != number]
        return falls_behind(self._signed(asked, ends), others)

    def _shares(self, trial: optuna.trial.FrozenTrial) -> list[tuple[float, float]]:
        return self._signed(trial, sorted(trial.intermediate_values.items()))

    def _signed(self, trial: optuna.trial.FrozenTrial, ends: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
        """Steps as shares of the trial, and values so that larger is better."""
        sign = 1 if self.study.direction.name == "MAXIMIZE" else -1
        return [(step / trial.user_attrs["steps"], sign * value) for step, value in ends]

    def forget_all_but(self, numbers: Container[int]) -> None:
        """Fail the trials that were asked for and, by an accident, neither told nor in ``numbers``; ask them again."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in numbers:
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params)

    def close(self) -> None:
        """Fail the trials that will not be told any more, so that the study shows none as running."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)


def tell(study: optuna.Study, number: int, value: float | None) -> None:
    """Tell a study what trial ``number`` ended at; None: it diverged or was pruned.

    Telling a finished trial again changes nothing.
    """
    from optuna.trial import TrialState

    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    trial = study.get_trials(deepcopy=False)[number]
    if value is not None and not trial.state.is_finished():
        _report(study, trial, trial.user_attrs["steps"], value)
    study.tell(number, value, state=state, skip_if_finished=True)


def _report(study: optuna.Study, trial: optuna.trial.FrozenTrial, step: int, value: float) -> None:
    """Show a value in the study. ``Trial.report`` would warn where another process showed it at this moment."""
    if step not in trial.intermediate_values:
        study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def create_study(
    storage: optuna.storages.BaseStorage | None, name: str | None, direction: Direction, seed: int
) -> optuna.Study:
    """The study of that name, new or taken up again; a sampler that goes on never repeats its first draws."""
    import optuna

    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    return study


def label_study(study: optuna.Study, spec: JobSpec, metric: str | None) -> None:
    """Show in the study what it is of, and what its values are; once."""
    about = {
        "name": spec.name,
        "task": spec.task,
        "optimizer": None if spec.optimizer is None else spec.optimizer.name,
        "epochs": spec.epochs,
        "seed": fresh_seeds(spec.seed, "search", 1)[0],
    }
    for name, value in about.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)
    if metric is not None and study.metric_names != [metric]:
        with warnings.catch_warnings(action="ignore"):  # it is experimental
            study.set_metric_names([metric])


def best(values: Iterable[tuple[float | None, Candidate]], direction: Direction) -> Candidate | None:
    """The schedule with the best value; None when every trial diverged."""
    sign = 1 if direction == "maximize" else -1
    scored = [(sign * value, candidate) for value, candidate in values if value is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


@dataclass(frozen=True)
class SearchResult:
    """What a search found: the best schedule, every trial as (schedule, value), the steps taken, the Optuna study.

    The value is None where a trial diverged or was pruned.
    """

    best: Candidate | None
    trials: list[tuple[Candidate, float | None]]
    steps: int
    study: optuna.Study
