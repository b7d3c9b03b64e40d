"""Recommendations: the present one of each job."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import events, jobs, notices
from service.store.clock import now
from service.store.database import upsert
from service.store.jobs import FINISHED, Lease, fence
from service.store.models import Job, RecommendationRow

SAME = ("mode", "task", "args", "optimizer", "batch_size")
"""Fields of the spec in which jobs must agree for one's recommendation to be worth a trial of the other. The rest, the
epochs too, changes how many cycles fit rather than which rates train."""

LOOKED_AT = 200
"""Recommendations for the same task and optimizer among which those are looked for."""

WARM_STARTS = 3
"""Earlier recommendations that a search begins with at most: it has five schedules of its own to begin with."""


def put(session: Session, lease: Lease, document: dict[str, Any], *, task: str, optimizer: str | None) -> None:
    """Store the job's recommendation in the place of an earlier one."""
    fence(session, lease)
    before = get(session, lease.job_id)
    upsert(
        session,
        RecommendationRow,
        "job_id",
        job_id=lease.job_id,
        source=document["source"],
        task=task,
        optimizer=optimizer,
        document=document,
        updated_at=now(),
    )
    events.emit(session, lease.job_id, "recommendation", document)
    if document.get("max_lr") is not None and (before is None or before.document.get("max_lr") is None):
        notices.add(session, lease.job_id, "job.bounds")


def optimizer_of(trained_with: Mapping[str, Any] | None) -> str | None:
    """Name of the optimizer that was trained with, where it is known."""
    return None if trained_with is None else (trained_with.get("optimizer") or {}).get("name")


def get(session: Session, job_id: str) -> RecommendationRow | None:
    """The job's recommendation, if it has one yet."""
    return session.get(RecommendationRow, job_id, populate_existing=True)


def of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, RecommendationRow]:
    """The recommendations of those of the jobs that have one."""
    query = select(RecommendationRow).where(RecommendationRow.job_id.in_(job_ids))
    return {row.job_id: row for row in session.scalars(query)}


def browse(
    session: Session,
    *,
    task: str | None = None,
    optimizer: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[tuple[RecommendationRow, dict[str, Any]]]:
    """Recommendations of the newest jobs first, that follow the one of job ``before``, each with its job's spec."""
    query = select(RecommendationRow, Job.spec).join(Job, Job.id == RecommendationRow.job_id)
    query = query.order_by(RecommendationRow.job_id.desc()).limit(limit)
    for column, value in ((RecommendationRow.task, task), (RecommendationRow.optimizer, optimizer)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(RecommendationRow.job_id < before)
    return [(row, spec) for row, spec in session.execute(query)]


def alike(session: Session, job_id: str) -> list[dict[str, Any]]:
    """What the newest finished jobs found by a search for the same training."""
    job = jobs.get(session, job_id)
    used = optimizer_of(job.trained_with)
    query = (
        select(RecommendationRow.document, Job.spec)
        .join(Job, Job.id == RecommendationRow.job_id)
        .where(RecommendationRow.task == job.task, RecommendationRow.optimizer == used)
        .where(RecommendationRow.source != "range_test", Job.id != job_id, Job.state.in_(FINISHED))
        .order_by(RecommendationRow.job_id.desc())
        .limit(LOOKED_AT)
    )
    same = (
        document
        for document, spec in session.execute(query)
        if document["max_lr"] is not None and all(spec.get(field) == job.spec.get(field) for field in SAME)
    )
    return list(islice(same, WARM_STARTS))
