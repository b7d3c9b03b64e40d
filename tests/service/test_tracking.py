"""What jobs and recommendations found, in the trackers' own stores, read back by the trackers' own readers."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from clr.client.sync import Client
from clr.errors import InvalidArgument
from clr.integrations.tracking import track
from clr.tuning.recommendation import Recommendation
from service.settings import Settings
from service.store import jobs
from tests.service.conftest import Run, Worker
from worker.job import JobDriver

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the trackers' own making
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BLOCK, HEADER = 32 * 1024, 7
"""Bytes of a block of W&B's files, each of which begins with a header, in the middle of a word if need be."""

EVIDENCE = {
    "metric": "accuracy",
    "direction": "maximize",
    "epochs": 10.0,
    "seeds": 2,
    "runs": [
        {"name": "recommended", "mean": 0.97, "std": 0.01, "values": [0.96, 0.98]},
        {"name": "fixed", "lr": 0.05, "mean": 0.9, "std": 0.0, "values": [0.9]},
    ],
    "verdict": "ahead",
}


@pytest.fixture
def job_id(worker: Worker, submit: Callable[..., dict[str, Any]], recommendation: dict[str, Any]) -> str:
    """A finished job with two trials."""
    found: str = submit(name="tracked")["id"]
    worker.claim()
    for number in range(2):
        point = {"step": 20, "lr": [0.01], "loss": [1.0], "metric": 0.5 + number / 10, "diverged": False}
        params = {"policy": "triangular", "max_lr": 0.1 * (number + 1)}
        worker.run("search", number, [point], value=0.5 + number / 10, params=params)
    worker.recommend(recommendation | {"job_id": found, "evidence": EVIDENCE})
    worker.end()
    return found


def test_mlflow_has_an_experiment_with_the_recommendation_and_a_nested_run_of_each_trial(
    run: Run, url: str, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLR_URL", url)
    monkeypatch.setenv("CLR_TRACKING", f"sqlite:///{tmp_path}/ml.db")
    assert run("track", job_id).code == 1, "a place without its tracker"
    monkeypatch.setenv("CLR_TRACKING", f"mlflow:sqlite:///{tmp_path}/ml.db")
    ran = run("track", job_id)
    assert ran.code == 0, ran.err
    client = MlflowClient(f"sqlite:///{tmp_path}/ml.db")
    experiment = client.get_experiment_by_name(f"tracked {job_id}")
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"recommendation", "trial 0", "trial 1"}
    parent = found["recommendation"]
    assert (parent.data.params["max_lr"], parent.info.status) == ("0.006", "FINISHED")
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["schedule.png"]
    assert found["trial 1"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found["trial 1"].data.metrics == {"accuracy": 0.6}
    assert found["trial 1"].data.params["policy"] == "triangular"


def test_tensorboard_has_a_folder_of_each_run_and_the_picture(url: str, job_id: str, tmp_path: Path) -> None:
    with Client(url) as client:
        track(client.job(job_id), f"tensorboard:{tmp_path}")
    folders = sorted(folder.name for folder in (tmp_path / f"tracked {job_id}").iterdir())
    assert folders == ["0000 trial 0", "0001 trial 1", "recommendation"]
    (events,) = (tmp_path / f"tracked {job_id}" / "0001 trial 1").iterdir()
    assert b"accuracy" in events.read_bytes()
    (events,) = (tmp_path / f"tracked {job_id}" / "recommendation").iterdir()
    assert b"PNG" in events.read_bytes()


WORDS = (b"mine", b"recommended", b"fixed", b"max_lr", b"accuracy")


def written_in(runs: list[Path]) -> bytes:
    files = [file.read_bytes() for folder in runs for file in folder.glob("*.wandb")]
    return b"".join(file[start : start + BLOCK][HEADER:] for file in files for start in range(0, len(file), BLOCK))


def test_wandb_has_a_run_of_each_in_one_group_without_a_network(
    recommendation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    found = Recommendation.from_dict(recommendation | {"evidence": EVIDENCE})
    track(found, f"wandb:{tmp_path}/w", name="mine")
    runs = sorted((tmp_path / "w" / "wandb").glob("offline-run-*"))
    assert len(runs) == 3
    deadline = time.monotonic() + 60
    while missing := {word for word in WORDS if word not in written_in(runs)}:  # its own process writes the files
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)
    assert any(folder.rglob("*.png") for folder in runs)


@pytest.fixture
def driver(worker: Worker, submit: Callable[..., dict[str, Any]], recommendation: dict[str, Any]) -> Any:
    """What makes the driver of a claimed job that has found something, for a place to track."""
    found = submit(name="tracked")["id"]
    worker.claim()
    point = {"step": 20, "lr": [0.01], "loss": [1.0], "metric": 0.5, "diverged": False}
    worker.run("search", 0, [point], value=0.5, params={"policy": "triangular", "max_lr": 0.1})
    worker.recommend(recommendation | {"job_id": found, "evidence": EVIDENCE})

    def made(to: str) -> JobDriver:
        with worker.database.read() as session:
            job = jobs.get(session, found)
        settings = Settings(tracking=to)
        engine = cast(Any, SimpleNamespace(cancel=lambda streams: None))  # nothing is under way
        return JobDriver(worker.database, engine, job, worker.lease, settings=settings, stopping=Event())

    return made


def test_a_worker_writes_a_job_that_succeeded_to_the_tracker_of_the_service(driver: Any, tmp_path: Path) -> None:
    one = driver(f"tensorboard:{tmp_path}/logs")
    one._end(jobs.succeed)
    folder = tmp_path / "logs" / f"tracked {one.lease.job_id}"
    assert sorted(path.name for path in folder.iterdir()) == ["0000 trial 0", "recommendation"]


def test_a_tracker_that_fails_is_a_line_in_the_log_and_the_job_has_succeeded(
    driver: Any, worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    one = driver(f"tensorboard:{tmp_path}/file")
    one._end(jobs.succeed)
    with worker.database.read() as session:
        assert jobs.get(session, one.lease.job_id).state == "succeeded"
    assert "not written to tensorboard" in caplog.text


def test_the_setting_names_a_tracker_and_a_place(database_url: str) -> None:
    with pytest.raises(ValidationError, match="tracking"):
        Settings(tracking="comet:x")


@pytest.mark.parametrize("to", ["", "mlflow", "mlflow:", "comet:x", "/tmp/x"])
def test_a_tracker_that_there_is_not_is_refused(recommendation: dict[str, Any], to: str, database_url: str) -> None:
    with pytest.raises(InvalidArgument, match="must be mlflow:URI"):
        track(Recommendation.from_dict(recommendation), to)
