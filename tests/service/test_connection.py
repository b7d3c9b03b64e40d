"""Connections that ask for nothing, slowly, or twice: over raw sockets, as an attacker opens them."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from service import connection, request_body

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as opened:
        yield opened


def until_closed(opened: socket.socket, trickle: bytes = b"") -> bytes:
    """What is answered until the other side closes, a byte of ``trickle`` sent again and again meanwhile."""
    opened.settimeout(0.05 if trickle else 30)
    answer = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if trickle:
                opened.sendall(trickle)
            if not (piece := opened.recv(4096)):
                return answer
            answer += piece
        except TimeoutError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            return answer
    raise AssertionError("the connection must be closed")


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    monkeypatch.setattr(request_body, "GRACE_S", 0.5)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        (b"", b""),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n", b""),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n", b"X-A: b\r\n"),
    ],
)
def test_a_connection_without_a_whole_head_is_closed(url: str, sent: bytes, trickle: bytes) -> None:
    with connected(url) as opened:
        opened.sendall(sent)
        assert until_closed(opened, trickle) == b""


@pytest.mark.usefixtures("short_times")
def test_the_next_head_of_a_connection_has_no_more_time_than_the_first(url: str) -> None:
    with connected(url) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\n")
        answer = until_closed(opened, b"X-A: b\r\n")
        assert answer.count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("length", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_body_that_comes_too_slowly_is_refused_and_its_connection_closed(url: str, length: bytes) -> None:
    with connected(url) as opened:
        opened.sendall(b"POST /v1/bounds HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\n" + length + b"\r\n\r\n")
        head, _, body = until_closed(opened, b"1\r\nx\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"bytes a second" in body


@pytest.mark.usefixtures("short_times")
def test_a_body_that_nobody_reads_does_not_keep_its_connection(url: str) -> None:
    with connected(url) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
        assert until_closed(opened, b"x").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("short_times")
def test_a_long_answer_and_an_idle_client_are_given_their_time(client: httpx.Client) -> None:
    client.get("/healthz")
    time.sleep(1.5)
    assert client.get("/healthz").status_code == 200


@pytest.mark.usefixtures("short_times")
def test_half_open_connections_by_the_hundred_are_gone_and_the_service_answers(url: str, client: httpx.Client) -> None:
    parts = urlsplit(url)
    opened = [socket.create_connection((parts.hostname, parts.port), timeout=30) for _ in range(200)]
    for one in opened:
        one.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n")
    assert client.get("/healthz").status_code == 200
    for one in opened:
        with one:
            assert until_closed(one) == b""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_length_told_in_two_ways_closes_the_connection_before_what_was_smuggled(
    url: str, order: tuple[int, int]
) -> None:
    lengths = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with connected(url) as opened:
        opened.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n" + b"".join(lengths[i] for i in order) + b"\r\n" + smuggled
        )
        head, _, body = until_closed(opened).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["detail"].startswith("a body must have a Content-Length or a Transfer-Encoding")


@pytest.mark.parametrize("path", ["/signin", "/v1/jobs", "/v1/bounds", "/jobs/new", "/v1/code/" + "0" * 64, "/nope"])
def test_a_client_that_goes_away_within_its_body_leaves_no_line_in_the_log(
    url: str, path: str, capfd: pytest.CaptureFixture[str], client: httpx.Client
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    head = head.replace("POST", "PUT") if "code" in path else head
    for _ in range(20):
        with connected(url) as opened:
            opened.sendall(head.encode() + b"token=")
    for _ in range(20):  # the aborted ones are served before these
        assert client.get("/healthz").status_code == 200
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_every_answer_says_what_may_be_done_with_it(client: httpx.Client) -> None:
    paths = ("/v1/jobs", "/v1/jobs/x", "/healthz", "/dashboard/", "/api/studies", "/static/bundle.js", "/", "/nope")
    for path in (*paths, "/docs", "/openapi.json", "/metrics", "/assets/nope", "/signin"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["cache-control"], path
