"""External jobs on both databases, through the calls that the routes make."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import optuna
import pytest

from clr.spec import JobSpec
from service.external import range_test, trials
from service.external.reports import Proposed, RangeTestReport, Result, TrialReport
from service.store import events, jobs, recommendations, runs, studies
from service.store.database import Database
from service.store.models import Job, RunRow

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what depends on no database: PostgreSQL has its turn where transactions and locks matter."""


def ramp(seed: int = 0, best: float = 0.1, steps: int = 200) -> list[dict[str, Any]]:
    """A loss that falls to ``best`` and rises beyond, with noise."""
    lr = np.geomspace(best * 1e-4, best * 10, steps)
    noise = np.random.default_rng(seed).normal(0, 0.02, steps)
    loss = 2.3 - 1.5 / (1 + (best / 5 / lr) ** 2) + 20 * np.maximum(0, lr / best - 1) + noise
    return [{"lr": float(rate), "loss": float(value)} for rate, value in zip(lr, loss, strict=True)]


class Trainer:
    """Somebody's own trainer, and what the store holds of its job."""

    def __init__(self, database: Database, job_id: str) -> None:
        self.database, self.job_id = database, job_id

    def put(self, points: list[dict[str, Any]] | None = None, **fields: Any) -> None:
        body = {"points": points or ramp(fields.get("seed", 0)), "iterations_per_epoch": 10} | fields
        range_test.put(self.database, self.job_id, RangeTestReport.model_validate(body))

    def ask(self, key: str | None = None) -> Proposed:
        return trials.ask(self.database, self.job_id, key)

    def report(self, number: int, step: int, value: float | None) -> bool:
        return trials.report(self.database, self.job_id, number, TrialReport(step=step, value=value))

    def tell(self, number: int, value: float | None) -> None:
        trials.tell(self.database, self.job_id, number, Result(value=value))

    def fail(self, number: int, error: str = "out of memory") -> None:
        trials.tell(self.database, self.job_id, number, Result(state="failed", error=error))

    def cancel(self) -> None:
        with self.database.begin() as session:
            jobs.request_cancel(session, self.job_id)

    def wait(self, seconds: float) -> None:
        """Let the job be older by so much."""
        with self.database.begin() as session:
            job = jobs.get(session, self.job_id)
            assert job.started_at is not None
            job.started_at -= timedelta(seconds=seconds)

    @property
    def job(self) -> Job:
        with self.database.read() as session:
            return jobs.get(session, self.job_id)

    @property
    def trials(self) -> list[RunRow]:
        with self.database.read() as session:
            return runs.of_stage(session, self.job_id, "search")

    @property
    def recommendation(self) -> dict[str, Any]:
        with self.database.read() as session:
            row = recommendations.get(session, self.job_id)
        assert row is not None
        return row.document

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name=self.job_id, storage=studies.storage(self.database.url))

    @property
    def states_in_study(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials()]

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.database.read() as session:
            return [event.data for event in events.after(session, self.job_id, 0) if event.kind == kind]


Submit = Callable[..., Trainer]


@pytest.fixture
def submit(database: Database) -> Submit:
    """Submits an external job of ten steps an epoch; its trainer."""

    def submit(**fields: Any) -> Trainer:
        given = {"mode": "external", "task": "my own", "epochs": 10, "search": {"trials": 3}} | fields
        spec = JobSpec.model_validate(given)
        document = spec.model_dump(mode="json")
        with database.begin() as session:
            job, _ = jobs.submit(
                session, spec=document, name=spec.name, task=spec.task, optimizer=spec.optimizer.name, mode=spec.mode
            )
        return Trainer(database, job.id)

    return submit


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
