"""Runs of a job and their points. Every write goes through the fence, and names the attempt it belongs to."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, case, delete, func, or_, select, update
from sqlalchemy.orm import Session

from clr.run import KEPT_STEPS, Point, record
from service.store import events
from service.store.clock import now
from service.store.database import changed, insert_new, insert_row, insert_rows
from service.store.errors import Conflict, NotFound
from service.store.jobs import Lease, fence
from service.store.models import PointsRow, RunRow


class Tally(NamedTuple):
    """Runs of one stage in one state."""

    stage: str
    state: str
    runs: int
    steps: int


def start(
    session: Session, lease: Lease, *, stage: str, number: int, params: dict[str, Any], run: dict[str, Any]
) -> int:
    """Begin a run, or begin an unfinished one anew without its points; the number of the attempt."""
    fence(session, lease)
    values: dict[str, Any] = {"job_id": lease.job_id, "stage": stage, "number": number, "params": params, "run": run}
    attempt = 1 if insert_new(session, RunRow, **values) else _start_again(session, **values)
    data = {"stage": stage, "number": number, "state": "running", "params": params}
    events.emit(session, lease.job_id, "trial", data)
    return attempt


def _start_again(session: Session, *, job_id: str, stage: str, number: int, **values: Any) -> int:
    row = get(session, job_id, stage, number)
    if row.state != "running":
        raise Conflict(f"a finished run is never repeated, but {_name(row)} is {row.state}: go on to the next one")
    counts = {"attempt": row.attempt + 1, "losses": row.losses, "repeated": row.repeated + row.steps}
    changed(session, delete(RunRow).where(*_key(RunRow, job_id, stage, number)))
    insert_row(session, RunRow, job_id=job_id, stage=stage, number=number, **values, **counts)
    return counts["attempt"]


def lose(session: Session, lease: Lease, *, stage: str, number: int, attempt: int) -> int:
    """Note that a running attempt's own process ended before it; how often that has befallen the run."""
    losses: int = _write(session, lease, stage, number, attempt, losses=RunRow.losses + 1).losses
    return losses


def append(
    session: Session,
    lease: Lease,
    *,
    stage: str,
    number: int,
    attempt: int,
    points: Sequence[dict[str, Any]],
    restored: int = 0,
) -> None:
    """Add points to a running attempt, after those it has; those of a long run are thinned.

    ``restored``: steps of theirs that an earlier attempt trained, and this one read back.
    """
    if points:
        known = {"steps": points[-1]["step"]} | _read_back(restored)
        row = _write(session, lease, stage, number, attempt, **known)
        _record(session, lease.job_id, stage, number, attempt, points, row.run.get("steps") or 0)


def finish(
    session: Session,
    lease: Lease,
    *,
    stage: str,
    number: int,
    attempt: int,
    state: str,
    value: float | None,
    steps: int,
    error: str | None = None,
    points: Sequence[dict[str, Any]] = (),
    restored: int = 0,
) -> None:
    """End a running attempt as complete, pruned or failed, after the ``points`` that it has not told yet, as for
    ``append``. The same end told twice is told once."""
    value = value if value is not None and math.isfinite(value) else None
    outcome = {"state": state, "value": value, "steps": steps, "error": error}
    row = _find_running(session, lease, stage, number, attempt, finished_at=now(), **outcome, **_read_back(restored))
    if row is None:
        before = get(session, lease.job_id, stage, number)
        if before.attempt == attempt and (before.state, before.value) == (state, value):
            return
        raise _not_running(before, attempt)
    if points:
        _record(session, lease.job_id, stage, number, attempt, points, row.run.get("steps") or 0)
    data = {"stage": stage, "number": number, "params": row.params}
    events.emit(session, lease.job_id, "trial", data | outcome)


def _read_back(steps: int) -> dict[str, Any]:
    """What an attempt need not train again: it was read from its checkpoint."""
    left = RunRow.repeated - steps
    return {"repeated": case((left > 0, left), else_=0)} if steps else {}


def _record(
    session: Session,
    job_id: str,
    stage: str,
    number: int,
    attempt: int,
    points: Sequence[dict[str, Any]],
    steps: int,
) -> None:
    """Store new points of a run of so many steps, thinned where it is a long one, and tell of them."""
    place = {"job_id": job_id, "stage": stage, "number": number}
    new, told = [(point["step"], point) for point in points], points
    if steps > KEPT_STEPS:
        new, told = _thinned(session, place, points, steps)
    insert_rows(session, PointsRow, [place | {"attempt": attempt, "seq": seq, "data": point} for seq, point in new])
    if told:
        data = {"stage": stage, "number": number, "points": [_told(point) for point in told]}
        events.emit(session, job_id, "points", data)


def _thinned(
    session: Session, place: dict[str, Any], points: Sequence[dict[str, Any]], steps: int
) -> tuple[list[tuple[int, dict[str, Any]]], list[dict[str, Any]]]:
    """What of a long run is stored with its new points, in the place of its last ones, and what of them is told."""
    key = _key(PointsRow, **place)
    newest = select(PointsRow.seq, PointsRow.data).where(*key).order_by(PointsRow.seq.desc()).limit(2)
    before = list(reversed(session.execute(newest).all()))
    begin = before[0].seq if before else 0
    joined = [Point.from_dict(row.data) for row in before]
    first = min([record(joined, Point.from_dict(point), steps) for point in points])
    if first < len(before):
        changed(session, delete(PointsRow).where(*key, PointsRow.seq >= begin + first))
    new = [(begin + at, joined[at].to_dict()) for at in range(first, len(joined))]
    told = [point for point in points if point["metric"] is not None or point["diverged"]]
    if not told and len(joined) > len(before):
        told = [new[-1][1]]
    return new, told


def discard(session: Session, lease: Lease, *, stage: str, number: int) -> None:
    """Remove a run with its points, so that it can be recorded anew."""
    fence(session, lease)
    changed(session, delete(RunRow).where(*_key(RunRow, lease.job_id, stage, number)))


def note(session: Session, lease: Lease, *, stage: str, number: int, run: dict[str, Any]) -> None:
    """Record more of what a running run is."""
    fence(session, lease)
    changed(session, update(RunRow).where(*_key(RunRow, lease.job_id, stage, number)).values(run=run))


def get(session: Session, job_id: str, stage: str, number: int) -> RunRow:
    """One run as it is stored now."""
    row = _find(session, job_id, stage, number)
    if row is None:
        raise NotFound(f"job {job_id} has no {stage} run {number}: it was never started")
    return row


def of_stage(session: Session, job_id: str, stage: str) -> list[RunRow]:
    """All runs of a stage, by number."""
    query = select(RunRow).where(RunRow.job_id == job_id, RunRow.stage == stage)
    return list(session.scalars(query.order_by(RunRow.number)))


def finished(session: Session, job_id: str, stage: str) -> list[RunRow]:
    """The runs of a stage that are complete, pruned or failed, by number."""
    return [row for row in of_stage(session, job_id, stage) if row.state != "running"]


def browse(session: Session, job_id: str, stage: str, *, limit: int = 50, after: int | None = None) -> list[RunRow]:
    """Runs of a stage by number, that follow the one numbered ``after``."""
    query = select(RunRow).where(RunRow.job_id == job_id, RunRow.stage == stage)
    if after is not None:
        query = query.where(RunRow.number > after)
    return list(session.scalars(query.order_by(RunRow.number).limit(limit)))


def tally(session: Session, job_id: str) -> list[Tally]:
    """How many runs of each stage are in each state, and the steps they took."""
    query = select(RunRow.stage, RunRow.state, func.count(), func.sum(RunRow.steps)).where(RunRow.job_id == job_id)
    rows = session.execute(query.group_by(RunRow.stage, RunRow.state)).all()
    return [Tally(stage, state, number, int(steps)) for stage, state, number, steps in rows]


def sample(session: Session, job_id: str, stage: str, direction: str, limit: int) -> list[dict[str, Any]]:
    """About ``limit`` finished runs of a stage, evenly by number, the best among them; each with the best so far."""
    better, order = (func.max, RunRow.value.desc()) if direction == "maximize" else (func.min, RunRow.value.asc())
    of_job = (RunRow.job_id == job_id, RunRow.stage == stage, RunRow.state != "running")
    last = session.scalar(select(func.max(RunRow.number)).where(*of_job)) or 0
    best = session.scalar(select(RunRow.number).where(*of_job, RunRow.value.is_not(None)).order_by(order).limit(1))
    so_far = better(RunRow.value).over(order_by=RunRow.number).label("best")
    every = select(RunRow.number, RunRow.params, RunRow.value, so_far).where(*of_job).subquery()
    shown = or_(every.c.number % (last // limit + 1) == 0, every.c.number == best)
    rows = session.execute(select(every).where(shown).order_by(every.c.number)).all()
    return [{"number": row.number, **row.params, "value": row.value, "best": row.best} for row in rows]


def points(session: Session, job_id: str, stage: str, numbers: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The points of each of the runs, in order."""
    query = select(PointsRow.number, PointsRow.data).where(
        PointsRow.job_id == job_id, PointsRow.stage == stage, PointsRow.number.in_(numbers)
    )
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
    for number, data in session.execute(query.order_by(PointsRow.number, PointsRow.seq)):
        found[number].append(data)
    return found


def _write(
    session: Session, lease: Lease, stage: str, number: int, attempt: int, **columns: Any
) -> Row[dict[str, Any], dict[str, Any], int]:
    row = _find_running(session, lease, stage, number, attempt, **columns)
    if row is None:
        raise _not_running(get(session, lease.job_id, stage, number), attempt)
    return row


def _find_running(
    session: Session, lease: Lease, stage: str, number: int, attempt: int, **columns: Any
) -> Row[dict[str, Any], dict[str, Any], int] | None:
    """Write to an attempt that is running; what it is of, None where it is not."""
    fence(session, lease)
    current = (*_key(RunRow, lease.job_id, stage, number), RunRow.attempt == attempt, RunRow.state == "running")
    written = update(RunRow).where(*current).values(**columns)
    return session.connection().execute(written.returning(RunRow.run, RunRow.params, RunRow.losses)).one_or_none()


def _not_running(row: RunRow, attempt: int) -> Conflict:
    return Conflict(
        f"attempt {attempt} must be running, but {_name(row)} is {row.state} in attempt {row.attempt} "
        f"with value {row.value}: drop what this attempt found"
    )


def _find(session: Session, job_id: str, stage: str, number: int) -> RunRow | None:
    return session.get(RunRow, (job_id, stage, number), populate_existing=True)


def _key(row: type[RunRow | PointsRow], job_id: str, stage: str, number: int) -> tuple[ColumnElement[bool], ...]:
    return row.job_id == job_id, row.stage == stage, row.number == number


def _name(row: RunRow) -> str:
    return f"{row.stage} run {row.number} of job {row.job_id}"


def _told(point: dict[str, Any]) -> dict[str, Any]:
    return {"step": point["step"], "metric": point.get("metric"), "lr": (point.get("lr") or [None])[-1]}
