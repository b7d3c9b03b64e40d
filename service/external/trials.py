"""The trials of an external job: asked for, reported on, told."""

import logging
import time
from contextlib import suppress
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from clr.errors import InvalidArgument
from clr.run import fresh_seeds
from clr.trials.study import Search, create_study, label_study
from service.external.job import ExternalJob, attending
from service.external.reports import Proposed, Result, TrialReport
from service.external.study import settle
from service.store import audit, jobs, recommendations, runs, studies
from service.store.database import Database
from service.store.errors import Busy, Conflict, LeaseLost
from service.store.jobs import Lease
from service.store.models import RunRow

log = logging.getLogger(__name__)

STAGE = "search"

HOLD_S = 10.0
"""One ask at a time proposes; one whose process died in it holds the others up no longer than this."""

PATIENCE_S = 20.0
"""How long an ask waits for its turn: less than clients wait for an answer, longer than a dead one holds them up."""

PAUSE_S = 0.02

SHOWN = 10
"""Numbers of trials that a message holds."""


def ask(database: Database, job_id: str, key: str | None = None, *, by: str | None = None) -> Proposed:
    """The next trial, for the token named ``by``. The same ``key`` again gives the same trial.

    Raises:
        Conflict: there is none, or not yet; the message says why.
        Busy: others ask all the time.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with attending(database, job_id) as attended:
            for row in attended.trials:
                if key is not None and row.run.get("key") == key:
                    return _proposed(row)
            over = _is_over(attended)
            lease = None if over else jobs.hold(attended.session, attended.lease, lease_s=HOLD_S)
        if over:
            raise Conflict(over)
        if lease is not None:
            with suppress(LeaseLost):
                return _propose(database, attended, lease, key, by)
        if time.monotonic() > deadline:
            raise Busy(f"job {job_id}: no turn to ask came within {PATIENCE_S:g} s; ask again")
        time.sleep(PAUSE_S)


def report(database: Database, job_id: str, number: int, given: TrialReport) -> bool:
    """Record a value of a running trial; whether to stop it."""
    with attending(database, job_id) as attended:
        row = _running(attended, number)
        if _is_recorded(attended, row, given):
            return bool(row.run.get("prune"))
        _check_step(row, given)
        point = {"step": given.step, "lr": [], "loss": [], "metric": given.value, "diverged": given.value is None}
        place: dict[str, Any] = {"stage": STAGE, "number": number}
        runs.append(attended.session, attended.lease, **place, attempt=row.attempt, points=[point])
        attended.spend(STAGE, given.step - row.steps)
        points = runs.points(attended.session, job_id, STAGE, [number])[number]
    prune = given.value is None or _falls_behind(database, attended, row, points)
    if prune:
        with attending(database, job_id) as attended:
            row = _running(attended, number)
            runs.note(attended.session, attended.lease, **place, run=row.run | {"prune": True})
    return prune


def tell(database: Database, job_id: str, number: int, result: Result, *, by: str | None = None) -> None:
    """Record how a trial ended, and recommend the best so far; after the last trial the job has succeeded."""
    with database.read() as session:
        job, row = jobs.get(session, job_id), runs.get(session, job_id, STAGE, number)
    if job.mode != "external" or not _is_told(row, result):
        with attending(database, job_id) as attended:
            row = runs.get(attended.session, job_id, STAGE, number)
            if not _is_told(row, result):
                _finish(attended, row, result)
                audit.record(attended.session, by, "tell", job_id=job_id, detail=f"trial {number}")
    settle(database, job_id)  # also when told again: the process that was told first may have died before it came here


def _is_over(attended: ExternalJob) -> str | None:
    """Why there will be no trial; a job that none is under way of is ended then. None: there is one to hand out."""
    if attended.job.range_test is None:
        raise Conflict("no range test yet, and so no bounds to search around: PUT /v1/jobs/{id}/range-test first")
    if attended.spec.search is not None and attended.bounds.max_lr is None:
        reasons = "; ".join(attended.bounds.reasons)
        raise Conflict(
            f"the range test is inconclusive, so there is nothing to search around: {reasons}; PUT one of another seed"
        )
    reason = attended.why_no_more()
    if reason and attended.running:
        numbers = ", ".join(str(row.number) for row in attended.running[:SHOWN])
        raise Conflict(f"{reason}; still to be told: {numbers}")
    if reason and attended.spec.search is not None:
        attended.conclude()
    return reason


def _propose(database: Database, attended: ExternalJob, lease: Lease, key: str | None, by: str | None) -> Proposed:
    """Ask the study, with no transaction open, since it writes through connections of its own."""
    job_id = attended.job.id
    try:
        search = _search(database, attended)
        settle(database, job_id)
        search.forget_all_but({row.number for row in attended.running})
        number, candidate = search.ask()
        (seed,) = fresh_seeds(attended.spec.seed, STAGE, 1)
        run = candidate.run(seed).to_dict() | ({} if key is None else {"key": key})
        with database.begin() as session:
            jobs.fence(session, lease, lease_until=None)
            runs.start(session, lease, stage=STAGE, number=number, params=candidate.to_dict(), run=run)
            audit.record(session, by, "ask", job_id=job_id, detail=f"trial {number}")
            now = ExternalJob(session, jobs.get(session, job_id), lease)
            now.spend(STAGE, 0)
            if not attended.trials:
                now.recommend(reasons=[*now.bounds.reasons, *search.reasons])
            return _proposed(runs.get(session, job_id, STAGE, number))
    except LeaseLost:
        log.warning("an ask lost its turn: job=%s", job_id)
        settle(database, job_id)
        raise
    except BaseException:
        with suppress(LeaseLost), database.begin() as session:
            jobs.fence(session, lease, lease_until=None)
        raise


def _search(database: Database, attended: ExternalJob) -> Search:
    spec, job = attended.spec, attended.job
    assert spec.search is not None
    assert job.direction is not None
    earlier = []
    if spec.search.warm_start:
        with database.read() as session:
            earlier = recommendations.alike(session, job.id)
    storage = studies.remembering(database.url, job.id)
    study = create_study(storage, job.id, job.direction, spec.seed)  # type: ignore[arg-type]  # stored from one
    label_study(study, spec, None)
    return Search(study, spec.search, attended.bounds, attended.trial_length, earlier)


def _falls_behind(database: Database, attended: ExternalJob, row: RunRow, points: list[dict[str, Any]]) -> bool:
    """Whether the trial is worth no more steps; one that has none left is not asked about."""
    if points[-1]["step"] >= row.run["steps"]:
        return False
    values = [(point["step"], point["metric"]) for point in points if point["metric"] is not None]
    with suppress(UpdateFinishedTrialError):  # told by another at this moment
        return _search(database, attended).should_prune(row.number, values)
    return False


def _running(attended: ExternalJob, number: int) -> RunRow:
    row = runs.get(attended.session, attended.job.id, STAGE, number)
    if row.state != "running":
        raise Conflict(f"only a running trial takes points, but trial {number} is {row.state}: ask for another")
    return row


def _is_recorded(attended: ExternalJob, row: RunRow, given: TrialReport) -> bool:
    """Whether this is the last report once more, since its answer was lost."""
    points = runs.points(attended.session, attended.job.id, STAGE, [row.number])[row.number]
    return [(point["step"], point["metric"]) for point in points[-1:]] == [(given.step, given.value)]


def _check_step(row: RunRow, given: TrialReport) -> None:
    last = row.run["steps"]
    if not row.steps < given.step <= last:
        rule = f"must be above {row.steps}, the last one reported, and at most {last}, the trial's steps"
        raise InvalidArgument("step", rule, given.step)


def _is_told(row: RunRow, result: Result) -> bool:
    """Whether the trial ended just so before."""
    if row.state == "running":
        return False
    if (row.state, row.value) != (_state(row, result), result.value):
        raise Conflict(
            f"a trial is told once, but trial {row.number} is {row.state} with value {row.value}"
            f"{f' ({row.error})' if row.error else ''}: it stays so"
        )
    return True


def _state(row: RunRow, result: Result) -> str:
    """A trial that diverged, or stopped as advised, counts as pruned: its value is not that of the whole schedule."""
    stopped = row.run.get("prune", False) and row.steps < row.run["steps"]
    if result.state == "complete" and (result.value is None or stopped):
        return "pruned"
    return result.state


def _finish(attended: ExternalJob, row: RunRow, result: Result) -> None:
    session, state, reported = attended.session, _state(row, result), row.steps
    steps = row.run["steps"] if state == "complete" else reported
    place: dict[str, Any] = {"stage": STAGE, "number": row.number, "attempt": row.attempt}
    runs.finish(session, attended.lease, **place, state=state, value=result.value, steps=steps, error=result.error)
    runs.get(session, attended.job.id, STAGE, row.number)  # its row as it is now, also among attended.trials
    attended.spend(STAGE, steps - reported)
    if state == "complete":
        attended.recommend()
    why_no_more = attended.why_no_more()
    if why_no_more and not attended.running:
        attended.conclude()


def _proposed(row: RunRow) -> Proposed:
    return Proposed(number=row.number, **row.params, steps=row.run["steps"], seed=row.run["seed"])
