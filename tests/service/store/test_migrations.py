"""The schema's history, on both databases."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, insert, inspect, select

from service.store import jobs, studies
from service.store.database import (
    VERSION_TABLE,
    Base,
    Database,
    alembic_config,
    connect,
    database_url,
    is_migrated,
    migrate,
)

REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
VALUES: dict[type, Any] = {
    str: "x",
    int: 1,
    float: 0.5,
    bytes: b"zip",
    bool: True,
    object: {"a": 1},
    datetime: datetime(2026, 1, 2, tzinfo=UTC),
}
OURS = {table.name for table in Base.metadata.sorted_tables}
MIGRATE = """
import sys
from service import settings
from service.store import models, studies
from service.store.database import Database, is_migrated, migrate
url = sys.argv[1]
database = Database(url)
assert not is_migrated(database)
database.dispose()
print("ready", flush=True)
sys.stdin.readline()
migrate(url)
"""


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = connect(database_url(url), foreign_keys=False)
    yield engine
    engine.dispose()


def tables(url: str) -> set[str]:
    with engine_of(url) as engine:
        return set(inspect(engine).get_table_names())


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    with engine_of(url) as engine, engine.begin() as connection:
        yield connection


def migrated(url: str) -> bool:
    database = Database(url)
    try:
        return is_migrated(database)
    finally:
        database.dispose()


def test_an_empty_database_is_migrated_to_the_head(empty_database_url: str) -> None:
    assert not migrated(empty_database_url)
    migrate(empty_database_url)
    assert migrated(empty_database_url)
    assert OURS | {"clr_alembic_version", "alembic_version", "studies", "trials"} <= tables(empty_database_url)


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.begin() as session:
        job_id = jobs.submit(session, spec={}, name="demo", task="digits")[0].id
    migrate(database.url)
    with database.read() as session:
        assert jobs.get(session, job_id).name == "demo"


def test_the_models_equal_the_migrated_schema(database_url: str) -> None:
    with transaction(database_url) as connection:
        command.check(alembic_config(connection))


def test_a_difference_between_models_and_schema_is_found(database_url: str) -> None:
    with transaction(database_url) as connection:
        connection.exec_driver_sql("DROP INDEX ix_clr_jobs_state_id")
        with pytest.raises(Exception, match="ix_clr_jobs_state_id"):
            command.check(alembic_config(connection))


def test_downgrading_removes_our_tables_and_no_others(database_url: str) -> None:
    with transaction(database_url) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert not migrated(database_url)
    left = tables(database_url)
    assert not left & OURS
    assert {"alembic_version", "studies", "trials"} <= left
    migrate(database_url)
    assert migrated(database_url)


def fill(connection: Connection) -> dict[str, int]:
    """Put a row into each table of ours as it is now; the number of rows of each."""
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name.startswith("clr_") and name != VERSION_TABLE)
    for table in metadata.sorted_tables:
        connection.execute(insert(table), {column.name: VALUES[column.type.python_type] for column in table.columns})
    return dict.fromkeys(metadata.tables, 1)


def rows(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    return {table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0 for table in tables}


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_every_earlier_version_is_brought_up_to_date_with_its_rows(
    empty_database_url: str, revision: str
) -> None:
    url = empty_database_url
    with transaction(url) as connection:
        command.upgrade(alembic_config(connection), revision)
        filled = fill(connection)
    migrate(url)
    assert migrated(url)
    with transaction(url) as connection:
        command.check(alembic_config(connection))
        assert rows(connection, filled) == filled
    with closing(Database(url)) as database, database.read() as session:
        for model in Base.registry.mappers:  # through the models, too
            assert len(session.scalars(select(model.class_)).all()) == filled.get(model.class_.__tablename__, 0)
    with transaction(url) as connection:
        command.downgrade(alembic_config(connection), revision)
        assert rows(connection, filled) == filled
    migrate(url)
    with transaction(url) as connection:
        assert rows(connection, filled) == filled


def test_a_database_that_holds_studies_already_is_migrated(empty_database_url: str) -> None:
    storage = studies.storage(empty_database_url)
    storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "earlier")
    migrate(empty_database_url)
    assert migrated(empty_database_url)
    assert optuna.get_all_study_names(storage) == ["earlier"]


def test_processes_migrate_one_database_at_once(empty_database_url: str) -> None:
    start = [sys.executable, "-W", "error", "-c", MIGRATE, empty_database_url]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    processes = [subprocess.Popen(start, **pipes) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=30)
    assert errors == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert migrated(empty_database_url)


def test_a_migrated_sqlite_file_keeps_a_log_ahead(migrated_sqlite: Path) -> None:
    with transaction(f"sqlite:///{migrated_sqlite}") as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
