"""An external job inside one transaction that holds its row: its session, how it goes on, and how it ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property

from optuna.exceptions import OptunaError
from sqlalchemy.orm import Session as Transaction

from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.trials.study import StudyMirror
from clr.tuning.cost import trainings_of_stages
from clr.tuning.orders import Over
from clr.tuning.session import Session
from service.external.clock import CLOCK
from service.store import jobs, recommendations, runs, sessions, studies
from service.store.database import Database
from service.store.errors import Conflict, NotFound
from service.store.jobs import Lease
from service.store.models import Job, RunRow

log = logging.getLogger(__name__)

HOLD_S = 60.0
"""How long one process may take to show a study: nobody else writes to it meanwhile."""

SKEW = timedelta(seconds=60)
"""So far may the clocks of this machine and of the database, or of two replicas, lie apart."""

RUN_S = 600.0
"""Seconds without a report after which a run is handed out again, where ``limits.run_seconds`` says no other."""


class ExternalJob:
    """What was asked for, what was reported, and what follows from it.

    Args:
        transaction: nothing here commits it.
        job, lease: as ``jobs.attend`` gives them.
    """

    def __init__(self, transaction: Transaction, job: Job, lease: Lease) -> None:
        self.transaction, self.job, self.lease = transaction, job, lease
        self.spec = JobSpec.model_validate(job.spec)
        if job.iterations_per_epoch is None:
            self._set_training()

    def _set_training(self) -> None:
        """Record what the spec tells of the training."""
        spec = self.spec
        assert spec.iterations_per_epoch is not None
        assert spec.direction is not None
        length = TrainingLength(spec.epochs, spec.iterations_per_epoch)
        optimizer = None if spec.optimizer is None else spec.optimizer.model_dump(mode="json")
        jobs.set_training(
            self.transaction,
            self.lease,
            iterations_per_epoch=spec.iterations_per_epoch,
            metric="metric",
            direction=spec.direction,
            trained_with={"optimizer": optimizer, "batch_size": spec.batch_size},
            predicted_steps=max(1, round(sum(trainings_of_stages(spec, length).values()) * length.steps)),
        )
        self.job = jobs.get(self.transaction, self.job.id)

    @cached_property
    def session(self) -> Session:
        """As the stored runs say that it stands; those that run are in the hands of trainers."""
        return sessions.rebuild(self.transaction, self.job, in_hands=True)

    def take_note(self, stage: str | None = None) -> None:
        """Record how far the job is and what it recommends, after a run that has changed; end it when it is over."""
        self.__dict__.pop("session", None)
        self.transaction.expire_all()  # the runs were written past the objects that were read
        self.job = jobs.get(self.transaction, self.job.id)
        session = self.session
        order = session.next()  # what has ended is taken in on the way; an order that nobody takes is none
        at = stage or session.stage or self.job.stage or "range_test"
        self.tell_progress(at)
        self.recommend()
        if isinstance(order, Over):
            self.conclude()

    def tell_progress(self, stage: str) -> None:
        """Record how far the job is, and where each of its runs stands."""
        sessions.tell_progress(self.transaction, self.lease, self.session, stage)

    def recommend(self) -> None:
        """Store the present recommendation, if there is one."""
        session = self.session
        session.seconds = seconds_since_start(self.job)
        found = session.recommendation
        if found is None:
            return
        if self.job.range_test is None and session.range_test is not None:
            jobs.set_range_test(self.transaction, self.lease, session.range_test.to_dict())
        recommendations.put(
            self.transaction,
            self.lease,
            found.to_dict(),
            task=self.spec.task,
            optimizer=recommendations.optimizer_of(session.trained_with),
        )

    def conclude(self) -> None:
        """End the job: there is nothing more to train."""
        if self.session.failure is not None:
            jobs.fail(self.transaction, self.lease, self.session.failure)
        else:
            jobs.succeed(self.transaction, self.lease)

    def is_silent(self, row: RunRow) -> bool:
        """Whether the trainer of a running run has given no report for too long, or said that it failed."""
        if row.run.get("lost"):
            return True
        last = datetime.fromisoformat(row.run["reported_at"]) if "reported_at" in row.run else row.started_at
        silent = CLOCK.since(last)
        if silent < -SKEW:  # the clock was set back: it is silent from now on
            note = row.run | {"reported_at": CLOCK.look().isoformat()}
            runs.note(self.transaction, self.lease, stage=row.stage, number=row.number, run=note)
        return silent > timedelta(seconds=self.spec.limits.run_seconds or RUN_S)

    def running(self) -> list[RunRow]:
        """The runs that were handed out and have not ended."""
        rows = [row for stage in sessions.STAGES for row in runs.of_stage(self.transaction, self.job.id, stage)]
        return [row for row in rows if row.state == "running"]


@contextmanager
def attending(database: Database, job_id: str) -> Iterator[ExternalJob]:
    """A transaction that holds the row of an unfinished external job; ends one whose time is up instead."""
    expire(database, job_id)
    with database.begin() as transaction:
        state = jobs.get(transaction, job_id).state
        if state in jobs.FINISHED:
            raise Conflict(f"job {job_id} is over: it is {state}; extend it, or submit another")
        yield ExternalJob(transaction, *jobs.attend(transaction, job_id))
    settle(database, job_id)


def settle(database: Database, job_id: str) -> None:
    """Show the job's study in Optuna's tables as our own say it is; of a deleted job, nothing.

    With no transaction open, since a study writes through connections of its own. Where another process is at it, it
    is left to ``settle_all``.
    """
    try:
        _settle(database, job_id)
    except NotFound:  # also where it was deleted while its study was shown
        studies.delete(database.url, job_id)
    except OptunaError as error:  # it stays unshown, and is shown later
        log.warning("the study of job %s could not be shown: %s", job_id, error)


def _settle(database: Database, job_id: str) -> None:
    with database.begin() as transaction:
        job = jobs.get(transaction, job_id)
        if job.mode != "external":
            return
        unshown, finished = job.unshown, job.state in jobs.FINISHED
        lease = jobs.hold(transaction, Lease(job_id, job.fencing_token, "external"), lease_s=HOLD_S)
        if lease is None:
            return
        session = None if job.iterations_per_epoch is None else sessions.rebuild(transaction, job, in_hands=True)
        if session is not None:
            session.next()  # an order that nobody takes: its trial is not shown
        taken = len(runs.of_stage(transaction, job_id, "search"))
    shown = 0
    try:
        if session is not None and session.study is not None:
            mirror = StudyMirror(studies.remembering(database.url, job_id), job_id, session.attributes)
            mirror.show(session.study, over=finished, trials=taken)
        shown = unshown
    finally:
        with database.begin() as transaction:
            jobs.let_go(transaction, lease, shown=shown)


def settle_all(database: Database) -> None:
    """Show what nobody has shown: its process was ended, or another was at the study just then."""
    with database.read() as transaction:
        behind = jobs.unshown(transaction)
    for job_id in behind:
        settle(database, job_id)


def expire(database: Database, job_id: str) -> None:
    """End the job, if it is external, running, and ``limits.max_seconds`` have passed since its start."""
    with database.read() as transaction:
        due = _is_due(jobs.get(transaction, job_id))
    if not due:
        return
    with database.begin() as transaction:
        attended = ExternalJob(transaction, *jobs.attend(transaction, job_id))
        attended.session.next()
        attended.session.limit(f"limits.max_seconds = {attended.spec.limits.max_seconds:g}")
        attended.recommend()
        attended.conclude()
    settle(database, job_id)


def expire_all(database: Database) -> None:
    """End the jobs whose time is up while nobody reports."""
    CLOCK.look()
    with database.read() as transaction:
        due = [job.id for job in jobs.attended(transaction) if _is_due(job)]
    for job_id in due:
        with suppress(Conflict, NotFound):  # somebody else was faster
            expire(database, job_id)


def _is_due(job: Job) -> bool:
    limit = job.spec["limits"]["max_seconds"]
    return job.mode == "external" and job.state == "running" and limit is not None and seconds_since_start(job) > limit


def seconds_since_start(job: Job) -> float:
    """Since the job's first report; 0 before it."""
    return 0.0 if job.started_at is None else max(0.0, CLOCK.since(job.started_at).total_seconds())
