"""One claimed job, from its range test to its confirmation, taken up wherever the store says it stood."""

import logging
import time
from collections.abc import Iterator
from itertools import chain
from threading import Event
from typing import Any

from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import range_test_plan
from clr.run import fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import JobSpec
from clr.trials.baselines import USUAL_BASELINES
from clr.trials.confirmation import confirm_plan, confirm_steps
from clr.trials.study import Search, best, create_study, label_study
from clr.tuning.cost import SEEDS, trainings_of_stages
from clr.tuning.recommendation import Evidence, Recommendation, Source, SpentCost
from service import logs
from service.settings import Settings
from service.store import code, jobs, recommendations, runs, studies
from service.store.database import Database
from service.store.errors import LeaseLost
from service.store.jobs import Lease
from service.store.models import Job
from worker.checkpoints import Checkpoints
from worker.engine import Engine
from worker.errors import OUTAGE, Cancelled, HandedBack, LimitReached, RunFailed
from worker.runs import Item, Runs

log = logging.getLogger(__name__)


class JobDriver:
    """Drives one job on a thread of its own until it is finished, handed back or lost.

    Args:
        database, engine: where to write, where to run.
        job, lease: what was claimed.
        settings: of the worker.
        stopping: set when the worker shuts down.
    """

    def __init__(
        self, database: Database, engine: Engine, job: Job, lease: Lease, *, settings: Settings, stopping: Event
    ) -> None:
        self.database, self.engine, self.lease, self.settings = database, engine, lease, settings
        self.spec = JobSpec.model_validate(job.spec)
        assert job.started_at is not None
        self.reasons: list[str] = []
        self.began = time.monotonic() - (time.time() - job.started_at.timestamp())
        limits = self.spec.limits
        self.runs = Runs(
            database,
            engine,
            lease,
            lease_s=settings.lease_s,
            stopping=stopping,
            trainee=self.spec.model_dump(include={"task", "args", "optimizer", "batch_size"}, mode="json")
            | {"reach": settings.reach(job.submitted_by)},
            resources=self.spec.resources.model_dump() | {"gpus": self.spec.resources.gpus or 0},
            spent=job.steps,
            max_steps=limits.max_steps,
            deadline=None if limits.max_seconds is None else self.began + limits.max_seconds,
            checkpoints=Checkpoints(settings.checkpoints, job.id, settings.checkpoint_seconds),
        )

    def drive(self) -> None:
        """Work until there is nothing left to do, and leave the job in the state it belongs in."""
        logs.job_id.set(self.lease.job_id)
        try:
            self._work()
            self._end(jobs.succeed)
        except (LeaseLost, *OUTAGE) as error:
            self.runs.drop()
            log.warning("left to its next owner: job=%s: %s", self.lease.job_id, error)
        except Cancelled:
            self._end(jobs.cancelled)
        except HandedBack:
            self._end(jobs.release)
        except RunFailed as error:
            self._end(jobs.fail, str(error))
        except Exception as error:
            log.exception("job failed: job=%s", self.lease.job_id)
            self._end(jobs.fail, f"{type(error).__name__}: {error}")

    def _end(self, transition: Any, *details: str) -> None:
        self.runs.drop()
        try:
            with self.database.begin() as session:
                transition(session, self.lease, *details)
            if transition is not jobs.release:
                self.runs.checkpoints.remove()
        except (LeaseLost, *OUTAGE) as error:
            log.warning("left to its next owner at the end: job=%s: %s", self.lease.job_id, error)

    def _work(self) -> None:
        self._inspect_task()
        bounds = self._range_test()
        first = bounds.candidate(self.length)
        if first is None or self.spec.search is None:
            return
        try:
            self._search(bounds)
            finalists = list(dict.fromkeys([self._best_trial() or first, first]))
            self._recommend("search", bounds, finalists[0])
            if self.spec.confirm is not None:
                self._confirm(bounds, finalists)
        except LimitReached as limit:
            self.runs.drop()
            found = self._best_trial()
            warning = f"{limit} was reached; what was found until then is recommended, without confirmation"
            self._recommend("search" if found else "range_test", bounds, found or first, warnings=[warning])

    def _inspect_task(self) -> None:
        """Learn from the task itself how long an epoch is and what a run is judged by."""
        wanted = self.runs.resources
        if self.engine.slots(wanted) == 0:
            raise RunFailed(
                f"resources: no node has the {wanted} that a run needs; the cluster has {self.engine.total()}"
            )
        self._ship_code()
        about = self.engine.inspect_task(self.runs.trainee, self.runs.bundle, wanted, check=self.runs.check)
        self.metric, self.direction, self.used = about["metric"], about["direction"], about["trained_with"]
        self.length = TrainingLength(self.spec.epochs, about["iterations_per_epoch"])
        trainings = sum(trainings_of_stages(self.spec, self.length).values())
        self.runs.predicted_steps = max(1, round(trainings * self.length.steps))
        with self.database.begin() as session:
            jobs.set_training(session, self.lease, **about, predicted_steps=self.runs.predicted_steps)

    def _ship_code(self) -> None:
        if self.spec.code is None:
            return
        if not self.settings.allow_code:
            raise RunFailed("code: this worker runs no uploaded code; its admin may set CLR_ALLOW_CODE=true")
        with self.database.read() as session:
            data = code.data(session, self.spec.code)
        self.runs.bundle = self.engine.ship(self.spec.code, data, self.settings.code_requirements)

    def _range_test(self) -> Bounds:
        plan = range_test_plan(self.length, self.spec.range_test, self.spec.seed, self.spec.limits.max_steps)
        try:
            tested = self.runs.follow("range_test", plan)
        except LimitReached as limit:
            self.runs.drop()
            bounds = Bounds.inconclusive(f"{limit} was reached before the range test ended")
        else:
            bounds = tested.bounds
            with self.database.begin() as session:
                jobs.set_range_test(session, self.lease, tested.to_dict())
        self._recommend("range_test", bounds, bounds.candidate(self.length))
        return bounds

    def _search(self, bounds: Bounds) -> None:
        """Ask, run and tell until all trials are told. Trials under way when a worker died run again, as they were."""
        spec = self.spec.search
        assert spec is not None
        study = create_study(studies.storage(self.database.url), self.lease.job_id, self.direction, self.spec.seed)
        label_study(study, self.spec, self.metric)
        length = TrainingLength(spec.epochs or self.spec.epochs, self.length.iterations_per_epoch)
        with self.database.read() as session:
            rows = runs.of_stage(session, self.lease.job_id, "search")
            earlier = recommendations.alike(session, self.lease.job_id) if spec.warm_start else []
        search = Search(study, spec, bounds, length, earlier)
        self.reasons = search.reasons
        for row in rows:
            if row.state != "running":
                search.tell(row.number, row.value)
        again = {row.number: Candidate(**row.params) for row in rows if row.state == "running"}
        search.forget_all_but(again)
        (seed,) = fresh_seeds(self.spec.seed, "search", 1)

        def trials() -> Iterator[Item]:
            fresh = (search.ask() for _ in range((spec.trials or 20) - len(rows)))
            for number, candidate in chain(again.items(), fresh):
                yield number, candidate.run(seed), candidate.to_dict()

        try:
            for number, curve in self.runs.carry_out("search", trials(), search.should_prune):
                search.tell(number, curve.value)
        except (Cancelled, LimitReached, RunFailed):
            search.close()
            raise

    def _best_trial(self) -> Candidate | None:
        with self.database.read() as session:
            rows = runs.finished(session, self.lease.job_id, "search")
        found = best([(row.value, Candidate(**row.params)) for row in rows], self.direction)
        return None if found is None else self.length.stretch(found)

    def _confirm(self, bounds: Bounds, finalists: list[Candidate]) -> None:
        assert self.spec.confirm is not None
        seeds, given = self.spec.confirm.seeds or SEEDS, self.spec.confirm.baselines
        baselines = USUAL_BASELINES if given is None else given
        if not self.runs.affords(confirm_steps(finalists, seeds, baselines, self.length)):
            raise LimitReached(f"limits.max_steps = {self.spec.limits.max_steps}")
        found = self.runs.follow(
            "confirm", confirm_plan(finalists, seeds, baselines, self.length, self.spec.seed, self.direction)
        )
        evidence = Evidence(self.metric, self.direction, self.spec.epochs, seeds, found.runs, found.verdict)
        self._recommend("confirm", bounds, found.winner, evidence=evidence, warnings=found.warnings)

    def _recommend(self, source: Source, bounds: Bounds, candidate: Candidate | None, **more: Any) -> None:
        steps = self.runs.spent
        document = Recommendation.of(
            source,
            bounds,
            candidate,
            self.length.iterations_per_epoch,
            job_id=self.lease.job_id,
            cost=SpentCost.of(steps, time.monotonic() - self.began, self.length.steps),
            optimizer=self.used["optimizer"],
            batch_size=self.used["batch_size"],
            **more,
        ).to_dict()
        document["reasons"] += self.reasons
        with self.database.begin() as session:
            recommendations.put(
                session, self.lease, document, task=self.spec.task, optimizer=self.used["optimizer"]["name"]
            )
