"""The service in the storm: its processes, and what its clients asked of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.serving import address, listen
from tests.conftest import wait_until_gone

PATIENCE_S = 60.0
"""How long a client goes on asking a service that does not answer."""

MERCY_S = 30.0
"""For so long after the database was hurt a 503 is its right answer."""


@dataclass
class World:
    """One service and its clients' memory.

    Args:
        url: of the API.
        database_url: of its store.
        supervisor: of its processes.
    """

    url: str
    database_url: str
    supervisor: psutil.Process
    accepted: dict[str, str] = field(default_factory=dict)  # key -> job
    deleted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    server_errors: list[str] = field(default_factory=list)
    database_hurt_at: float = 0.0

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The service's answer; one that does not answer is asked again, as `clr.Client` does."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.request(method, self.url + path, timeout=30, **more)
                if answer.status_code < 500:
                    return answer
                if time.monotonic() - self.database_hurt_at > MERCY_S:
                    self.server_errors.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: no answer within {PATIENCE_S:g} s")
            time.sleep(0.5)

    def submit(self, key: str, spec: dict[str, Any]) -> None:
        """Submit a job, and tell it again as somebody does who heard no answer: it is one job."""
        for _ in range(2):
            answer = self.call("POST", "/v1/jobs", json=spec, headers={"Idempotency-Key": key})
            assert answer.status_code in (200, 201), answer.text
            job_id = answer.json()["id"]
            assert self.accepted.setdefault(key, job_id) == job_id, f"{key} is {self.accepted[key]} and {job_id}"

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of the service whose name or command has ``name`` in it."""
        found = []
        with suppress(psutil.Error):
            for process in self.supervisor.children(recursive=True):
                with suppress(psutil.Error):
                    if name in process.name() or name in " ".join(process.cmdline()):
                        found.append(process)
        return found


@contextmanager
def serving(home: Path, database_url: str) -> Iterator[World]:
    """``clr serve`` until the block ends; nothing of it is left then."""
    with listen("127.0.0.1", 0) as free:
        url = address(free)
    environment = os.environ | {"CLR_HOME": str(home), "CLR_DATABASE_URL": database_url, "CLR_CPUS": "2"}
    command = [sys.executable, "-m", "service.cli", "serve", "--port", url.rpartition(":")[2]]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        world = World(url, database_url, psutil.Process(process.pid))
        until(lambda: ready(world), timeout_s=180)
        yield world
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for left in family:
            with suppress(psutil.Error):
                left.kill()
        process.kill()
        process.wait(30)
        wait_until_gone(family)


def ready(world: World) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{world.url}/readyz", timeout=30).status_code == 200
    return False


def until(reached: Any, timeout_s: float) -> bool:
    """Whether it was reached in time."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
