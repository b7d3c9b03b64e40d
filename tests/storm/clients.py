"""Who uses the service while the storm rages: trainers that die and tell twice, and followers of events."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import httpx

from clr.client.service_run import OrderedRun
from tests.storm.world import World

IDLE_S = 1.0
POINTS_AT_ONCE = 50
CURVATURE, NOISE = 10.0, 0.05
UNFINISHED = ("queued", "running")

Work = Callable[[World, Random], bool]
"""A piece of work, done to its end; whether there was any."""


@contextmanager
def at_work(world: World, seed: int, trainers: int = 2, followers: int = 3) -> Iterator[None]:
    """The clients, until the block ends; what they meet that they should not is told in ``world.wrong``."""
    over = Event()
    works = [(train, f"{seed} trainer {number}") for number in range(trainers)]
    works += [(follow, f"{seed} follower {number}") for number in range(followers)]
    threads = [Thread(target=_keep_on, args=(world, work, Random(name), over)) for work, name in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _keep_on(world: World, work: Work, chance: Random, over: Event) -> None:
    while not over.is_set():
        try:
            if work(world, chance):
                continue
        except (TimeoutError, KeyError) as error:  # KeyError: an answer of another shape
            world.wrong.append(f"{type(error).__name__}: {error}")
        over.wait(IDLE_S)


def train(world: World, chance: Random) -> bool:
    """A run of one of the external jobs, unless its trainer dies; one that another had before is brought to its end."""
    if not (left := sorted(world.external - world.deleted)):
        return False
    job_id = chance.choice(left)
    ordered = _ask(world, chance, job_id)
    if ordered is None:
        return False
    may_die = ordered["attempt"] == 1 and not world.calm.is_set()
    value = _report(world, chance, job_id, ordered, may_die)
    if may_die and chance.random() < 0.1:
        world.struck["a trainer dies"] += 1
        return True
    told = {"value": value, "attempt": ordered["attempt"]}
    for _ in range(_times(world, chance, "a trainer tells twice")):
        world.call("PUT", f"{_place(job_id, ordered)}/result", json=told)
    return True


def _ask(world: World, chance: Random, job_id: str) -> dict[str, Any] | None:
    """The next run, asked for twice now and then; None where there is none at present."""
    key = {"Idempotency-Key": uuid4().hex}
    times = _times(world, chance, "a trainer asks twice")
    answers = [world.call("POST", f"/v1/jobs/{job_id}/runs", headers=key) for _ in range(times)]
    last = answers[-1]
    if last.status_code in (404, 409) and _is_over(world, job_id):
        world.external.discard(job_id)
    if last.status_code != 201:
        return None
    if answers[0].status_code == 201 and answers[0].json() != last.json():
        world.wrong.append(f"the same key was given {answers[0].text} and {last.text}")
    ordered: dict[str, Any] = last.json()
    return ordered


def _is_over(world: World, job_id: str) -> bool:
    answer = world.call("GET", f"/v1/jobs/{job_id}")
    return answer.status_code == 404 or answer.json()["state"] not in UNFINISHED


def _report(world: World, chance: Random, job_id: str, ordered: dict[str, Any], may_die: bool) -> float | None:
    """Train, and report as it goes; the last loss, None where it diverged."""
    points = list(descent(OrderedRun(job_id, ordered).lr, ordered["steps"], Random(ordered["seed"])))
    for first in range(0, len(points), POINTS_AT_ONCE):
        if may_die and chance.random() < 0.02:
            break
        some = {"points": points[first : first + POINTS_AT_ONCE], "attempt": ordered["attempt"]}
        for _ in range(_times(world, chance, "a trainer reports twice")):
            answer = world.call("POST", f"{_place(job_id, ordered)}/points", json=some)
        if answer.status_code != 200 or answer.json()["stop"]:
            break
    return points[-1]["loss"]


def descent(lr: Callable[[int], float], steps: int, chance: Random) -> Iterator[dict[str, Any]]:
    """Noisy descent down a parabola, which diverges beyond a rate of 2 / curvature."""
    weight = 3.0
    for step in range(steps):
        loss = CURVATURE * weight**2 / 2
        finite = math.isfinite(loss) and loss < 1e30
        yield {"step": step + 1, "loss": loss if finite else None}
        if not finite:
            return
        weight -= lr(step) * (CURVATURE * weight + chance.gauss(0, NOISE))


def _place(job_id: str, ordered: dict[str, Any]) -> str:
    return f"/v1/jobs/{job_id}/runs/{ordered['stage']}/{ordered['number']}"


def _times(world: World, chance: Random, name: str) -> int:
    twice = chance.random() < 0.1
    world.struck[name] += twice
    return 1 + twice


def follow(world: World, chance: Random) -> bool:
    """A job to its end, over all interruptions: the numbers of its events, as they come."""
    if not (left := [job_id for job_id in world.left() if job_id not in world.told]):
        return False
    job_id = chance.choice(left)
    told = world.told.setdefault(job_id, [])
    while True:
        was_over, before, ended = _is_over(world, job_id), len(told), False
        with suppress(httpx.TransportError):
            ended = _listen(world, job_id, told, leave_after=chance.randint(5, 50))
        if was_over and ended and len(told) == before:
            return True


def _listen(world: World, job_id: str, told: list[int], leave_after: int) -> bool:
    """Hear events until the stream ends, or for so many lines; whether it has ended by itself."""
    since = {"Last-Event-ID": str(told[-1] if told else 0)}
    path = f"{world.url}/v1/jobs/{job_id}/events"
    with httpx.stream("GET", path, headers=since, timeout=30) as stream:
        if stream.status_code != 200:
            world.calm.wait(IDLE_S)
            return stream.status_code == 404
        heard = []
        for line in stream.iter_lines():
            if line.startswith("id: "):
                heard.append(int(line[4:]))
                told.append(heard[-1])
                if len(heard) == leave_after:
                    world.struck["a follower leaves"] += 1
                    return False
        return True
