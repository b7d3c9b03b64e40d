"""The session: what a job does, from its range test to its recommendation. No I/O, no torch.

A driver asks it for the next run, trains that wherever it trains, and tells what came of it:

    while not isinstance(order := session.next(), Over):
        if isinstance(order, Waiting): ...           # until a run that is under way has ended
        session.hear(order.stage, order.number, points)   # as they come; it may say that no more are needed
        session.end(order.stage, order.number)

It is rebuilt from the runs that were told: everything else follows from them and the spec.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest
from clr.run import Point, record, value_of
from clr.spec import JobSpec
from clr.trials.race import NOT_COMPARED, Race
from clr.trials.study import Study
from clr.tuning.blocks import Block, Trials
from clr.tuning.cost import trainings_of_stages
from clr.tuning.course import Course
from clr.tuning.evidence import alternatives_of, evidence_of
from clr.tuning.orders import Advice, Order, Over, RunState, Stage, ToldRun, Training, Waiting
from clr.tuning.recommendation import PROVISIONAL, Evidence, Recommendation, SpentCost, reasons_of_groups

COMPARED = 4
"""Trainings more that are enough to compare an answer with a baseline."""


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
        self.course = Course(spec, training, extensions, earlier, recorded, recorded_steps)
        self.spec, self.training, self.job_id = self.course.spec, training, job_id
        self.seconds = 0.0
        self._warnings: list[str] = []
        self._under_way: dict[tuple[Stage, int], tuple[Order, list[Point]]] = {}
        self._known: dict[tuple[Stage, int], ToldRun] = {}
        self._stopped: set[tuple[Stage, int]] = set()
        self._repeated: dict[tuple[Stage, int], int] = {}
        self._next: dict[Stage, int] = {"range_test": 0, "search": 0, "confirm": 0}
        self._in_hands = False
        self._limit: str | None = None
        self._failure: str | None = None
        self._blocks = self.course.blocks()
        self._block: Block | None = next(self._blocks, None)

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
            if known is not None and not order.run.is_much_like(known.order.run):
                self.fail(
                    f"{stage} run {number} was recorded under another plan, by another version of clr: submit anew"
                )
                continue
            if known is not None:
                self._repeated[stage, number] = known.repeated
                if known.state != "running":
                    self._end(replace(known, order=order))
                    continue
            self._under_way[stage, number] = order, list(known.points) if known else []
            if known is None:
                return order
            if not self._in_hands:
                return self.hand_out_again(stage, number)

    def next_ones(self, together: bool) -> list[Order]:
        """The next run, and ``together`` with all that are the same whatever comes of it; none while there is none."""
        orders = []
        while isinstance(order := self.next(), Order):
            orders.append(order)
            if not together or self._block is None or not self._block.at_once:
                break
        return orders

    def hear(self, stage: Stage, number: int, points: Sequence[Point], *, restored: bool = False) -> Advice:
        """Take the points that a run under way has recorded since; whether it is worth any more steps.

        Args:
            stage, number: of the run.
            points: in order.
            restored: whether they are an earlier attempt's, read back from its checkpoint.
        """
        order, so_far = self._under_way[stage, number]
        before = so_far[-1].step if so_far else 0
        for point in points:
            record(so_far, point, order.run.steps)
        if restored and so_far:
            self._repeated[stage, number] = max(0, self._repeated[stage, number] - (so_far[-1].step - before))
        self._heed_max_steps()
        if so_far and so_far[-1].diverged:
            return Advice(True, "the training diverged")
        if self._limit is not None:
            return Advice(True, f"{self._limit} was reached")
        judged = isinstance(self._block, Trials) and any(point.metric is not None for point in points)
        if judged and so_far[-1].step < order.run.steps and self._is_behind(number, so_far):
            self._stopped.add((stage, number))
        if (stage, number) in self._stopped:
            return Advice(True, "the trial is among the worst third at this share of its steps")
        return Advice(False)

    def end(self, stage: Stage, number: int) -> ToldRun:
        """Take note that a run has ended: it is judged by what it recorded, and counts as pruned if that is not all.

        One that a limit broke off is told as it stands, running: that says nothing of its schedule.
        """
        order, points = self._under_way[stage, number]
        if points and (points[-1].diverged or points[-1].step >= order.run.steps):
            return self._close(stage, number, "complete", value_of(points))
        return self._close(stage, number, "pruned" if self._limit is None else "running", None)

    def tell(self, stage: Stage, number: int, value: float | None) -> ToldRun:
        """Take note of how a run has ended by a trainer's own account; None: it diverged."""
        stopped = (stage, number) in self._stopped and value is not None
        return self._close(stage, number, "pruned" if stopped else "complete", None if stopped else value)

    def tell_failed(self, stage: Stage, number: int) -> ToldRun:
        """Take note that a run has failed for good, for a reason that is not the schedule's."""
        return self._close(stage, number, "failed", None)

    def _close(self, stage: Stage, number: int, state: RunState, value: float | None) -> ToldRun:
        order, points = self._under_way.pop((stage, number))
        ended = ToldRun(order, state, points, value, self._repeated.get((stage, number), 0))
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
        order, points = self._under_way[stage, number]
        self._repeated[stage, number] = self._repeated.get((stage, number), 0) + (points[-1].step if points else 0)
        self._under_way[stage, number] = order, []
        return order

    @property
    def under_way(self) -> list[Order]:
        """Runs that were ordered and have not ended."""
        return [order for order, _ in self._under_way.values()]

    @property
    def broken_off(self) -> list[ToldRun]:
        """Those runs as they are told to a session that goes on later: they are trained anew, and their steps count."""
        return [
            ToldRun(order, "running", points, None, self._repeated.get((order.stage, order.number), 0))
            for order, points in self._under_way.values()
        ]

    @property
    def standing(self) -> list[dict[str, Any]]:
        """Where each of them stands: stage, number, ``step`` of its ``steps``, and the loss since its last point."""
        return [
            {
                "stage": order.stage,
                "number": order.number,
                "step": points[-1].step if points else 0,
                "steps": order.run.steps,
                "loss": points[-1].running_loss if points else None,
            }
            for order, points in self._under_way.values()
        ]

    @property
    def stage(self) -> Stage | None:
        """What it is at; None when it is over."""
        return None if self._block is None else self._block.stage

    @property
    def steps_so_far(self) -> int:
        """Optimizer steps of all runs, those under way among them, and those that had to be trained anew."""
        under_way = sum(points[-1].step for _, points in self._under_way.values() if points)
        return self.course.steps + under_way + sum(self._repeated.values())

    @property
    def predicted_steps(self) -> int:
        """Optimizer steps that the whole job takes at most."""
        trainings = sum(trainings_of_stages(self.spec, self.training.length).values()) + sum(self.course.extensions)
        most = max(1, round(trainings * self.training.length.steps))
        return min(most, self.spec.limits.max_steps or most)

    @property
    def progress(self) -> float:
        """Share of the job's steps that are done, below 1 until it has ended."""
        return min(0.99, self.steps_so_far / self.predicted_steps)

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
    def reached(self) -> str | None:
        """The limit that has ended it, where one has."""
        return self._limit

    @property
    def failure(self) -> str | None:
        """Why the job cannot go on, where it cannot."""
        return self._failure

    # limits and ends

    def _advance(self) -> None:
        self._block = next(self._blocks, None)

    def _end(self, told: ToldRun) -> None:
        assert self._block is not None
        self.course.steps += told.steps
        if told.state == "running":
            return
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
        steps = runs[self._block.asked][0].steps if self._block.asked < len(runs) else self.course.trial_length.steps
        waiting = sum(
            order.run.steps - (points[-1].step if points else 0) for order, points in self._under_way.values()
        )
        if self.steps_so_far + waiting + steps <= limit:
            return True
        if not self._under_way:
            self.limit(f"limits.max_steps = {limit}")
        return False

    def _heed_max_steps(self) -> None:
        """A run that fitted when it was ordered may pass the limit all the same: by having begun anew."""
        limit = self.spec.limits.max_steps
        if limit is not None and self.steps_so_far > limit:
            self.limit(f"limits.max_steps = {limit}")

    def _conclude_early(self) -> None:
        """Recommend what was found until the limit was reached."""
        if self.course.bounds is None:
            self.course.settle_range_test(f"{self._limit} was reached before the range test ended")
            return
        self.course.settle(self._block)
        self._warnings.append(f"{self._limit} was reached; what was found until then is recommended")

    def _over(self) -> Over:
        if self._failure is not None:
            return Over(self._failure)
        if self._limit is not None:
            return Over(f"{self._limit} was reached")
        if self.course.bounds is not None and self.course.bounds.max_lr is None:
            return Over("; ".join(self.course.bounds.reasons))
        return Over("everything planned was trained")

    def _is_behind(self, number: int, points: Sequence[Point]) -> bool:
        assert self.study is not None
        metrics = [(point.step, point.metric) for point in points if point.metric is not None]
        return self.study.should_prune(number, metrics)

    # the answer

    @property
    def range_test(self) -> RangeTest | None:
        """What the range test recorded and found; None until it has ended."""
        return self.course.range_test

    @property
    def study(self) -> Study | None:
        """Optuna's view of the search; None before it."""
        return self.course.study

    @property
    def race(self) -> Race | None:
        """The schedules that are trained side by side; None before."""
        return self.course.race

    @property
    def bounds(self) -> Bounds | None:
        """What the range test says, or said before every training diverged; None until it has ended."""
        return self.course.bounds

    @property
    def recommendation(self) -> Recommendation | None:
        """What is recommended now; None until there is something to say.

        Before the range test has ended that is what its runs so far say, of low confidence.
        """
        course = self.course
        if course.bounds is None:
            return self._provisional()
        evidence, alternatives = None, []
        warnings: list[str] = []
        if course.race is not None and course.found is not None and course.race.has_begun:
            evidence, warnings = evidence_of(course.race, self.training, course.trial_length.epochs)
            alternatives = alternatives_of(course.race, self.training)
        assert course.told_bounds is not None
        return Recommendation.of(
            course.source,
            course.told_bounds,
            course.found if course.bounds.max_lr is not None else None,
            **self._about(),
            evidence=evidence,
            warnings=[*self._warnings, *warnings],
            alternatives=alternatives,
            reasons=[*course.reasons, *self._missing(evidence), *self.remarks],
        )

    @property
    def remarks(self) -> list[str]:
        """What people should know of what is trained."""
        return [*reasons_of_groups(self.training.optimizer), *self.training.remarks]

    def _missing(self, evidence: Evidence | None) -> list[str]:
        """What the budget did not reach, and the line that gets it."""
        compared = evidence is not None and evidence.verdict != NOT_COMPARED
        if compared or self.stage is not None or self.course.found is None or not self.course.wants_baseline:
            return []
        whole = sum(self.course.extensions) + (self.spec.budget or 0)
        line = f"clr extend {self.job_id} --budget {COMPARED}" if self.job_id else f"budget={whole + COMPARED:g}"
        return [f"not compared with a baseline, which {line} does"]

    def _provisional(self) -> Recommendation | None:
        bounds = self.course.bounds_so_far(PROVISIONAL)
        if bounds.max_lr is None:
            return None
        candidate = self.course.own_of(bounds, self.training.length)
        return Recommendation.of("range_test", bounds, candidate, **self._about(), reasons=self.remarks)

    def _about(self) -> dict[str, Any]:
        return {
            "iterations_per_epoch": self.training.length.iterations_per_epoch,
            "job_id": self.job_id,
            "cost": SpentCost.of(self.steps_so_far, self.seconds, self.training.length.steps),
            **self.trained_with,
        }
