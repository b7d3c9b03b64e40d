"""The worker as a process of its own: killed, replaced."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from clr.tasks import describe_task
from service.store import runs, studies
from service.store.database import Database
from tests.conftest import wait_until_gone
from tests.worker.conftest import Work
from worker.__main__ import _describing


@contextmanager
def worker_process(database: Database, home: Path) -> Iterator[subprocess.Popen]:
    """A worker process; it and all that it started are gone when the block ends."""
    environment = os.environ | {
        "CLR_DATABASE_URL": database.url,
        "CLR_HOME": str(home),
        "CLR_LEASE_S": "3",
        "CLR_CPUS": "2",
        "CLR_TASK_MODULES": "odd_tasks",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kill -9 the worker alone, then end what its embedded Ray leaves behind for a while."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(30)
    for orphan in family:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()
    wait_until_gone(family)


def test_the_worker_itself_imports_no_torch_and_has_the_tasks_described() -> None:
    program = "import sys, worker.__main__; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
    with _describing() as tasks:
        described = {one["name"]: one for one in tasks()}
    assert described["digits"] == describe_task("digits")


@pytest.mark.long
@pytest.mark.timeout(240)
def test_killing_the_worker_in_mid_search_loses_and_repeats_no_finished_trial(
    database: Database, tmp_path: Path
) -> None:
    work = Work(database)
    job_id = work.submit("digits", epochs=20, search={"trials": 24}, confirm=None)

    def trials() -> dict:
        with database.read() as session:
            return {row.number: row for row in runs.of_stage(session, job_id, "search")}

    def told() -> dict:
        return {number: row for number, row in trials().items() if row.state in ("complete", "pruned")}

    with worker_process(database, tmp_path) as first:
        work.until(job_id, lambda _: len(told()) >= 4, timeout_s=100)
        kill(first)
    before, tests_before = told(), work.job(job_id).range_test
    assert 4 <= len(before) < 24
    with worker_process(database, tmp_path):
        job = work.ended(job_id, timeout_s=100)
    assert (job.state, job.error, job.fencing_token) == ("succeeded", None, 2)
    after = told()
    assert len(after) == 24  # not always 0 to 23: a number that was asked for and never begun is not used again
    for number, row in before.items():
        now = after[number]
        assert (now.attempt, now.value, now.params, now.finished_at) == (
            row.attempt,
            row.value,
            row.params,
            row.finished_at,
        )
    assert job.range_test == tests_before
    study = {trial.number: trial for trial in studies.storage(database.url).get_all_trials(study_id(database, job_id))}
    assert {number: trial.state.name.lower() for number, trial in study.items() if number in after} == {
        number: row.state for number, row in after.items()
    }
    complete = [number for number, row in after.items() if row.state == "complete"]
    assert {number: study[number].value for number in complete} == {number: after[number].value for number in complete}


def study_id(database: Database, job_id: str) -> int:
    return studies.storage(database.url).get_study_id_from_name(job_id)
