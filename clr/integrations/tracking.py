"""What was found, into MLflow, Weights & Biases or TensorBoard: an experiment a job, a run a trial, all nested in one.

Needs the extra ``tracking``, or the one package that is written to.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from clr.charts import png, schedule_chart
from clr.errors import InvalidArgument
from clr.extras import require
from clr.tuning.recommendation import Recommendation

PICTURE = "schedule.png"

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
"""What each tracker is written by."""


class TrackedTrial(Protocol):
    """A trial, as the clients give it."""

    @property
    def number(self) -> int:
        """From 0."""

    @property
    def params(self) -> dict[str, Any]:
        """Its schedule."""

    @property
    def value(self) -> float | None:
        """The metric at its end."""

    @property
    def points(self) -> list[tuple[int, float | None]]:
        """Step and metric at the ends of its cycles."""


class TrackedJob(Protocol):
    """A finished job of a service, as ``clr.Client`` gives it."""

    @property
    def document(self) -> dict[str, Any]:
        """Its id and name, among others."""

    def recommendation(self) -> Recommendation:
        """What was found."""

    def trials(self) -> Iterator[TrackedTrial]:
        """What was tried."""


@dataclass(frozen=True)
class _Run:
    """One run to write: its name, its parameters, and the metric at its points."""

    name: str
    params: dict[str, Any]
    points: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    """All that is written of one job."""

    name: str
    metric: str
    params: dict[str, Any]
    runs: list[_Run]
    picture: bytes | None


def track(found: "TrackedJob | Recommendation", to: str, name: str = "clr") -> None:
    """Write what was found to a tracker.

    Args:
        found: a finished job of a service (each trial becomes a run), or a recommendation (each run of its evidence).
        to: the tracker and its place: ``mlflow:URI``, of a folder or a server; ``wandb:FOLDER``, written offline, for
            ``wandb sync`` to send; ``tensorboard:FOLDER``.
        name: of the experiment, where ``found`` is a recommendation; a job has its own.

    Raises:
        InvalidArgument: ``to`` names no tracker or no place.
        MissingExtra: the tracker is not installed.
    """
    kind, place = check(to)
    _WRITERS[kind](_of_recommendation(found, name) if isinstance(found, Recommendation) else _of_job(found), place)


def check(to: str, field: str = "to") -> tuple[str, str]:
    """A tracker and its place, where both are there to be written to.

    Args:
        to: as for ``track``.
        field: what an error calls it.

    Raises:
        InvalidArgument: ``to`` names no tracker or no place.
        MissingExtra: the tracker is not installed.
    """
    kind, _, place = to.partition(":")
    if kind not in _WRITERS or not place:
        raise InvalidArgument(field, "must be mlflow:URI, wandb:FOLDER or tensorboard:FOLDER", to)
    if find_spec(PACKAGES[kind]) is None:
        require("tracking")
    return kind, place


def _of_recommendation(found: Recommendation, name: str) -> _Record:
    evidence = found.evidence
    runs = [] if evidence is None else [_of_evidence(run) for run in evidence.runs]
    return _Record(name, "value" if evidence is None else evidence.metric, _params(found), runs, _picture(found))


def _of_evidence(run: Mapping[str, Any]) -> _Run:
    values = run.get("values") or ([run["mean"]] if run.get("mean") is not None else [])
    return _Run(run["name"], {"lr": run.get("lr")}, list(enumerate(values)))


def _of_job(job: TrackedJob) -> _Record:
    found = job.recommendation()
    runs = []
    for trial in job.trials():
        points = [(step, value) for step, value in trial.points if value is not None]
        if not points and trial.value is not None:
            points = [(0, trial.value)]
        runs.append(_Run(f"trial {trial.number}", trial.params, points))
    name = f"{job.document['name']} {job.document['id']}"
    metric = found.evidence.metric if found.evidence else "value"
    return _Record(name, metric, _params(found), runs, _picture(found))


def _params(found: Recommendation) -> dict[str, Any]:
    names = (
        "policy",
        "base_lr",
        "max_lr",
        "step_size_up",
        "step_size_down",
        "gamma",
        "confidence",
        "source",
        "batch_size",
    )
    known = {name: getattr(found, name) for name in names}
    known["optimizer"] = (found.optimizer or {}).get("name")
    return {name: value for name, value in known.items() if value is not None}


def _picture(found: Recommendation) -> bytes | None:
    if found.stepsize is None:
        return None
    two_cycles = 4 * found.stepsize / (found.iterations_per_epoch or 1)
    return png(schedule_chart({"recommended": found.to_dict()}, two_cycles))


def _to_mlflow(record: _Record, place: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(place)
    known = client.get_experiment_by_name(record.name)
    experiment = known.experiment_id if known else client.create_experiment(record.name)
    parent = client.create_run(experiment, run_name="recommendation").info.run_id
    for name, value in record.params.items():
        client.log_param(parent, name, value)
    if record.picture is not None:
        with _file(record.picture) as path:
            client.log_artifact(parent, str(path))
    for run in record.runs:
        nested = client.create_run(experiment, run_name=run.name, tags={"mlflow.parentRunId": parent}).info.run_id
        for name, value in run.params.items():
            client.log_param(nested, name, value)
        for step, value in run.points:
            client.log_metric(nested, record.metric, value, step=step)
        client.set_terminated(nested)
    client.set_terminated(parent)


def _to_wandb(record: _Record, place: str) -> None:
    import wandb

    Path(place).mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    shared: dict[str, Any] = {
        "project": "clr",
        "group": record.name,
        "dir": place,
        "mode": "offline",
        "settings": quiet,
    }
    with wandb.init(name="recommendation", job_type="recommendation", config=record.params, **shared) as parent:
        if record.picture is not None:
            with _file(record.picture) as path:
                parent.log({"schedule": wandb.Image(str(path))})
    for run in record.runs:
        with wandb.init(name=run.name, job_type="trial", config=run.params, **shared) as nested:
            for step, value in run.points:
                nested.log({record.metric: value}, step=step)


def _to_tensorboard(record: _Record, place: str) -> None:
    import numpy as np
    from PIL import Image
    from tensorboardX import SummaryWriter

    folder = Path(place) / record.name
    with SummaryWriter(str(folder / "recommendation")) as writer:
        writer.add_text("recommendation", _table(record.params))
        if record.picture is not None:
            with _file(record.picture) as path, Image.open(path) as picture:
                writer.add_image("schedule", np.asarray(picture.convert("RGB")), dataformats="HWC")
    for number, run in enumerate(record.runs):
        with SummaryWriter(str(folder / f"{number:04d} {run.name}")) as writer:
            writer.add_text("parameters", _table(run.params))
            for step, value in run.points:
                writer.add_scalar(record.metric, value, step)


def _table(params: Mapping[str, Any]) -> str:
    return "\n".join(
        ["| parameter | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in params.items())]
    )


@contextmanager
def _file(picture: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="clr") as folder:
        path = Path(folder) / PICTURE
        path.write_bytes(picture)
        yield path


_WRITERS: dict[str, Callable[[_Record, str], None]] = {
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
    "tensorboard": _to_tensorboard,
}
