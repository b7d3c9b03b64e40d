import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx_sse import EventSource

from clr.client.event_stream import Event
from service.routes import events
from service.store import jobs

Submit = Callable[..., dict[str, Any]]


@contextmanager
def following(client: httpx.Client, job_id: str, last_id: int | None = None) -> Iterator[Iterator[Event]]:
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=10) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield (Event.of(sent) for sent in EventSource(answer).iter_sse() if sent.data)


def all_of(client: httpx.Client, job_id: str, last_id: int | None = None) -> list[Event]:
    with following(client, job_id, last_id) as stream:
        return list(stream)


def test_events_come_as_they_happen_until_the_final_state(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    with following(client, job_id) as stream:
        first = next(stream)
        assert (first.kind, first.data) == ("state", {"state": "queued"})
        worker.claim()
        assert next(stream).data["state"] == "running"
        worker.write(jobs.progress, stage="range_test", progress=0.5, steps=10)
        event = next(stream)
        assert (event.kind, event.data) == ("progress", {"stage": "range_test", "progress": 0.5, "steps": 10})
        worker.run("search", 0, [{"step": 4, "lr": [0.1], "loss": [1.0], "metric": 0.5, "diverged": False}], value=0.5)
        assert [next(stream).kind for _ in range(3)] == ["trial", "points", "trial"]
        worker.end()
        assert next(stream).data == {"state": "succeeded"}
        assert next(stream, None) is None


def test_a_stream_resumes_after_the_last_event_seen(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    for step in range(5):
        worker.write(jobs.progress, stage="search", progress=step / 5, steps=step)
    worker.end("fail", error="no more")
    whole = all_of(client, job_id)
    assert len(whole) == 8
    for index, event in enumerate(whole):
        assert all_of(client, job_id, event.id) == whole[index + 1 :]
    assert all_of(client, job_id, 0) == whole
    assert all_of(client, job_id, 2**63 - 1) == []


def test_more_events_than_one_look_finds_all_come_in_order(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()

    def write_many(session: Any, lease: Any) -> None:
        for step in range(1300):
            jobs.progress(session, lease, stage="search", progress=0.5, steps=step)

    worker.write(write_many)
    worker.end()
    found = all_of(client, job_id)
    assert [event.data["steps"] for event in found if event.kind == "progress"] == list(range(1300))
    assert (len({event.id for event in found}), found[-1].data) == (1303, {"state": "succeeded"})


def test_nothing_is_missed_while_it_is_written(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()

    def write() -> None:
        for step in range(60):
            worker.write(jobs.progress, stage="search", progress=0.5, steps=step)
            time.sleep(0.01)  # the pace of a worker
        worker.end()

    writer = threading.Thread(target=write)
    writer.start()
    found: list[Event] = []
    while not found or found[-1].data.get("state") != "succeeded":  # a follower whose connection keeps dropping
        with following(client, job_id, found[-1].id if found else None) as stream:
            found += [event for event, _ in zip(stream, range(7), strict=False)]
    writer.join(10)
    assert [event.data["steps"] for event in found if event.kind == "progress"] == list(range(60))


def test_events_of_other_jobs_stay_out(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id, other = submit()["id"], submit()["id"]
    for one in (other, job_id):
        client.post(f"/v1/jobs/{one}/cancel")
    assert [event.data["state"] for event in all_of(client, job_id)] == ["queued", "cancelled"]


def test_a_stream_ends_when_its_job_is_deleted(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    with following(client, job_id) as stream:
        next(stream)
        client.post(f"/v1/jobs/{job_id}/cancel")
        client.delete(f"/v1/jobs/{job_id}")
        assert [event.data["state"] for event in stream] in ([], ["cancelled"])


def test_streams_hold_no_connection_to_the_database(
    client: httpx.Client, app: FastAPI, worker: Any, submit: Submit
) -> None:
    job_id = submit()["id"]
    opened = [client.stream("GET", f"/v1/jobs/{job_id}/events") for _ in range(40)]
    try:
        for stream in opened:
            assert next(stream.__enter__().iter_bytes()).startswith(b"event: state")
        assert client.get(f"/v1/jobs/{job_id}").status_code == 200
    finally:
        for stream in opened:
            stream.__exit__(None, None, None)


def test_an_idle_stream_is_kept_alive_by_comments(
    client: httpx.Client, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events.PING_S == 15
    monkeypatch.setattr(events, "PING_S", 0.1)
    with client.stream("GET", f"/v1/jobs/{submit()['id']}/events") as answer:
        lines = (line for line in answer.iter_lines() if line.startswith((":", "event:")))
        assert any(line == "event: state" for line in lines)
        assert next(lines).startswith(":")


def test_a_bad_last_event_id_is_refused(client: httpx.Client, submit: Submit) -> None:
    job_id = submit()["id"]
    for value in ("x", "-1", str(2**63), "9" * 400, "1.5"):
        answer = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": value})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), value
        assert answer.json()["errors"][0]["field"] == "last-event-id"


def test_a_follower_that_goes_away_amid_many_events_leaves_no_line_in_the_log(
    client: httpx.Client, worker: Any, submit: Submit, capfd: pytest.CaptureFixture[str]
) -> None:
    job_id = submit()["id"]
    worker.claim()

    def write_many(session: Any, lease: Any) -> None:
        for step in range(1000):
            jobs.progress(session, lease, stage="search", progress=0.5, steps=step)

    worker.write(write_many)
    for _ in range(10):
        with following(client, job_id) as stream:
            next(stream)
    assert client.get("/healthz").status_code == 200
    assert "Traceback" not in capfd.readouterr().err
