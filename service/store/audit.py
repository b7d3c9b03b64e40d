"""The audit: who did what, to which job, and when. Written in the transaction of what was done."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.database import insert_row
from service.store.models import AuditRow


def record(
    session: Session, token: str | None, action: str, *, job_id: str | None = None, detail: str | None = None
) -> None:
    """Note an act of the token of that name; None: of somebody on this machine, without a token."""
    insert_row(session, AuditRow, token=token, action=action, job_id=job_id, detail=detail)


def browse(session: Session, *, limit: int = 50, before: int | None = None) -> list[AuditRow]:
    """What was done, newest first, before the act numbered ``before``."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(AuditRow.id < before)))
