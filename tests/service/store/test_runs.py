"""Runs, their attempts and points, on both databases."""

import json
import math
from typing import Any

import pytest

from service.store import events, jobs, runs
from service.store.database import Database
from service.store.errors import Conflict, NotFound
from service.store.jobs import Lease


@pytest.fixture
def lease(database: Database) -> Lease:
    with database.begin() as session:
        jobs.submit(session, spec={}, name="demo", task="digits")
        found = jobs.claim(session, owner="worker", lease_s=60)
    assert found is not None
    return found[1]


def start(database: Database, lease: Lease, number: int = 0, stage: str = "search", **run: Any) -> int:
    with database.begin() as session:
        return runs.start(session, lease, stage=stage, number=number, params={"ratio": 3.0}, run=run)


def append(database: Database, lease: Lease, attempt: int, points: list[dict[str, Any]], number: int = 0) -> None:
    with database.begin() as session:
        runs.append(session, lease, stage="search", number=number, attempt=attempt, points=points)


def finish(database: Database, lease: Lease, attempt: int = 1, number: int = 0, **given: Any) -> None:
    end: dict[str, Any] = {"state": "complete", "value": 0.9, "steps": 20} | given
    with database.begin() as session:
        runs.finish(session, lease, stage="search", number=number, attempt=attempt, **end)


def points_of(database: Database, lease: Lease, number: int = 0) -> list[dict[str, Any]]:
    with database.read() as session:
        return runs.points(session, lease.job_id, "search", [number])[number]


def repeated(database: Database, lease: Lease) -> int:
    with database.read() as session:
        return runs.get(session, lease.job_id, "search", 0).repeated


def point(step: int, metric: float | None = 0.5, loss: float = 1.0) -> dict[str, Any]:
    return {"step": step, "lr": [0.1, 0.2], "loss": [loss, 1.0], "metric": metric, "diverged": False}


def told(database: Database, lease: Lease, kind: str) -> list[dict[str, Any]]:
    with database.read() as session:
        return [event.data for event in events.after(session, lease.job_id, 0) if event.kind == kind]


def test_a_run_goes_from_its_start_over_its_points_to_its_end(database: Database, lease: Lease) -> None:
    assert start(database, lease, seed=7) == 1
    append(database, lease, 1, [point(10), point(20)])
    append(database, lease, 1, [point(30)])
    append(database, lease, 1, [])
    with database.read() as session:
        running = runs.get(session, lease.job_id, "search", 0)
    assert (running.state, running.steps, running.value, running.finished_at) == ("running", 30, None, None)
    finish(database, lease, value=0.75, steps=30)
    with database.read() as session:
        run = runs.get(session, lease.job_id, "search", 0)
    assert (run.state, run.value, run.steps, run.attempt, run.error) == ("complete", 0.75, 30, 1, None)
    assert (run.params, run.run) == ({"ratio": 3.0}, {"seed": 7})
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
    assert points_of(database, lease) == [point(10), point(20), point(30)]


def test_followers_are_told_of_starts_points_and_ends(database: Database, lease: Lease) -> None:
    start(database, lease)
    append(database, lease, 1, [point(10), {"step": 20, "lr": [], "loss": []}])
    finish(database, lease, state="failed", value=None, error="out of memory")
    trial = {"stage": "search", "number": 0, "params": {"ratio": 3.0}}
    assert told(database, lease, "trial") == [
        trial | {"state": "running"},
        trial | {"state": "failed", "value": None, "steps": 20, "error": "out of memory"},
    ]
    few = [{"step": 10, "metric": 0.5, "lr": 0.2}, {"step": 20, "metric": None, "lr": None}]
    assert told(database, lease, "points") == [{"stage": "search", "number": 0, "points": few}]


@pytest.mark.parametrize("steps", [20, 40_000])
def test_an_end_may_bring_its_last_points_along(database: Database, lease: Lease, steps: int) -> None:
    attempts = [start(database, lease, number, steps=steps) for number in (0, 1)]
    few = [point(1), point(steps // 2), point(steps)]
    append(database, lease, attempts[0], few[:1])
    finish(database, lease, attempts[0], points=few[1:])
    for one in few:
        append(database, lease, attempts[1], [one], number=1)
    finish(database, lease, attempts[1], number=1)
    assert points_of(database, lease, 0) == points_of(database, lease, 1)
    assert [one["state"] for one in told(database, lease, "trial")] == ["running", "running", "complete", "complete"]
    with database.read() as session:
        kinds = [one.kind for one in events.after(session, lease.job_id, 0) if one.data.get("number") == 0]
    assert kinds == ["trial", "points", "points", "trial"]


def test_an_unfinished_run_begins_anew_without_its_points(database: Database, lease: Lease) -> None:
    start(database, lease)
    append(database, lease, 1, [point(10), point(20)])
    assert start(database, lease) == 2
    assert points_of(database, lease) == []
    append(database, lease, 2, [point(10)])
    assert points_of(database, lease) == [point(10)]


def test_steps_of_earlier_attempts_are_kept_but_for_those_that_were_read_back(database: Database, lease: Lease) -> None:
    start(database, lease)
    append(database, lease, 1, [point(10), point(20)])
    start(database, lease)
    append(database, lease, 2, [point(10)])
    assert repeated(database, lease) == 20
    start(database, lease)
    with database.begin() as session:
        place = {"stage": "search", "number": 0, "attempt": 3}
        runs.append(session, lease, **place, points=[point(10), point(20)], restored=10)
    assert repeated(database, lease) == 20 + 10 - 10


def test_a_stale_attempt_adds_no_points_and_ends_nothing(database: Database, lease: Lease) -> None:
    start(database, lease)
    start(database, lease)
    append(database, lease, 2, [point(10)])
    with pytest.raises(Conflict, match=r"attempt 1 must be running, but search run 0 .* is running in attempt 2"):
        append(database, lease, 1, [point(20)])
    with pytest.raises(Conflict, match="attempt 1 must be running"):
        finish(database, lease, attempt=1)
    assert points_of(database, lease) == [point(10)]
    assert len(told(database, lease, "points")) == 1


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_a_finished_run_is_neither_repeated_nor_added_to(database: Database, lease: Lease, state: str) -> None:
    start(database, lease)
    append(database, lease, 1, [point(10)])
    finish(database, lease, state=state)
    with pytest.raises(Conflict, match=f"is {state}"):
        start(database, lease)
    with pytest.raises(Conflict, match=f"is {state}"):
        append(database, lease, 1, [point(20)])
    assert points_of(database, lease) == [point(10)]


def test_an_end_told_twice_is_one_end_and_another_end_is_refused(database: Database, lease: Lease) -> None:
    start(database, lease)
    finish(database, lease, value=0.9)
    finish(database, lease, value=0.9)
    assert len(told(database, lease, "trial")) == 2
    with pytest.raises(Conflict, match=r"with value 0\.9"):
        finish(database, lease, value=0.8)
    with pytest.raises(Conflict, match="is complete"):
        finish(database, lease, state="failed", value=None)


def test_a_run_that_was_never_started_is_not_found(database: Database, lease: Lease) -> None:
    with pytest.raises(NotFound, match="never started"):
        append(database, lease, 1, [point(10)])
    with pytest.raises(NotFound, match="never started"):
        finish(database, lease)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(database: Database, lease: Lease, bad: float) -> None:
    start(database, lease, max_lr=bad)
    append(database, lease, 1, [point(10, metric=bad, loss=bad)])
    finish(database, lease, value=bad)
    finish(database, lease, value=bad)
    with database.begin() as session:
        jobs.set_range_test(session, lease, {"curve": {"loss": [1.0, bad], "interval": (bad, 2.0)}})
    with database.read() as session:
        run = runs.get(session, lease.job_id, "search", 0)
        job = jobs.get(session, lease.job_id)
    assert (run.value, run.run) == (None, {"max_lr": None})
    assert points_of(database, lease) == [point(10, metric=None) | {"loss": [None, 1.0]}]
    assert job.range_test == {"curve": {"loss": [1.0, None], "interval": [None, 2.0]}}


def test_text_that_postgresql_refuses_is_made_storable(database: Database, lease: Lease) -> None:
    start(database, lease)
    finish(database, lease, state="failed", value=None, error="bad \0 byte, half a \ud83d pair, \u00e9 and \U0001f600")
    with database.read() as session:
        run = runs.get(session, lease.job_id, "search", 0)
    assert run.error == "bad \ufffd byte, half a ? pair, \u00e9 and \U0001f600"


def test_runs_are_listed_by_stage_and_number(database: Database, lease: Lease) -> None:
    for number in (2, 0, 1, 10):
        start(database, lease, number)
    start(database, lease, 0, stage="range_test")
    finish(database, lease, number=1)
    finish(database, lease, number=10, state="pruned")
    with database.read() as session:
        assert [run.number for run in runs.of_stage(session, lease.job_id, "search")] == [0, 1, 2, 10]
        assert [run.number for run in runs.finished(session, lease.job_id, "search")] == [1, 10]
        assert [run.number for run in runs.browse(session, lease.job_id, "search", limit=2)] == [0, 1]
        assert [run.number for run in runs.browse(session, lease.job_id, "search", limit=2, after=1)] == [2, 10]
        assert [run.number for run in runs.of_stage(session, lease.job_id, "confirm")] == []


def test_points_of_many_runs_come_each_in_order(database: Database, lease: Lease) -> None:
    for number in range(3):
        start(database, lease, number)
    for step in (10, 20, 30):
        for number in range(2):
            append(database, lease, 1, [point(step + number)], number)
    with database.read() as session:
        found = runs.points(session, lease.job_id, "search", [1, 0, 2])
    assert {number: [p["step"] for p in points] for number, points in found.items()} == {
        0: [10, 20, 30],
        1: [11, 21, 31],
        2: [],
    }


@pytest.mark.parametrize(("direction", "best"), [("maximize", 7), ("minimize", 3)])
def test_a_sample_holds_the_best_run_and_the_best_so_far_over_all(
    database: Database, lease: Lease, direction: str, best: int
) -> None:
    values = [0.5, 0.6, None, 0.1, 0.4, 0.5, 0.3, 0.9, 0.2, 0.5]
    for number, value in enumerate(values):
        start(database, lease, number)
        finish(database, lease, number=number, value=value)
    start(database, lease, len(values))
    with database.read() as session:
        shown = runs.sample(session, lease.job_id, "search", direction, limit=3)
        tally = runs.tally(session, lease.job_id)
    numbers = [row["number"] for row in shown]
    assert numbers == sorted({0, 4, 8, best})
    so_far = max if direction == "maximize" else min
    for row in shown:
        seen = [value for value in values[: row["number"] + 1] if value is not None]
        assert (row["best"], row["value"], row["ratio"]) == (so_far(seen), values[row["number"]], 3.0)
    assert sorted(tally) == [("search", "complete", 10, 200), ("search", "running", 1, 0)]


def test_a_long_run_is_thinned_as_it_is_recorded(database: Database, lease: Lease) -> None:
    steps = 100_000
    attempt = start(database, lease, steps=steps)
    for end in range(1000, steps + 1, 1000):
        losses = [1 / step for step in range(end - 999, end + 1)]
        metric = 0.5 if end == steps else None
        new = {"step": end, "lr": [0.1] * 1000, "loss": losses, "metric": metric, "diverged": False}
        append(database, lease, attempt, [new])
    kept = points_of(database, lease)
    assert len(kept) == 500
    assert len(json.dumps(kept)) < 100_000
    assert [kept[0]["loss"][0], kept[-1]["loss"][-1], kept[-1]["metric"]] == [1.0, 1 / steps, 0.5]
    assert [point["step"] for point in kept] == list(range(200, steps + 1, 200))
    assert kept[0]["mean"] == pytest.approx(sum(1 / step for step in range(1, 201)) / 200)
    assert sum(len(event["points"]) for event in told(database, lease, "points")) <= 500


def test_a_piece_of_a_long_run_grows_in_its_place(database: Database, lease: Lease) -> None:
    attempt = start(database, lease, steps=1_000_000)
    for step in (500, 1000, 1500):
        append(database, lease, attempt, [point(step, metric=None, loss=float(step))])
    (only,) = points_of(database, lease)
    assert (only["step"], only["mean"]) == (1500, pytest.approx((501 + 1001 + 1501) / 6))
    append(database, lease, attempt, [point(2500, metric=None)])
    assert [one["step"] for one in points_of(database, lease)] == [2000, 2500]


def test_where_the_runs_stand_is_told_once_and_forgotten_at_the_end(database: Database, lease: Lease) -> None:
    for step in (10, 20):
        one = {"stage": "search", "number": 0, "step": step, "steps": 100, "loss": 0.5}
        with database.begin() as session:
            jobs.progress(session, lease, stage="search", progress=step / 100, steps=step, under_way=[one])
    assert [event["under_way"][0]["step"] for event in told(database, lease, "progress")] == [20]
    with database.begin() as session:
        assert jobs.get(session, lease.job_id).under_way[0]["step"] == 20
        jobs.succeed(session, lease)
        assert jobs.get(session, lease.job_id).under_way is None
