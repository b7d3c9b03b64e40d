"""What may go wrong, each as a function of the world and of chance; True where there was something to hurt."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import Random

import psutil
import psycopg

from tests.storm.world import World

STOPPED_S = 13.0
"""Longer than a lease."""

MOST_UNFINISHED = 40
"""More jobs than these are not submitted: they must end after the storm."""

TASKS = [
    {"task": "digits", "epochs": 8, "search": None},
    {"task": "digits", "epochs": 8, "budget": 3},
    {"task": "digits", "epochs": 30, "search": None},
]

_numbers = count()


def killing(name: str) -> Callable[[World, Random], bool]:
    """Kill -9 one of the processes of that name."""

    def kill(world: World, chance: Random) -> bool:
        found = world.processes(name)
        if found:
            with suppress(psutil.Error):
                chance.choice(found).kill()
        return bool(found)

    return kill


def stop_past_the_lease(world: World, _chance: Random) -> bool:
    """Stop the worker for longer than its lease lasts, then let it go on."""
    found = world.processes("-m worker")
    with suppress(psutil.Error):
        for process in found:
            process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        for process in found:
            process.send_signal(signal.SIGCONT)
    return bool(found)


def burst(world: World, chance: Random) -> bool:
    """Several jobs at once."""
    unfinished = sum(
        len(world.call("GET", "/v1/jobs", params={"state": state, "limit": 100}).json()["items"])
        for state in ("queued", "running")
    )
    if unfinished > MOST_UNFINISHED:
        return False
    for _ in range(chance.randint(1, 5)):
        world.submit(f"storm-{os.getpid()}-{next(_numbers)}", chance.choice(TASKS))
    return True


def cancel(world: World, chance: Random) -> bool:
    """One of the jobs, whatever its state."""
    left = sorted(set(world.accepted.values()) - world.deleted)
    if not left:
        return False
    job_id = chance.choice(left)
    answer = world.call("POST", f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code in (200, 202, 409), answer.text
    world.cancelled |= {job_id} if answer.status_code != 409 else set()
    return True


def delete(world: World, chance: Random) -> bool:
    """One of the jobs; one that has not ended says so."""
    left = sorted(set(world.accepted.values()) - world.deleted)
    if not left:
        return False
    job_id = chance.choice(left)
    world.deleted.add(job_id)  # also where the answer is lost: then it is told by the second
    answer = world.call("DELETE", f"/v1/jobs/{job_id}")
    assert answer.status_code in (200, 204, 404, 409), answer.text
    if answer.status_code == 409:
        world.deleted.discard(job_id)
    return True


def kill_backend(world: World, chance: Random) -> bool:
    """Kill -9 one of PostgreSQL's backends, upon which it ends them all and recovers."""
    if not world.database_url.startswith("postgresql"):
        return False
    world.database_hurt_at = time.monotonic()
    with suppress(psycopg.Error, psutil.Error), psycopg.connect(world.database_url, connect_timeout=10) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        pids = [pid for (pid,) in connection.execute(query)]
        if pids:
            psutil.Process(chance.choice(pids)).kill()
            return True
    return False


FAULTS: dict[str, tuple[int, Callable[[World, Random], bool]]] = {
    "kill the worker": (2, killing("-m worker")),
    "kill the raylet": (2, killing("raylet/raylet")),
    "kill the GCS": (1, killing("gcs_server")),
    "kill the runtime-env agent": (1, killing("RuntimeEnvAgent")),
    "kill the dashboard agent": (1, killing("DashboardAgent")),
    "kill a training process": (3, killing("ray::train")),
    "kill an idle process": (1, killing("ray::IDLE")),
    "kill the API": (2, killing("service.cli api")),
    "kill a backend": (1, kill_backend),
    "stop past the lease": (1, stop_past_the_lease),
    "submit a burst": (6, burst),
    "cancel": (2, cancel),
    "delete": (2, delete),
}
"""By name: its weight, and what it does."""


def strike(world: World, chance: Random) -> str | None:
    """One fault at random; its name, None where there was nothing to hurt."""
    (name,) = chance.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])
    return name if FAULTS[name][1](world, chance) else None
