"""A worker whose Ray is killed below it: no job pays for it, and the next ones are trained."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.store import jobs, runs, workers
from service.store.database import Database
from tests.worker.conftest import Work
from tests.worker.test_process import worker_process

pytestmark = [pytest.mark.parametrize("database_url", ["sqlite"], indirect=True), pytest.mark.timeout(240)]

PARTS = {"the raylet": "raylet", "the GCS": "gcs_server", "an agent": "RuntimeEnvAgent"}


def until(reached: Callable[[], object], timeout_s: float = 100) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"not reached within {timeout_s} s"
        time.sleep(0.05)


def part(worker: subprocess.Popen[bytes], name: str) -> psutil.Process:
    (found,) = (one for one in psutil.Process(worker.pid).children(recursive=True) if name in one.name())
    return found


def has_ray(database: Database) -> bool:
    with database.read() as session:
        return bool(workers.ready(session))


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=one, marks=[pytest.mark.long] * (name != "raylet")) for one, name in PARTS.items()]
)
def test_a_worker_without_a_part_of_its_ray_fails_no_job_and_gets_a_new_one_and_stopped_it_hands_its_job_back(
    database: Database, tmp_path: Path, name: str
) -> None:
    work = Work(database)
    with worker_process(database, tmp_path) as worker:
        under_way = work.submit("odd_tasks:slow", epochs=30, search=None)
        work.until(under_way, lambda job: job.steps > 0, timeout_s=100)
        part(worker, name).kill()
        until(lambda: not has_ray(database))
        later = [work.submit("digits", epochs=8, search=None) for _ in range(2)]
        for job_id in (*later, under_way):
            job = work.ended(job_id, timeout_s=150)
            assert (job.state, job.error) == ("succeeded", None)
        assert has_ray(database)
        assert worker.poll() is None, "it goes on as the process that it was"
        with database.read() as session:
            rows = runs.of_stage(session, under_way, "range_test")
        assert {row.losses for row in rows} == {0}
        assert max(row.attempt for row in rows) == 2
        last = work.submit("odd_tasks:slow", epochs=200)
        work.until(last, lambda job: job.steps > 0)
        asked = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(15) == 0
        assert time.monotonic() - asked < 10
    job = work.job(last)
    assert (job.state, job.owner) == ("queued", None)
    assert not has_ray(database)


@pytest.mark.long
def test_a_worker_waits_for_a_cluster_that_is_not_there(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLR_RAY_ADDRESS", "127.0.0.1:1")
    job_id = Work(database).submit("digits", search=None)
    with worker_process(database, tmp_path) as worker:
        until(lambda: worker_ids(database))
        first = worker_ids(database)
        until(lambda: worker_ids(database) - first)  # it begins anew between its tries
        assert not has_ray(database)
        with database.read() as session:
            assert jobs.get(session, job_id).state == "queued"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def worker_ids(database: Database) -> set[str]:
    with database.read() as session:
        return {worker.id for worker in workers.alive(session)}
