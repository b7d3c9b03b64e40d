"""What must hold after the storm, by SQL and REST: each a list of what breaks it."""

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import func, select

from service.store import jobs, runs
from service.store.database import Database
from service.store.models import EventRow, Job, PointsRow, RunRow
from tests.storm.world import World

STAGES = ("range_test", "search", "confirm")
Finished = dict[tuple[str, str, int], tuple[object, ...]]


def finished(database: Database) -> Finished:
    """All runs that have ended, as they are stored: they never change."""
    with database.read() as session:
        rows = session.scalars(select(RunRow).where(RunRow.state != "running"))
        return {(r.job_id, r.stage, r.number): (r.attempt, r.state, r.value, r.steps, r.finished_at) for r in rows}


def broken(world: World, database: Database, before: Finished) -> dict[str, list[str]]:
    """By invariant, what breaks it."""
    with database.read() as session:
        stored = {job.id: job for job in session.scalars(select(Job))}
        points = session.execute(
            select(PointsRow.job_id, PointsRow.stage, PointsRow.number, PointsRow.attempt).distinct()
        ).all()
        keys = Counter(session.scalars(select(Job.idempotency_key).where(Job.idempotency_key.is_not(None))))
        ends = session.execute(
            select(EventRow.job_id, func.count())
            .where(EventRow.kind == "state", EventRow.data["state"].as_string().in_(jobs.FINISHED))
            .group_by(EventRow.job_id)
        ).all()
        attempts = {
            (row.job_id, row.stage, row.number): row.attempt
            for job_id in stored
            for stage in STAGES
            for row in runs.of_stage(session, job_id, stage)
        }
    now = finished(database)
    accepted = set(world.accepted.values()) - world.deleted
    return {
        "lost": sorted(accepted - set(stored)),
        "stuck": [f"{job.id}: {job.state} at {job.stage}" for job in stored.values() if job.state not in jobs.FINISHED],
        "failed": [f"{job.id}: {job.error}" for job in stored.values() if job.state == "failed"],
        "cancelled unasked": [
            job.id for job in stored.values() if job.state == "cancelled" and job.id not in world.cancelled
        ],
        "duplicated": [key for key, number in keys.items() if number > 1],
        "finished run changed": [str(key) for key, row in before.items() if key[0] in stored and now.get(key) != row],
        "spliced": [str(row) for row in points if attempts.get(tuple(row[:3])) != row.attempt],
        "ended twice": [job_id for job_id, number in ends if number > 1],
        "not to be read": list(_unread(world, accepted)),
        "5xx": world.server_errors,
    }


def _unread(world: World, accepted: set[str]) -> Iterator[str]:
    for job_id in sorted(accepted):
        answer = world.call("GET", f"/v1/jobs/{job_id}")
        if answer.status_code != 200:
            yield f"{job_id}: {answer.status_code}"
        elif answer.json()["state"] == "succeeded":
            found = world.call("GET", f"/v1/jobs/{job_id}/recommendation")
            if found.status_code != 200:
                yield f"{job_id}: its recommendation is {found.status_code}"


def second_attempts(database: Database) -> int:
    """Runs that began more than once, and completed."""
    with database.read() as session:
        query = select(func.count()).select_from(RunRow).where(RunRow.attempt > 1, RunRow.state == "complete")
        return session.scalar(query) or 0
