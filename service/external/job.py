"""An external job inside one transaction that holds its row: how it stands, and how it ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy.orm import Session

from clr.range_tests.bounds import Bounds
from clr.run import Direction
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import JobSpec
from clr.trials.study import best
from clr.tuning.cost import trainings_of_stages
from clr.tuning.recommendation import Recommendation, Source, SpentCost
from service.external.study import settle
from service.store import jobs, recommendations, runs
from service.store.database import Database
from service.store.errors import Conflict, NotFound
from service.store.jobs import Lease
from service.store.models import Job, RunRow


class ExternalJob:
    """What was asked for, what was reported, and what follows from it.

    Args:
        session: of the transaction; nothing here commits.
        job, lease: as ``jobs.attend`` gives them.
    """

    def __init__(self, session: Session, job: Job, lease: Lease) -> None:
        self.session, self.job, self.lease = session, job, lease
        self.spec = JobSpec.model_validate(job.spec)
        self.ended = False

    @property
    def length(self) -> TrainingLength:
        """The training to be recommended for."""
        assert self.job.iterations_per_epoch is not None
        return TrainingLength(self.spec.epochs, self.job.iterations_per_epoch)

    @property
    def trial_length(self) -> TrainingLength:
        """The length of a trial."""
        assert self.spec.search is not None
        return TrainingLength(self.spec.search.epochs or self.spec.epochs, self.length.iterations_per_epoch)

    @property
    def bounds(self) -> Bounds:
        """The reading of the range test so far."""
        return Bounds(**(self.job.range_test or {})["bounds"])

    @cached_property
    def trials(self) -> list[RunRow]:
        """Those handed out so far, by number."""
        return runs.of_stage(self.session, self.job.id, "search")

    @property
    def running(self) -> list[RunRow]:
        """Trials that were handed out and not told."""
        return [row for row in self.trials if row.state == "running"]

    def why_no_more(self) -> str | None:
        """Why no further trial is handed out; None while there are more."""
        search = self.spec.search
        if search is None:
            return "the job has no search: its spec says search = null"
        if len(self.trials) >= (search.trials or 20):
            return f"the search is over: all {search.trials or 20} trials were handed out"
        return self.limit_reached()

    def limit_reached(self) -> str | None:
        """What ``limits.max_steps`` says to another trial; None where it affords one."""
        limit, steps = self.spec.limits.max_steps, self.trial_length.steps
        under_way = sum(row.run["steps"] - row.steps for row in self.running)
        if limit is None or self.job.steps + under_way + steps <= limit:
            return None
        return f"limits.max_steps = {limit} leaves no room for another trial of {steps} steps"

    def set_training(self, iterations_per_epoch: int, direction: Direction) -> None:
        """Record what a range test tells of the training, and with it the steps of the whole job."""
        trials = (
            trainings_of_stages(self.spec, None)["search"]
            * TrainingLength(self.spec.epochs, iterations_per_epoch).steps
        )
        jobs.set_training(
            self.session,
            self.lease,
            iterations_per_epoch=iterations_per_epoch,
            metric="metric",
            direction=direction,
            trained_with=None,
            predicted_steps=max(1, round(self.job.steps + trials)),
        )
        self.refresh()

    def spend(self, stage: str, steps: int) -> None:
        """Record that the job is at ``stage`` and went on by so many steps."""
        spent = self.job.steps + steps
        share = min(0.99, spent / (self.job.predicted_steps or 1))
        jobs.progress(self.session, self.lease, stage=stage, progress=share, steps=spent)
        self.refresh()

    def refresh(self) -> None:
        """Look at the job as this transaction has left it."""
        self.job = jobs.get(self.session, self.job.id)

    def recommend(self, warnings: Sequence[str] = (), reasons: Sequence[str] | None = None) -> None:
        """Recommend the best trial told so far; before there is one, what the range test says.

        Without ``reasons``, those of the present recommendation stay.
        """
        found = self._best_trial()
        source: Source = "search" if found else "range_test"
        candidate = found or self.bounds.candidate(self.length)
        document = Recommendation.of(
            source,
            self.bounds,
            candidate,
            self.length.iterations_per_epoch,
            job_id=self.job.id,
            cost=SpentCost.of(self.job.steps, self.seconds, self.length.steps),
            warnings=list(warnings),
        ).to_dict()
        present = recommendations.get(self.session, self.job.id)
        if reasons is None and present is not None:
            reasons = present.document["reasons"]
        document["reasons"] = list(reasons or document["reasons"])
        recommendations.put(self.session, self.lease, document, task=self.spec.task, optimizer=None)

    @property
    def seconds(self) -> float:
        """Since the first report."""
        return seconds_since_start(self.job)

    def _best_trial(self) -> Candidate | None:
        if self.job.direction is None:
            return None
        complete = ((row.value, Candidate(**row.params)) for row in self.trials if row.state == "complete")
        found = best(complete, self.job.direction)  # type: ignore[arg-type]  # it was stored from one
        return None if found is None else self.length.stretch(found)

    def conclude(self, warning: str | None = None) -> None:
        """End the job, and warn of the limit that struck."""
        if self.spec.search is not None and len(self.trials) < (self.spec.search.trials or 20):
            warning = warning or self.limit_reached()
        if warning:
            self.recommend([f"{warning}; what was found until then is recommended"])
        jobs.succeed(self.session, self.lease)
        self.ended = True


@contextmanager
def attending(database: Database, job_id: str) -> Iterator[ExternalJob]:
    """A transaction that holds the row of an unfinished external job; ends one whose time is up instead."""
    expire(database, job_id)
    with database.begin() as session:
        state = jobs.get(session, job_id).state
        if state in jobs.FINISHED:
            raise Conflict(f"job {job_id} is over, and its search with it: it is {state}; submit another")
        attended = ExternalJob(session, *jobs.attend(session, job_id))
        yield attended
    if attended.ended:
        settle(database, job_id)


def expire(database: Database, job_id: str) -> None:
    """End the job, if it is external, running, and ``limits.max_seconds`` have passed since its start."""
    with database.read() as session:
        due = _is_due(jobs.get(session, job_id))
    if not due:
        return
    with database.begin() as session:
        attended = ExternalJob(session, *jobs.attend(session, job_id))
        attended.conclude(f"limits.max_seconds = {attended.spec.limits.max_seconds:g} was reached")
    settle(database, job_id)


def expire_all(database: Database) -> None:
    """End the jobs whose time is up while nobody reports."""
    with database.read() as session:
        due = [job.id for job in jobs.attended(session) if _is_due(job)]
    for job_id in due:
        with suppress(Conflict, NotFound):  # somebody else was faster
            expire(database, job_id)


def _is_due(job: Job) -> bool:
    limit = job.spec["limits"]["max_seconds"]
    return job.mode == "external" and job.state == "running" and limit is not None and seconds_since_start(job) > limit


def seconds_since_start(job: Job) -> float:
    """Since the job's first report; 0 before it."""
    return 0.0 if job.started_at is None else max(0.0, (datetime.now(UTC) - job.started_at).total_seconds())
