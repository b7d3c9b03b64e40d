"""What must hold after the storm, by SQL and REST: each a list of what breaks it."""

import time
from collections import Counter
from collections.abc import Iterator

import optuna
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store import jobs, runs, studies
from service.store.database import Database
from service.store.models import EventRow, Job, PointsRow, RunRow
from tests.storm.world import World

STAGES = ("range_test", "search", "confirm")
CLOSED_S = 30.0
"""How long a connection may stay open over which no request comes."""

Finished = dict[tuple[str, str, int], tuple[object, ...]]


def finished(database: Database) -> Finished:
    """All runs that have ended, as they are stored: they never change."""
    with database.read() as session:
        rows = session.scalars(select(RunRow).where(RunRow.state != "running"))
        return {(r.job_id, r.stage, r.number): (r.attempt, r.state, r.value, r.steps, r.finished_at) for r in rows}


def broken(world: World, database: Database, before: Finished) -> dict[str, list[str]]:
    """By invariant, what breaks it."""
    now = finished(database)
    with database.read() as session:
        stored = {job.id: job for job in session.scalars(select(Job))}
        accepted = set(world.accepted.values()) - world.deleted
        ended = [job for job in stored.values() if job.state in jobs.FINISHED]
        return {
            "lost": sorted(accepted - set(stored)),
            "stuck": [f"{job.id}: {job.state} at {job.stage}" for job in stored.values() if job not in ended],
            "failed": [f"{job.id}: {job.error}" for job in ended if job.state == "failed"],
            "cancelled unasked": [
                job.id for job in ended if job.state == "cancelled" and job.id not in world.cancelled
            ],
            "duplicated": list(_duplicated(session)),
            "changed after their end": [
                str(key) for key, row in before.items() if key[0] in stored and now.get(key) != row
            ],
            "spliced": list(_spliced(session, stored)),
            "ended twice": list(_ended_twice(session)),
            "events told wrongly": list(_told_wrongly(session, world, stored)),
            "unlike their study": list(_unlike_their_study(session, database.url, ended)),
            "not to be read": list(_unread(world, accepted)),
            "left open": list(_left_open(world)),
            "5xx, or worse": world.wrong,
        }


def _duplicated(session: Session) -> Iterator[str]:
    keys = Counter(session.scalars(select(Job.idempotency_key).where(Job.idempotency_key.is_not(None))))
    yield from (key for key, number in keys.items() if key and number > 1)


def _spliced(session: Session, stored: dict[str, Job]) -> Iterator[str]:
    """Points of another attempt than the run's, or out of order."""
    attempts = {
        (row.job_id, row.stage, row.number): row.attempt
        for job_id in stored
        for stage in STAGES
        for row in runs.of_stage(session, job_id, stage)
    }
    last: dict[tuple[str, str, int], int] = {}
    columns = (PointsRow.job_id, PointsRow.stage, PointsRow.number, PointsRow.attempt, PointsRow.data)
    query = select(*columns).order_by(PointsRow.job_id, PointsRow.stage, PointsRow.number, PointsRow.seq)
    for job_id, stage, number, attempt, data in session.execute(query):
        key = (job_id, stage, number)
        if attempts.get(key) != attempt or data["step"] <= last.get(key, 0):
            yield f"{key} attempt {attempt} of {attempts.get(key)}: step {data['step']} after {last.get(key)}"
        last[key] = data["step"]


def _ended_twice(session: Session) -> Iterator[str]:
    ends = (
        select(EventRow.job_id, func.count())
        .where(EventRow.kind == "state", EventRow.data["state"].as_string().in_(jobs.FINISHED))
        .group_by(EventRow.job_id)
    )
    yield from (job_id for job_id, number in session.execute(ends) if number > 1)


def _told_wrongly(session: Session, world: World, stored: dict[str, Job]) -> Iterator[str]:
    """Where a follower, over all interruptions, did not hear each event once and in order.

    The store keeps the latest alone of those that tell how far a job is: others were told, and are there no more.
    """
    for job_id, told in world.told.items():
        if job_id in stored:
            there = list(session.scalars(select(EventRow.id).where(EventRow.job_id == job_id).order_by(EventRow.id)))
            missed = set(there) - set(told)
            if missed or told != sorted(set(told)):
                yield f"{job_id}: not told of {sorted(missed)}, {len(told) - len(set(told))} twice"


def _unlike_their_study(session: Session, url: str, ended: list[Job]) -> Iterator[str]:
    """Where Optuna's tables have another number of trials than ours have runs, or one that has not ended."""
    for job in ended:
        study = studies.find(url, job.id)
        trials = [] if study is None else study.get_trials(deepcopy=False)
        ours = runs.of_stage(session, job.id, "search")
        running = [trial.number for trial in trials if not trial.state.is_finished()]
        if running or (trials and len(trials) != len(ours)):
            yield f"{job.id} ({job.mode}, {job.state}): {len(trials)} trials, {len(ours)} runs, not ended: {running}"
    names = set(optuna.get_all_study_names(studies.storage(url)))
    yield from (f"a study of no job: {name}" for name in names - set(session.scalars(select(Job.id))))


def _unread(world: World, accepted: set[str]) -> Iterator[str]:
    for job_id in sorted(accepted):
        answer = world.call("GET", f"/v1/jobs/{job_id}")
        if answer.status_code != 200:
            yield f"{job_id}: {answer.status_code}"
        elif answer.json()["state"] == "succeeded":
            found = world.call("GET", f"/v1/jobs/{job_id}/recommendation")
            if found.status_code != 200:
                yield f"{job_id}: its recommendation is {found.status_code}"


def _left_open(world: World) -> Iterator[str]:
    """Connections that the service has not closed."""
    deadline = time.monotonic() + CLOSED_S
    for connection in world.half_open:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            while connection.recv(1000):
                pass
        except TimeoutError:
            yield str(connection.getsockname())
        except OSError:
            pass
        connection.close()


def second_attempts(database: Database) -> int:
    """Runs that began more than once, and completed."""
    with database.read() as session:
        query = select(func.count()).select_from(RunRow).where(RunRow.attempt > 1, RunRow.state == "complete")
        return session.scalar(query) or 0
