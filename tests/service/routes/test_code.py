"""Uploads as any client makes them, on both databases."""

import hashlib
import io
import threading
import zipfile
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from service.store import code
from service.store.database import Database
from tests.service.conftest import serving

sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def bundle(**files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files or {"task.py": "import clr"}).items():
            archive.writestr(name, text)
    return data.getvalue()


def path(data: bytes) -> str:
    return f"/v1/code/{hashlib.sha256(data).hexdigest()}"


def test_code_is_stored_once_and_can_be_asked_for(client: httpx.Client, database: Database) -> None:
    data = bundle()
    assert client.head(path(data)).status_code == 404
    assert client.get(path(data)).json()["detail"].startswith("no code has the digest")
    first = client.put(path(data), content=data)
    assert (first.status_code, first.headers["location"]) == (201, path(data))
    assert first.json() | {"created_at": None} == {
        "sha256": path(data)[-64:],
        "size": len(data),
        "files": 1,
        "created_at": None,
    }
    again = client.put(path(data), content=data)
    assert (again.status_code, again.json()) == (200, first.json())
    assert client.head(path(data)).status_code == 200
    assert client.get(path(data)).json() == first.json()
    with database.read() as session:
        assert code.data(session, path(data)[-64:]) == data
    acts = client.get("/v1/audit").json()["items"]
    assert [(act["action"], act["detail"]) for act in acts] == [("upload", path(data)[-64:])]


def test_two_uploads_of_the_same_at_once_store_it_once(client: httpx.Client) -> None:
    data, statuses, start = bundle(**{"task.py": "x" * 1000}), list[int](), threading.Barrier(4)

    def upload() -> None:
        start.wait(10)
        statuses.append(client.put(path(data), content=data).status_code)

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200, 200, 200, 201]


@sqlite_alone
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bundle(**{"../task.py": "1"}), "within the bundle"),
        (b"not a zip", "must be a zip file"),
        (bundle(**{"requirements.txt": "torch"}), "CLR_CODE_REQUIREMENTS"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_rule_and_the_value(
    client: httpx.Client, data: bytes, says: str
) -> None:
    answer = client.put(path(data), content=data)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert error["field"] == "body"
    assert says in error["rule"]
    assert error["value"]
    assert client.head(path(data)).status_code == 404


@sqlite_alone
def test_another_digest_than_the_bytes_have_is_refused(client: httpx.Client) -> None:
    answer = client.put(f"/v1/code/{'0' * 64}", content=bundle())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["value"] == path(bundle())[-64:]
    assert client.put("/v1/code/0123ABC", content=bundle()).json()["errors"][0]["field"] == "sha256"


@sqlite_alone
def test_code_has_a_limit_of_its_own(client: httpx.Client, settings: Settings) -> None:
    noise = hashlib.shake_128(b"0").hexdigest(settings.code_limit)
    large = bundle(**{"weights.txt": noise[:200_000]})
    assert settings.body_limit < len(large) < settings.code_limit
    assert client.put(path(large), content=large).status_code == 201
    answer = client.put(path(large), content=noise)
    assert answer.status_code == 413
    assert str(settings.code_limit) in answer.json()["detail"]


@sqlite_alone
def test_a_job_names_its_code_and_the_task_in_it(client: httpx.Client, worker: Any) -> None:
    data = bundle()
    spec = {"task": "task:mine", "code": path(data)[-64:]}
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["code"]
    assert path(data) in answer.json()["detail"]
    client.put(path(data), content=data)
    assert client.post("/v1/jobs", json=spec).json()["spec"]["code"] == path(data)[-64:]
    answer = client.post("/v1/jobs", json=spec | {"task": "digits"})
    assert [(error["field"], error["value"]) for error in answer.json()["errors"]] == [("task", "digits")]


@sqlite_alone
def test_a_service_takes_no_code_unless_it_is_told_to(database_url: str) -> None:
    data = bundle()
    settings = Settings(database_url=database_url)
    with serving(create_app(settings)) as url, httpx.Client(base_url=url) as client:
        for answer in (client.put(path(data), content=data), client.get(path(data))):
            assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
            assert "CLR_ALLOW_CODE" in answer.json()["detail"]
