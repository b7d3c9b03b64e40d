"""What can be done with a job, whoever asks for it: a route, a page, the command line, or its age."""

from clr.spec import JobSpec
from clr.tuning import cost
from service import submission
from service.external.job import settle
from service.settings import Settings
from service.store import audit, jobs, studies
from service.store.database import Database
from service.store.errors import Conflict, NotAllowed
from service.store.models import Job
from service.submission import Schema, Schemas


def plan(
    database: Database, settings: Settings, schemas: Schemas, spec: JobSpec, *, role: str = "submit"
) -> tuple[JobSpec, cost.PredictedCost]:
    """The spec as it would be stored, its budget told, and what the job would cost."""
    planned, schema = _planned(database, settings, schemas, spec, role)
    return planned, cost.predict(planned, schema)


def submit(
    database: Database,
    settings: Settings,
    schemas: Schemas,
    spec: JobSpec,
    *,
    by: str | None,
    role: str = "submit",
    key: str | None = None,
) -> Job:
    """Store the job for the token named ``by``; the same ``key`` again finds it again."""
    planned, _ = _planned(database, settings, schemas, spec, role)
    with database.begin() as session:
        job, is_new = jobs.submit(
            session,
            spec=planned.model_dump(mode="json"),
            name=spec.name,
            task=spec.task,
            mode=spec.mode,
            priority=spec.priority,
            idempotency_key=key,
            idempotency_digest=key and submission.digest(spec),
            submitted_by=by,
            queued_limit=settings.queued_limit,
        )
        if is_new:
            audit.record(session, by, "submit", job_id=job.id)
    return job


def _planned(
    database: Database, settings: Settings, schemas: Schemas, spec: JobSpec, role: str
) -> tuple[JobSpec, Schema | None]:
    """The spec with its budget told, and the schema of its task's arguments; what may not be submitted is refused."""
    if spec.mode == "command":
        _check_command(settings, role)
    with database.read() as session:
        schema = submission.check(session, settings, spec, schemas.of)
    return cost.planned(spec), schema


def _check_command(settings: Settings, role: str) -> None:
    """Refuse a command where the operator runs none, or from whom may not upload code either: it is the same."""
    if not settings.allow_code:
        raise NotAllowed(
            "this service runs no commands: they would have all rights of a worker; "
            "its admin may set CLR_ALLOW_CODE=true"
        )
    if role != "admin":
        raise NotAllowed(f"a command job needs a token of role admin, but this is one of role {role}")


def cancel(database: Database, job_id: str, *, by: str | None) -> Job:
    """End the job at once, or ask its worker to."""
    with database.begin() as session:
        job = jobs.request_cancel(session, job_id)
        audit.record(session, by, "cancel", job_id=job_id)
    if job.mode == "external":  # a worker closes the study of a managed one
        settle(database, job_id)
    return job


def extend(database: Database, job_id: str, budget: float, *, by: str | None) -> Job:
    """Grant a job that succeeded so many trainings more: it goes on from all that it knows."""
    with database.begin() as session:
        job = jobs.extend(session, job_id, budget)
        audit.record(session, by, "extend", job_id=job_id, detail=f"budget {budget:g}")
    return job


def delete(database: Database, job_id: str, *, by: str | None, act: str = "delete") -> None:
    """Remove a finished job with all that belongs to it, its study too; ``act`` is what the audit calls it."""
    with database.read() as session:
        state = jobs.get(session, job_id).state
    if state not in jobs.FINISHED:
        raise Conflict(f"only a finished job can be deleted, but job {job_id} is {state}: cancel it first")
    studies.delete(database.url, job_id)  # first: interrupted in between, the job is still there to be deleted again
    with database.begin() as session:
        jobs.delete(session, job_id)
        audit.record(session, by, act, job_id=job_id)
