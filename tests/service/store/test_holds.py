"""The hold on an external job, whose owner shows its study; on both databases."""

import pytest

from service.store import jobs
from service.store.database import Database
from service.store.errors import Conflict, NotFound
from service.store.jobs import Lease
from tests.service.store.test_jobs import let_lease_run_out, submit


def test_a_hold_that_has_run_out_is_not_given_back_in_the_place_of_the_next(database: Database) -> None:
    job_id = submit(database, mode="external")
    with database.begin() as session:
        _, attending = jobs.attend(session, job_id)
        late = jobs.hold(session, attending, lease_s=0.01)
    assert late is not None
    let_lease_run_out(database, job_id)
    with database.begin() as session:
        present = jobs.hold(session, late, lease_s=60)
    assert present is not None
    with database.begin() as session:
        jobs.let_go(session, late)
        assert jobs.hold(session, late, lease_s=60) is None, "it is still another's"
        jobs.let_go(session, present)
        assert jobs.hold(session, present, lease_s=60) is not None


def test_a_hold_outlives_the_job_and_what_was_told_meanwhile_is_still_to_be_shown(database: Database) -> None:
    job_id = submit(database, mode="external")
    with database.begin() as session:
        _, attending = jobs.attend(session, job_id)
        assert jobs.unshown(session) == [job_id]
        hold = jobs.hold(session, attending, lease_s=60)
        assert hold is not None
        assert jobs.unshown(session) == [], "somebody shows it"
    with database.begin() as session:
        assert jobs.request_cancel(session, job_id).state == "cancelled"
        assert jobs.hold(session, attending, lease_s=60) is None, "it is still being shown"
        jobs.let_go(session, hold, shown=1)
        assert jobs.unshown(session) == [job_id], "its end is not"
        last = jobs.hold(session, hold, lease_s=60)
        assert last is not None
        jobs.let_go(session, last, shown=1)
        assert jobs.unshown(session) == []


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
def test_a_hold_whose_clock_has_jumped_is_taken_by_the_next(database: Database, ahead_s: float) -> None:
    job_id = submit(database, mode="external")
    with database.begin() as session:
        _, attending = jobs.attend(session, job_id)
        assert jobs.hold(session, attending, lease_s=60 + ahead_s) is not None
        assert jobs.unshown(session) == [job_id]
        assert jobs.hold(session, attending, lease_s=60) is not None


def test_giving_back_the_hold_of_a_deleted_job_says_that_it_is_gone(database: Database) -> None:
    job_id = submit(database, mode="external")
    with database.begin() as session:
        lease = jobs.hold(session, Lease(job_id, 0, "external"), lease_s=60)
        assert lease is not None
        jobs.request_cancel(session, job_id)
        jobs.delete(session, job_id)
    with pytest.raises(NotFound), database.begin() as session:
        jobs.let_go(session, lease)


def test_a_managed_job_takes_no_reports(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(Conflict, match="a worker trains it"), database.begin() as session:
        jobs.attend(session, job_id)
