"""One embedded Ray for all tests, and a worker on a thread of the test's own."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from clr.spec import JobSpec
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.models import Job
from worker.cluster import Cluster
from worker.engine import Engine
from worker.loop import Worker

SECRET = "hunter2correcthorse"
SECRETS = ("CLR_DATABASE_URL", "CLR_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SOMETHING_ELSE", "RAY_AUTH_TOKEN")


ON_BOTH_DATABASES = ("test_a_job_goes_through_its_stages_to_a_confirmed_recommendation",)
"""The store has its own tests, on both; a worker's take long: of the others, PostgreSQL's are ``make test-long``'s."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and isinstance(item, pytest.Function):
            on = item.callspec.params.get("database_url") if hasattr(item, "callspec") else None
            if on == "postgresql" and item.originalname not in ON_BOTH_DATABASES:
                item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Two slots. Ray's processes find the odd tasks by name."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        environment.syspath_prepend(str(Path(__file__).parent))
        home = tmp_path_factory.mktemp("home")
        with pytest.MonkeyPatch.context() as starting:
            for name in SECRETS:
                starting.setenv(name, SECRET)
            cluster = Cluster(None, home, cpus=2)
        yield Engine(cluster, str(home / "code"))
        cluster.stop()


class Work:
    """Submits jobs and waits for what becomes of them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def submit(self, task: str, submitted_by: str | None = None, **spec: Any) -> str:
        full = JobSpec.model_validate({"task": task, **spec}).model_dump(mode="json")
        with self.database.begin() as session:
            job, _ = jobs.submit(session, spec=full, name=full["name"], task=task, submitted_by=submitted_by)
            return job.id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return jobs.get(session, job_id)

    def until(self, job_id: str, reached: Callable[[Job], bool], timeout_s: float = 180) -> Job:
        """The job once it is as wanted; fails when that takes too long, or can no longer come about."""
        deadline = time.monotonic() + timeout_s
        while not reached(job := self.job(job_id)):
            assert job.state in ("queued", "running"), f"ended as {job.state}: {job.error}"
            assert time.monotonic() < deadline, f"still {job.state} at {job.stage} after {timeout_s} s"
            time.sleep(0.05)
        return job

    def ended(self, job_id: str, timeout_s: float = 180) -> Job:
        return self.until(job_id, lambda job: job.state in jobs.FINISHED, timeout_s)

    def succeeded(self, job_id: str, timeout_s: float = 180) -> Job:
        return self.until(job_id, lambda job: job.state == "succeeded", timeout_s)


@contextmanager
def working(database: Database, engine: Engine, home: Path, **settings: Any) -> Iterator[Worker]:
    """A worker that claims jobs until the block ends, and hands back what it has then."""
    stopping = Event()
    chosen = Settings(home=home, database_url=database.url, poll_s=0.05, **{"task_modules": ["odd_tasks"]} | settings)
    worker = Worker(chosen, database, stopping)
    thread = Thread(target=worker.work, args=[engine])
    thread.start()
    try:
        yield worker
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive(), "the worker did not stop"


@pytest.fixture
def work(database: Database, engine: Engine, tmp_path: Path) -> Iterator[Work]:
    """A worker at work on a migrated database."""
    with working(database, engine, tmp_path):
        yield Work(database)
