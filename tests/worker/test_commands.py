"""Command jobs: a program of the user's own is the trainer, started by a real worker on a real Ray."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clr.bundles.archive import digest_of
from clr.bundles.packing import pack
from clr.spec import JobSpec
from service.store import code, jobs, recommendations, runs
from service.store.database import Database
from service.store.models import Job
from tests.conftest import wait_until_gone
from tests.worker.conftest import SECRET, Work, working
from worker.engine import ATTEMPTS, Engine

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

AWK = Path(__file__).parents[2] / "examples" / "commands" / "least_squares.awk"
TWENTY_EPOCHS = {"epochs": 20, "iterations_per_epoch": 30, "direction": "minimize", "budget": 1}


@pytest.fixture
def work(database: Database, engine: Engine, tmp_path: Path) -> Iterator[Work]:
    with working(database, engine, tmp_path, allow_code=True, task_env=["MINE"]):
        yield Work(database)


def submit(database: Database, *command: str, **spec: Any) -> str:
    full = JobSpec.model_validate({"mode": "command", "command": list(command)} | TWENTY_EPOCHS | spec)
    with database.begin() as session:
        job, _ = jobs.submit(session, spec=full.model_dump(mode="json"), name=full.name, task=full.task, mode="command")
        return job.id


def shell(database: Database, script: str, **spec: Any) -> str:
    return submit(database, "sh", "-c", script, **spec)


def failed(work: Work, job_id: str) -> Job:
    job = work.until(job_id, lambda job: job.state in jobs.FINISHED)
    assert job.state == "failed"
    return job


def programs_of(folder: Path) -> list[psutil.Process]:
    """Whatever runs in ``folder``."""
    return [one for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(str(folder))]


def test_a_program_that_is_no_python_gets_the_whole_method(work: Work, database: Database) -> None:
    job_id = submit(database, "awk", "-f", str(AWK), budget=3)
    work.succeeded(job_id)
    with database.read() as session:
        found = recommendations.get(session, job_id).document
        rows = [row for stage in ("range_test", "search") for row in runs.of_stage(session, job_id, stage)]
    assert 0.02 < found["max_lr"] < 1
    assert found["evidence"]["metric"] == "metric"
    assert {row.state for row in rows} == {"complete"}
    assert {row.attempt for row in rows} == {1}


def test_a_program_of_uploaded_code_runs_in_its_folder(work: Work, database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "rate.awk").write_text(AWK.read_text())
    (folder / "train.py").write_text("import os\nos.execvp('awk', ['awk', '-f', 'rate.awk'])\n")
    data = pack(folder)
    with database.begin() as session:
        code.put(session, digest_of(data), data, 2)
    work.succeeded(submit(database, "python", "train.py", code=digest_of(data)))


def test_commands_are_off_unless_the_operator_allows_them(database: Database, engine: Engine, tmp_path: Path) -> None:
    with working(database, engine, tmp_path, allow_code=False):
        job = failed(Work(database), shell(database, f"touch {tmp_path}/ran"))
    assert job.error is not None
    assert "CLR_ALLOW_CODE" in job.error
    assert not (tmp_path / "ran").exists()


def test_a_crash_costs_an_attempt_and_the_last_one_the_job(work: Work, database: Database, tmp_path: Path) -> None:
    job = failed(work, shell(database, f"echo once >> {tmp_path}/attempts; echo out of luck >&2; exit 3"))
    assert job.error is not None
    assert "ended with code 3 after 0 of" in job.error
    assert job.error.endswith("out of luck")
    two_at_once = 2 * ATTEMPTS
    assert ATTEMPTS <= len((tmp_path / "attempts").read_text().split()) <= two_at_once


def test_one_crash_is_survived(work: Work, database: Database, tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/crashed 2>/dev/null && exit 1; exec awk -f {shlex.quote(str(AWK))}"
    job_id = shell(database, script)
    work.succeeded(job_id)
    with database.read() as session:
        attempts = [row.attempt for row in runs.of_stage(session, job_id, "range_test")]
    assert sorted(attempts)[-2:] in ([1, 2], [2])


def test_max_steps_counts_what_is_trained_anew_and_ends_the_job_in_mid_run(
    work: Work, database: Database, tmp_path: Path
) -> None:
    train, part = f"awk -f {shlex.quote(str(AWK))}", f"{tmp_path}/part.$$"
    dies_twice = f"""
        grep -q '"attempt": 3' $CLR_RUN && exec {train}
        CLR_POINTS={part} {train}
        head -n $(($(wc -l < {part}) * 9 / 10)) {part} >> $CLR_POINTS
        exit 1
    """
    job_id = shell(database, dies_twice, limits={"max_steps": 600})
    job = work.ended(job_id)
    assert (job.state, job.error) == ("succeeded", None)
    with database.read() as session:
        found = recommendations.get(session, job_id).document
    assert "limits.max_steps = 600 was reached" in " ".join(found["warnings"] + found["reasons"])
    assert 600 < found["cost"]["steps"] <= 600 + 2 * 300


def test_what_a_program_does_wrong_is_told_at_once(work: Work, database: Database) -> None:
    job = failed(work, shell(database, "echo '[]' >> $CLR_POINTS; sleep 1000"))
    assert job.error == ('CLR_POINTS, line 1: must be a JSON object such as {"step": 1, "loss": 0.5}, but got b\'[]\'')


def test_a_silent_program_is_ended_after_run_seconds(work: Work, database: Database) -> None:
    job = failed(work, shell(database, "sleep 1000", limits={"run_seconds": 0.3}))
    assert job.error is not None
    assert "reported nothing for 0.3 s (limits.run_seconds)" in job.error


def test_a_program_sees_no_secrets_of_the_worker(work: Work, database: Database) -> None:
    job = failed(work, shell(database, "env | cut -c 1-100; exit 1"))
    assert job.error is not None
    assert SECRET not in job.error
    job = failed(work, shell(database, 'test -n "$PATH" && test -z "$(env | grep ^RAY_)" && echo clean; exit 1'))
    assert job.error is not None
    assert job.error.endswith("clean")


def test_a_cancelled_job_leaves_no_program(work: Work, database: Database, tmp_path: Path) -> None:
    script = f"""cd {tmp_path}; echo '{{"step": 1, "loss": 1}}' >> $CLR_POINTS; setsid sleep 1000 & touch ran; wait"""
    job_id = shell(database, script)
    work.until(job_id, lambda job: (tmp_path / "ran").exists())
    left = programs_of(tmp_path)
    assert left
    with database.begin() as session:
        jobs.request_cancel(session, job_id)
    assert work.until(job_id, lambda job: job.state in jobs.FINISHED).state == "cancelled"
    wait_until_gone(left)
    assert os.getpid() not in [one.pid for one in left]
