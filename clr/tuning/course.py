"""The course of a job: range test, trials or a race, comparison, and a race more for each extension.

It is asked for one block of runs after the other; when a block is over, what its runs recorded decides what follows.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest, range_test_plan
from clr.run import Curve, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import JobSpec, RangeTestSpec
from clr.trials.best_rate import BestRate
from clr.trials.location import Location
from clr.trials.race import Entrant, Heat, Peak, Race, baseline_entrant, entrant_of, field_size, race_plan
from clr.trials.space import SearchSpace
from clr.trials.study import Study
from clr.tuning.blocks import Block, Heats, Trials
from clr.tuning.cost import FINALISTS, given_comparison, planned
from clr.tuning.field import Field, baselines_of
from clr.tuning.orders import Stage, Training
from clr.tuning.recommendation import Source

ENOUGH_CANDIDATES = 3
"""Trainings of a search that are worth having; where the budget does not hold them, each is shorter."""

FEWEST_AROUND = 2
"""Trainings that may say which of two rates is better."""

LONGER = 3
"""Times as many steps as the first range test that a second one takes, where that was too short to say anything: each
of its three long proofs comes near to the whole of a short training."""

SHORTEST_TRIAL = 1 / 4
"""Share of the training below which a shorter one says nothing of it: the best rate moves with the length."""

Blocks = Generator[Block, None, None]


class Course:
    """What a job does next, and what it knows by then.

    Args:
        spec, training, extensions, earlier, recorded, recorded_steps: as a ``Session``'s.
    """

    def __init__(
        self,
        spec: JobSpec,
        training: Training,
        extensions: Sequence[float],
        earlier: Iterable[Mapping[str, Any]],
        recorded: Bounds | None,
        recorded_steps: int,
    ) -> None:
        self.spec, self.training, self.extensions = planned(spec), training, extensions
        self.steps = recorded_steps
        """Of all runs that have ended."""
        self.range_test: RangeTest | None = None
        self.study: Study | None = None
        self.race: Race | None = None
        self.location: Location | None = None
        self.bounds = recorded
        """What the range test says; None until it has ended."""
        self._first_bounds: Bounds | None = None
        self.found: Candidate | None = None
        """The schedule for the whole training that is the best so far."""
        self.reasons: list[str] = []
        self.source: Source = "range_test"
        self.trial_length = training.length
        self._earlier = list(earlier)

    @property
    def left(self) -> float:
        """Steps of the budget that are not spent."""
        assert self.spec.budget is not None
        return self.spec.budget * self.training.length.steps - self.steps

    def blocks(self) -> Blocks:
        """All that is trained, block by block."""
        if self.bounds is None:
            yield from self._range_test()
        self.found = self._own(self.training.length)
        if self.found is None or self.spec.search is None:
            return
        given = given_comparison(self.spec)
        if self.spec.search.trials is not None:
            yield from self._trials(self.spec.search.trials)
        else:
            yield from self._race(self.left - given * self.training.length.steps, "search")
        if self.spec.search.trials is not None or given:
            yield from self._comparison()
        for number, trainings in enumerate(self.extensions, 1):
            stage: Stage = "search" if self.spec.search.trials is None else "confirm"
            yield from self._race(trainings * self.training.length.steps, stage, number)

    # the range test

    def _range_test(self) -> Blocks:
        """The test, and a longer one where it was too short to say anything and the budget has room for it."""
        assert self.spec.budget is not None
        most = max(1, int(self.spec.budget * self.training.length.steps + 1e-9))
        most = min(most, self.spec.limits.max_steps or most)
        test = yield from self._one_range_test(self.spec.range_test, self.spec.seed, most)
        if steps := self._steps_of_longer_test(test):
            (seed,) = fresh_seeds(self.spec.seed, "longer range test", 1)
            epochs = steps / self.training.length.iterations_per_epoch
            longer = self.spec.range_test.model_copy(update={"epochs": epochs, "seeds": 1})
            again = yield from self._one_range_test(longer, seed, steps)
            why = test.bounds.reasons[-1]
            noted = again.bounds.noting(f"a first range test, of {test.cost_steps} steps, was too short to tell: {why}")
            test = RangeTest(noted, test.runs + again.runs, again.smoothed)
        self.range_test, self.bounds = test, test.bounds

    def _one_range_test(self, spec: RangeTestSpec, seed: int, most: int) -> Generator[Block, None, RangeTest]:
        of = self.training
        plan = range_test_plan(of.length, spec, seed, most, self._tell, of.direction, of.optimizer, of.constant)
        sent: list[Curve] | None = None
        while True:
            try:
                runs = plan.send(sent)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                return cast("RangeTest", stop.value)
            shown = [(run, {"policy": run.policy, "max_lr": run.max_lr, "seed": run.seed}) for run in runs]
            block = Block("range_test", shown)
            yield block
            sent = [told.curve for told in block.ended]

    def _steps_of_longer_test(self, test: RangeTest) -> int:
        """How many a second test may take: 0 where the first said something, or none longer would say more.

        It leaves a training over, to train what it finds.
        """
        search, confirm = self.spec.search, self.spec.confirm
        planned_by_us = search is not None and search.trials is None and (confirm is None or confirm.seeds is None)
        last = [curve for _, curve in test.runs[-3:]]
        if test.bounds.max_lr is not None or not planned_by_us or self.spec.range_test.epochs is not None:
            return 0
        if not last or all(curve.diverged for curve in last):
            return 0
        steps = min(LONGER * test.cost_steps, math.floor(self.left) - self.training.length.steps)
        return steps if steps >= 2 * test.cost_steps else 0

    def _tell(self, bounds: Bounds) -> None:
        self._first_bounds = bounds

    def bounds_so_far(self, reason: str) -> Bounds:
        """What a range test says that has not ended, for that reason; inconclusive where it says nothing yet."""
        first = self._first_bounds
        if first is None or first.max_lr is None:
            return Bounds.inconclusive(reason)
        return replace(first, confidence="low", reasons=[reason, *first.reasons])

    def settle_range_test(self, reason: str) -> None:
        """Take in what the range test says until now: there will be no more of it."""
        self.bounds = self.bounds_so_far(reason)
        self.found = self._own(self.training.length)

    @property
    def told_bounds(self) -> Bounds | None:
        """What the range test says, as whole trainings around its rate have corrected it."""
        bounds, found, location = self.bounds, self.found, self.location
        if location is None or not location.tried or found is None or bounds is None or bounds.max_lr is None:
            return bounds
        assert bounds.interval is not None
        best = location.best_rate.after_lengthening(self.training.length.steps / self.trial_length.steps)
        moved = found.max_lr / bounds.max_lr
        base = bounds.interval["base_lr"]
        interval = {"base_lr": (base[0] * moved, base[1] * moved), "max_lr": best.interval}
        return replace(bounds, interval=interval).noting(location.said(best))

    def own_of(self, bounds: Bounds, length: TrainingLength) -> Candidate | None:
        """The range test's own schedule, within the ranges of the search; None where it is inconclusive."""
        return bounds.candidate(length) if self.spec.search is None else self._space(length).own(bounds)

    def _own(self, length: TrainingLength) -> Candidate | None:
        assert self.bounds is not None
        return self.own_of(self.bounds, length)

    def _space(self, length: TrainingLength) -> SearchSpace:
        assert self.spec.search is not None
        return SearchSpace.of(self.spec.search, length, self.spec.search.epochs or self.spec.epochs)

    # trials, and their comparison

    def _trials(self, trials: int) -> Blocks:
        """The trials that were asked for, on one seed; the best is a finalist beside the range test's own."""
        search = self.spec.search
        assert search is not None
        self.trial_length = TrainingLength(search.epochs or self.spec.epochs, self.training.length.iterations_per_epoch)
        self.study = self._new_study()
        self.study.begin(trials)
        (seed,) = fresh_seeds(self.spec.seed, "search", 1)
        block = Trials(self.study, trials, seed)
        yield block
        self._settle_trials(block)

    def _settle_trials(self, block: Trials) -> None:
        sign = 1 if self.training.direction == "maximize" else -1
        scored = [told for told in block.ended if told.value is not None]
        ended = [told for told in block.ended if told.state != "pruned"]
        self.source = "search"
        if scored:
            best = max(scored, key=lambda told: sign * (told.value or 0.0))
            self.found = self.training.length.stretch(_candidate(best.order.params))
        elif ended and all(told.value is None for told in ended):
            self._give_up([told.order.run.max_lr for told in ended])

    def _comparison(self) -> Blocks:
        """Finalists and baselines on fresh seeds: as many as were asked for, or a race within the budget."""
        confirm = self.spec.confirm
        if confirm is None or self.bounds is None or self.found is None:
            return
        own = self._own(self.training.length)
        assert own is not None
        finalists = [entrant_of(one) for one in list(dict.fromkeys([own, self.found]))[1:FINALISTS]]
        if confirm.seeds is None:
            yield from self._race(self.left, "confirm", extra=finalists)
            return
        baselines = [baseline_entrant(name, own.max_lr, self.training.length) for name in baselines_of(self.spec)]
        entrants = [entrant_of(own, "recommended"), *finalists, *baselines]
        self.race, self.trial_length = Race(entrants, self.training.direction, self._floor), self.training.length
        seeds = fresh_seeds(self.spec.seed, "confirm", confirm.seeds)
        heats = [Heat(one.make(seed), one.params, one) for one in entrants for seed in seeds]
        self.study = self.study or self._new_study()
        block = Heats("confirm", heats, self.study)
        yield block
        for heat, told in zip(heats, block.ended, strict=True):
            heat.entrant.values[heat.run.seed] = told.value
        self._settle_race("confirm")

    # the race

    def _race(self, left: float, stage: Stage, extension: int = 0, extra: Sequence[Entrant] = ()) -> Blocks:
        """A race of candidates and baselines over fresh seeds, as far as ``left`` steps go."""
        if self.found is None:
            return
        if self.race is None or extension == 0:
            named = len(self.spec.confirm.baselines or ()) if self.spec.confirm else 0
            self.trial_length = self._affordable_length(left, max(ENOUGH_CANDIDATES, 1 + len(extra) + named))
        trainings = math.floor(left / self.trial_length.steps + 1e-9)
        if field_size(trainings) < 2:
            self.reasons.append("the budget leaves no room to train the range test's answer beside others")
            return
        self.study = self.study or self._new_study()
        assert self.bounds is not None
        field = Field(self.spec, self.bounds, self._space(self.trial_length), self.study)
        if self.race is None:
            self.race = Race([field.recommended, *extra], self.training.direction, self._floor)
        race = self.race
        used = len({seed for one in race.entrants for seed in one.values})
        seeds = fresh_seeds(self.spec.seed, "race", used + trainings)[used:]
        fresh, spent = iter(seeds), 0
        if most := self._trainings_around(trainings, extra):
            self.location = self.location or Location(race, BestRate.of(self.bounds), field.at)
            spent = yield from self._heats(self.location.rounds(most, fresh), stage)
            starters = field.located(race, self.location.candidate(), field_size(trainings - spent))
        else:
            starters = field.starters(race, field_size(trainings))
        race.entrants += [one for one in starters if one not in race.entrants]
        yield from self._heats(race_plan(race, starters, trainings - spent, fresh, field.safer), stage)
        if missing := [one.name for one in starters if one.lr is not None and not one.values]:
            self.reasons.append(f"the budget left no room to compare with {', '.join(missing)}")
        spent = sum(len(set(one.values) & set(seeds)) for one in race.entrants)
        if race.is_decided and spent < trainings:
            self.reasons.append(
                f"stopped after {spent} of {trainings} trainings: no other was expected to change the answer"
            )
        self._settle_race(stage)

    def _heats(self, plan: Generator[list[Heat], list[float | None], int], stage: Stage) -> Generator[Block, None, int]:
        """The plan's rounds as blocks; how many were trained."""
        assert self.study is not None
        assert self.race is not None
        values: list[float | None] | None = None
        while True:
            try:
                heats = plan.send(values)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                return int(stop.value)
            block = Heats(stage, heats, self.study)
            yield block
            values = [told.value for told in block.ended]
            for heat, told in zip(heats, block.ended, strict=True):
                heat.entrant.peaks[heat.run.seed] = Peak.of(heat.run, told.points, self.race.sign)

    def _trainings_around(self, trainings: int, extra: Sequence[Entrant]) -> int:
        """How many may look for the best rate: none where the range test, or trials, are sure of it.

        What follows takes the rest: the schedule at that rate, and each baseline that was named.
        """
        assert self.bounds is not None
        assert self.spec.search is not None
        if self.bounds.confidence == "high" or self.spec.search.trials is not None or extra:
            return 0
        named = len(self.spec.confirm.baselines or ()) if self.spec.confirm else 0
        most = trainings if trainings == FEWEST_AROUND and not named else trainings - 1 - named
        return most if most >= FEWEST_AROUND else 0

    @property
    def wants_baseline(self) -> bool:
        """Whether the answer is to be compared with baselines."""
        return self.spec.search is not None and bool(baselines_of(self.spec))

    def _affordable_length(self, left: float, enough: int) -> TrainingLength:
        """Of a trial: the whole training, or as long as ``enough`` of them may be."""
        assert self.spec.search is not None
        whole = self.training.length
        if self.spec.search.epochs is not None:
            return TrainingLength(self.spec.search.epochs, whole.iterations_per_epoch)
        share = left / (enough * whole.steps)
        if not SHORTEST_TRIAL <= share < 1.0:
            return whole
        self.reasons.append(f"trained beside others for {share:.0%} of the epochs, which the budget allows")
        return TrainingLength(share * whole.epochs, whole.iterations_per_epoch)

    def _settle_race(self, stage: Stage) -> None:
        """What the race says: the winner, and what the others did beside it."""
        assert self.race is not None
        self.source = "confirm" if stage == "confirm" else "search"
        winner = self.race.winner
        if winner is None or winner.candidate is None:
            raced = [one.candidate.max_lr for one in self.race.entrants if one.candidate is not None and one.values]
            self._give_up(raced)
            return
        self.found = self._whole(winner.candidate)
        if winner is not self.race.own and self.location is None:
            lead = self.race.lead(winner, self.race.own)
            by = "on seeds where it diverged" if lead is None else f"by {lead.difference:.3g} +- {lead.error:.2g}"
            self.reasons.append(f"ahead of the range test's own max_lr {self.race.own.params['max_lr']:.3g} {by}")

    def _whole(self, candidate: Candidate) -> Candidate:
        """The same for the whole training, with as many cycles as the range test's own where it has as many here."""
        own, whole = self._own(self.trial_length), self._own(self.training.length)
        if own is None or whole is None or candidate.cycles != own.cycles:
            return self.training.length.stretch(candidate)
        ratio = candidate.max_lr / candidate.base_lr
        return self.training.length.propose(candidate.max_lr, ratio, whole.cycles, candidate.policy, candidate.rise)

    # what all of them need

    def settle(self, block: Block | None) -> None:
        """Take in what was found until now, in the middle of a block."""
        if isinstance(block, Trials) and block.told:
            self._settle_trials(block)
        elif self.race is not None and self.race.has_begun:
            self._settle_race(block.stage if isinstance(block, Heats) else "search")

    def _give_up(self, rates: Sequence[float]) -> None:
        """Every training at these rates diverged or failed: nothing that did is recommended."""
        self.found = None
        why = f"every training diverged or failed, at max_lr from {min(rates):.3g} to {max(rates):.3g}"
        self.bounds = Bounds.inconclusive(why, *(self.bounds.reasons if self.bounds else ()))

    def _new_study(self) -> Study:
        assert self.spec.search is not None
        assert self.bounds is not None
        study = Study(
            self._space(self.trial_length),
            self.bounds,
            self.training.direction,
            self.spec.seed,
            self._earlier if self.spec.search.warm_start else (),
            highest=self.spec.range_test.max_lr,
        )
        self.reasons += study.reasons
        return study

    @property
    def _floor(self) -> float | None:
        """Value of an untrained network: the first that the first ramp recorded."""
        runs = [] if self.range_test is None else self.range_test.runs
        _, curve = runs[0] if runs else (None, Curve())
        if curve.metric:
            return curve.metric[0]
        return curve.loss[0] if curve.loss else None


def _candidate(params: Mapping[str, Any]) -> Candidate:
    """The schedule that was shown as ``params``."""
    names = Candidate.__dataclass_fields__
    return Candidate(**{name: value for name, value in params.items() if name in names})
