"""A writer that is killed while it writes, and a machine that loses power: what was stored is whole."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from service.store.database import Database
from service.store.models import AuditRow, EventRow, Job
from tests.conftest import started

pytestmark = pytest.mark.timeout(240)

WRITER = """
import sys
from clr.spec import JobSpec
from service.actions import submit
from service.settings import Settings
from service.store.database import Database
from service.submission import Schemas

database, settings, schemas = Database(sys.argv[1]), Settings(), Schemas()
spec = JobSpec(task="anything", mode="external", epochs=1, iterations_per_epoch=1, direction="minimize")
while True:
    print(submit(database, settings, schemas, spec, by=None).id, flush=True)
"""


def written(url: str, number: int) -> list[str]:
    """Let a process store jobs, and kill it once it has told of ``number``; those that it told of."""
    with started([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(number)]
        writer.kill()
        told += writer.stdout.readlines()
    return [line.strip() for line in told if line.endswith("\n")]


def stored(database: Database) -> list[str]:
    """The jobs in the database, oldest first, each of which has its one event and its one entry in the audit."""
    with database.read() as session:
        ids = list(session.scalars(select(Job.id).order_by(Job.id)))
        for model in (EventRow, AuditRow):
            beside = session.scalars(select(model.job_id).order_by(model.job_id))
            assert list(beside) == ids, f"{model.__tablename__} is not as the jobs are"
    return ids


def test_what_a_writer_told_of_is_stored_when_it_is_killed_and_nothing_by_half(database: Database) -> None:
    chance, told = Random(1), []
    for _ in range(3):
        told += written(database.url, chance.randint(1, 15))
        found = stored(database)
        assert set(told) <= set(found)
        assert len(found) <= len(told) + 4, "one at most of each writer's was stored and not told of"
    if database.url.startswith("sqlite"):
        with database.read() as session:
            assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sqlite_file_that_lost_the_end_of_its_log_is_whole_and_lacks_the_last_jobs_alone(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """What ``synchronous = NORMAL`` may cost when the machine loses power: the log's end had not reached the disk."""
    file = Path(database_url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file)) as holder:  # or the last to close would move the log into the file
        holder.execute("SELECT 1 FROM clr_jobs").fetchall()
        written(database_url, 20)
        every, log = stored(database), file.with_name(f"{file.name}-wal")
        assert log.stat().st_size > 0
        chance, lengths = Random(1), set()
        for number in range(12):
            lost = tmp_path / f"lost{number}.db"
            shutil.copy(file, lost)
            kept = log.read_bytes()[: chance.randrange(log.stat().st_size)]
            lost.with_name(f"{lost.name}-wal").write_bytes(kept)
            with closing(Database(f"sqlite:///{lost}")) as left:
                found = stored(left)
                with left.read() as session:
                    assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert found == every[: len(found)]
            lengths.add(len(found))
    assert len(lengths) > 3
