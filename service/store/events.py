"""Events: what followers of a job are told, in the order in which it happened."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.store.database import changed, insert_row
from service.store.models import EventRow, Job


def emit(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> None:
    """Record an event. The transaction must hold the job's row (`jobs.fence`): that keeps ids in order of commit."""
    insert_row(session, EventRow, job_id=job_id, kind=kind, data=data)


def emit_latest(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> None:
    """Record an event in the place of the earlier ones of its kind: they are of no use to who comes later."""
    changed(session, delete(EventRow).where(EventRow.job_id == job_id, EventRow.kind == kind))
    emit(session, job_id, kind, data)


def after(session: Session, job_id: str, last_id: int, limit: int = 500) -> list[EventRow]:
    """The job's events that follow the one numbered ``last_id``, oldest first."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.id > last_id)
    return list(session.scalars(query.order_by(EventRow.id).limit(limit)))


def newest(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """State and number of the newest event of each of the jobs, both as they were at one moment."""
    last = select(func.max(EventRow.id)).where(EventRow.job_id == Job.id).scalar_subquery()
    rows = session.execute(select(Job.id, Job.state, last).where(Job.id.in_(job_ids)))
    return {job_id: (state, last_id or 0) for job_id, state, last_id in rows}


def last_id(session: Session, job_id: str) -> int:
    """The number of the job's newest event, 0 where there is none."""
    return session.scalar(select(func.max(EventRow.id)).where(EventRow.job_id == job_id)) or 0
