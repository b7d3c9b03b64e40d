"""Transactions, clocks, column types and URLs, on both databases."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from service.store import jobs
from service.store.clock import now, now_s
from service.store.columns import Instant, storable
from service.store.database import Base, Database
from service.store.errors import StoreError
from service.store.models import Job, RunRow

JOB: dict[str, Any] = {"spec": {}, "name": "demo", "task": "digits"}


def count(database: Database) -> int:
    with database.read() as session:
        return len(jobs.browse(session))


def test_the_store_imports_no_web_framework_no_torch_and_no_ray() -> None:
    names = [file.stem for file in Path(jobs.__file__).parent.glob("*.py") if file.stem != "__init__"]
    modules = ", ".join(f"service.store.{name}" for name in names)
    code = f"import sys, {modules}; print(sorted({{'fastapi', 'torch', 'ray'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout == "[]\n"


def test_a_transaction_commits_what_it_wrote(database: Database) -> None:
    with database.begin() as session:
        jobs.submit(session, **JOB)
    assert count(database) == 1


def submit_and_fail(session: Session) -> None:
    jobs.submit(session, **JOB)
    raise ZeroDivisionError


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.begin() as session:
        submit_and_fail(session)
    assert count(database) == 0


def test_what_comes_before_a_failed_savepoint_stays(database: Database) -> None:
    with database.begin() as session:
        kept, _ = jobs.submit(session, **JOB)
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            submit_and_fail(session)
    with database.read() as session:
        assert [job.id for job in jobs.browse(session)] == [kept.id]


def test_rows_are_read_after_their_transaction(database: Database) -> None:
    with database.begin() as session:
        job, _ = jobs.submit(session, **JOB)
    assert (job.state, job.priority) == ("queued", 0)
    assert job.created_at.tzinfo is UTC


def test_a_read_cannot_write_and_a_write_can_after_it(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), database.read() as session:
        jobs.submit(session, **JOB)
    with database.begin() as session:
        jobs.submit(session, **JOB)
    assert count(database) == 1


def test_a_read_does_not_wait_for_a_writer_and_sees_what_was_committed(database: Database) -> None:
    with database.begin() as session:
        jobs.submit(session, **JOB)
        assert count(database) == 0
    assert count(database) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_who_waits_too_long_to_write_is_told_so_and_holds_up_nobody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.database.LOCK_TIMEOUT_S", 0.1)
    with closing(Database(database_url)) as database:
        with database.begin() as session:
            jobs.submit(session, **JOB)
            with pytest.raises(OperationalError, match="locked"), database.begin() as other:
                jobs.submit(other, **JOB)
        with database.begin() as session:
            jobs.submit(session, **JOB)
        assert count(database) == 2


def test_a_row_must_belong_to_a_job(database: Database) -> None:
    with pytest.raises(IntegrityError), database.begin() as session:
        session.add(RunRow(job_id="none", stage="search", number=0, params={}, run={}))


def test_a_sqlite_transaction_takes_the_write_lock_when_it_begins(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/clr.db")
    with closing(sqlite3.connect(tmp_path / "clr.db", timeout=0)) as other:
        with database.begin() as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        with database.read() as session:
            session.execute(text("SELECT 1"))
            other.execute("BEGIN IMMEDIATE")
    database.dispose()


def test_an_idle_transaction_of_postgresql_is_ended(postgresql: Any, migrated_postgresql: str) -> None:
    with postgresql.copy(migrated_postgresql) as url:
        database = Database(url)
        with database.read() as session:
            assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
        database.dispose()


def test_ping_raises_unless_the_database_answers(database: Database) -> None:
    database.ping()
    gone = Database("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(OperationalError):
        gone.ping()


def test_the_databases_clock_tells_seconds_and_instants(database: Database) -> None:
    with database.read() as session:
        seconds, instant = session.execute(select(now_s(), now())).one()
    assert instant.tzinfo is UTC
    assert abs(instant.timestamp() - seconds) < 0.01
    assert abs(datetime.now(UTC) - instant) < timedelta(seconds=60)


def test_the_clock_goes_on_within_a_transaction(database: Database) -> None:
    with database.read() as session:
        first = session.scalar(select(now_s()))
        while session.scalar(select(now_s())) == first:
            pass


def test_instants_come_back_in_utc_whatever_zone_they_were_given_in(database: Database) -> None:
    there = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5, minutes=30)))
    with database.begin() as session:
        job, _ = jobs.submit(session, **JOB)
        jobs._write(session, job.id, finished_at=there)
        back = jobs.get(session, job.id).finished_at
        found = session.scalar(select(Job.id).where(Job.finished_at == there))
    assert back == there
    assert back is not None
    assert back.tzinfo is UTC
    assert found == job.id


def test_every_time_is_an_instant() -> None:
    columns = [column for table in Base.metadata.sorted_tables for column in table.columns]
    seconds = {"seen_at", "due_at"}  # by the database's clock, to compare with it
    times = [column for column in columns if column.name.endswith("_at") and column.name not in seconds]
    assert len(times) == 15
    assert all(isinstance(column.type, Instant) for column in times)


def test_a_document_keeps_what_json_can_hold(database: Database) -> None:
    spec = {"list": [1, 2.5, None, True, "é"], "nested": {"empty": {}, "none": None}, "big": 2**60}
    with database.begin() as session:
        job_id = jobs.submit(session, **JOB | {"spec": spec})[0].id
    with database.read() as session:
        assert jobs.get(session, job_id).spec == spec


def test_what_json_cannot_hold_is_replaced() -> None:
    bad = {"a\0": (float("nan"), [float("inf"), 1.0]), 3: "half \ud800 pair", "whole": "\U0001f600"}
    assert storable(bad) == {"a\ufffd": [None, [None, 1.0]], "3": "half ? pair", "whole": "\U0001f600"}


@pytest.mark.parametrize("url", ["postgresql://u:p@h/d", "postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"])
def test_postgresql_is_reached_by_psycopg(url: str) -> None:
    assert Database(url).url == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root:secret@host/d"])
def test_a_url_that_will_not_do_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="database_url: must be sqlite") as refused:
        Database(url)
    assert "secret" not in str(refused.value)


def test_the_folder_of_a_sqlite_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/deep/home/clr.db")
    assert (tmp_path / "deep/home").stat().st_mode & 0o777 == 0o700
