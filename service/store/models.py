"""The tables. Their names begin with ``clr_``: Optuna's are in the same database."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from service.store.clock import now
from service.store.database import Base

Big = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER key


def _job_id() -> Any:
    return mapped_column(ForeignKey("clr_jobs.id", ondelete="CASCADE"), primary_key=True)


def _index_where(condition: str, *columns: str, name: str) -> Index:
    """An index that other rows cost nothing."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class Job(Base):
    """A job: what was asked for, how far it is, and who works on it."""

    __tablename__ = "clr_jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    name: Mapped[str]
    task: Mapped[str]
    priority: Mapped[int] = mapped_column()
    state: Mapped[str] = mapped_column(default="queued")
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(Float(53), default=0.0)
    spec: Mapped[dict[str, Any]]
    steps: Mapped[int] = mapped_column(BigInteger, default=0)
    predicted_steps: Mapped[int | None] = mapped_column(BigInteger)
    under_way: Mapped[Any] = mapped_column(nullable=True)  # where each run stands: stage, number, step, steps, loss
    iterations_per_epoch: Mapped[int | None] = mapped_column(BigInteger)
    metric: Mapped[str | None]
    direction: Mapped[str | None]
    trained_with: Mapped[dict[str, Any] | None]  # optimizer, batch size, gpus of a run
    extensions: Mapped[Any] = mapped_column(
        nullable=True
    )  # trainings granted since it first ended, one number each time
    range_test: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None]
    fencing_token: Mapped[int] = mapped_column(default=0)
    claim_id: Mapped[str | None]  # of the present token; a database restored from a backup counts tokens again
    lease_until: Mapped[float | None] = mapped_column(Float(53))
    worked_s: Mapped[float] = mapped_column(Float(53), default=0.0)  # in workers' hands, by their own steady clocks
    unshown: Mapped[int] = mapped_column(BigInteger, default=0)  # an external job's changes that its study lacks
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    idempotency_digest: Mapped[str | None]
    submitted_by: Mapped[str | None]  # a token's name; null where there were no tokens
    created_at: Mapped[datetime] = mapped_column(default=now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_clr_jobs_claim", "mode", "state", priority.desc(), "id"),
        Index(None, "state", "id"),
        Index(None, "task", "id"),
        Index(None, "name", "id"),
        Index(None, "task", "state", "id"),
        Index(None, "name", "state", "id"),
        _index_where("submitted_by IS NOT NULL", "submitted_by", "state", name="ix_clr_jobs_submitted_by_state"),
        _index_where("unshown > 0", "id", name="ix_clr_jobs_unshown"),
    )


class RunRow(Base):
    """One training run of a job: a seed of the range test, a trial, a run of the confirmation."""

    __tablename__ = "clr_runs"

    job_id: Mapped[str] = _job_id()
    stage: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(default=1)
    losses: Mapped[int] = mapped_column(default=0)  # attempts that ended with their own process, not with a machine
    state: Mapped[str] = mapped_column(default="running")
    params: Mapped[dict[str, Any]]
    run: Mapped[dict[str, Any]]
    value: Mapped[float | None] = mapped_column(Float(53))
    steps: Mapped[int] = mapped_column(BigInteger, default=0)
    repeated: Mapped[int] = mapped_column(BigInteger, default=0)  # steps of the attempts before, trained anew
    error: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(default=now())
    finished_at: Mapped[datetime | None]


class PointsRow(Base):
    """What one run recorded at one point: rates, losses, metric."""

    __tablename__ = "clr_points"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]

    __table_args__ = (
        ForeignKeyConstraint(
            [job_id, stage, number],
            [RunRow.job_id, RunRow.stage, RunRow.number],
            ondelete="CASCADE",
        ),
    )


class EventRow(Base):
    """Something that happened to a job, for those who follow it."""

    __tablename__ = "clr_events"

    id: Mapped[int] = mapped_column(Big, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("clr_jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now())

    __table_args__ = (Index(None, "job_id", "id"),)


class RecommendationRow(Base):
    """A job's present recommendation."""

    __tablename__ = "clr_recommendations"

    job_id: Mapped[str] = _job_id()
    source: Mapped[str]
    task: Mapped[str]
    optimizer: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]

    __table_args__ = (
        Index(None, "task", "job_id"),
        Index(None, "optimizer", "job_id"),
        Index(None, "task", "optimizer", "job_id"),
    )


class NoticeRow(Base):
    """Something that a job's own address is to be told, until it has arrived."""

    __tablename__ = "clr_notices"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("clr_jobs.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    body: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float | None] = mapped_column(Float(53), index=True)  # null: delivered, or given up
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    delivered_at: Mapped[datetime | None]


class CodeRow(Base):
    """A code bundle: a zip of a user's own code."""

    __tablename__ = "clr_code"

    digest: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)
    size: Mapped[int]
    files: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now())


class TaskRow(Base):
    """A task that workers can train, as the last of them published it."""

    __tablename__ = "clr_tasks"

    name: Mapped[str] = mapped_column(primary_key=True)
    doc: Mapped[str]
    schema: Mapped[dict[str, Any]]
    worker: Mapped[str]
    updated_at: Mapped[datetime]


class WorkerRow(Base):
    """A worker process, and when it was last seen by the database's clock."""

    __tablename__ = "clr_workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    slots: Mapped[dict[str, Any]]
    seen_at: Mapped[float] = mapped_column(Float(53))
    started_at: Mapped[datetime]
    metrics: Mapped[dict[str, Any] | None]


class TokenRow(Base):
    """Somebody's right to use the service. A revoked one stays, so that its name keeps meaning one holder."""

    __tablename__ = "clr_tokens"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now())
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRow(Base):
    """Something that somebody did. It outlives its job and its token."""

    __tablename__ = "clr_audit"

    id: Mapped[int] = mapped_column(Big, primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now())
    token: Mapped[str | None]
    action: Mapped[str]
    job_id: Mapped[str | None]
    detail: Mapped[str | None]
