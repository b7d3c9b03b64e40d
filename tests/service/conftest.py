"""The API on a real server, over a real database, and a worker's hand to write what a job finds."""

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from service import cli
from service.app import create_app
from service.connection import Connection
from service.settings import Settings
from service.store import jobs, recommendations, runs, workers
from service.store.database import Database
from service.store.jobs import Lease

DIGITS = {
    "type": "object",
    "properties": {
        "hidden": {"type": "integer", "minimum": 1, "default": 64},
        "train_size": {"type": "integer", "minimum": 1, "default": 1000},
        "data": {"type": "string"},
    },
    "required": [],
    "additionalProperties": False,
}


@dataclass
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def root_logger() -> Iterator[None]:
    """The root logger as it was, in the end."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers = before
    root.setLevel(level)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root_logger: None) -> Run:
    """Runs ``clr`` with its arguments and standard input."""

    def run(*args: str, stdin: str = "", terminal: bool = False) -> Ran:
        monkeypatch.setattr(sys, "argv", ["clr", *args])
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int | None)
        return Ran(caught.value.code or 0, out, err)

    return run


def is_one_error_line(ran: Ran) -> bool:
    return ran.code > 0 and ran.out == "" and ran.err.startswith("error: ") and ran.err.count("\n") == 1


class _Server(uvicorn.Server):
    """Ends at once: uvicorn looks every tenth of a second whether it is to end, and pauses as long before it does."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


uvicorn.server.asyncio = SimpleNamespace(  # type: ignore[assignment]
    **vars(asyncio) | {"sleep": lambda seconds: asyncio.sleep(seconds / 50)}
)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    config = uvicorn.Config(app, http=Connection, log_level="error", ws="none", timeout_graceful_shutdown=1)
    server = _Server(config)
    # asyncio turns Nagle's delay off only where the protocol is named
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert server.ready.wait(30), "the server must start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive(), "the server must stop"


class Worker:
    """Writes what a job finds through the store, as a worker does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lease = Lease("", 0, "")

    def publish(self, name: str = "digits", schema: dict[str, Any] = DIGITS) -> None:
        task = {"name": name, "doc": f"The {name} task.", "schema": schema}
        with self.database.begin() as session:
            workers.publish(session, owner="w1", host="here", slots={"cpus": 1, "gpus": 0}, tasks=[task])

    def claim(self) -> str:
        with self.database.begin() as session:
            claimed = jobs.claim(session, owner="w1", lease_s=600)
        assert claimed is not None
        self.lease = claimed[1]
        return self.lease.job_id

    def write(self, transition: Callable[..., Any], **arguments: Any) -> Any:
        with self.database.begin() as session:
            return transition(session, self.lease, **arguments)

    def run(
        self,
        stage: str,
        number: int,
        points: list[dict[str, Any]],
        state: str = "complete",
        value: float | None = None,
        seed: int = 0,
        params: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        place = {"stage": stage, "number": number}
        attempt = self.write(runs.start, **place, params=params or {}, run={"seed": seed})
        self.write(runs.append, **place, attempt=attempt, points=points)
        if state != "running":
            outcome = {"state": state, "value": value, "steps": points[-1]["step"], "error": error}
            self.write(runs.finish, **place, attempt=attempt, **outcome)

    def recommend(self, document: dict[str, Any], task: str = "digits", optimizer: str = "SGD") -> None:
        self.write(recommendations.put, document=document, task=task, optimizer=optimizer)

    def end(self, state: str = "succeed", **arguments: Any) -> None:
        self.write(getattr(jobs, state), **arguments)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        body_limit=65536,
        allow_code=True,
        code_limit=2**20,
        task_modules=["a", "my"],
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """Where the API listens."""
    with serving(app) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def worker(database: Database) -> Worker:
    """A worker that has published the task digits."""
    worker = Worker(database)
    worker.publish()
    return worker


@pytest.fixture
def submit(client: httpx.Client, worker: Worker) -> Callable[..., dict[str, Any]]:
    """Submits a job of the digits task; the job."""

    def submit(**fields: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json={"task": "digits"} | fields)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    return submit


@pytest.fixture
def recommendation() -> dict[str, Any]:
    """A recommendation as a worker stores it."""
    bounds = {"base_lr": 0.001, "max_lr": 0.006}
    return {
        "job_id": None,
        "source": "range_test",
        "policy": "triangular",
        **bounds,
        "ratio": 6.0,
        "stepsize": 75,
        "step_size_up": 45,
        "step_size_down": 105,
        "stepsize_multiplier": 5.0,
        "iterations_per_epoch": 15,
        "gamma": None,
        "interval": {"base_lr": [0.0008, 0.0013], "max_lr": [0.005, 0.0075]},
        "confidence": "high",
        "reasons": ["the loss is lowest there"],
        "warnings": [],
        "evidence": None,
        "cost": {"steps": 300, "seconds": 1.5, "relative_to_one_training": 1.0},
        "torch": bounds | {"step_size_up": 75, "step_size_down": 75, "mode": "triangular", "cycle_momentum": False},
    }
