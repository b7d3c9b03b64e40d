"""A clock that jumps and a database that is restored: a job's lease knows which history it is of."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from service.store import jobs, notices
from service.store.clock import now_s
from service.store.database import Database
from service.store.errors import LeaseLost
from service.store.models import Job, NoticeRow
from tests.service.store.test_jobs import claim, submit


def restored(database: Database, job_id: str, **columns: Any) -> None:
    """Write a job's row as it was at another time, behind the back of all that hold it."""
    with database.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**columns))


def test_a_lease_of_another_history_writes_nothing_though_the_restored_database_counts_up_to_its_token(
    database: Database,
) -> None:
    """Yesterday's backup: the same worker claims the job again, and its claim of today has the same number."""
    job_id = submit(database)
    today = claim(database)
    restored(database, job_id, state="queued", owner=None, fencing_token=0, claim_id=None, lease_until=None)
    with database.begin() as session, pytest.raises(LeaseLost):
        jobs.fence(session, today)
    again = claim(database)
    assert (again.owner, again.fencing_token) == (today.owner, today.fencing_token)
    with database.begin() as session, pytest.raises(LeaseLost):
        jobs.succeed(session, today)
    with database.begin() as session:
        jobs.succeed(session, again)


def test_a_clock_set_back_by_an_hour_keeps_no_abandoned_job_from_being_taken_over(database: Database) -> None:
    job_id = submit(database)
    silent = claim(database)
    restored(database, job_id, lease_until=now_s() + 3600)
    assert claim(database, "another").fencing_token == silent.fencing_token + 1


@pytest.mark.parametrize("hours", [-5, 5])
def test_how_long_workers_had_a_job_is_what_they_said_whatever_the_clock_does(database: Database, hours: float) -> None:
    job_id = submit(database)
    lease = claim(database)
    with database.begin() as session:
        jobs.renew(session, lease, lease_s=60, worked_s=7.5)
        jobs.release(session, lease)
    restored(database, job_id, started_at=datetime.now(UTC) - timedelta(hours=hours))
    claim(database)
    with database.read() as session:
        assert jobs.get(session, job_id).worked_s == 7.5


def test_a_clock_set_forward_costs_a_job_its_worker_and_nothing_else(database: Database) -> None:
    job_id = submit(database)
    first = claim(database)
    restored(database, job_id, lease_until=now_s() - 7200)
    with database.begin() as session:
        assert not jobs.renew(session, first, lease_s=60, worked_s=0), "who renews in time keeps it"
    restored(database, job_id, lease_until=now_s() - 7200)
    second = claim(database, "another")
    with database.begin() as session, pytest.raises(LeaseLost):
        jobs.renew(session, first, lease_s=60, worked_s=0)
    with database.begin() as session:
        jobs.succeed(session, second)
    with database.read() as session:
        assert jobs.get(session, job_id).state == "succeeded"


def test_of_leases_that_ran_out_only_those_that_are_named_are_taken_over(database: Database) -> None:
    silent, alive, waiting = (submit(database) for _ in range(3))
    first, second = claim(database), claim(database)
    with database.read() as session:
        assert jobs.ending(session, 3) == []
        assert {job_id for job_id, *_ in jobs.ending(session, 61)} == {silent, alive}
    for job_id in (silent, alive):
        restored(database, job_id, lease_until=now_s() - 7200)

    def taken(named: list[str]) -> str | None:
        with database.begin() as session:
            found = jobs.claim(session, owner="another", lease_s=60, silent=named)
        return None if found is None else found[0].id

    with database.read() as session:
        tokens = {job_id: fencing_token for job_id, fencing_token, _ in jobs.ending(session, 3)}
    assert tokens == {silent: first.fencing_token, alive: second.fencing_token}
    assert [taken([]), taken([]), taken([silent]), taken([silent])] == [waiting, None, silent, None]


@pytest.mark.parametrize("hours", [-5, 5])
@pytest.mark.parametrize("attempts", [0, 1, 4])
def test_a_notice_is_told_whatever_the_clock_does(database: Database, hours: float, attempts: int) -> None:
    submit(database, spec={"notify": {"url": "https://example.org"}})
    lease = claim(database)
    with database.begin() as session:
        jobs.succeed(session, lease)
        waits = (0.0, *notices.PAUSES_S)[attempts]
        moved = {"attempts": attempts, "due_at": now_s() + waits - 3600 * hours}
        session.execute(update(NoticeRow).values(**moved))
    with database.begin() as session:
        ((notice, _),) = notices.due(session, 10)
        assert notices.begin(session, notice)
        assert notices.due(session, 10) == [], "it is held"
