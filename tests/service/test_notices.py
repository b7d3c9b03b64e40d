"""Notices, on their way to a real receiver."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service import notices as delivery
from service.app import create_app
from service.settings import Settings
from service.store import notices
from service.store.database import Database
from service.store.models import NoticeRow
from tests.service.conftest import Worker, serving

Submit = Callable[..., dict[str, Any]]


class Receiver:
    """Listens on a port of its own; answers with ``answers``, then 204, and keeps what came."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.came:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.received.append((self.path, headers, body))
                    status = receiver.answers.pop(0) if receiver.answers else 204
                    receiver.came.notify_all()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?job=mine"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def wait(self, number: int, timeout_s: float = 30) -> list[tuple[str, dict[str, str], bytes]]:
        with self.came:
            assert self.came.wait_for(lambda: len(self.received) >= number, timeout_s), self.received
            return list(self.received)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(30)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(notices, "PAUSES_S", (0.1,) * 3)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, database_url=database_url, notify_networks="127.0.0.0/8")


def until(holds: Callable[[], Any], timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def told(client: httpx.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"/v1/jobs/{job['id']}/notices").json()["items"]
    return items


def verified(secret_file: Path, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The body, after what the Standard Webhooks ask of a receiver."""
    secret = base64.b64decode(secret_file.read_text().strip().removeprefix("whsec_"))
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret, message, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    document: dict[str, Any] = json.loads(body)
    return document


def test_the_first_bounds_and_the_end_are_told_once_each_and_signed(
    client: httpx.Client,
    settings: Settings,
    worker: Worker,
    submit: Submit,
    recommendation: dict[str, Any],
    receiver: Receiver,
) -> None:
    job = submit(name="told", notify={"url": receiver.url})
    submit(name="not told", priority=-1)
    worker.claim()
    worker.recommend(recommendation | dict.fromkeys(("base_lr", "max_lr")))  # inconclusive: no bounds yet
    worker.recommend(recommendation)
    worker.recommend(recommendation | {"max_lr": 0.007})
    receiver.wait(1)
    worker.end()
    received = receiver.wait(2)
    worker.claim()
    worker.end()
    documents = [verified(settings.notify_secret_file, headers, body) for _, headers, body in received]
    assert [path for path, _, _ in received] == ["/hook?job=mine"] * 2
    assert received[0][1]["host"] == f"127.0.0.1:{receiver.port}"
    assert [document["type"] for document in documents] == ["job.bounds", "job.ended"]
    assert documents[0]["recommendation"]["max_lr"] == recommendation["max_lr"]
    expected = {"id": job["id"], "name": "told", "task": "digits", "state": "succeeded", "error": None}
    assert documents[1]["job"] == expected
    assert documents[1]["recommendation"]["max_lr"] == 0.007
    until(lambda: all(notice["delivered_at"] for notice in told(client, job)))
    assert [notice["id"] for notice in told(client, job)] == [headers["webhook-id"] for _, headers, _ in received]
    assert len(receiver.received) == 2
    assert settings.notify_secret_file.stat().st_mode & 0o777 == 0o600


def test_what_does_not_arrive_is_sent_again_under_the_same_id_and_given_up_in_the_end(
    client: httpx.Client, submit: Submit, worker: Worker, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 429]
    job = submit(notify={"url": receiver.url})
    client.post(f"/v1/jobs/{job['id']}/cancel")
    received = receiver.wait(4)
    until(lambda: told(client, job)[0]["delivered_at"])
    assert {headers["webhook-id"] for _, headers, _ in received} == {told(client, job)[0]["id"]}
    assert {path for path, _, _ in received} == {"/hook?job=mine"}, "no redirect is followed"
    receiver.answers = [503] * 9
    other = submit(notify={"url": receiver.url})
    client.post(f"/v1/jobs/{other['id']}/cancel")
    notice = until(lambda: [one for one in told(client, other) if one["given_up"]])[0]
    assert (notice["attempts"], notice["error"], notice["delivered_at"]) == (4, "HTTP 503", None)


def test_of_several_processes_one_delivers(
    app: FastAPI, settings: Settings, client: httpx.Client, submit: Submit, worker: Worker, receiver: Receiver
) -> None:
    with serving(create_app(settings)), serving(create_app(settings)):
        jobs = [submit(notify={"url": receiver.url}) for _ in range(8)]
        for job in jobs:
            client.post(f"/v1/jobs/{job['id']}/cancel")
        until(lambda: all(told(client, job)[0]["delivered_at"] for job in jobs))
    assert sorted(json.loads(body)["job"]["id"] for _, _, body in receiver.received) == sorted(
        job["id"] for job in jobs
    )


def test_an_attempt_whose_process_died_is_made_again(
    client: httpx.Client, database: Database, submit: Submit, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "HELD_S", 0.5)
    job = submit(notify={"url": receiver.url})
    with database.begin() as session:
        notices.add(session, job["id"], "job.ended")
        (notice, _) = notices.due(session, 1)[0]
        assert notices.begin(session, notice), "and nobody goes on with it"
        assert not notices.begin(session, notice), "one alone has it"
    receiver.wait(1)
    assert until(lambda: told(client, job)[0]["delivered_at"] and told(client, job))[0]["attempts"] == 2


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1.2.3", "10.0.0.8", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::"),
    ],
)
def test_no_notice_goes_to_this_machine_or_a_private_network(host: str) -> None:
    assert not delivery.may_go_to(ip_address(host), [])


@pytest.mark.parametrize("host", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_public_address_may_be_told(host: str) -> None:
    assert delivery.may_go_to(ip_address(host), [])


def test_an_admin_may_allow_a_network_and_no_other() -> None:
    allowed = [ip_network("10.1.0.0/16")]
    assert delivery.may_go_to(ip_address("10.1.2.3"), allowed)
    assert delivery.may_go_to(ip_address("::ffff:10.1.2.3"), allowed)
    assert not delivery.may_go_to(ip_address("10.2.0.1"), allowed)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/x", "http://[::1]:8000/", "https://10.0.0.1", "http://localhost:8000/v1/jobs"),
        *("ftp://example.com/x", "file:///etc/passwd", "//example.com", "example.com", "http://", "http:///x", ""),
        *("http://user:secret@example.com/", "http://exa mple.com", "http://[::1", "https://example.com:0/"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_address_that_can_never_be_told_is_refused_with_field_rule_and_value(
    database: Database, tmp_path: Path, worker: Worker, url: str
) -> None:
    app = create_app(Settings(home=tmp_path, database_url=database.url))
    with serving(app) as service:
        answer = httpx.post(f"{service}/v1/jobs", json={"task": "digits", "notify": {"url": url}}, timeout=30)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "notify.url")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_name_that_leads_to_this_machine_is_not_asked(
    database: Database, tmp_path: Path, worker: Worker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: Any, **__: Any) -> Any:
        return [(None, None, None, "", ("93.184.216.34", 0)), (None, None, None, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    app = create_app(Settings(home=tmp_path, database_url=database.url))
    with serving(app) as service, httpx.Client(base_url=service, timeout=30) as client:
        url = f"http://innocent.example:{receiver.port}/"
        job = client.post("/v1/jobs", json={"task": "digits", "notify": {"url": url}}).json()
        client.post(f"/v1/jobs/{job['id']}/cancel")
        notice = until(lambda: [one for one in told(client, job) if one["error"]])[0]
    assert "CLR_NOTIFY_NETWORKS" in notice["error"]
    assert receiver.received == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_without_notify_has_none_in_its_spec_and_tells_nobody(
    client: httpx.Client, database: Database, submit: Submit
) -> None:
    job = submit()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert "notify" not in job["spec"]
    with database.read() as session:
        assert session.query(NoticeRow).count() == 0
