import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.store import jobs
from service.store.database import Database
from service.store.models import Job, WorkerRow
from tests.worker.conftest import Work, working
from worker import loop
from worker.engine import Engine
from worker.measures import Measures


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_lost_leases_and_seconds_of_training_reach_the_store(
    database: Database, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = Measures()
    for module in ("worker.loop", "worker.runs"):
        monkeypatch.setattr(f"{module}.MEASURES", measures)
    monkeypatch.setattr(loop, "SEEN_EVERY_S", 0.0)
    work = Work(database)
    job_id = work.submit("digits", epochs=8, search=None)
    with database.begin() as session:
        jobs.claim(session, owner="silent", lease_s=60)
        session.execute(update(Job).values(lease_until=0))
    with working(database, engine, tmp_path):
        work.ended(job_id)
        ended = measures.to_dict()
        deadline = time.monotonic() + 10
        while stored(database) != ended:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert ended["leases_lost"] == 1
    assert ended["steps"]["range_test"] == work.job(job_id).steps
    number, seconds = ended["runs"]["range_test"]
    assert number >= 3
    assert seconds > 0


def stored(database: Database) -> object:
    with database.read() as session:
        found = session.scalar(select(WorkerRow.metrics))
    return found and found | {"runs": {stage: tuple(sums) for stage, sums in found["runs"].items()}}
