"""What several workers and requests do to the store at the same time, on both databases."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from service.store import events, jobs, recommendations, runs, tokens, workers
from service.store.clock import now_s
from service.store.database import Database
from service.store.errors import IdempotencyMismatch, LeaseLost, LimitReached
from service.store.jobs import Lease
from service.store.models import Job

WAIT_S = 60


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Results of what is done at the same time."""
    barrier = Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait(WAIT_S)
        return act()

    with ThreadPoolExecutor(len(acts)) as threads:
        return [future.result(WAIT_S) for future in [threads.submit(run, act) for act in acts]]


def submit(database: Database, **given: Any) -> tuple[str, bool]:
    with database.begin() as session:
        job, created = jobs.submit(session, spec={}, name="demo", task="digits", **given)
        return job.id, created


def claim(database: Database, owner: str, lease_s: float = 60, running_limit: int | None = None) -> Lease | None:
    with database.begin() as session:
        found = jobs.claim(session, owner=owner, lease_s=lease_s, running_limit=running_limit)
        return found and found[1]


def claim_all(database: Database, owner: str, running_limit: int | None = None) -> list[Lease]:
    leases = []
    misses = 0
    while misses < 3:  # on PostgreSQL a job that another is just taking is passed over
        lease = claim(database, owner, running_limit=running_limit)
        misses = 0 if lease else misses + 1
        leases += [lease] if lease else []
    return leases


def until(database: Database, condition: Any) -> None:
    """Wait until ``condition`` holds in the database."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with database.read() as session:
            if session.scalar(select(condition)):
                return
        time.sleep(0.005)
    raise AssertionError(f"{condition} did not come true")


def until_one_waits(database: Database) -> None:
    """Wait until a transaction of PostgreSQL waits for another; on SQLite they begin one after the other anyway."""
    if database.url.startswith("postgresql"):
        until(database, text("EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


def test_many_workers_claim_each_job_once(database: Database) -> None:
    ids = [submit(database, priority=number % 3)[0] for number in range(30)]
    claims = together(*(lambda owner=f"worker {n}": claim_all(database, owner) for n in range(6)))
    assert sorted(lease.job_id for leases in claims for lease in leases) == sorted(ids)
    assert all(lease.fencing_token == 1 for leases in claims for lease in leases)


def test_one_of_many_workers_takes_an_abandoned_job_over(database: Database) -> None:
    job_id, _ = submit(database)
    dead = claim(database, "dead", lease_s=0.01)
    assert dead is not None
    expired = select(Job.lease_until < now_s()).where(Job.id == job_id).scalar_subquery()
    until(database, expired)
    claims = together(*(lambda owner=f"worker {n}": claim(database, owner) for n in range(6)))
    winners = [lease for lease in claims if lease]
    assert [(lease.job_id, lease.fencing_token) for lease in winners] == [(job_id, 2)]
    with pytest.raises(LeaseLost), database.begin() as session:
        jobs.renew(session, dead, lease_s=60, worked_s=0)
    with database.begin() as session:
        assert jobs.renew(session, winners[0], lease_s=60, worked_s=0) is False


def test_claim_is_lost_when_another_worker_won(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = submit(database)[0], submit(database)[0]
    look = jobs._candidate
    winners: list[str] = []

    def look_and_be_slow(session: Any, waiting: Any) -> Any:
        found = look(session, waiting)
        if not winners:  # another worker's claim, between this one's look and its update
            won = update(Job).where(Job.id == first).values(state="running", fencing_token=1, owner="faster")
            session.execute(won)
            winners.append("faster")
        return found

    monkeypatch.setattr(jobs, "_candidate", look_and_be_slow)
    lease = claim(database, "slower")
    assert lease == Lease(second, 1, "slower", lease.claim_id)
    with database.read() as session:
        assert jobs.get(session, first).owner == "faster"


def test_two_requests_with_one_key_make_one_job(database: Database) -> None:
    request = {"idempotency_key": "k", "idempotency_digest": "d"}
    answers = together(*(lambda: submit(database, **request) for _ in range(4)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False, False, False, True]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert len(events.after(session, answers[0][0], 0)) == 1


@pytest.mark.parametrize("digest", ["d", "other"])
@pytest.mark.parametrize("first_commits", [True, False])
def test_a_request_waits_for_the_first_one_with_its_key(database: Database, first_commits: bool, digest: str) -> None:
    stored = Event()
    given: dict[str, Any] = {"spec": {}, "name": "demo", "task": "digits", "idempotency_key": "k"}

    def second() -> tuple[str, bool]:
        assert stored.wait(WAIT_S)
        return submit(database, idempotency_key="k", idempotency_digest=digest)

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(second)
        with database.begin() as session:
            first = jobs.submit(session, **given, idempotency_digest="d")[0].id
            stored.set()
            until_one_waits(database)
            if not first_commits:
                session.rollback()
        if first_commits and digest == "other":
            with pytest.raises(IdempotencyMismatch, match=first):
                answer.result(WAIT_S)
        else:
            job_id, created = answer.result(WAIT_S)
            assert (job_id == first, created) == (first_commits, not first_commits)


def test_a_follower_sees_every_event_in_order_while_many_write(database: Database) -> None:
    job_id, _ = submit(database)
    lease = claim(database, "worker")
    assert lease is not None
    writers, each = 4, 15
    seen: list[int] = []
    ended = Event()

    def write(stage: str) -> None:
        for step in range(each):
            with database.begin() as session:
                jobs.progress(session, lease, stage=stage, progress=step / each, steps=step)

    def follow() -> None:
        done = False
        while not done:
            done = ended.is_set()  # before the look: what is there by then is all
            with database.read() as session:
                while found := events.after(session, job_id, seen[-1] if seen else 0, limit=7):
                    seen.extend(event.id for event in found)

    with ThreadPoolExecutor(1) as threads:
        follower = threads.submit(follow)
        together(*(lambda stage=f"writer {n}": write(stage) for n in range(writers)))
        with database.begin() as session:
            jobs.succeed(session, lease)
        ended.set()
        follower.result(WAIT_S)
    with database.read() as session:
        stored = [(event.id, event.data) for event in events.after(session, job_id, 0)]
    assert seen == sorted({number for number, _ in stored})
    assert len(seen) == 2 + writers * each + 1
    for n in range(writers):
        steps = [data["steps"] for _, data in stored if data.get("stage") == f"writer {n}"]
        assert steps == list(range(each))


def test_points_appended_at_once_all_stay(database: Database) -> None:
    submit(database)
    lease = claim(database, "worker")
    assert lease is not None
    with database.begin() as session:
        runs.start(session, lease, stage="search", number=0, params={}, run={})

    def append(first: int) -> None:
        points = [{"step": first + n, "lr": [], "loss": []} for n in range(3)]
        with database.begin() as session:
            runs.append(session, lease, stage="search", number=0, attempt=1, points=points)

    together(*(lambda first=first: append(first) for first in range(0, 40, 10)))
    with database.read() as session:
        steps = [point["step"] for point in runs.points(session, lease.job_id, "search", [0])[0]]
    assert sorted(steps) == [first + n for first in range(0, 40, 10) for n in range(3)]
    assert all(steps[i : i + 3] == list(range(steps[i], steps[i] + 3)) for i in range(0, 12, 3))


def test_a_cancel_and_a_claim_at_once_leave_one_clear_state(database: Database) -> None:
    for _ in range(8):
        job_id, _ = submit(database)

        def cancel(job_id: str = job_id) -> Any:
            with database.begin() as session:
                return jobs.request_cancel(session, job_id).state

        answered, lease = together(cancel, lambda: claim(database, "worker"))
        with database.read() as session:
            job = jobs.get(session, job_id)
        if answered == "cancelled":
            assert (job.state, lease) == ("cancelled", None)
        else:
            assert (job.state, job.cancel_requested) == ("running", True)


def test_workers_publish_the_same_tasks_at_once(database: Database) -> None:
    names = ["digits", "fashion", "mnist"]

    def publish(owner: str, order: list[str]) -> None:
        tasks = [{"name": name, "doc": owner, "schema": {}} for name in order]
        for _ in range(5):
            with database.begin() as session:
                workers.publish(session, owner=owner, host="h", slots={"cpus": 2}, tasks=tasks)

    together(*(lambda n=n: publish(f"worker {n}", names[:: 1 if n % 2 else -1]) for n in range(4)))
    with database.read() as session:
        assert [worker.id for worker in workers.alive(session)] == [f"worker {n}" for n in range(4)]
        tasks = workers.tasks(session)
    assert [task.name for task in tasks] == names
    assert len({task.worker for task in tasks}) == 1


def test_a_recommendation_is_replaced_whole(database: Database) -> None:
    submit(database)
    lease = claim(database, "worker")
    assert lease is not None

    def put(source: str) -> None:
        with database.begin() as session:
            recommendations.put(session, lease, {"source": source}, task=source, optimizer=source)

    together(*(lambda source=source: put(source) for source in ("range_test", "search", "confirm")))
    with database.read() as session:
        row = recommendations.get(session, lease.job_id)
    assert row is not None
    assert {row.source, row.task, row.optimizer, row.document["source"]} == {row.source}


def test_a_token_never_has_more_jobs_queued_than_it_may(database: Database) -> None:
    with database.begin() as session:
        tokens.create(session, "ann", "submit")

    def try_to_submit() -> bool:
        try:
            return submit(database, submitted_by="ann", queued_limit=5)[1]
        except LimitReached:
            return False

    assert sum(together(*[try_to_submit] * 16)) == 5


def test_a_token_never_has_more_jobs_running_than_it_may_and_others_pass_it(database: Database) -> None:
    with database.begin() as session:
        tokens.create(session, "ann", "submit")
    mine = [submit(database, submitted_by="ann", priority=9)[0] for _ in range(12)]
    others = [submit(database, submitted_by="bob")[0], submit(database)[0]]
    claims = together(*(lambda owner=f"worker {n}": claim_all(database, owner, running_limit=2) for n in range(6)))
    taken = [lease for leases in claims for lease in leases]
    assert sorted(lease.job_id for lease in taken if lease.job_id not in mine) == sorted(others)
    first, second = (lease for lease in taken if lease.job_id in mine)
    assert claim(database, "w", running_limit=2) is None
    with database.begin() as session:
        jobs.succeed(session, first)
    third = claim(database, "w", running_limit=2)
    assert third is not None
    assert third.job_id in mine
    with database.begin() as session:  # taking a job over is not one more
        session.execute(update(Job).where(Job.id == second.job_id).values(lease_until=0))
    again = claim(database, "w", running_limit=2)
    assert again is not None
    assert (again.job_id, again.fencing_token) == (second.job_id, 2)
