import asyncio
import inspect
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import clr
from clr.client import sync as client_module
from clr.client.asynchronous import AsyncClient, AsyncJob
from clr.client.event_stream import Event
from clr.client.service_run import AsyncServiceRun, ServiceRun
from clr.client.sync import Client, ClientError
from clr.errors import InvalidArgument
from clr.tuning.recommendation import Recommendation
from service.store import events, jobs, recommendations, runs
from service.store.database import Database
from service.store.jobs import Lease
from tests.clr.client.conftest import DIGITS, Api, Relay, claim

FOUND = {
    "source": "range_test",
    "policy": "triangular",
    "base_lr": 0.01,
    "max_lr": 0.1,
    "ratio": 10.0,
    "stepsize": 100,
    "step_size_up": 100,
    "step_size_down": 100,
    "stepsize_multiplier": 5.0,
    "iterations_per_epoch": 20,
    "gamma": None,
    "interval": None,
    "confidence": "high",
    "reasons": [],
    "warnings": [],
    "evidence": None,
    "cost": None,
}


def test_a_submitted_job_is_listed_found_by_its_id_and_cancelled(client: Client) -> None:
    job = client.submit({"task": "digits", "name": "mine"})
    assert job.state == "queued"
    assert [found.id for found in client.jobs(name="mine", state="queued")] == [job.id]
    assert list(client.jobs(name="other")) == []
    assert client.job(job.id).cancel().state == "cancelled"
    assert job.refresh().finished


def test_a_refused_spec_is_an_error_that_names_every_field(client: Client) -> None:
    spec = {"task": "digits", "epochs": -1, "seed": -1, "batch_size": 0, "priority": 1000, "colour": "red"}
    with pytest.raises(ClientError) as caught:
        client.submit(spec)
    assert caught.value.status == 422
    assert len(caught.value.problem["errors"]) == 5
    for field in ("epochs", "seed", "batch_size", "priority", "colour"):
        assert str(caught.value).count(f"{field}: ") == 1


def test_a_job_that_is_not_there_is_an_error_in_the_services_own_words(client: Client) -> None:
    with pytest.raises(ClientError, match="nosuchjob") as caught:
        client.job("nosuchjob")
    assert caught.value.status == 404


def test_an_empty_id_is_refused_before_it_is_sent() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidArgument, match="job_id"):
        client.job("")


def test_an_id_cannot_reach_another_path(client: Client) -> None:
    with pytest.raises(ClientError):
        client.job("../tasks")


@pytest.mark.parametrize("fault", ["dropped", "503"])
def test_a_submission_whose_answer_was_lost_is_sent_again_and_stays_one_job(relay: Relay, fault: str) -> None:
    relay.faults = [fault]
    with Client(relay.url) as client:
        job = client.submit({"task": "digits"})
        assert [found.id for found in client.jobs()] == [job.id]
    assert sum(request.startswith(b"POST /v1/jobs ") for request in relay.requests) == 2


def test_a_cancellation_that_may_have_arrived_is_not_sent_again(client: Client, relay: Relay) -> None:
    job = client.submit({"task": "digits"})
    relay.faults = ["dropped"]
    with Client(relay.url) as broken, pytest.raises(ClientError):
        clr.client.Job(broken, job.document).cancel()
    assert len(relay.requests) == 1


def test_the_same_key_with_another_spec_is_refused(client: Client) -> None:
    first = client.submit({"task": "digits"}, idempotency_key="k")
    assert client.submit({"task": "digits"}, idempotency_key="k").id == first.id
    with pytest.raises(ClientError) as caught:
        client.submit({"task": "digits", "seed": 1}, idempotency_key="k")
    assert caught.value.status == 409


def test_the_token_is_sent_with_each_call(relay: Relay) -> None:
    with Client(relay.url, token="secret") as client:
        client.tasks()
    assert b"authorization: bearer secret\r\n" in relay.requests[0].lower()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_without_arguments_address_and_token_are_the_environments(
    kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLR_URL", raising=False)
    monkeypatch.setenv("CLR_TOKEN", "secret")
    assert kind().url == "http://127.0.0.1:8000"
    monkeypatch.setenv("CLR_URL", "https://clr.example/")
    assert kind().url == "https://clr.example"
    assert kind()._http.headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in kind("http://elsewhere")._http.headers, (
        "it is not told a token that was not meant for it"
    )


def test_a_service_that_is_not_there_is_an_error_that_names_its_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, patience_s=0.2) as client, pytest.raises(ClientError, match=url):
        client.tasks()


def test_an_address_without_http_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="localhost:8000"):
        Client("localhost:8000")


def test_all_jobs_come_over_several_pages_newest_first(client: Client, store: Database) -> None:
    with store.begin() as session:
        for number in range(120):
            jobs.submit(session, spec={"task": "digits"}, name=str(number), task="digits")
    assert [job.document["name"] for job in client.jobs()] == [str(number) for number in reversed(range(120))]


def test_tasks_come_with_the_schema_of_their_arguments(client: Client) -> None:
    assert client.tasks() == [DIGITS]


def test_a_recommendation_is_told_and_its_absence_with_a_reason(client: Client, store: Database) -> None:
    job = client.submit({"task": "digits"})
    with pytest.raises(ClientError, match="queued") as caught:
        job.recommendation()
    assert caught.value.status == 409
    lease = claim(store)
    with store.begin() as session:
        recommendations.put(session, lease, FOUND | {"job_id": job.id}, task="digits", optimizer="SGD")
    assert job.recommendation() == Recommendation(**FOUND | {"job_id": job.id})
    assert "CyclicLR(" in job.recommendation().to_python()


def test_waiting_ends_with_the_job_and_reports_on_the_way(client: Client, store: Database) -> None:
    job, seen, leases = client.submit({"task": "digits"}), list[str](), list[Lease]()

    def work(now: client_module.Job) -> None:
        seen.append(now.state)
        if now.state == "queued":
            leases.append(claim(store))
        elif now.state == "running":
            with store.begin() as session:
                jobs.fail(session, leases[0], "out of luck")

    assert job.wait(timeout_s=30, on_progress=work) is job
    assert seen == ["queued", "running", "failed"]
    assert job.document["error"] == "out of luck"


def test_waiting_gives_up_at_its_limit(client: Client) -> None:
    with pytest.raises(TimeoutError, match="still queued"):
        client.submit({"task": "digits"}).wait(timeout_s=0.1)


def test_events_go_on_over_a_restart_with_none_missed_and_none_twice(api: Api, client: Client, store: Database) -> None:
    job = client.submit({"task": "digits"})
    lease = claim(store)

    def tell(numbers: range) -> None:
        for number in numbers:
            with store.begin() as session:
                jobs.progress(session, lease, stage="search", progress=number / 100, steps=number)

    tell(range(1, 20))
    stream = client.events(job.id)
    got = [next(stream) for _ in range(10)]
    api.stop()
    tell(range(20, 40))
    api.start()
    with store.begin() as session:
        jobs.succeed(session, lease)
    got += stream
    with store.read() as session:
        stored = [(row.id, row.kind, row.data) for row in events.after(session, job.id, 0)]
    assert [(event.id, event.kind, event.data) for event in got] == stored
    assert got[-1].data["state"] == "succeeded"


def test_a_finished_job_has_no_events_after_its_last(client: Client) -> None:
    job = client.submit({"task": "digits"}).cancel()
    *_, last = client.events(job.id)
    assert last.data["state"] == "cancelled"
    assert list(client.events(job.id, after=last.id)) == []


def record(store: Database, lease: Lease) -> None:
    """A range test of one ramp and one short cycle, and two trials."""
    points = [
        {"step": 2, "lr": [0.01, 0.02], "loss": [2.0, 1.5], "metric": 0.5, "diverged": False},
        {"step": 3, "lr": [0.04], "loss": [None], "metric": None, "diverged": True},
    ]
    interval = {"base_lr": [0.005, 0.02], "max_lr": [0.05, 0.2]}
    bounds = {"base_lr": 0.01, "max_lr": 0.1, "interval": interval, "confidence": "high", "reasons": []}
    with store.begin() as session:
        for stage, number, policy in [("range_test", 0, "exponential_ramp"), ("range_test", 1, "triangular")]:
            place = {"stage": stage, "number": number}
            attempt = runs.start(session, lease, **place, params={"policy": policy}, run={"seed": 7})
            runs.append(session, lease, **place, attempt=attempt, points=points)
        for number in range(60):
            place = {"stage": "search", "number": number}
            attempt = runs.start(session, lease, **place, params={"ratio": 3.0}, run={})
            runs.append(session, lease, **place, attempt=attempt, points=points[:1])
            outcome = {"state": "complete", "value": 0.5, "steps": 2, "error": None}
            runs.finish(session, lease, **place, attempt=attempt, **outcome)
        jobs.set_range_test(session, lease, {"bounds": bounds, "smoothed": {"lr": [0.01, 0.02], "loss": [2.0, 1.5]}})


def test_what_was_found_comes_as_values_with_types(client: Client, store: Database, tmp_path: Path) -> None:
    job = client.submit({"task": "digits"})
    assert job.range_test().bounds is None
    record(store, claim(store))
    test = job.range_test()
    assert test.bounds is not None
    assert (test.bounds.max_lr, len(test.curves)) == (0.1, 1)
    (curve,) = test.curves
    assert (curve.lr, curve.steps, curve.metric, curve.diverged) == ([0.01, 0.02, 0.04], [2], [0.5], True)
    assert str(curve.loss) == "[2.0, 1.5, nan]"
    test.to_csv(tmp_path / "curve.csv")
    assert (tmp_path / "curve.csv").read_text().splitlines()[:3] == [
        "lr,loss,metric,seed",
        "0.01,2.0,,7",
        "0.02,1.5,0.5,7",
    ]
    trials = list(job.trials())
    assert [trial.number for trial in trials] == list(range(60))
    first = trials[0]
    assert (first.state, first.params, first.value, first.points) == ("complete", {"ratio": 3.0}, 0.5, [(2, 0.5)])
    assert first.started_at is not None
    assert first.started_at.utcoffset() is not None


def test_a_notebook_shows_a_job_with_its_picture_once_there_is_one(api: Api, client: Client, store: Database) -> None:
    job = client.submit({"task": "digits", "name": "<mine>"})
    assert "&lt;mine&gt;" in job._repr_html_()
    assert "image/svg+xml" not in job._repr_html_()
    record(store, claim(store))
    assert "<img alt='job &lt;mine&gt;' src='data:image/svg+xml;base64," in job._repr_html_()
    assert "image/svg+xml" in job.range_test()._repr_html_()


def test_waiting_can_show_the_progress(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job = client.submit({"task": "digits"}).cancel()
    job.wait(timeout_s=10, progress=True)
    assert capsys.readouterr().err == "cancelled 0 %, 0 steps\n"


def test_code_is_uploaded_once_and_its_job_names_it(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "task.py").write_text("import clr")
    with Client(relay.url) as client:
        relay.faults = ["none", "dropped"]
        digests = {client.upload_code(tmp_path / "src") for _ in range(3)}
        (digest,) = digests
        assert client.submit({"task": "task:mine", "code": digest}).document["spec"]["code"] == digest
        (tmp_path / "src" / "..passwd").write_text("a harmless name")
        assert client.upload_code(tmp_path / "src") != digest
    puts = [request for request in relay.requests if request.startswith(b"PUT ")]
    assert len(puts) == 3  # of which the first had its answer dropped


# The twin for asyncio


TWINS = [(Client, AsyncClient), (client_module.Job, AsyncJob), (ServiceRun, AsyncServiceRun)]
COMPUTED = {"lr", "scheduler", "evaluates"}
"""What a run tells without asking the service."""


@pytest.mark.parametrize(("plain", "twin"), TWINS)
def test_the_twins_have_the_same_methods_with_the_same_arguments(plain: type, twin: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if name[0] != "_"}

    assert methods(plain) == methods(twin)
    for name, method in inspect.getmembers(twin, inspect.isfunction):
        returns = inspect.signature(method).return_annotation
        waits = (
            inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method) or "AsyncIterator" in str(returns)
        )
        assert waits or name[0] == "_" or name in COMPUTED, f"{name} must not block"


def test_a_job_is_submitted_followed_and_read_without_blocking(relay: Relay, store: Database, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "task.py").write_text("import clr")

    async def use() -> None:
        relay.faults = ["dropped", "503"]
        async with AsyncClient(relay.url) as client:
            job = await client.submit({"task": "digits"})
            assert [found.id async for found in client.jobs()] == [job.id]
            assert await client.tasks() == [DIGITS]
            with pytest.raises(ClientError, match="queued"):
                await job.recommendation()
            lease = await asyncio.to_thread(claim, store)
            await asyncio.to_thread(record, store, lease)
            assert len([trial async for trial in job.trials()]) == 60
            assert len((await job.range_test()).curves) == 1
            following = asyncio.create_task(events_of(client, job.id))
            with store.begin() as session:
                recommendations.put(session, lease, FOUND | {"job_id": job.id}, task="digits", optimizer="SGD")
                jobs.succeed(session, lease)
            assert (await job.wait(timeout_s=30)).state == "succeeded"
            assert (await job.recommendation()).max_lr == 0.1
            assert (await following)[-1].data["state"] == "succeeded"
            assert await client.upload_code(tmp_path / "src") == await client.upload_code(tmp_path / "src")

    async def events_of(client: AsyncClient, job_id: str) -> list[Event]:
        return [event async for event in client.events(job_id)]

    asyncio.run(use())


class _Pieces(httpx.SyncByteStream):
    """A body that comes in pieces of one size."""

    def __init__(self, text: str, size: int) -> None:
        self.sent, self.size = text.encode(), size

    def __iter__(self) -> Iterator[bytes]:
        return (self.sent[at : at + self.size] for at in range(0, len(self.sent), self.size))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_whole_however_their_bytes_come(size: int) -> None:
    text = 'id: 1\r\nevent: points\r\ndata: {"name":\r\ndata: "é\u2028\x85"}\r\n\r\n: ping\n\nid: 2\ndata: {}\n'

    def answered(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Pieces(text, size))
        return httpx.Response(200, json={"id": "j", "state": "succeeded"})

    client = Client("http://h")
    client._http = httpx.Client(base_url="http://h", transport=httpx.MockTransport(answered))
    assert list(client._stream("j", 0)) == [Event(1, "points", {"name": "é\u2028\x85"})]


def test_the_client_needs_no_torch() -> None:
    program = "import clr, sys; clr.Client; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
