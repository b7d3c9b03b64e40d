"""Runs of a job and their points. Every write goes through the fence, and names the attempt it belongs to."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from clr.run import KEPT_STEPS, Point, record
from service.store import events
from service.store.clock import now
from service.store.database import changed
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
    row = _find(session, lease.job_id, stage, number)
    if row is not None and row.state != "running":
        raise Conflict(f"a finished run is never repeated, but {_name(row)} is {row.state}: go on to the next one")
    attempt, losses, repeated = (1, 0, 0) if row is None else (row.attempt + 1, row.losses, row.repeated + row.steps)
    changed(session, delete(RunRow).where(*_key(RunRow, lease.job_id, stage, number)))
    values = {"job_id": lease.job_id, "stage": stage, "number": number, "params": params, "run": run}
    session.execute(insert(RunRow).values(**values, attempt=attempt, losses=losses, repeated=repeated))
    data = {"stage": stage, "number": number, "state": "running", "params": params}
    events.emit(session, lease.job_id, "trial", data)
    return attempt


def lose(session: Session, lease: Lease, *, stage: str, number: int, attempt: int) -> int:
    """Note that a running attempt's own process ended before it; how often that has befallen the run."""
    _write(session, lease, stage, number, attempt, losses=RunRow.losses + 1)
    return get(session, lease.job_id, stage, number).losses


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
    if not points:
        return
    again = {"repeated": max(0, get(session, lease.job_id, stage, number).repeated - restored)} if restored else {}
    _write(session, lease, stage, number, attempt, steps=points[-1]["step"], **again)
    steps = get(session, lease.job_id, stage, number).run.get("steps") or 0
    key = _key(PointsRow, lease.job_id, stage, number)
    newest = select(PointsRow.seq, PointsRow.data).where(*key).order_by(PointsRow.seq.desc()).limit(2)
    before = list(reversed(session.execute(newest).all()))
    recorded, first = [*(data for _, data in before), *points], len(before)
    told = points
    if steps > KEPT_STEPS:
        recorded, first = _thinned(recorded[: len(before)], points, steps)
        told = [point for point in points if point["metric"] is not None or point["diverged"]]
        if not told and len(recorded) > len(before):
            told = recorded[-1:]
    begin = before[0].seq if before else 0
    if first < len(before):
        changed(session, delete(PointsRow).where(*key, PointsRow.seq >= begin + first))
    row = {"job_id": lease.job_id, "stage": stage, "number": number, "attempt": attempt}
    new = [row | {"seq": begin + at, "data": recorded[at]} for at in range(first, len(recorded))]
    session.execute(insert(PointsRow), new)
    if told:
        data = {"stage": stage, "number": number, "points": [_told(point) for point in told]}
        events.emit(session, lease.job_id, "points", data)


def _thinned(
    recorded: list[dict[str, Any]], new: Sequence[dict[str, Any]], steps: int
) -> tuple[list[dict[str, Any]], int]:
    """The points of a long run with what is new, and the first that is another since."""
    points = [Point.from_dict(point) for point in recorded]
    first = min([record(points, Point.from_dict(point), steps) for point in new])
    return [point.to_dict() for point in points], first


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
) -> None:
    """End a running attempt as complete, pruned or failed. The same end told twice is told once."""
    value = value if value is not None and math.isfinite(value) else None
    fence(session, lease)
    row = get(session, lease.job_id, stage, number)
    if row.attempt == attempt and (row.state, row.value) == (state, value):
        return
    outcome = {"state": state, "value": value, "steps": steps, "error": error}
    _write(session, lease, stage, number, attempt, finished_at=now(), **outcome)
    data = {"stage": stage, "number": number, "params": row.params}
    events.emit(session, lease.job_id, "trial", data | outcome)


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


def _write(session: Session, lease: Lease, stage: str, number: int, attempt: int, **columns: Any) -> None:
    fence(session, lease)
    current = (*_key(RunRow, lease.job_id, stage, number), RunRow.attempt == attempt, RunRow.state == "running")
    if not changed(session, update(RunRow).where(*current).values(**columns)):
        row = get(session, lease.job_id, stage, number)
        raise Conflict(
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
