"""The job's state machine, on both databases."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import events, jobs, recommendations, runs
from service.store.clock import now_s
from service.store.database import Base, Database
from service.store.errors import Conflict, IdempotencyMismatch, LeaseLost, NotFound
from service.store.jobs import Lease
from service.store.models import Job

STATES = ("queued", "running", "succeeded", "failed", "cancelled")

WRITES: dict[str, Callable[[Session, Lease], Any]] = {
    "fence": jobs.fence,
    "renew": lambda session, lease: jobs.renew(session, lease, lease_s=60, worked_s=0),
    "release": jobs.release,
    "set_training": lambda session, lease: jobs.set_training(
        session, lease, iterations_per_epoch=9, metric="accuracy", direction="maximize", predicted_steps=900
    ),
    "progress": lambda session, lease: jobs.progress(session, lease, stage="search", progress=0.5, steps=7),
    "set_range_test": lambda session, lease: jobs.set_range_test(session, lease, {"lr": [0.1]}),
    "succeed": jobs.succeed,
    "fail": lambda session, lease: jobs.fail(session, lease, "out of memory"),
    "cancelled": jobs.cancelled,
    "start": lambda session, lease: runs.start(session, lease, stage="search", number=1, params={}, run={}),
    "lose": lambda session, lease: runs.lose(session, lease, stage="search", number=0, attempt=1),
    "append": lambda session, lease: runs.append(
        session, lease, stage="search", number=0, attempt=1, points=[{"step": 9, "lr": [0.1], "loss": [1.0]}]
    ),
    "finish": lambda session, lease: runs.finish(
        session, lease, stage="search", number=0, attempt=1, state="complete", value=0.9, steps=9
    ),
    "note": lambda session, lease: runs.note(session, lease, stage="search", number=0, run={"seed": 1}),
    "discard": lambda session, lease: runs.discard(session, lease, stage="search", number=0),
    "put": lambda session, lease: recommendations.put(
        session, lease, {"source": "search"}, task="digits", optimizer="SGD"
    ),
}
AFTER = {"release": "queued", "succeed": "succeeded", "fail": "failed", "cancelled": "cancelled"}


def submit(database: Database, **given: Any) -> str:
    values: dict[str, Any] = {"spec": {"task": "digits"}, "name": "demo", "task": "digits"} | given
    with database.begin() as session:
        return jobs.submit(session, **values)[0].id


def claim(database: Database, owner: str = "worker", lease_s: float = 60) -> Lease:
    with database.begin() as session:
        found = jobs.claim(session, owner=owner, lease_s=lease_s)
    assert found is not None
    return found[1]


def claimed(database: Database, **given: Any) -> Lease:
    """The lease of a new job, whose first run has begun."""
    job_id = submit(database, **given)
    lease = claim(database)
    assert lease.job_id == job_id
    with database.begin() as session:
        runs.start(session, lease, stage="search", number=0, params={"ratio": 3.0}, run={"seed": 0})
    return lease


def reach(database: Database, state: str) -> Lease:
    """The lease of a job that was worked on and is now in ``state``."""
    lease = claimed(database)
    verb = next((verb for verb, after in AFTER.items() if after == state), "fence")
    with database.begin() as session:
        WRITES[verb](session, lease)
    return lease


def state_of(database: Database, job_id: str) -> str:
    with database.read() as session:
        return jobs.get(session, job_id).state


def told(database: Database, job_id: str, kind: str = "state") -> list[dict[str, Any]]:
    with database.read() as session:
        return [event.data for event in events.after(session, job_id, 0) if event.kind == kind]


def contents(database: Database) -> dict[str, list[Any]]:
    with database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all())) for table in Base.metadata.sorted_tables
        }


def let_lease_run_out(database: Database, job_id: str) -> None:
    deadline = time.monotonic() + 30
    expired = select(Job.lease_until < now_s()).where(Job.id == job_id)
    while time.monotonic() < deadline:
        with database.read() as session:
            if session.scalar(expired):
                return
        time.sleep(0.005)
    raise AssertionError(f"the lease of job {job_id} did not run out")


def test_every_function_that_takes_a_lease_is_checked_below() -> None:
    public = {
        name
        for module in (jobs, runs, recommendations)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and "lease" in inspect.signature(function).parameters
    }
    assert public - {"hold", "let_go"} == WRITES.keys()  # these ask for a lease, as claim does, and give it back


def test_a_submitted_job_is_queued_and_keeps_what_it_was_given(database: Database) -> None:
    job_id = submit(database, spec={"task": "digits", "args": {"hidden": 64}}, priority=7)
    with database.read() as session:
        job = jobs.get(session, job_id)
    assert (job.state, job.stage, job.progress, job.steps, job.fencing_token) == ("queued", None, 0.0, 0, 0)
    assert (job.mode, job.name, job.task, job.priority) == ("managed", "demo", "digits", 7)
    assert job.spec == {"task": "digits", "args": {"hidden": 64}}
    assert (job.started_at, job.finished_at, job.cancel_requested) == (None, None, False)
    assert told(database, job_id) == [{"state": "queued"}]


def test_a_claimed_job_is_running_under_its_first_fencing_token(database: Database) -> None:
    job_id = submit(database)
    with database.begin() as session:
        found = jobs.claim(session, owner="worker", lease_s=60)
        assert found is not None
        job, lease = found
        left = session.scalar(select(Job.lease_until - now_s()).where(Job.id == job_id))
    assert lease == Lease(job_id, 1, "worker", lease.claim_id)
    assert (job.state, job.owner, job.fencing_token) == ("running", "worker", 1)
    assert job.started_at is not None
    assert job.started_at >= job.created_at
    assert left is not None
    assert 50 < left <= 60
    assert told(database, job_id) == [{"state": "queued"}, {"state": "running", "fencing_token": 1}]


@pytest.mark.parametrize("verb", sorted(WRITES))
@pytest.mark.parametrize("state", STATES)
def test_a_lease_writes_while_the_job_runs_and_never_else(database: Database, state: str, verb: str) -> None:
    lease = reach(database, state)
    before = contents(database)
    if state == "running":
        with database.begin() as session:
            WRITES[verb](session, lease)
        assert state_of(database, lease.job_id) == AFTER.get(verb, "running")
        assert verb == "fence" or contents(database) != before
    else:
        with pytest.raises(LeaseLost, match=f"but it is {state}"), database.begin() as session:
            WRITES[verb](session, lease)
        assert contents(database) == before


@pytest.mark.parametrize("verb", sorted(WRITES))
def test_a_worker_whose_job_was_taken_over_writes_nothing(database: Database, verb: str) -> None:
    lease = claimed(database)
    with database.begin() as session:
        jobs.renew(session, lease, lease_s=0.01, worked_s=0)
    let_lease_run_out(database, lease.job_id)
    claim(database, "second")
    before = contents(database)
    with pytest.raises(LeaseLost, match="it is running under fencing token 2"), database.begin() as session:
        WRITES[verb](session, lease)
    assert contents(database) == before


@pytest.mark.parametrize("verb", sorted(WRITES))
def test_a_worker_whose_job_was_deleted_writes_nothing(database: Database, verb: str) -> None:
    lease = reach(database, "cancelled")
    with database.begin() as session:
        jobs.delete(session, lease.job_id)
    before = contents(database)
    with pytest.raises(LeaseLost, match="it was deleted"), database.begin() as session:
        WRITES[verb](session, lease)
    assert contents(database) == before


@pytest.mark.parametrize("state", STATES)
def test_only_a_queued_job_is_claimed_while_its_lease_holds(database: Database, state: str) -> None:
    lease = reach(database, state)
    with database.begin() as session:
        found = jobs.claim(session, owner="second", lease_s=60)
    assert (found is not None) == (state == "queued")
    assert state_of(database, lease.job_id) == ("running" if state == "queued" else state)


def test_a_job_is_taken_over_once_its_lease_has_run_out(database: Database) -> None:
    job_id = submit(database)
    first = claim(database, "first", lease_s=0.01)
    let_lease_run_out(database, job_id)
    with database.begin() as session:
        started_at = jobs.get(session, job_id).started_at
        found = jobs.claim(session, owner="second", lease_s=60)
    assert found is not None
    job, second = found
    assert second == Lease(job_id, first.fencing_token + 1, "second", second.claim_id)
    assert (job.state, job.owner, job.started_at) == ("running", "second", started_at)
    assert told(database, job_id)[1:] == [
        {"state": "running", "fencing_token": 1},
        {"state": "running", "fencing_token": 2},
    ]


def test_a_renewed_lease_holds(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database, lease_s=0.01)
    let_lease_run_out(database, job_id)
    with database.begin() as session:
        assert jobs.renew(session, lease, lease_s=60, worked_s=0) is False
        assert jobs.claim(session, owner="second", lease_s=60) is None


def test_the_highest_priority_is_claimed_first_and_then_the_oldest(database: Database) -> None:
    low, high, later = submit(database), submit(database, priority=5), submit(database, priority=5)
    assert [claim(database).job_id for _ in range(3)] == [high, later, low]


@pytest.mark.parametrize(("abandoned", "waiting"), [(5, 0), (0, 0), (0, 5)])
def test_an_abandoned_job_takes_its_place_among_those_that_wait(
    database: Database, abandoned: int, waiting: int
) -> None:
    old = submit(database, priority=abandoned)
    claim(database, lease_s=0.01)
    new = submit(database, priority=waiting)
    let_lease_run_out(database, old)
    order = [claim(database).job_id for _ in range(2)]
    assert order == ([old, new] if abandoned >= waiting else [new, old])


def test_a_released_job_is_queued_without_an_owner_and_claimed_under_a_later_fencing_token(database: Database) -> None:
    lease = reach(database, "queued")
    with database.read() as session:
        job = jobs.get(session, lease.job_id)
        kept = runs.get(session, lease.job_id, "search", 0)
    assert (job.state, job.owner, job.lease_until, job.fencing_token) == ("queued", None, None, 1)
    assert kept.state == "running"
    assert told(database, lease.job_id)[-1] == {"state": "queued"}
    assert claim(database).fencing_token == 2


def test_what_a_worker_reports_is_stored_and_told(database: Database) -> None:
    lease = claimed(database)
    with database.begin() as session:
        for verb in ("set_training", "progress", "set_range_test"):
            WRITES[verb](session, lease)
        job = jobs.get(session, lease.job_id)
    assert (job.iterations_per_epoch, job.metric, job.direction, job.predicted_steps) == (
        9,
        "accuracy",
        "maximize",
        900,
    )
    assert (job.stage, job.progress, job.steps, job.range_test) == ("search", 0.5, 7, {"lr": [0.1]})
    assert told(database, lease.job_id, "progress") == [{"stage": "search", "progress": 0.5, "steps": 7}]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_job_that_ends_says_when_and_leaves_no_run_running(database: Database, state: str) -> None:
    lease = reach(database, state)
    with database.read() as session:
        job = jobs.get(session, lease.job_id)
        run = runs.get(session, lease.job_id, "search", 0)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.finished_at >= job.started_at
    assert job.lease_until is None
    assert job.progress == (1.0 if state == "succeeded" else 0.0)
    assert job.error == ("out of memory" if state == "failed" else None)
    assert (run.state, run.error) == ("failed", f"job {state} before the run ended")
    last = {"state": state} | ({"error": "out of memory"} if state == "failed" else {})
    assert told(database, lease.job_id)[-1] == last


def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job_id = submit(database)
    with database.begin() as session:
        job = jobs.request_cancel(session, job_id)
    assert job.state == "cancelled"
    assert job.finished_at is not None
    assert told(database, job_id)[-1] == {"state": "cancelled"}
    with database.begin() as session:
        assert jobs.claim(session, owner="worker", lease_s=60) is None


def test_a_running_jobs_worker_is_asked_once_to_cancel(database: Database) -> None:
    lease = claimed(database)
    for _ in range(2):
        with database.begin() as session:
            job = jobs.request_cancel(session, lease.job_id)
        assert (job.state, job.cancel_requested) == ("running", True)
    assert told(database, lease.job_id)[2:] == [{"state": "running", "cancel_requested": True}]
    with database.begin() as session:
        assert jobs.renew(session, lease, lease_s=60, worked_s=0) is True


def test_a_job_released_while_it_is_to_be_cancelled_is_cancelled(database: Database) -> None:
    lease = claimed(database)
    with database.begin() as session:
        jobs.request_cancel(session, lease.job_id)
        jobs.release(session, lease)
    assert state_of(database, lease.job_id) == "cancelled"


def test_a_job_that_nobody_works_on_any_more_is_cancelled_at_once(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database, lease_s=0.01)
    let_lease_run_out(database, job_id)
    with database.begin() as session:
        assert jobs.request_cancel(session, job_id).state == "cancelled"
    with pytest.raises(LeaseLost), database.begin() as session:
        jobs.renew(session, lease, lease_s=60, worked_s=0)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_finished_job_is_not_cancelled(database: Database, state: str) -> None:
    lease = reach(database, state)
    before = contents(database)
    with pytest.raises(Conflict, match=f"has {state}"), database.begin() as session:
        jobs.request_cancel(session, lease.job_id)
    assert contents(database) == before


@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_unfinished_job_is_not_deleted(database: Database, state: str) -> None:
    lease = reach(database, state)
    before = contents(database)
    with pytest.raises(Conflict, match=f"is {state}: cancel it first"), database.begin() as session:
        jobs.delete(session, lease.job_id)
    assert contents(database) == before


def test_deleting_a_job_removes_all_that_belongs_to_it_and_nothing_else(database: Database) -> None:
    claimed(database)
    before = contents(database)
    lease = claimed(database)
    with database.begin() as session:
        for verb in ("append", "finish", "set_range_test", "progress", "put", "succeed"):
            WRITES[verb](session, lease)
    full = {name: len(rows) - len(before[name]) for name, rows in contents(database).items()}
    owned = {"clr_jobs", "clr_runs", "clr_points", "clr_events", "clr_recommendations"}
    assert {name for name, rows in full.items() if rows} == owned
    with database.begin() as session:
        jobs.delete(session, lease.job_id)
    assert contents(database) == before


def test_an_unknown_job_is_not_found(database: Database) -> None:
    for act in (jobs.get, jobs.request_cancel, jobs.delete, jobs.attend):
        for job_id in ("0" * 32, "\0", "\ud800"):
            with pytest.raises(NotFound, match="no job has the id"), database.begin() as session:
                act(session, job_id)


def test_an_external_job_is_never_claimed_and_runs_from_its_first_report(database: Database) -> None:
    job_id = submit(database, mode="external")
    with database.begin() as session:
        assert jobs.claim(session, owner="worker", lease_s=60) is None
    for _ in range(2):
        with database.begin() as session:
            job, lease = jobs.attend(session, job_id)
            jobs.progress(session, lease, stage="range_test", progress=0.1, steps=5)
        assert job.state == "running"
        assert job.started_at is not None
    assert told(database, job_id) == [{"state": "queued"}, {"state": "running"}]
    with database.begin() as session:
        assert jobs.claim(session, owner="worker", lease_s=60) is None
        assert jobs.request_cancel(session, job_id).state == "cancelled"
    with pytest.raises(Conflict, match="has cancelled"), database.begin() as session:
        jobs.attend(session, job_id)


def test_the_same_key_and_digest_find_the_same_job(database: Database) -> None:
    given: dict[str, Any] = {"spec": {}, "name": "demo", "task": "digits", "idempotency_key": "k"}
    with database.begin() as session:
        job, created = jobs.submit(session, **given, idempotency_digest="d")
        assert created
    with database.begin() as session:
        again, created = jobs.submit(session, **given, idempotency_digest="d")
        assert (again.id, created) == (job.id, False)
    with pytest.raises(IdempotencyMismatch, match=job.id), database.begin() as session:
        jobs.submit(session, **given, idempotency_digest="other")
    assert told(database, job.id) == [{"state": "queued"}]


def test_jobs_without_a_key_are_all_new(database: Database) -> None:
    assert submit(database) != submit(database)


def test_pages_are_newest_first_and_stable_while_jobs_are_added(database: Database) -> None:
    ids = [submit(database) for _ in range(10)]
    assert ids == sorted(ids)
    seen: list[str] = []
    before = None
    while True:
        with database.read() as session:
            page = jobs.browse(session, limit=3, before=before)
        if not page:
            break
        seen += [job.id for job in page]
        before = seen[-1]
        submit(database)
    assert seen == ids[::-1]


def test_pages_are_filtered_by_state_task_and_name(database: Database) -> None:
    lease = reach(database, "failed")
    submit(database, task="mnist")
    submit(database, name="other")
    with database.read() as session:
        assert [job.id for job in jobs.browse(session, state="failed")] == [lease.job_id]
        assert len(jobs.browse(session, task="digits")) == 2
        assert len(jobs.browse(session, name="demo")) == 2
        assert len(jobs.browse(session, state="queued", task="digits", name="other")) == 1
        assert jobs.browse(session, state="queued", name="\0") == []


def test_deployments_and_takeovers_are_no_losses_of_a_run(database: Database) -> None:
    submit(database)
    place = {"stage": "search", "number": 0}
    for _ in range(3):  # begun, handed back, begun again
        lease = claim(database)
        with database.begin() as session:
            attempt = runs.start(session, lease, **place, params={}, run={})
        with database.begin() as session:
            jobs.release(session, lease)
    lease = claim(database)
    with database.begin() as session:
        attempt = runs.start(session, lease, **place, params={}, run={})
        assert runs.lose(session, lease, **place, attempt=attempt) == 1
        assert runs.start(session, lease, **place, params={}, run={}) == attempt + 1 == 5
        assert runs.get(session, lease.job_id, **place).losses == 1
