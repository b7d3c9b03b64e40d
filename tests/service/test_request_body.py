import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from service.settings import Settings

JSON = {"Content-Type": "application/json"}
SPEC = b'{"task": "a:b"}'

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def is_too_large(answer: httpx.Response, limit_bytes: int) -> bool:
    problem = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and (answer.status_code, problem["status"]) == (413, 413)
        and f"at most {limit_bytes} bytes" in problem["detail"]
    )


def padded(size: int) -> bytes:
    return SPEC + b" " * (size - len(SPEC))


def test_a_body_of_just_the_limit_is_read(client: httpx.Client, settings: Settings) -> None:
    answer = client.post("/v1/jobs", content=padded(settings.body_limit), headers=JSON)
    assert answer.status_code == 201


def test_a_body_above_the_limit_is_refused(client: httpx.Client, settings: Settings) -> None:
    answer = client.post("/v1/jobs", content=padded(settings.body_limit + 1), headers=JSON)
    assert is_too_large(answer, settings.body_limit)


def test_a_route_that_reads_no_body_refuses_a_large_one_too(client: httpx.Client, settings: Settings) -> None:
    for path in ("/v1/jobs/x/cancel", "/nope"):
        assert is_too_large(client.post(path, content=padded(settings.body_limit + 1)), settings.body_limit)


def test_an_announced_size_is_refused_before_the_body_is_sent(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["status"]) == (413, 413)
    connection.close()


def test_a_body_of_unknown_size_is_not_kept_beyond_the_limit(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    before = psutil.Process().memory_info().rss
    megabytes = iter([b" " * 2**20] * 64)
    connection.request("POST", "/v1/jobs", megabytes, JSON, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["status"]) == (413, 413)
    assert psutil.Process().memory_info().rss - before < 2**25
    connection.close()


def test_a_chunked_body_is_answered_as_any_other(client: httpx.Client, settings: Settings) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        yield SPEC
        for _ in range(size // 1024):
            yield b" " * 1024

    answer: Any = client.post("/v1/jobs", content=chunks(settings.body_limit // 2), headers=JSON)
    assert answer.status_code == 201
    answer = client.post("/v1/jobs", content=chunks(settings.body_limit + 4096), headers=JSON)
    assert is_too_large(answer, settings.body_limit)


def test_a_gzipped_body_is_read(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=gzip.compress(SPEC), headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status_code == 201


def test_a_gzipped_body_is_never_unzipped_beyond_the_limit(client: httpx.Client, settings: Settings) -> None:
    bomb = gzip.compress(padded(settings.body_limit + 1))
    answer = client.post("/v1/jobs", content=bomb, headers=JSON | {"Content-Encoding": "gzip"})
    assert is_too_large(answer, settings.body_limit)


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [(SPEC, "gzip", 400), (gzip.compress(SPEC, mtime=0)[:-9], "gzip", 400), (SPEC, "br", 415)],
    ids=["not gzipped", "broken off", "another encoding"],
)
def test_a_body_that_is_not_what_it_is_said_to_be_is_refused(
    client: httpx.Client, content: bytes, encoding: str, status: int
) -> None:
    answer = client.post("/v1/jobs", content=content, headers=JSON | {"Content-Encoding": encoding})
    assert answer.status_code == status
