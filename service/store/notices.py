"""Notices: what is to be told to a job's own address, written in the transaction that it is about.

due -> delivered; due -> due again, later; due -> given up, after ``len(PAUSES_S)`` attempts.
"""

from typing import Any

from sqlalchemy import case, insert, or_, select, update
from sqlalchemy.orm import Session

from service.store.clock import now, now_s
from service.store.database import changed
from service.store.ids import new_id
from service.store.models import Job, NoticeRow, RecommendationRow

PAUSES_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""From each failed attempt to the next; after the last one it is given up."""

HELD_S = 60.0
"""How long one process may be at an attempt before another takes it for dead."""

_LONGEST_S = case({0: 1.0} | {n: max(HELD_S, pause) for n, pause in enumerate(PAUSES_S, 1)}, value=NoticeRow.attempts)
DUE = or_(NoticeRow.due_at <= now_s(), NoticeRow.due_at > now_s() + _LONGEST_S)
"""Also one that is due later than any attempt ever was: the clock was set back since."""


def add(session: Session, job_id: str, kind: str) -> None:
    """Have the job's address told of it, if it has one. The transaction must hold the job's row."""
    job = session.get_one(Job, job_id, populate_existing=True)
    if not job.spec.get("notify"):
        return
    found = session.get(RecommendationRow, job_id, populate_existing=True)
    body = {
        "type": kind,
        "job": {name: getattr(job, name) for name in ("id", "name", "task", "state", "error")},
        "recommendation": found and found.document,
    }
    notice = {"id": new_id(), "job_id": job_id, "kind": kind, "body": body, "due_at": now_s()}
    session.execute(insert(NoticeRow).values(notice))


def of_job(session: Session, job_id: str) -> list[NoticeRow]:
    """The job's notices, oldest first."""
    return list(session.scalars(select(NoticeRow).where(NoticeRow.job_id == job_id).order_by(NoticeRow.id)))


def due(session: Session, limit: int) -> list[tuple[NoticeRow, str]]:
    """Notices that wait for nothing but an attempt, the longest due first, each with its address."""
    query = select(NoticeRow, Job.spec).join(Job, Job.id == NoticeRow.job_id).where(DUE)
    rows = session.execute(query.order_by(NoticeRow.due_at).limit(limit))
    return [(notice, spec["notify"]["url"]) for notice, spec in rows]


def begin(session: Session, notice: NoticeRow) -> bool:
    """Take a notice for one attempt; whether nobody else has."""
    same = (NoticeRow.id == notice.id, NoticeRow.attempts == notice.attempts, DUE)
    held = update(NoticeRow).where(*same).values(attempts=notice.attempts + 1, due_at=now_s() + HELD_S)
    return changed(session, held) == 1


def delivered(session: Session, notice: NoticeRow) -> None:
    """Note that it has arrived."""
    _write(session, notice, due_at=None, delivered_at=now(), error=None)


def failed(session: Session, notice: NoticeRow, error: str) -> None:
    """Note why an attempt failed, and when the next one is."""
    pauses = PAUSES_S[notice.attempts : notice.attempts + 1]
    _write(session, notice, due_at=now_s() + pauses[0] if pauses else None, error=error)


def _write(session: Session, notice: NoticeRow, **columns: Any) -> None:
    changed(session, update(NoticeRow).where(NoticeRow.id == notice.id).values(columns))
