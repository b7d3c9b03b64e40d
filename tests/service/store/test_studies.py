"""Optuna's studies beside the project's tables, in both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import optuna
import pytest
from sqlalchemy import text

from service.store import jobs, studies
from service.store.database import LOG_PAGES, Database, is_migrated


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def study(url: str, name: str) -> optuna.Study:
    study = optuna.create_study(study_name=name, storage=studies.storage(url), load_if_exists=True)
    study.optimize(lambda trial: trial.suggest_float("ratio", 1.5, 20), n_trials=2)
    return study


def test_studies_and_jobs_live_in_one_database(database: Database, database_url: str) -> None:
    with database.begin() as session:
        job_id = jobs.submit(session, spec={}, name="demo", task="digits")[0].id
    study(database_url, job_id)
    studies.dispose()
    again = optuna.load_study(study_name=job_id, storage=studies.storage(database_url))
    assert len(again.trials) == 2
    assert is_migrated(database)
    with database.read() as session:
        assert jobs.get(session, job_id).state == "queued"
        versions = [
            session.scalar(text(f"SELECT version_num FROM {t}")) for t in ("clr_alembic_version", "alembic_version")
        ]
    assert None not in versions
    assert versions[0] != versions[1]


def test_a_deleted_study_is_gone_and_others_stay(database_url: str) -> None:
    study(database_url, "mine")
    study(database_url, "other")
    studies.delete(database_url, "mine")
    studies.delete(database_url, "mine")
    assert optuna.get_all_study_names(studies.storage(database_url)) == ["other"]


def test_one_storage_serves_a_process(database_url: str) -> None:
    first = studies.storage(database_url)
    assert studies.storage(database_url) is first
    studies.dispose()
    assert studies.storage(database_url) is not first


def test_sqlite_studies_write_to_the_log_ahead_and_wait_for_other_writers(migrated_sqlite: Path) -> None:
    with studies.storage(f"sqlite:///{migrated_sqlite}").engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "busy_timeout")
        }
    studies.dispose()
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 1,
        "wal_autocheckpoint": LOG_PAGES,
        "busy_timeout": 30_000,
    }


def test_threads_that_ask_at_once_get_the_same_storage(database_url: str) -> None:
    together = Barrier(8)

    def ask() -> object:
        together.wait(60)
        return studies.storage(database_url)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask) for _ in range(8)]
    assert len({one.result() for one in asked}) == 1
