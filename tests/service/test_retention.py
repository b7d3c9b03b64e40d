from collections.abc import Callable
from datetime import timedelta

import optuna
import pytest
from sqlalchemy import func, select, text, update

from service.retention import age, prune
from service.store import audit, jobs, studies
from service.store.database import Database
from service.store.errors import StoreError
from service.store.models import EventRow, Job
from tests.service.conftest import Run, is_one_error_line

DAY = timedelta(days=1)


def ended(database: Database, end: Callable[..., None], days_ago: int) -> str:
    """A job that ended so long ago, with a study."""
    with database.begin() as session:
        job_id = jobs.submit(session, spec={}, name="n", task="t")[0].id
        claimed = jobs.claim(session, owner="w", lease_s=60)
        assert claimed is not None
        end(session, claimed[1], *(["why"] if end is jobs.fail else []))
        at = select(Job.finished_at).where(Job.id == job_id)
        finished_at = session.scalars(at).one()
        assert finished_at is not None
        earlier = finished_at - timedelta(days=days_ago)
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=earlier))
    optuna.create_study(study_name=job_id, storage=studies.storage(database.url))
    return job_id


def left(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(job.id for job in jobs.browse(session))


def test_old_jobs_go_with_all_that_is_theirs_and_others_stay(database: Database) -> None:
    old = [ended(database, end, 91) for end in (jobs.succeed, jobs.fail, jobs.cancelled)]
    young = ended(database, jobs.succeed, 89)
    with database.begin() as session:
        waiting = jobs.submit(session, spec={}, name="n", task="t")[0].id
        session.execute(text("UPDATE clr_jobs SET created_at = '2001-01-01' WHERE id = :id"), {"id": waiting})
    every = [*old, young, waiting]
    assert list(prune(database, 90 * DAY, jobs.FINISHED, dry_run=True)) == old
    assert left(database) == every
    assert list(prune(database, 90 * DAY, ["failed"], dry_run=False)) == [old[1]]
    assert list(prune(database, 90 * DAY, jobs.FINISHED, dry_run=False)) == [old[0], old[2]]
    assert left(database) == [young, waiting]
    assert optuna.get_all_study_names(studies.storage(database.url)) == [young]
    with database.read() as session:
        assert session.scalar(select(func.count()).where(EventRow.job_id.in_(old))) == 0
        assert [act.job_id for act in audit.browse(session)] == [old[2], old[0], old[1]]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 90 * 86400), ("1w", 7 * 86400), ("36h", 129600), ("5m", 300), ("0s", 0)]
)
def test_ages_are_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5d", "1y", "9999999d"])
def test_what_is_no_age_is_one_line(run: Run, text: str) -> None:
    with pytest.raises(StoreError, match="older-than: must be a whole number"):
        age(text)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_prints_what_it_deletes(run: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = ended(database, jobs.succeed, 2)
    monkeypatch.setenv("CLR_DATABASE_URL", database.url)
    ran = run("prune", "--older-than", "1d", "--state", "failed")
    assert (ran.out, ran.err) == ("", "0 jobs deleted\n")
    ran = run("prune", "--older-than", "1d", "--dry-run")
    assert (ran.out, ran.err) == (f"{job_id}\n", "1 jobs would be deleted\n")
    assert (run("prune", "--older-than", "1d").out, left(database)) == (f"{job_id}\n", [])
    assert is_one_error_line(run("prune", "--older-than", "soon"))
    assert is_one_error_line(run("prune", "--older-than", "1d", "--state", "running"))
