"""Many followers of jobs, fed by one look at the store."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from service.store import jobs

Submit = Callable[..., dict[str, Any]]


def test_what_followers_cost_the_database_does_not_depend_on_how_many_they_are(
    client: httpx.Client, app: FastAPI, worker: Any, submit: Submit
) -> None:
    job_id = submit()["id"]
    worker.claim()
    opened = [client.stream("GET", f"/v1/jobs/{job_id}/events") for _ in range(40)]
    lines = [stream.__enter__().iter_lines() for stream in opened]

    def told(number: int) -> None:
        for one in lines:
            assert any(f'"steps":{number}' in line.replace(" ", "") for line in one)

    worker.write(jobs.progress, stage="search", progress=0.1, steps=1)
    told(1)
    statements: list[str] = []
    engine = app.state.database._engine

    @event.listens_for(engine, "before_cursor_execute")
    def _count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM event" in statement and "count" not in statement:
            statements.append(statement)

    for number in range(2, 6):
        worker.write(jobs.progress, stage="search", progress=0.1, steps=number)
        told(number)
    event.remove(engine, "before_cursor_execute", _count)
    worker.end()
    for one, stream in zip(lines, opened, strict=True):
        assert any('"succeeded"' in line for line in one)
        stream.__exit__(None, None, None)
    news = [statement for statement in statements if "event.data" in statement]
    assert len(news) <= 4, "each event is read once, whoever follows"


def test_a_follower_that_comes_late_or_falls_behind_misses_nothing(
    client: httpx.Client, app: FastAPI, worker: Any, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.feed.BATCHES", 1)
    monkeypatch.setattr("service.feed.POLL_S", 0.001)
    job_id = submit()["id"]
    worker.claim()
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as early:
        first = early.iter_lines()
        next(first)
        for step in range(300):
            worker.write(jobs.progress, stage="search", progress=0.5, steps=step)
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as late:
            worker.end()
            for lines in (first, late.iter_lines()):
                steps = [line for line in lines if line.startswith("data:") and "steps" in line]
                assert len(steps) == 300
    assert not app.state.feed._jobs, "nobody follows any more"
