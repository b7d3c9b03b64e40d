"""What jobs and recommendations found, in the trackers' own stores, read back by the trackers' own readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clr.client.sync import Client
from clr.errors import InvalidArgument
from clr.integrations.tracking import track
from clr.tuning.recommendation import Recommendation
from tests.service.conftest import Run, Worker

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


def test_wandb_has_a_run_of_each_in_one_group_without_a_network(
    recommendation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    found = Recommendation.from_dict(recommendation | {"evidence": EVIDENCE})
    track(found, f"wandb:{tmp_path}/w", name="mine")
    runs = sorted((tmp_path / "w" / "wandb").glob("offline-run-*"))
    assert len(runs) == 3
    files = [file.read_bytes() for folder in runs for file in folder.glob("*.wandb")]
    blocks = (file[start : start + BLOCK] for file in files for start in range(0, len(file), BLOCK))
    written = b"".join(block[HEADER:] for block in blocks)
    missing = {word for word in (b"mine", b"recommended", b"fixed", b"max_lr", b"accuracy") if word not in written}
    assert missing == set()
    assert any(folder.rglob("*.png") for folder in runs)


@pytest.mark.parametrize("to", ["", "mlflow", "mlflow:", "comet:x", "/tmp/x"])
def test_a_tracker_that_there_is_not_is_refused(recommendation: dict[str, Any], to: str, database_url: str) -> None:
    with pytest.raises(InvalidArgument, match="must be mlflow:URI"):
        track(Recommendation.from_dict(recommendation), to)
