"""Recommendations: the present one of each job."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import events
from service.store.clock import now
from service.store.database import upsert
from service.store.jobs import Lease, fence
from service.store.models import RecommendationRow


def put(session: Session, lease: Lease, document: dict[str, Any], *, task: str, optimizer: str) -> None:
    """Store the job's recommendation in the place of an earlier one."""
    fence(session, lease)
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


def get(session: Session, job_id: str) -> RecommendationRow | None:
    """The job's recommendation, if it has one yet."""
    return session.get(RecommendationRow, job_id, populate_existing=True)


def page(
    session: Session,
    *,
    task: str | None = None,
    optimizer: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[RecommendationRow]:
    """Recommendations of the newest jobs first, that follow the one of job ``before``."""
    query = select(RecommendationRow).order_by(RecommendationRow.job_id.desc()).limit(limit)
    for column, value in ((RecommendationRow.task, task), (RecommendationRow.optimizer, optimizer)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(RecommendationRow.job_id < before)
    return list(session.scalars(query))
