"""What may go wrong, each as a function of the world and of chance; True where there was something to hurt."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import Random
from urllib.parse import urlsplit

import psutil

from tests.storm.world import World

MOST_UNFINISHED = 40
"""More jobs than these are not submitted: they must end after the storm."""

EXTERNAL = {
    "mode": "external",
    "task": "a quadratic",
    "epochs": 5,
    "iterations_per_epoch": 20,
    "direction": "minimize",
    "limits": {"run_seconds": 20},
}

SPECS = [
    {"task": "digits", "epochs": 8, "search": None},
    {"task": "digits", "epochs": 8, "budget": 3},
    {"task": "digits", "epochs": 30, "search": None},
    EXTERNAL | {"budget": 4},
    EXTERNAL | {"search": None},
]

_numbers = count()

Fault = Callable[[World, Random], bool]


def killing(name: str) -> Fault:
    """Kill -9 one of the processes of that name."""

    def kill(world: World, chance: Random) -> bool:
        found = world.processes(name)
        if found:
            with suppress(psutil.Error):
                chance.choice(found).kill()
        return bool(found)

    return kill


def stopping(name: str, least_s: float, most_s: float) -> Fault:
    """Stop all processes of that name, then let them go on. The storm does not wait for it."""

    def stop(world: World, chance: Random) -> bool:
        found = world.processes(name)
        _signal(found, signal.SIGSTOP)
        world.later(chance.uniform(least_s, most_s), lambda: _signal(found, signal.SIGCONT))
        return bool(found)

    return stop


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def burst(world: World, chance: Random) -> bool:
    """Several jobs at once."""
    unfinished = sum(
        len(world.call("GET", "/v1/jobs", params={"state": state, "limit": 100}).json()["items"])
        for state in ("queued", "running")
    )
    if unfinished > MOST_UNFINISHED:
        return False
    for _ in range(chance.randint(1, 5)):
        spec = chance.choice(SPECS)
        job_id = world.submit(f"storm-{os.getpid()}-{next(_numbers)}", spec)
        if spec.get("mode") == "external":
            world.external.add(job_id)
    return True


def cancel(world: World, chance: Random) -> bool:
    """One of the jobs, whatever its state."""
    left = world.left()
    if not left:
        return False
    job_id = chance.choice(left)
    world.cancelled.add(job_id)  # also where the answer is lost: then the second is a 409
    answer = world.call("POST", f"/v1/jobs/{job_id}/cancel")
    if answer.status_code not in (200, 202, 409):
        world.wrong.append(f"cancel: {answer.status_code} {answer.text[:200]}")
    return True


def delete(world: World, chance: Random) -> bool:
    """One of the jobs; one that has not ended says so."""
    left = world.left()
    if not left:
        return False
    job_id = chance.choice(left)
    world.deleted.add(job_id)  # also where the answer is lost: then it is told by the second
    answer = world.call("DELETE", f"/v1/jobs/{job_id}")
    if answer.status_code == 409:
        world.deleted.discard(job_id)
    elif answer.status_code not in (204, 404):
        world.wrong.append(f"delete: {answer.status_code} {answer.text[:200]}")
    return True


def kill_postmaster(world: World, chance: Random) -> bool:
    """Kill -9 PostgreSQL, and start it again in a while."""
    if world.postgresql is None:
        return False
    world.hurt_at = time.monotonic()
    world.postgresql.kill()
    time.sleep(chance.uniform(0, 5))
    world.postgresql.start()
    world.hurt_at = time.monotonic()
    return True


def kill_backend(world: World, chance: Random) -> bool:
    """Kill -9 one of PostgreSQL's processes, upon which it ends them all and recovers."""
    family = world.postgresql.processes()[1:] if world.postgresql else []
    if family:
        world.hurt_at = time.monotonic()
        with suppress(psutil.Error):
            chance.choice(family).kill()
    return bool(family)


def break_off_sign_ins(world: World, chance: Random) -> bool:
    """Bodies of sign-ins that are begun and left."""
    head = "POST /signin HTTP/1.1\r\nHost: storm\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    for _ in range(10):
        with suppress(OSError), _connection(world) as connection:
            connection.sendall(f"{head}Content-Length: 100\r\n\r\ntoken={chance.random()}".encode())
    return True


def leave_half_open(world: World, _chance: Random) -> bool:
    """Connections whose request never comes; the service is to close them."""
    for _ in range(10):
        with suppress(OSError):
            connection = _connection(world)
            connection.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost:")
            world.half_open.append(connection)
    return True


def _connection(world: World) -> socket.socket:
    place = urlsplit(world.url)
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=5)


FAULTS: dict[str, tuple[int, Fault]] = {
    "kill the worker": (2, killing("-m worker")),
    "kill the raylet": (2, killing("raylet/raylet")),
    "kill the GCS": (1, killing("gcs_server")),
    "kill the runtime-env agent": (1, killing("RuntimeEnvAgent")),
    "kill the dashboard agent": (1, killing("DashboardAgent")),
    "kill a training process": (5, killing("ray::train")),
    "kill an idle process": (2, killing("ray::IDLE")),
    "kill the API": (3, killing("service.cli api")),
    "kill and restart PostgreSQL": (1, kill_postmaster),
    "kill a part of PostgreSQL": (1, kill_backend),
    "stop the worker past its lease": (1, stopping("-m worker", 11, 15)),
    "stop the raylet": (1, stopping("raylet/raylet", 2, 25)),
    "stop the GCS": (1, stopping("gcs_server", 2, 25)),
    "stop a training process": (1, stopping("ray::train", 2, 15)),
    "stop the API": (1, stopping("service.cli api", 2, 10)),
    "submit a burst": (8, burst),
    "cancel": (4, cancel),
    "delete": (4, delete),
    "break off sign-ins": (2, break_off_sign_ins),
    "leave connections half open": (2, leave_half_open),
}
"""By name: its weight, and what it does."""


def strike(world: World, chance: Random) -> None:
    """One fault at random."""
    (name,) = chance.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])
    if FAULTS[name][1](world, chance):
        world.struck[name] += 1
