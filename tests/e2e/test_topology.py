"""docker-compose.yml at work: PostgreSQL, two APIs, two workers, a Ray cluster of which a node leaves in mid-trial."""

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from clr.client.sync import Client
from service.store import jobs, runs
from service.store.database import Database
from service.store.models import RunRow
from tests.conftest import Server
from tests.e2e.topology import Topology

JOB = {"task": "digits", "epochs": 6, "search": {"trials": 4, "epochs": 400}, "confirm": None}


@pytest.fixture
def topology(postgresql: Server) -> Iterator[Topology]:
    """The topology over an empty PostgreSQL; in the end no process of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="clr"))
    with postgresql.copy() as url:
        topology = Topology(folder, url, {"0.0.0.0": "127.0.0.1", "6379": str(free_port())})
        try:
            yield topology
        finally:
            topology.stop()
            print(*(f"== {log.name}\n{log.read_text()[-2000:]}" for log in folder.glob("*.log")), sep="\n")
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(reached: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What ``reached`` gives once it is true; a service that does not answer yet is waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := reached():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"not reached within {timeout_s} s"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_node_that_leaves_in_mid_trial_costs_that_trials_attempt_and_no_more(topology: Topology) -> None:
    migrate, head = topology.start("migrate"), topology.start("ray")
    assert migrate.process.wait(60) == 0
    ports = [free_port(), free_port()]
    for port in ports:
        topology.start("api", CLR_PORT=str(port))
    token = (topology.folder / "clr-token").read_text()
    one, other = (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        for port in ports
    )
    with one, other, Client(str(one.base_url), token) as client, closing(Database(topology.url)) as database:
        until(lambda: "--block" in head.log.read_text())
        node = topology.start("gpu")
        until(lambda: "--block" in node.log.read_text())
        for number in (1, 2):  # nodes that start on one machine at the same time take each other's ports
            topology.start("worker")
            until(lambda number=number: other.get("/readyz").json().get("workers") == number)
        job = client.submit(JOB)
        until(lambda: running(database, job.id) == 2 and node.trains)
        before = [trial for trial in trials(database, job.id) if trial.state != "running"]
        node.kill()
        assert job.wait(timeout_s=120).state == "succeeded"
        after = trials(database, job.id)
        assert {trial.state for trial in after} <= {"complete", "pruned"}
        assert sorted(trial.attempt for trial in after) == [1, 1, 1, 2]
        assert {trial.number: trial.finished_at for trial in before}.items() <= {
            trial.number: trial.finished_at for trial in after
        }.items()
        found = other.get(f"/v1/jobs/{job.id}/recommendation").json()
        assert (found["source"], found["job_id"]) == ("search", job.id)


def trials(database: Database, job_id: str) -> list[RunRow]:
    with database.read() as session:
        return runs.of_stage(session, job_id, "search")


def running(database: Database, job_id: str) -> int:
    """Trials under way; none of a job that has ended already."""
    with database.read() as session:
        job = jobs.get(session, job_id)
    assert job.state in ("queued", "running"), f"{job.state}: {job.error}"
    return sum(trial.state == "running" for trial in trials(database, job_id))
