"""A job one of whose runs loses its process in mid-training."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from clr.training.loop import SYNC_STEPS
from service.store import recommendations, runs
from service.store.database import Database
from tests.worker.conftest import Work, working
from worker.checkpoints import KEPT_S, Checkpoints, sweep
from worker.engine import Engine

SPEC: dict[str, Any] = {"epochs": 30, "search": None, "resources": {"cpus": 2}}
"""A few runs of some dozen steps, one after the other."""


def recorded(work: Work, job_id: str) -> list[list[dict[str, Any]]]:
    with work.database.read() as session:
        rows = runs.of_stage(session, job_id, "range_test")
        found = runs.points(session, job_id, "range_test", [row.number for row in rows])
    assert [sum(len(point["loss"]) for point in found[row.number]) for row in rows] == [row.steps for row in rows]
    return [found[row.number] for row in rows]


def joined(points: list[dict[str, Any]]) -> dict[str, Any]:
    """A run's steps and metrics, whatever the moments at which it told them."""
    return {
        "lr": [lr for point in points for lr in point["lr"]],
        "loss": [loss for point in points for loss in point["loss"]],
        "metric": [(point["step"], point["metric"]) for point in points if point["metric"] is not None],
    }


def steps_of(folder: Path) -> int:
    return (folder / "steps").stat().st_size


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_run_whose_process_dies_goes_on_from_its_checkpoint_to_the_very_numbers_of_one_that_lived(
    database: Database, engine: Engine, tmp_path: Path
) -> None:
    calm, fatal = tmp_path / "calm", tmp_path / "fatal"
    for folder in (calm, fatal):
        folder.mkdir()
    with working(database, engine, tmp_path, checkpoint_seconds=0.001):
        work = Work(database)
        job = work.ended(work.submit("odd_tasks:counts", args={"folder": str(calm)}, **SPEC))
        last = steps_of(calm) - 3  # of the last run, a proof
        died = work.ended(work.submit("odd_tasks:counts", args={"folder": str(fatal), "last": last}, **SPEC))
    assert (job.state, died.state) == ("succeeded", "succeeded")
    with database.read() as session:
        attempts = [row.attempt for row in runs.of_stage(session, died.id, "range_test")]
    assert sorted(attempts)[-2:] == [1, 2]
    assert list(map(joined, recorded(work, died.id))) == list(map(joined, recorded(work, job.id)))
    assert died.range_test == job.range_test
    proof = joined(recorded(work, job.id)[-1])
    trained_twice = steps_of(fatal) - steps_of(calm)
    assert len(proof["loss"]) - 3 > SYNC_STEPS >= trained_twice > 0, "what was trained since the last checkpoint"
    assert job.steps == sum(map(len, (point["loss"] for points in recorded(work, job.id) for point in points)))
    assert job.steps <= died.steps <= job.steps + trained_twice, "both times, as far as it was told"
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_checkpoints_that_nobody_writes_any_more_are_swept_and_others_are_kept(tmp_path: Path) -> None:
    old, new = Checkpoints(tmp_path, "old", 60.0), Checkpoints(tmp_path, "new", 60.0)
    for one in (old, new):
        one.folder.mkdir()
    os.utime(old.folder, (0, time.time() - KEPT_S - 60))
    sweep(tmp_path)
    assert (old.folder.exists(), new.folder.exists()) == (False, True)
    sweep(tmp_path / "nowhere")


def test_no_checkpoints_are_kept_where_their_number_of_seconds_is_zero(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, "job", 0.0).of("search", 1) is None


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_steps_of_a_lost_process_count_and_max_steps_strikes_in_mid_run(
    database: Database, engine: Engine, tmp_path: Path
) -> None:
    calm, fatal = tmp_path / "calm", tmp_path / "fatal"
    for folder in (calm, fatal):
        folder.mkdir()
    one_trial = SPEC | {"search": {"trials": 1}, "confirm": None}
    with working(database, engine, tmp_path, checkpoint_seconds=0):
        work = Work(database)
        job = work.succeeded(work.submit("odd_tasks:counts", args={"folder": str(calm)}, **one_trial))
        last = job.steps - 3  # of the trial, all of which fits when it begins
        args = {"folder": str(fatal), "last": last, "pause_s": 0.02}
        limited = {"limits": {"max_steps": job.steps}}
        struck = work.succeeded(work.submit("odd_tasks:counts", args=args, **one_trial, **limited))
    with database.read() as session:
        (trial,) = runs.of_stage(session, struck.id, "search")
        found = recommendations.get(session, struck.id)
    assert (trial.attempt, trial.state) == (2, "failed")
    assert 0 < trial.repeated <= last
    assert job.steps < struck.steps < job.steps + trial.repeated, "it ended at the limit, in the middle of the run"
    assert found is not None
    assert f"limits.max_steps = {job.steps} was reached" in found.document["warnings"][0]
