"""Workers that are alive, and the tasks they can train."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.store.clock import now, now_s
from service.store.database import changed, upsert
from service.store.models import TaskRow, WorkerRow


def publish(session: Session, *, owner: str, host: str, slots: dict[str, Any], tasks: Sequence[dict[str, Any]]) -> None:
    """Announce a worker and its tasks, each ``{"name", "doc", "schema"}``."""
    upsert(session, WorkerRow, "id", id=owner, host=host, slots=slots, seen_at=now_s(), started_at=now())
    for task in sorted(tasks, key=lambda task: str(task["name"])):  # in one order, lest two workers wait for each other
        upsert(
            session,
            TaskRow,
            "name",
            name=task["name"],
            doc=task["doc"],
            schema=task["schema"],
            worker=owner,
            updated_at=now(),
        )


def seen(session: Session, owner: str, metrics: dict[str, Any] | None = None) -> None:
    """Note that the worker is alive, and what it has measured."""
    changed(session, update(WorkerRow).where(WorkerRow.id == owner).values(seen_at=now_s(), metrics=metrics))


def retire(session: Session, owner: str) -> None:
    """Forget a worker that stops; its tasks stay, for the next one."""
    changed(session, delete(WorkerRow).where(WorkerRow.id == owner))


def alive(session: Session, within_s: float = 30) -> list[WorkerRow]:
    """Workers seen in the last ``within_s`` seconds; not those seen later than now, by a clock that was set back."""
    query = select(WorkerRow).where(WorkerRow.seen_at > now_s() - within_s, WorkerRow.seen_at < now_s() + within_s)
    return list(session.scalars(query.order_by(WorkerRow.id)))


def ready(session: Session) -> list[WorkerRow]:
    """Those of them that have their Ray: one that still starts it, or lost it, trains nothing."""
    return [worker for worker in alive(session) if worker.slots]


def tasks(session: Session) -> list[TaskRow]:
    """All tasks, by name."""
    return list(session.scalars(select(TaskRow).order_by(TaskRow.name)))


def schema(session: Session, name: str) -> dict[str, Any] | None:
    """JSON schema of the arguments of the task of that name, if any worker ever published it."""
    return session.scalar(select(TaskRow.schema).where(TaskRow.name == name))
