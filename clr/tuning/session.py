"""The session: what a job does, from its range test to its recommendation. No I/O, no torch.

A driver asks it for the next run, trains that wherever it trains, and tells what came of it:

    while not isinstance(order := session.next(), Over):
        if isinstance(order, Waiting): ...           # until a run that is under way has ended
        session.hear(order.stage, order.number, points)   # as they come; it may say that no more are needed
        session.end(order.stage, order.number)

It is rebuilt from the runs that were told: everything else follows from them and the spec.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Any, Literal

from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest, range_test_plan
from clr.run import Curve, Direction, Plan, Point, Run, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import JobSpec
from clr.trials.baselines import USUAL_BASELINES, lines
from clr.trials.race import (
    BOLDER,
    SAFER,
    Entrant,
    Heat,
    Race,
    baseline_entrant,
    entrant_of,
    field_size,
    race_plan,
    summary,
    verdict,
)
from clr.trials.study import Study
from clr.tuning.cost import FINALISTS, planned, trainings_of_stages
from clr.tuning.recommendation import (
    Evidence,
    Recommendation,
    Source,
    SpentCost,
    of_each_group,
    reasons_of_groups,
)

Stage = Literal["range_test", "search", "confirm"]
RunState = Literal["running", "complete", "pruned", "failed"]

ENOUGH_CANDIDATES = 3
"""Trainings of a search that are worth having; where the budget does not hold them, each is shorter."""

SHORTEST_TRIAL = 1 / 4
"""Share of the training below which a shorter one says nothing of it: the best rate moves with the length."""


@dataclass(frozen=True)
class Training:
    """What is trained, as far as a session must know.

    Args:
        length: of one training.
        metric: name of what a run is judged by.
        direction: whether larger values of it are better.
        optimizer: name and arguments of the optimizer trained with, where known, and the ``lr_mult`` of its groups.
        batch_size: examples per batch, where known.
    """

    length: TrainingLength
    metric: str
    direction: Direction
    optimizer: dict[str, Any] | None = None
    batch_size: int | None = None


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
        points: all that it recorded.
        value: what it was judged by; None: it diverged, was pruned or failed.
    """

    order: Order
    state: RunState
    points: Sequence[Point]
    value: float | None

    @property
    def curve(self) -> Curve:
        """Its points joined."""
        return Curve.of(self.points)

    @property
    def steps(self) -> int:
        """Optimizer steps that it took."""
        whole = self.order.run.steps if self.state == "complete" and self.value is not None else 0
        return max(whole, self.points[-1].step if self.points else 0)


class _Block:
    """Runs that are handed out together, in order; what follows them depends on how they ended."""

    def __init__(self, stage: Stage, runs: Sequence[tuple[Run, dict[str, Any]]]) -> None:
        self.stage, self.runs = stage, runs
        self.asked = 0
        self.told: dict[int, ToldRun] = {}

    def ask(self, _number: int, _known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        if self.asked == len(self.runs):
            return None
        self.asked += 1
        return self.runs[self.asked - 1]

    def tell(self, told: ToldRun) -> None:
        self.told[told.order.number] = told

    @property
    def is_over(self) -> bool:
        return len(self.told) == len(self.runs)

    @property
    def ended(self) -> list[ToldRun]:
        """The runs by number."""
        return [self.told[number] for number in sorted(self.told)]


class _Trials(_Block):
    """Trials that the study chooses as they are asked for."""

    def __init__(self, study: Study, trials: int, seed: int) -> None:
        super().__init__("search", [])
        self.study, self.trials, self.seed = study, trials, seed

    def ask(self, number: int, known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        if number >= self.trials:
            return None
        _, candidate = self.study.ask(known)
        return candidate.run(self.seed), candidate.to_dict()

    def tell(self, told: ToldRun) -> None:
        super().tell(told)
        self.study.tell(told.order.number, told.value, failed=told.state == "failed")

    @property
    def is_over(self) -> bool:
        return len(self.told) == self.trials


class _Heats(_Block):
    """A round of the race; in the stage of the search each of its runs is a trial of the study."""

    def __init__(self, stage: Stage, heats: Sequence[Heat], study: Study) -> None:
        super().__init__(stage, [(heat.run, heat.params | {"name": heat.entrant.name}) for heat in heats])
        self.heats, self.study = heats, study

    def ask(self, number: int, known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        made = super().ask(number, known)
        if made is None or self.stage != "search":
            return made
        run, params = made
        entrant = self.heats[self.asked - 1].entrant
        if entrant.candidate is None:
            self.study.place(**params, steps=run.steps, seed=run.seed)
        else:
            self.study.ask(params, name=entrant.name, seed=run.seed)
        return made

    def tell(self, told: ToldRun) -> None:
        super().tell(told)
        if self.stage == "search":
            self.study.tell(told.order.number, told.value, failed=told.state == "failed")


class Session:
    """One job: asked for runs, told what came of them, and always with a present recommendation.

    Args:
        spec: what was asked for.
        training: what is trained.
        extensions: trainings that were granted since, each time when the job had ended.
        earlier: recommendations for the same task, as documents, for a search that starts warm.
        recorded, recorded_steps: bounds read from ramps that were recorded anyway, instead of a range test, and their
            steps.
        job_id: told in the recommendation.
    """

    def __init__(
        self,
        spec: JobSpec,
        training: Training,
        *,
        extensions: Sequence[float] = (),
        earlier: Iterable[Mapping[str, Any]] = (),
        recorded: Bounds | None = None,
        recorded_steps: int = 0,
        job_id: str | None = None,
    ) -> None:
        self.spec, self.training, self.extensions = planned(spec), training, extensions
        self.earlier, self.recorded, self.job_id = list(earlier), recorded, job_id
        self.study: Study | None = None
        self.range_test: RangeTest | None = None
        self.race: Race | None = None
        self.steps, self.seconds = recorded_steps, 0.0
        self._trial_length = training.length
        self._bounds: Bounds | None = None
        self._found: Candidate | None = None
        self._reasons: list[str] = []
        self._warnings: list[str] = []
        self._source: Source = "range_test"
        self._under_way: dict[tuple[Stage, int], tuple[Order, list[Point]]] = {}
        self._known: dict[tuple[Stage, int], ToldRun] = {}
        self._stopped: set[tuple[Stage, int]] = set()
        self._next: dict[Stage, int] = {"range_test": 0, "search": 0, "confirm": 0}
        self._in_hands = False
        self._limit: str | None = None
        self._failure: str | None = None
        self._flow = self._sequence()
        self._block: _Block | None = next(self._flow, None)

    # asked and told

    def next(self) -> Order | Waiting | Over:
        """The next run to train."""
        while True:
            if self._limit is not None or self._failure is not None or self._block is None:
                return self._over()
            if self._block.is_over:
                self._advance()
                continue
            stage = self._block.stage
            number = self._next[stage]
            known = self._known.get((stage, number))
            if known is None and not self._affords_next():
                return Waiting() if self._under_way else self._over()
            made = self._block.ask(number, None if known is None else known.order.params)
            if made is None:
                return Waiting()
            self._next[stage] = number + 1
            order = Order(stage, number, *made)
            if known is None or known.state == "running":
                self._under_way[stage, number] = order, list(known.points) if known and self._in_hands else []
                if known is None or not self._in_hands:
                    return order
            else:
                self._end(ToldRun(order, known.state, known.points, known.value))

    def hear(self, stage: Stage, number: int, points: Sequence[Point]) -> Advice:
        """Take the points that a run under way has recorded since; whether it is worth any more steps."""
        order, so_far = self._under_way[stage, number]
        so_far.extend(points)
        metrics = [(point.step, point.metric) for point in so_far if point.metric is not None]
        if so_far and so_far[-1].diverged:
            return Advice(True, "the training diverged")
        if self._limit is not None:
            return Advice(True, f"{self._limit} was reached")
        prunable = isinstance(self._block, _Trials) and self.study is not None and metrics
        if prunable and so_far[-1].step < order.run.steps and self._is_behind(number, metrics):
            self._stopped.add((stage, number))
            return Advice(True, "the trial is among the worst third at this share of its steps")
        return Advice(False)

    def end(self, stage: Stage, number: int) -> ToldRun:
        """Take note that a run has ended: it is judged by what it recorded, and counts as pruned if that is not all."""
        order, points = self._under_way[stage, number]
        curve = Curve.of(points)
        whole = curve.diverged or (points and points[-1].step >= order.run.steps)
        return self._close(stage, number, "complete" if whole else "pruned", curve.value if whole else None)

    def tell(self, stage: Stage, number: int, value: float | None) -> ToldRun:
        """Take note of how a run has ended by a trainer's own account; None: it diverged."""
        stopped = (stage, number) in self._stopped and value is not None
        return self._close(stage, number, "pruned" if stopped else "complete", None if stopped else value)

    def tell_failed(self, stage: Stage, number: int) -> ToldRun:
        """Take note that a run has failed for good, for a reason that is not the schedule's."""
        return self._close(stage, number, "failed", None)

    def _close(self, stage: Stage, number: int, state: RunState, value: float | None) -> ToldRun:
        order, points = self._under_way.pop((stage, number))
        ended = ToldRun(order, state, points, value)
        self._end(ended)
        return ended

    def fail(self, reason: str) -> None:
        """End the session: a run that it cannot do without failed again and again."""
        self._failure = reason

    def limit(self, reason: str) -> None:
        """Order no more runs: one of the job's limits was reached."""
        if self._limit is None:
            self._limit = reason
            self._conclude_early()

    def restore(self, told: Iterable[ToldRun], *, in_hands: bool = False) -> None:
        """Take up what was recorded: ended runs are not ordered again.

        Args:
            told: the runs.
            in_hands: whether those that were running still are, at somebody else's; else they are ordered anew.
        """
        self._known |= {(one.order.stage, one.order.number): one for one in told}
        self._in_hands = in_hands

    def hand_out_again(self, stage: Stage, number: int) -> Order:
        """The order of a run that is under way, its points forgotten: another trainer begins it anew."""
        order, _ = self._under_way[stage, number]
        self._under_way[stage, number] = order, []
        return order

    @property
    def under_way(self) -> list[Order]:
        """Runs that were ordered and have not ended."""
        return [order for order, _ in self._under_way.values()]

    @property
    def stage(self) -> Stage | None:
        """What it is at; None when it is over."""
        return None if self._block is None else self._block.stage

    @property
    def steps_so_far(self) -> int:
        """Optimizer steps of all runs, those under way among them."""
        return self.steps + sum(points[-1].step for _, points in self._under_way.values() if points)

    @property
    def predicted_steps(self) -> int:
        """Optimizer steps that the whole job takes at most."""
        trainings = sum(trainings_of_stages(self.spec, self.training.length).values()) + sum(self.extensions)
        most = max(1, round(trainings * self.training.length.steps))
        return min(most, self.spec.limits.max_steps or most)

    @property
    def trained_with(self) -> dict[str, Any]:
        """Optimizer and batch size."""
        return {"optimizer": self.training.optimizer, "batch_size": self.training.batch_size}

    @property
    def attributes(self) -> dict[str, Any]:
        """What its study shows that it is of."""
        return {
            "name": self.spec.name,
            "task": self.spec.task,
            "optimizer": (self.training.optimizer or {}).get("name"),
            "epochs": self.spec.epochs,
            "seed": self.spec.seed,
            "metric": self.training.metric,
        }

    @property
    def failure(self) -> str | None:
        """Why the job cannot go on, where it cannot."""
        return self._failure

    # the sequence

    def _sequence(self) -> Generator[_Block, None, None]:
        """Range test; trials or a race; comparison; and a race more for each extension."""
        assert self.spec.budget is not None
        length = self.training.length
        most = max(1, int(self.spec.budget * length.steps + 1e-9))
        most = min(most, self.spec.limits.max_steps or most)
        if self.recorded is None:
            plan = range_test_plan(
                length, self.spec.range_test, self.spec.seed, most, direction=self.training.direction
            )
            self.range_test = yield from self._follow("range_test", plan)
        self._bounds = self.recorded if self.range_test is None else self.range_test.bounds
        assert self._bounds is not None
        self._found = self._bounds.candidate(length)
        if self._found is None or self.spec.search is None:
            return
        left = self.spec.budget * length.steps - self.steps
        if self.spec.search.trials is not None:
            yield from self._trials(self.spec.search.trials)
            yield from self._comparison()
        else:
            yield from self._search_race(left, "search")
        for number, trainings in enumerate(self.extensions, 1):
            stage: Stage = "search" if self.spec.search.trials is None else "confirm"
            yield from self._search_race(trainings * length.steps, stage, number)

    def _follow(self, stage: Stage, plan: Plan[RangeTest]) -> Generator[_Block, None, RangeTest]:
        """Carry out a plan of the method's."""
        sent: list[Curve] | None = None
        while True:
            try:
                runs = plan.send(sent)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                result: RangeTest = stop.value
                return result
            shown = [(run, {"policy": run.policy, "max_lr": run.max_lr, "seed": run.seed}) for run in runs]
            block = _Block(stage, shown)
            yield block
            sent = [told.curve for told in block.ended]

    def _trials(self, trials: int) -> Generator[_Block, None, None]:
        """The trials that were asked for, on one seed; the best is a finalist beside the range test's own."""
        search, bounds = self.spec.search, self._bounds
        assert search is not None
        assert bounds is not None
        self._trial_length = TrainingLength(
            search.epochs or self.spec.epochs, self.training.length.iterations_per_epoch
        )
        self.study = self._new_study()
        self.study.begin(trials)
        (seed,) = fresh_seeds(self.spec.seed, "search", 1)
        block = _Trials(self.study, trials, seed)
        yield block
        self._settle_trials(block)

    def _settle_trials(self, block: _Trials) -> None:
        sign = 1 if self.training.direction == "maximize" else -1
        scored = [told for told in block.ended if told.value is not None]
        ended = [told for told in block.ended if told.state != "pruned"]
        self._source = "search"
        if scored:
            best = max(scored, key=lambda told: sign * (told.value or 0.0))
            self._found = self.training.length.stretch(_candidate(best.order.params))
        elif ended and all(told.value is None for told in ended):
            self._give_up([told.order.run.max_lr for told in ended])

    def _comparison(self) -> Generator[_Block, None, None]:
        """Finalists and baselines on fresh seeds: as many as were asked for, or a race within the budget."""
        confirm = self.spec.confirm
        if confirm is None or self._bounds is None or self._found is None:
            return
        own = self._bounds.candidate(self.training.length)
        assert own is not None
        finalists = list(dict.fromkeys([own, self._found]))[:FINALISTS]
        if confirm.seeds is None:
            left = (self.spec.budget or 0.0) * self.training.length.steps - self.steps
            yield from self._search_race(left, "confirm", extra=[entrant_of(one) for one in finalists[1:]])
            return
        names = USUAL_BASELINES if confirm.baselines is None else confirm.baselines
        entrants = [entrant_of(own, "recommended"), *map(entrant_of, finalists[1:])]
        entrants += [baseline_entrant(name, own.max_lr, self.training.length) for name in names]
        self.race = Race(entrants, self.training.direction, self._floor)
        heats = [
            Heat(one.make(seed), one.params, one)
            for one in entrants
            for seed in fresh_seeds(self.spec.seed, "confirm", confirm.seeds)
        ]
        assert self.study is not None
        block = _Heats("confirm", heats, self.study)
        yield block
        for heat, told in zip(heats, block.ended, strict=True):
            heat.entrant.values[heat.run.seed] = told.value
        self._settle_race("confirm")

    def _search_race(
        self, left: float, stage: Stage, extension: int = 0, extra: Sequence[Entrant] = ()
    ) -> Generator[_Block, None, None]:
        """A race of candidates and baselines over fresh seeds, as far as ``left`` steps go."""
        if self._found is None:
            return
        if self.race is None or extension == 0:
            self._trial_length = self._affordable_length(left)
        length = self._trial_length
        trainings = floor(left / length.steps + 1e-9)
        size = field_size(trainings)
        if size < 2:
            self._reasons.append("the budget leaves no room to train the range test's answer beside others")
            return
        if self.study is None:
            self.study = self._new_study()
        entrants = self.race.entrants if self.race is not None and extension else []
        field = self._field(size, entrants, extra)
        race = Race(list(dict.fromkeys([*entrants, *field])), self.training.direction, self._floor)
        self.race = race
        used = len({seed for one in entrants for seed in one.values})
        seeds = fresh_seeds(self.spec.seed, "race", used + trainings)[used:]
        plan = race_plan(race, field, trainings, seeds, self._safer)
        values: list[float | None] | None = None
        while True:
            try:
                heats = plan.send(values)  # type: ignore[arg-type]
            except StopIteration:
                break
            block = _Heats(stage, heats, self.study)
            yield block
            values = [told.value for told in block.ended]
        spent = sum(len(set(one.values) & set(seeds)) for one in race.entrants)
        if race.is_decided and spent < trainings:
            self._reasons.append(
                f"stopped after {spent} of {trainings} trainings: no other was expected to change the answer"
            )
        self._settle_race(stage)

    def _affordable_length(self, left: float) -> TrainingLength:
        """Of a trial: the whole training, or as long as three of them may be."""
        assert self.spec.search is not None
        whole = self.training.length
        if self.spec.search.epochs is not None:
            return TrainingLength(self.spec.search.epochs, whole.iterations_per_epoch)
        share = left / (ENOUGH_CANDIDATES * whole.steps)
        if not SHORTEST_TRIAL <= share < 1.0:
            return whole
        self._reasons.append(f"trained beside others for {share:.0%} of the epochs, which the budget allows")
        return TrainingLength(share * whole.epochs, whole.iterations_per_epoch)

    def _field(self, size: int, entrants: Sequence[Entrant], extra: Sequence[Entrant]) -> list[Entrant]:
        """Who enters: where the range test is sure of its answer the baselines come first, else other rates."""
        assert self._bounds is not None
        own = self._bounds.candidate(self._trial_length)
        assert own is not None
        confirm = self.spec.confirm
        names: Sequence[str] = (
            () if confirm is None else USUAL_BASELINES if confirm.baselines is None else confirm.baselines
        )
        baselines = [baseline_entrant(name, own.max_lr, self._trial_length) for name in names]
        others = [entrant_of(one) for one in self._other_rates(own)]
        sure = self._bounds.confidence != "low"
        first = [*baselines[:2], *others, *baselines[2:]] if sure else [*others, *baselines]
        first = [one for one in first if all(one.params != there.params for there in [*entrants, *extra])]
        if self.race is not None and entrants:
            earlier = sorted(entrants[1:], key=self.race.rank, reverse=True)
            field = [entrants[0], *earlier[: max(1, size // 2)], *first]
        else:
            field = [entrant_of(own, "recommended"), *extra, *first]
        return field[: max(size, 1 + len(extra))] + self._sampled(size - len(field))

    def _other_rates(self, own: Candidate) -> list[Candidate]:
        """At half and at twice the rate, as far as the limit on the rate allows."""
        assert self.study is not None
        highest = self.spec.range_test.max_lr or float("inf")
        rates = (rate for share in (SAFER, BOLDER) if (rate := own.max_lr * share) <= highest)
        ratio = own.max_lr / own.base_lr
        return [self._trial_length.propose(rate, ratio, own.cycles, own.policy, own.rise) for rate in rates]

    def _sampled(self, count: int) -> list[Entrant]:
        """Schedules that Optuna chooses."""
        assert self.study is not None
        return [entrant_of(candidate) for candidate in self.study.suggest(max(0, count))]

    def _safer(self, candidate: Candidate) -> Entrant:
        """Half the rate, for a schedule that collapses on some seeds."""
        ratio = candidate.max_lr / candidate.base_lr
        rate = candidate.max_lr * SAFER
        return entrant_of(self._trial_length.propose(rate, ratio, candidate.cycles, candidate.policy, candidate.rise))

    def _settle_race(self, stage: Stage) -> None:
        """What the race says: the winner, and what the others did beside it."""
        assert self.race is not None
        self._source = "confirm" if stage == "confirm" else "search"
        winner = self.race.winner
        if winner is None or winner.candidate is None:
            rates = [one.candidate.max_lr for one in self.race.entrants if one.candidate is not None and one.values]
            self._give_up(rates)
            return
        self._found = self._whole(winner.candidate)
        if winner is not self.race.own:
            lead = self.race.lead(winner, self.race.own)
            by = "on seeds where it diverged" if lead is None else f"by {lead.difference:.3g} +- {lead.error:.2g}"
            self._reasons.append(f"ahead of the range test's own max_lr {self.race.own.params['max_lr']:.3g} {by}")

    def _whole(self, candidate: Candidate) -> Candidate:
        """The same for the whole training, with as many cycles as the range test's own where it has as many here."""
        assert self._bounds is not None
        own, whole = self._bounds.candidate(self._trial_length), self._bounds.candidate(self.training.length)
        if own is None or whole is None or candidate.cycles != own.cycles:
            return self.training.length.stretch(candidate)
        ratio = candidate.max_lr / candidate.base_lr
        return self.training.length.propose(candidate.max_lr, ratio, whole.cycles, candidate.policy, candidate.rise)

    def _give_up(self, rates: Sequence[float]) -> None:
        """Every training at these rates diverged or failed: nothing that did is recommended."""
        self._found = None
        why = f"every training diverged or failed, at max_lr from {min(rates):.3g} to {max(rates):.3g}"
        self._bounds = Bounds.inconclusive(why, *(self._bounds.reasons if self._bounds else ()))

    def _new_study(self) -> Study:
        assert self.spec.search is not None
        assert self._bounds is not None
        earlier = self.earlier if self.spec.search.warm_start else ()
        study = Study(
            self.spec.search,
            self._bounds,
            self._trial_length,
            self.training.direction,
            self.spec.seed,
            earlier,
            highest=self.spec.range_test.max_lr,
        )
        self._reasons += study.reasons
        return study

    @property
    def _floor(self) -> float | None:
        """Value of an untrained network: the first that the first ramp recorded."""
        runs = [] if self.range_test is None else self.range_test.runs
        _, curve = runs[0] if runs else (None, Curve())
        if curve.metric:
            return curve.metric[0]
        return curve.loss[0] if curve.loss else None

    # limits and ends

    def _advance(self) -> None:
        self._block = next(self._flow, None)

    def _end(self, told: ToldRun) -> None:
        assert self._block is not None
        self.steps += told.steps
        if told.state == "failed" and told.order.stage == "range_test":
            self.fail(f"range_test run {told.order.number} failed")
        self._block.tell(told)
        if self._block.is_over and self._failure is None:
            self._advance()

    def _affords_next(self) -> bool:
        """Whether another run fits into ``limits.max_steps``; one more trial's length where the block chooses it."""
        limit = self.spec.limits.max_steps
        if limit is None or self._block is None:
            return True
        runs = self._block.runs
        steps = runs[self._block.asked][0].steps if self._block.asked < len(runs) else self._trial_length.steps
        waiting = sum(
            order.run.steps - (points[-1].step if points else 0) for order, points in self._under_way.values()
        )
        if self.steps_so_far + waiting + steps <= limit:
            return True
        if not self._under_way:
            self.limit(f"limits.max_steps = {limit}")
        return False

    def _conclude_early(self) -> None:
        """Recommend what was found until the limit was reached."""
        if self._bounds is None:
            self._bounds = Bounds.inconclusive(f"{self._limit} was reached before the range test ended")
        else:
            if isinstance(self._block, _Trials) and self._block.told:
                self._settle_trials(self._block)
            elif self.race is not None and any(one.values for one in self.race.entrants):
                self._settle_race(
                    "confirm" if isinstance(self._block, _Heats) and self._block.stage == "confirm" else "search"
                )
            self._warnings.append(f"{self._limit} was reached; what was found until then is recommended")

    def _over(self) -> Over:
        if self._failure is not None:
            return Over(self._failure)
        if self._limit is not None:
            return Over(f"{self._limit} was reached")
        if self._bounds is not None and self._bounds.max_lr is None:
            return Over("; ".join(self._bounds.reasons))
        return Over("everything planned was trained")

    def _is_behind(self, number: int, metrics: Sequence[tuple[int, float]]) -> bool:
        assert self.study is not None
        return self.study.should_prune(number, metrics)

    # the answer

    @property
    def bounds(self) -> Bounds | None:
        """What the range test says; None until it has ended."""
        return self._bounds

    @property
    def recommendation(self) -> Recommendation | None:
        """What is recommended now; None until there is something to say."""
        if self._bounds is None:
            return None
        bounds, length = self._bounds, self.training.length
        warnings, evidence = list(self._warnings), None
        alternatives: list[dict[str, Any]] = []
        if self.race is not None and self._found is not None and any(one.values for one in self.race.entrants):
            evidence, more, alternatives = self._evidence()
            warnings += more
        return Recommendation.of(
            self._source,
            bounds,
            self._found if bounds.max_lr is not None else None,
            length.iterations_per_epoch,
            job_id=self.job_id,
            cost=SpentCost.of(self.steps_so_far, self.seconds, length.steps),
            optimizer=self.training.optimizer,
            batch_size=self.training.batch_size,
            evidence=evidence,
            warnings=warnings,
            alternatives=alternatives,
            reasons=[*self._reasons, *reasons_of_groups(self.training.optimizer)],
        )

    def _evidence(self) -> tuple[Evidence, list[str], list[dict[str, Any]]]:
        """The trainings side by side, warnings, and the baselines as alternatives, the best first."""
        race = self.race
        assert race is not None
        winner = race.winner or race.own
        others = [one for one in race.entrants if one is not winner and one.values]
        said, warnings = verdict(race, winner, [one for one in others if one.candidate is None])
        runs = [summary(winner, "recommended"), *(summary(one, _name(one, race)) for one in others)]
        seeds = max(len(one.values) for one in race.entrants)
        metric, direction = self.training.metric, self.training.direction
        evidence = Evidence(metric, direction, self._trial_length.epochs, seeds, runs, said)
        sign = 1 if direction == "maximize" else -1
        baselines = [one for one in others if one.lr is not None and one.mean is not None]
        baselines.sort(key=lambda one: -sign * (one.mean or 0.0))
        steps = self.training.length.steps
        alternatives = [
            {"name": one.name, "lr": one.lr, "mean": one.mean, "better": _is_ahead(race, one, winner)}
            | {"python": lines(one.name, of_each_group(one.lr, self.training.optimizer) or 0.0, steps)}
            for one in baselines
        ]
        return evidence, warnings, sorted(alternatives, key=lambda one: not one["better"])


def _is_ahead(race: Race, one: Entrant, winner: Entrant) -> bool:
    lead = race.lead(one, winner)
    return lead is not None and lead.counts and lead.difference > 0


def _name(one: Entrant, race: Race) -> str:
    return "range_test" if one is race.own else one.name


def _candidate(params: Mapping[str, Any]) -> Candidate:
    """The schedule that was shown as ``params``."""
    names = Candidate.__dataclass_fields__
    return Candidate(**{name: value for name, value in params.items() if name in names})
