"""The job's state machine: each transition is one function here, and nothing else writes a job's state.

queued -> running -> succeeded | failed | cancelled; running -> queued when its worker stops; queued -> cancelled.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, literal_column, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased, defer

from service.store import events, notices, tokens
from service.store.clock import now, now_s
from service.store.database import changed, insert_object
from service.store.errors import Conflict, IdempotencyMismatch, LeaseLost, LimitReached, NotFound
from service.store.ids import new_id
from service.store.models import Job, RunRow

Existing = TypeVar("Existing")

FINISHED = ("succeeded", "failed", "cancelled")
WORKERS_MODES = ("managed", "command")
"""Of the jobs that workers claim."""

WAITING = Job.state == "queued"
LONGEST_LEASE_S = 900.0
"""A lease that ends later than any can was given when the database's clock was ahead: it holds no longer. Its owner, if
alive, renews it by the present clock within a second."""

RUN_OUT = or_(Job.lease_until < now_s(), Job.lease_until > now_s() + LONGEST_LEASE_S)
ABANDONED = and_(Job.state == "running", RUN_OUT)


_HELD = "clr_lease"
"""Of a transaction's session: the lease by which it holds its job's row, where it does."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, until someone holds a later fencing token for it."""

    job_id: str
    fencing_token: int
    owner: str
    claim_id: str | None = None
    """Random: the same fencing token, counted in a database restored from a backup, belongs to another claim."""
    lost_by: str | None = field(default=None, compare=False)
    """Who held it before, and let it run out."""


# -> queued
def submit(
    session: Session,
    *,
    spec: dict[str, Any],
    name: str,
    task: str,
    mode: str = "managed",
    priority: int = 0,
    idempotency_key: str | None = None,
    idempotency_digest: str | None = None,
    submitted_by: str | None = None,
    queued_limit: int | None = None,
) -> tuple[Job, bool]:
    """Store a job, or find the one stored earlier under the same key; whether it is new.

    ``queued_limit``: how many jobs the token ``submitted_by`` may have queued.
    """
    if earlier := _earlier(session, idempotency_key, idempotency_digest):
        return earlier, False
    if submitted_by is not None and queued_limit is not None:
        _check_queued(session, submitted_by, queued_limit)
    try:
        with nullcontext() if idempotency_key is None else session.begin_nested():
            job = insert_object(
                session,
                Job,
                id=new_id(),
                spec=spec,
                name=name,
                task=task,
                mode=mode,
                priority=priority,
                idempotency_key=idempotency_key,
                idempotency_digest=idempotency_digest,
                submitted_by=submitted_by,
            )
    except IntegrityError:  # another request with this key was faster
        if earlier := _earlier(session, idempotency_key, idempotency_digest):
            return earlier, False
        raise
    events.emit(session, job.id, "state", {"state": "queued"})
    return job, True


def _check_queued(session: Session, token: str, limit: int) -> None:
    tokens.hold(session, token)
    mine = select(Job.id).where(Job.submitted_by == token, WAITING).limit(limit)
    if session.scalar(select(func.count()).select_from(mine.subquery())) == limit:
        raise LimitReached(
            f"a token may have {limit} jobs queued (CLR_QUEUED_LIMIT), and {token!r} has that many: "
            "submit again when some have begun, or cancel some"
        )


def _earlier(session: Session, key: str | None, digest: str | None) -> Job | None:
    if key is None:
        return None
    job = session.scalar(select(Job).where(Job.idempotency_key == key))
    if job is not None and job.idempotency_digest != digest:
        raise IdempotencyMismatch(
            f"an idempotency key stands for one request, but {key!r} came earlier with another one (job {job.id}): "
            "send the same request again, or choose a new key"
        )
    return job


def get(session: Session, job_id: str) -> Job:
    """The job as it is stored now."""
    return _existing(session.get(Job, job_id, populate_existing=True), job_id)


def is_finished(session: Session, job_id: str) -> bool:
    """Whether the job has ended; of the row only the state is read, for those who ask often."""
    return _existing(session.scalar(select(Job.state).where(Job.id == job_id)), job_id) in FINISHED


def unfinished(session: Session) -> dict[str, int]:
    """How many jobs are queued, and how many run."""
    number = select(func.count()).select_from(Job)
    return {state: session.scalar(number.where(Job.state == state)) or 0 for state in ("queued", "running")}


def browse(
    session: Session,
    *,
    state: str | None = None,
    task: str | None = None,
    name: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[Job]:
    """Jobs, newest first, that follow the one with the id ``before``; their range tests are not loaded."""
    return list(session.scalars(listing(state=state, task=task, name=name, limit=limit, before=before)))


def listing(*, state: str | None, task: str | None, name: str | None, limit: int, before: str | None) -> Select[Job]:
    """The query for a page."""
    query = select(Job).options(defer(Job.range_test, raiseload=True)).order_by(Job.id.desc()).limit(limit)
    for column, value in ((Job.state, state), (Job.task, task), (Job.name, name)):
        if value is not None:
            query = query.where(column == value)
    return query if before is None else query.where(Job.id < before)


# queued -> running; running -> running under a new owner once the lease has run out
def claim(
    session: Session,
    *,
    owner: str,
    lease_s: float,
    running_limit: int | None = None,
    silent: Sequence[str] | None = None,
) -> tuple[Job, Lease] | None:
    """Take the job of highest priority, the oldest among equals; None when there is none to take.

    ``running_limit``: how many jobs of one token may run at once. ``silent``: of those whose lease has run out only
    these are taken over; None: any.
    """
    waiting = WAITING if running_limit is None else and_(WAITING, _has_room(running_limit))
    lost = [ABANDONED] if silent is None else [and_(ABANDONED, Job.id.in_(silent))] if silent else []
    while (found := _candidate(session, [waiting, *lost])) is not None:
        if running_limit is not None and found.submitted_by is not None:
            tokens.hold(session, found.submitted_by)
        same = (Job.id == found.id, Job.fencing_token == found.fencing_token, or_(waiting, ABANDONED))
        claim_id = new_id()
        mine = {
            "state": "running",
            "owner": owner,
            "fencing_token": Job.fencing_token + 1,
            "claim_id": claim_id,
            "lease_until": now_s() + lease_s,
        }
        started = func.coalesce(Job.started_at, now())
        if changed(session, update(Job).where(*same).values(**mine, started_at=started)):
            lease = Lease(found.id, found.fencing_token + 1, owner, claim_id, lost_by=found.owner)
            events.emit(session, found.id, "state", {"state": "running", "fencing_token": lease.fencing_token})
            return get(session, found.id), lease
    return None


def _has_room(running_limit: int) -> ColumnElement[bool]:
    other = aliased(Job)
    mine = select(other.submitted_by).where(other.mode.in_(WORKERS_MODES), other.state == "running")
    full = mine.group_by(other.submitted_by).having(func.count() >= running_limit)
    return or_(Job.submitted_by.is_(None), Job.submitted_by.not_in(full))


def ending(session: Session, within_s: float) -> list[tuple[str, int, float | None]]:
    """Leases of workers that run out so soon unless they are renewed, or have: job, fencing token, end."""
    near = or_(Job.lease_until < now_s() + within_s, Job.lease_until > now_s() + LONGEST_LEASE_S)
    query = select(Job.id, Job.fencing_token, Job.lease_until).where(Job.mode.in_(WORKERS_MODES))
    rows = session.execute(query.where(Job.state == "running", near))
    return [(job_id, fencing_token, end) for job_id, fencing_token, end in rows]


def _candidate(
    session: Session, conditions: Sequence[ColumnElement[bool]]
) -> Row[str, int, int, str | None, str | None] | None:
    # One query each, because no index serves several conditions in the order of priority.
    queries = [first(condition, mode) for condition in conditions for mode in WORKERS_MODES]
    found = [session.execute(query).first() for query in queries]
    return min((row for row in found if row), key=lambda row: (-row.priority, row.id), default=None)


def first(condition: ColumnElement[bool], mode: str) -> Select[str, int, int, str | None, str | None]:
    """The query for the job of a mode to claim first among those that ``condition`` holds for."""
    query = select(Job.id, Job.priority, Job.fencing_token, Job.submitted_by, Job.owner).where(
        Job.mode == mode, condition
    )
    return query.order_by(Job.priority.desc(), Job.id).limit(1).with_for_update(skip_locked=True)


def fence(session: Session, lease: Lease, **columns: Any) -> None:
    """Write ``columns`` and hold the job's row until the transaction ends; LeaseLost unless the lease still holds."""
    if not columns and session.info.get(_HELD) == lease:
        return
    held = (
        Job.id == lease.job_id,
        Job.fencing_token == lease.fencing_token,
        Job.claim_id == lease.claim_id,
        Job.state == "running",
    )
    if not changed(session, update(Job).where(*held).values(columns or {"fencing_token": Job.fencing_token})):
        raise LeaseLost(
            f"job {lease.job_id} must be running under fencing token {lease.fencing_token} ({lease.owner}), but "
            f"{_present(session, lease.job_id)}: stop the work, nothing was written"
        )
    session.info[_HELD] = lease if columns.get("state", "running") == "running" else None


def _present(session: Session, job_id: str) -> str:
    job = session.get(Job, job_id, populate_existing=True)
    return (
        "it was deleted" if job is None else f"it is {job.state} under fencing token {job.fencing_token} ({job.owner})"
    )


def renew(session: Session, lease: Lease, *, lease_s: float, worked_s: float) -> bool:
    """Hold the lease for ``lease_s`` seconds from now, and note for how long the job was in workers' hands so far;
    whether it is to be cancelled."""
    fence(session, lease, lease_until=now_s() + lease_s, worked_s=worked_s)
    return _cancel_requested(session, lease)


def _cancel_requested(session: Session, lease: Lease) -> bool:
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id)))


# running -> queued; running -> cancelled where that was asked for
def release(session: Session, lease: Lease) -> None:
    """Hand the job back; what was found stays."""
    fence(session, lease)
    if _cancel_requested(session, lease):
        return cancelled(session, lease)
    fence(session, lease, state="queued", owner=None, lease_until=None, under_way=None)
    return events.emit(session, lease.job_id, "state", {"state": "queued"})


def set_training(
    session: Session,
    lease: Lease,
    *,
    iterations_per_epoch: int,
    metric: str,
    direction: str,
    trained_with: dict[str, Any] | None = None,
    predicted_steps: int | None,
) -> None:
    """Record what is known of the task once it is loaded."""
    known = {"iterations_per_epoch": iterations_per_epoch, "metric": metric, "direction": direction}
    fence(session, lease, **known, trained_with=trained_with, predicted_steps=predicted_steps)


def progress(
    session: Session,
    lease: Lease,
    *,
    stage: str,
    progress: float,
    steps: int,
    under_way: Sequence[dict[str, Any]] = (),
) -> None:
    """Record the stage, the share of the work done (0 to 1), its cost in steps so far, and where each run stands."""
    known = {"stage": stage, "progress": progress, "steps": steps}
    fence(session, lease, **known, under_way=list(under_way))
    if under_way:
        events.emit_latest(session, lease.job_id, "progress", known | {"under_way": list(under_way)})
    else:
        events.emit(session, lease.job_id, "progress", known)


def set_range_test(session: Session, lease: Lease, document: dict[str, Any]) -> None:
    """Record the reading of the range test."""
    fence(session, lease, range_test=document)


# succeeded -> queued
def extend(session: Session, job_id: str, budget: float) -> Job:
    """Grant a finished job more trainings: it goes on from all that it knows."""
    job = _locked(session, job_id)
    if job.state != "succeeded":
        raise Conflict(f"only a job that succeeded can be extended, but job {job_id} is {job.state}: submit another")
    if job.spec["search"] is None:
        raise Conflict(f"job {job_id} has no search to go on with: its spec says search = null; submit another")
    if job.range_test is None or job.range_test["bounds"]["max_lr"] is None:
        raise Conflict(f"job {job_id} has no bounds to go on from: its range test is inconclusive; submit another")
    granted = [*(job.extensions or []), budget]
    _write(session, job_id, state="queued", extensions=granted, owner=None, finished_at=None, cancel_requested=False)
    events.emit(session, job_id, "state", {"state": "queued", "extensions": granted})
    return get(session, job_id)


# running -> succeeded
def succeed(session: Session, lease: Lease) -> None:
    """End the job: its recommendation is final."""
    fence(session, lease, progress=1.0)
    _end(session, lease.job_id, "succeeded")


# running -> failed
def fail(session: Session, lease: Lease, error: str) -> None:
    """End the job, with the reason why it cannot go on."""
    fence(session, lease, error=error)
    _end(session, lease.job_id, "failed", error=error)


# running -> cancelled
def cancelled(session: Session, lease: Lease) -> None:
    """End the job as asked; what was found stays."""
    fence(session, lease)
    _end(session, lease.job_id, "cancelled")


# queued -> cancelled; running -> cancelled where nobody works on it
def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel the job at once, or ask its worker to."""
    job = _unfinished(session, job_id, "be cancelled")
    if job.state == "queued" or job.mode == "external" or _is_abandoned(session, job_id):
        _end(session, job_id, "cancelled")
    elif not job.cancel_requested:
        _write(session, job_id, cancel_requested=True)
        events.emit(session, job_id, "state", {"state": "running", "cancel_requested": True})
    return get(session, job_id)


def _is_abandoned(session: Session, job_id: str) -> bool:
    return session.scalar(select(Job.id).where(Job.id == job_id, ABANDONED)) is not None


# queued -> running, at the first report
def attend(session: Session, job_id: str) -> tuple[Job, Lease]:
    """An external job, and the lease for its owner's reports; it does not run out."""
    job = _unfinished(session, job_id, "take reports")
    if job.mode != "external":
        raise Conflict(f"only an external job takes reports, but job {job_id} is {job.mode}: a worker trains it")
    begun = {"state": "running", "owner": "external", "started_at": now()} if job.state == "queued" else {}
    _write(session, job_id, unshown=Job.unshown + 1, **begun)
    if begun:
        events.emit(session, job_id, "state", {"state": "running"})
    return get(session, job_id), Lease(job_id, job.fencing_token, "external", job.claim_id)


def hold(session: Session, lease: Lease, *, lease_s: float) -> Lease | None:
    """The right to show the study of an external job, for ``lease_s`` seconds; None while another has it."""
    free = (Job.id == lease.job_id, or_(Job.lease_until.is_(None), RUN_OUT))
    claim_id = new_id()
    mine = {"fencing_token": Job.fencing_token + 1, "claim_id": claim_id, "lease_until": now_s() + lease_s}
    if not changed(session, update(Job).where(*free).values(mine)):
        return None
    session.info.pop(_HELD, None)
    return Lease(lease.job_id, lease.fencing_token + 1, lease.owner, claim_id)


def let_go(session: Session, lease: Lease, *, shown: int = 0) -> None:
    """Give a hold back, with so many changes shown; one that has run out and is another's stays with the other."""
    held = (Job.id == lease.job_id, Job.fencing_token == lease.fencing_token, Job.claim_id == lease.claim_id)
    if not changed(session, update(Job).where(*held).values(lease_until=None, unshown=Job.unshown - shown)):
        _existing(session.scalar(select(Job.id).where(Job.id == lease.job_id)), lease.job_id)


def attended(session: Session) -> list[Job]:
    """The external jobs that run, oldest first."""
    query = select(Job).where(Job.mode == "external", Job.state == "running").order_by(Job.id)
    return list(session.scalars(query.options(defer(Job.range_test, raiseload=True))))


def unshown(session: Session, limit: int = 100) -> list[str]:
    """External jobs whose study lacks something, and nobody is about to show it."""
    query = select(Job.id).where(Job.unshown > literal_column("0"), or_(Job.lease_until.is_(None), RUN_OUT))
    return list(session.scalars(query.order_by(Job.id).limit(limit)))


def delete(session: Session, job_id: str) -> None:
    """Remove a finished job with all that belongs to it here; `studies.delete` removes its study."""
    job = _locked(session, job_id)
    if job.state not in FINISHED:
        raise Conflict(f"only a finished job can be deleted, but job {job_id} is {job.state}: cancel it first")
    changed(session, delete_from(Job).where(Job.id == job_id))
    session.expunge(job)


def _end(session: Session, job_id: str, state: str, **error: str) -> None:
    external = Job.mode == "external"  # somebody may be showing its study: who holds that lets go
    held, unshown = case((external, Job.lease_until)), Job.unshown + case((external, 1), else_=0)
    _write(session, job_id, state=state, finished_at=now(), lease_until=held, unshown=unshown, under_way=None)
    left = update(RunRow).where(RunRow.job_id == job_id, RunRow.state == "running")
    changed(session, left.values(state="failed", error=f"job {state} before the run ended", finished_at=now()))
    events.emit(session, job_id, "state", {"state": state, **error})
    notices.add(session, job_id, "job.ended")


def _write(session: Session, job_id: str, **columns: Any) -> None:
    session.info.pop(_HELD, None)
    changed(session, update(Job).where(Job.id == job_id).values(**columns))


def _unfinished(session: Session, job_id: str, what: str) -> Job:
    job = _locked(session, job_id)
    if job.state in FINISHED:
        raise Conflict(f"only a queued or running job can {what}, but job {job_id} has {job.state}: submit another")
    return job


def _locked(session: Session, job_id: str) -> Job:
    return _existing(session.get(Job, job_id, populate_existing=True, with_for_update=True), job_id)


def _existing(found: Existing | None, job_id: str) -> Existing:
    if found is None:
        raise NotFound(f"no job has the id {job_id!r}: it was deleted, or never submitted here")
    return found
