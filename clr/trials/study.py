"""The study: schedules asked of Optuna over max_lr, ratio, whole cycles and rise; a trial for each run of a search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.run import Direction
from clr.schedules.cycles import Candidate
from clr.trials.pruning import falls_behind
from clr.trials.space import SearchSpace

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

Attributes = Mapping[str, Any]


class Study:
    """Optuna's view of a search: what to try next, and how each run fared. It lives in memory and does no I/O.

    One trial for each run, under the run's own number, whoever asked for it; ``StudyMirror`` shows it in a store.

    Args:
        space: what is searched.
        bounds: conclusive bounds of the range test.
        direction: whether larger values are better.
        seed: of the sampler.
        earlier: recommendations for the same task, as documents, to try first, at rates outside the bounds too.
        highest: no rate above it is tried; None: there is no such limit.

    Raises:
        InvalidArgument: the bounds are inconclusive, or no whole number of cycles lies in the range of multipliers.
    """

    def __init__(
        self,
        space: SearchSpace,
        bounds: Bounds,
        direction: Direction,
        seed: int,
        earlier: Iterable[Attributes] = (),
        highest: float | None = None,
    ) -> None:
        import optuna

        if bounds.max_lr is None or bounds.interval is None:
            raise InvalidArgument("bounds", "must be conclusive to search around them", bounds.confidence)
        self.space, self.direction, self.bounds = space, direction, bounds
        if not space.cycles:
            rule = f"must hold {space.length.epochs:g} epochs / (2 k) for some whole number of cycles k"
            raise InvalidArgument("search.stepsize_multiplier", rule, list(space.multipliers))
        self.earlier = [{name: one[name] for name in EARLIER} for one in earlier if one["policy"] in space.policies]
        low, high = bounds.interval["max_lr"]
        rates = [low, high, bounds.max_lr / MARGIN, bounds.max_lr * MARGIN, *(one["max_lr"] for one in self.earlier)]
        limit = highest or math.inf
        self.max_lr = (min(*rates, limit), min(max(rates), limit))
        with _quiet():
            self.optuna = optuna.create_study(direction=direction)
        self._seed = seed
        self._asked: dict[int, optuna.Trial] = {}
        self._first: list[dict[str, Any]] = []

    def _sampler(self) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=self._seed + len(self.optuna.get_trials(deepcopy=False)))

    @property
    def reasons(self) -> list[str]:
        """What a recommendation says of how the search began."""
        ids = ", ".join(one["job_id"] for one in self.earlier)
        return [f"the search began with what earlier jobs recommended: {ids}"] if ids else []

    def begin(self, trials: int) -> None:
        """Line up what is tried first: earlier recommendations, the range test's own, twice its rate, the paper's.

        Twice the rate, because short proofs err low rather than high, and a factor of two is the paper's rule of thumb
        (section 3.3).

        Args:
            trials: how many there will be, of which the paper's take a share.
        """
        assert self.bounds.max_lr is not None
        own = self.space.own_params(self.bounds)
        schedules = [own, own | {"max_lr": min(MARGIN * self.bounds.max_lr, self.max_lr[1])}]
        for ratio, multiplier in PAPER[: int(PAPER_SHARE * trials)]:
            schedules.append({"max_lr": self.bounds.max_lr, "ratio": ratio, "cycles": self.space.nearest(multiplier)})
        wanted = [self._within(params) for params in [*self._warm(), *schedules]]
        self._first = [params for at, params in enumerate(wanted) if params not in wanted[:at]]

    def _warm(self) -> list[dict[str, Any]]:
        """Earlier recommendations, their ratio and stepsize as near as this search's ranges allow."""
        kept = ("max_lr", "ratio", "policy")
        nearest = [self.space.nearest(one["stepsize_multiplier"]) for one in self.earlier]
        return [
            {name: one[name] for name in kept} | {"cycles": cycles}
            for one, cycles in zip(self.earlier, nearest, strict=True)
        ]

    def _within(self, params: Mapping[str, Any]) -> dict[str, Any]:
        low, high = self.max_lr
        return self.space.within(params) | {"max_lr": min(max(params["max_lr"], low), high)}

    def ask(self, params: Mapping[str, Any] | None = None, /, **attributes: Any) -> tuple[int, Candidate]:
        """Number and schedule of the next trial.

        Args:
            params: a schedule that is to be tried, or was and is told again; None: the next that ``begin`` lined up,
                then Optuna chooses.
            attributes: what else the trial is to show.
        """
        # Of its number alone: a search that is taken up again then goes on as it would have.
        self.optuna.sampler = self._sampler()
        lined_up = self._first.pop(0) if self._first else None
        params = lined_up if params is None else params
        if params is not None:
            names = ("max_lr", "ratio", "cycles", "rise", "policy")
            within = self.space.within(params)  # a rounded ratio may lie outside by a last digit
            self.optuna.enqueue_trial({name: within[name] for name in names if name in within})
        trial = self.optuna.ask()
        self._asked[trial.number] = trial
        low, high = self.max_lr
        if params is not None:  # what was tried before may lie outside today's ranges
            low, high = min(low, params["max_lr"]), max(high, params["max_lr"])
        candidate = self._propose(trial, (low, high))
        shown = candidate.to_dict() | {"steps": candidate.steps} | attributes
        for name, value in shown.items():
            if name not in trial.params:
                trial.set_user_attr(name, value)
        return trial.number, candidate

    def _propose(self, trial: optuna.Trial, max_lr: tuple[float, float]) -> Candidate:
        space = self.space
        return space.length.propose(
            max_lr=trial.suggest_float("max_lr", *max_lr, log=True),
            ratio=trial.suggest_float("ratio", *space.ratio, log=True),
            cycles=trial.suggest_int("cycles", space.cycles[0], space.cycles[-1], log=True),
            rise=trial.suggest_float("rise", *space.rise),
            policy=trial.suggest_categorical("policy", space.policies),
        )

    def suggest(self, count: int) -> list[Candidate]:
        """Schedules that Optuna would try next; no trial is made of them."""
        import optuna

        with _quiet():
            apart = optuna.create_study(direction=self.direction, sampler=self._sampler())
        apart.add_trials([trial for trial in self.optuna.get_trials(deepcopy=False) if trial.state.is_finished()])
        return [self._propose(apart.ask(), self.max_lr) for _ in range(count)]

    def place(self, **attributes: Any) -> int:
        """Number of the next trial, which is of no schedule of ours but a baseline's."""
        trial = self.optuna.ask()
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        return trial.number

    def tell(self, number: int, value: float | None, *, failed: bool = False) -> None:
        """Tell what trial ``number`` ended at; None: it diverged or was pruned. Telling it again changes nothing."""
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if value is not None else TrialState.FAIL if failed else TrialState.PRUNED
        self.optuna.tell(number, value, state=state, skip_if_finished=True)
        self._asked.pop(number, None)

    def should_prune(self, number: int, points: Sequence[tuple[int, float]]) -> bool:
        """Whether trial ``number`` is worth no more steps; shown in the study at the ends of its cycles.

        Args:
            number: of a trial that is under way.
            points: (steps taken, value) so far, in order; those within a cycle are left out.
        """
        trials = self.optuna.get_trials(deepcopy=False)
        asked = trials[number]
        cycle = 2 * asked.user_attrs["stepsize"]
        ends = [(step, value) for step, value in points if step % cycle == 0]
        for step, value in ends:
            if step not in asked.intermediate_values:
                self._asked[number].report(value, step)
        others = [self._shares(trial) for trial in trials if trial.number != number]
        return falls_behind(self._signed(asked, ends), others)

    def _shares(self, trial: optuna.trial.FrozenTrial) -> list[tuple[float, float]]:
        ends = dict(trial.intermediate_values)
        if trial.value is not None and "steps" in trial.user_attrs:
            ends[trial.user_attrs["steps"]] = trial.value
        return self._signed(trial, sorted(ends.items())) if "stepsize" in trial.user_attrs else []

    def _signed(self, trial: optuna.trial.FrozenTrial, ends: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
        """Steps as shares of the trial, and values so that larger is better."""
        sign = 1 if self.direction == "maximize" else -1
        return [(step / trial.user_attrs["steps"], sign * value) for step, value in ends]


class StudyMirror:
    """Shows a study in a store, trial by trial; one writer at a time.

    Args:
        storage, name: where to. What is there already is taken up.
        attributes: what the study is of; ``metric`` names its values.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, name: str, attributes: Attributes) -> None:
        self.storage, self.name, self.attributes = storage, name, attributes
        self._number: int | None = None
        self._there: list[optuna.trial.FrozenTrial] = []  # as they are shown
        self._shown = 0  # trials of which nothing can change any more

    def show(self, study: Study, *, over: bool = False, trials: int | None = None) -> None:
        """Bring the store in line with ``study``: one trial for each of its own, in order.

        Args:
            study: as it is now.
            over: whether the search has ended: then no trial is left running.
            trials: how many of its first trials to show, >= 0; None: all. What was ordered and nobody took is none yet.
        """
        self._show(study.optuna.get_trials(deepcopy=False)[:trials], study, over)

    def _show(self, trials: list[optuna.trial.FrozenTrial], study: Study, over: bool) -> None:
        from optuna.trial import TrialState

        if self._number is None:
            self._number = self._begin(study, len(trials))
            self._there = list(self.storage.get_all_trials(self._number, deepcopy=False))
        for trial in trials[self._shown :]:
            if trial.number >= len(self._there):
                self.storage.create_new_trial(self._number, template_trial=trial)
            elif not self._there[trial.number].state.is_finished():
                self._bring_up(trial, self._there[trial.number].intermediate_values)
        self._there[self._shown : len(trials)] = trials[self._shown :]
        while self._shown < len(trials) and trials[self._shown].state.is_finished():
            self._shown += 1
        if over:
            for trial in self.storage.get_all_trials(self._number, deepcopy=False, states=(TrialState.RUNNING,)):
                self.storage.set_trial_state_values(self._id(trial), TrialState.FAIL)

    def _begin(self, study: Study, trials: int) -> int:
        """Optuna's number of the study; one that somebody else wrote to at the same time is made anew."""
        import optuna

        with _quiet():
            shown = optuna.create_study(
                storage=self.storage, study_name=self.name, direction=study.direction, load_if_exists=True
            )
            if len(shown.get_trials(deepcopy=False)) > trials:
                optuna.delete_study(study_name=self.name, storage=self.storage)
                shown = optuna.create_study(storage=self.storage, study_name=self.name, direction=study.direction)
        for key, value in self.attributes.items():
            if key != "metric" and shown.user_attrs.get(key) != value:
                shown.set_user_attr(key, value)
        if self.attributes.get("metric") and shown.metric_names != [self.attributes["metric"]]:
            with warnings.catch_warnings(action="ignore"):  # it is experimental
                shown.set_metric_names([self.attributes["metric"]])
        return self.storage.get_study_id_from_name(self.name)

    def _bring_up(self, trial: optuna.trial.FrozenTrial, known: Mapping[int, float]) -> None:
        """Show the values and the end of a trial that was still running when it was last shown."""
        for step, value in trial.intermediate_values.items():
            if step not in known:
                self.storage.set_trial_intermediate_value(self._id(trial), step, value)
        if trial.state.is_finished():
            self.storage.set_trial_state_values(self._id(trial), trial.state, trial.values)

    def _id(self, trial: optuna.trial.FrozenTrial) -> int:
        assert self._number is not None
        return self.storage.get_trial_id_from_study_id_trial_number(self._number, trial.number)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line for each study that is made."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def stored_in(path: Path) -> optuna.storages.BaseStorage:
    """Optuna's store in an SQLite file."""
    import optuna

    return optuna.storages.RDBStorage(f"sqlite:///{path}")
