"""What a trainer of the user's own does: asks for the next run, reports its points, tells how it ended."""

from collections.abc import Sequence
from typing import Any

from clr.errors import InvalidArgument
from clr.run import Run
from clr.schedules.cycles import rate_of
from clr.tuning.orders import Advice, Order, Waiting
from service.external.clock import CLOCK
from service.external.job import ExternalJob, attending
from service.external.reports import LARGEST, Ended, OrderedRun, RunPoint
from service.store import audit, runs
from service.store.database import Database
from service.store.errors import Conflict
from service.store.models import RunRow

ATTEMPTS = 3
"""Trainers that a run is given to before it counts as failed."""

RATE_ERROR = 0.01
"""Share by which a reported rate may lie off the one that was ordered: more is another schedule."""


def next_run(database: Database, job_id: str, key: str | None = None, *, by: str | None = None) -> OrderedRun | None:
    """The next run to train, for the token named ``by``; None while others must end first.

    The same ``key`` again gives the same run. One that was given no report for too long is handed out again.

    Raises:
        Conflict: the job is over; the message says why.
    """
    with attending(database, job_id) as job:
        running = job.running()
        for row in running:
            if key is not None and row.run.get("key") == key:
                return _ordered(row)
        for row in running:
            if job.is_silent(row):
                if row.attempt < ATTEMPTS:
                    return _hand_out(job, row.stage, row.number, row.params, row.run, key, by)
                _give_up(job, row)
        order = job.session.next()
        if isinstance(order, Order):
            made = _hand_out(job, order.stage, order.number, order.params, order.run.to_dict(), key, by)
            if job.job.stage != order.stage:
                job.take_note(order.stage)
            return made
        if isinstance(order, Waiting):
            return None
        job.take_note()
        reason = order.reason
    raise Conflict(f"job {job_id} is over: {reason}")


def report(
    database: Database, job_id: str, stage: str, number: int, points: Sequence[RunPoint], attempt: int | None
) -> Advice:
    """Record points of a run under way; those of steps that were reported before are left out."""
    with attending(database, job_id) as job:
        row = _running(job, stage, number, attempt)
        new = _checked(row, [point for point in points if point.step > row.steps])
        if not new:
            return Advice(bool(row.run.get("stop")), row.run.get("stop"))
        recorded = [_recorded(row, point) for point in new]
        place: dict[str, Any] = {"stage": stage, "number": number}
        runs.append(job.transaction, job.lease, **place, attempt=row.attempt, points=recorded)
        session = job.session
        session.next()
        advice = session.hear(row.stage, number, [])  # type: ignore[arg-type]
        note = {"reported_at": CLOCK.look().isoformat()} | ({"stop": advice.reason} if advice.stop else {})
        runs.note(job.transaction, job.lease, **place, run=row.run | note)
        job.tell_progress(row.stage)
        if session.reached is not None:
            job.recommend()
            job.conclude()
        return advice


def tell(
    database: Database,
    job_id: str,
    stage: str,
    number: int,
    ended: Ended,
    *,
    by: str | None = None,
) -> None:
    """Record how a run ended, and what follows from it. The same end told twice is told once."""
    with database.read() as transaction:
        row = runs.get(transaction, job_id, stage, number)
    if _is_told(row, ended):
        return
    with attending(database, job_id) as job:
        row = runs.get(job.transaction, job_id, stage, number)
        if _is_told(row, ended):
            return
        _running(job, stage, number, ended.attempt)
        if ended.state == "failed" and row.attempt < ATTEMPTS:
            note = row.run | {"lost": True, "error": ended.error}
            runs.note(job.transaction, job.lease, stage=stage, number=number, run=note)
        else:
            _finish(job, row, ended)
        audit.record(job.transaction, by, "tell", job_id=job_id, detail=f"{stage} run {number}")


def _hand_out(
    job: ExternalJob, stage: str, number: int, params: Any, run: dict[str, Any], key: str | None, by: str | None
) -> OrderedRun:
    fresh = {name: value for name, value in run.items() if name not in ("key", "stop", "reported_at", "lost", "error")}
    fresh |= {} if key is None else {"key": key}
    runs.start(job.transaction, job.lease, stage=stage, number=number, params=params, run=fresh)
    audit.record(job.transaction, by, "ask", job_id=job.job.id, detail=f"{stage} run {number}")
    return _ordered(runs.get(job.transaction, job.job.id, stage, number))


def _ordered(row: RunRow) -> OrderedRun:
    run = _run(row)
    ramp = run.is_ramp
    down = 0 if ramp else run.step_size_up if run.step_size_down is None else run.step_size_down
    given = {name: getattr(run, name) for name in OrderedRun.model_fields if hasattr(run, name)}
    place = {"stage": row.stage, "number": row.number, "attempt": row.attempt, "step_size_down": down}
    return OrderedRun(**given | place)


def _run(row: RunRow) -> Run:
    return Run(**{name: row.run[name] for name in Run.__dataclass_fields__ if name in row.run})


def _running(job: ExternalJob, stage: str, number: int, attempt: int | None) -> RunRow:
    row = runs.get(job.transaction, job.job.id, stage, number)
    if row.state != "running":
        raise Conflict(f"only a running run takes reports, but {stage} run {number} is {row.state}: ask for another")
    if attempt is not None and attempt != row.attempt:
        raise Conflict(
            f"{stage} run {number} is in attempt {row.attempt}, in another trainer's hands, but this is attempt "
            f"{attempt}: drop it, and ask for another"
        )
    return row


def _checked(row: RunRow, points: list[RunPoint]) -> list[RunPoint]:
    """Points in order, within the run, at the rates that were ordered."""
    run, last = _run(row), row.steps
    rate = rate_of(run)
    for index, point in enumerate(points):
        if not last < point.step <= run.steps:
            rule = f"must rise, and be at most {run.steps}, the run's steps; the last was {last}"
            raise InvalidArgument(f"points.{index}.step", rule, point.step)
        last = point.step
        ordered = rate(point.step - 1)
        if point.lr is not None and abs(point.lr - ordered) > RATE_ERROR * max(abs(ordered), 1e-12):
            rule = f"must be {ordered:.6g}, the rate ordered for step {point.step}: the run trains another schedule"
            raise InvalidArgument(f"points.{index}.lr", rule, point.lr)
        if point.loss is None and index < len(points) - 1:
            rule = "must be a number but for the last point: after a loss that is not finite nothing follows"
            raise InvalidArgument(f"points.{index}.loss", rule, None)
    return points


def _recorded(row: RunRow, point: RunPoint) -> dict[str, Any]:
    """As a worker records it; one loss stands for all steps since the last point."""
    rate = rate_of(_run(row))(point.step - 1)
    finite = point.loss is not None and abs(point.loss) <= LARGEST
    return {
        "step": point.step,
        "lr": [rate],
        "loss": [point.loss if finite else None],
        "metric": point.metric if finite else None,
        "diverged": not finite,
    }


def _is_told(row: RunRow, ended: Ended) -> bool:
    """Whether the run ended just so before."""
    if row.state == "running":
        return False
    state = "failed" if ended.state == "failed" else None
    same = row.run.get("told") == ended.value if state is None else row.state == state
    if not same:
        error = f" ({row.error})" if row.error else ""
        raise Conflict(
            f"a run is told once, but {row.stage} run {row.number} is {row.state} with value {row.value}{error}: "
            "it stays so"
        )
    return True


def _finish(job: ExternalJob, row: RunRow, ended: Ended) -> None:
    place: dict[str, Any] = {"stage": row.stage, "number": row.number, "attempt": row.attempt}
    points = runs.points(job.transaction, job.job.id, row.stage, [row.number])[row.number]
    diverged = any(point["diverged"] for point in points)
    if ended.state != "failed" and ended.value is None and not diverged:
        end = {"step": max(1, row.steps), "lr": [], "loss": [], "metric": None, "diverged": True}
        runs.append(job.transaction, job.lease, **place, points=[end])
    elif ended.state != "failed" and row.stage == "range_test" and not diverged and row.steps < row.run["steps"]:
        rule = f"may be told once all {row.run['steps']} steps are reported, but the last reported is {row.steps}"
        raise InvalidArgument("value", rule, ended.value)
    runs.note(job.transaction, job.lease, stage=row.stage, number=row.number, run=row.run | {"told": ended.value})
    session = job.session
    session.next()
    told = (
        session.tell_failed(row.stage, row.number)  # type: ignore[arg-type]
        if ended.state == "failed"
        else session.tell(row.stage, row.number, ended.value)  # type: ignore[arg-type]
    )
    stopped = bool(row.run.get("stop")) and ended.value is not None and row.steps < row.run["steps"]
    state, value = ("pruned", None) if stopped else (told.state, told.value)
    steps = row.run["steps"] if state == "complete" and value is not None else row.steps
    runs.finish(job.transaction, job.lease, **place, state=state, value=value, steps=steps, error=ended.error)
    job.take_note(row.stage)


def _give_up(job: ExternalJob, row: RunRow) -> None:
    """A run that no trainer has brought to its end has failed."""
    seconds = job.spec.limits.run_seconds
    error = (
        row.run.get("error")
        or f"given up after {row.attempt} attempts, the last with no report for {seconds or 600:g} s"
    )
    place: dict[str, Any] = {"stage": row.stage, "number": row.number, "attempt": row.attempt}
    runs.finish(job.transaction, job.lease, **place, state="failed", value=None, steps=row.steps, error=error)
    job.take_note(row.stage)
