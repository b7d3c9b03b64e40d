import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.access.principal import LAG_S
from service.app import create_app
from service.settings import Settings
from service.store import jobs, studies, tokens
from service.store.database import Database
from tests.service.conftest import serving

ROLES = ("read", "submit", "admin")
SPEC = {"task": "digits"}
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def token(database: Database) -> dict[str, str]:
    """A token of each role, named for it."""
    with database.begin() as session:
        return {role: tokens.create(session, role, role) for role in ROLES}


@pytest.fixture
def as_role(url: str, token: dict[str, str], worker: Any) -> Iterator[dict[str, httpx.Client]]:
    """A client of each role."""
    clients = {role: httpx.Client(base_url=url, headers=bearer(token[role]), timeout=30) for role in ROLES}
    yield clients
    for client in clients.values():
        client.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response, status: int) -> str:
    document = answer.json()
    assert (answer.status_code, document["status"]) == (status, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(document["detail"])


@sqlite_only
def test_without_tokens_anybody_on_the_machine_may_do_all(client: httpx.Client, worker: Any) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()
    assert job["submitted_by"] is None
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    acts = client.get("/v1/audit").json()["items"]
    assert [(act["token"], act["action"], act["job_id"]) for act in acts] == [
        (None, action, job["id"]) for action in ("delete", "cancel", "submit")
    ]


@sqlite_only
def test_without_tokens_it_goes_by_no_name_that_a_stranger_can_give_it(client: httpx.Client) -> None:
    for name in ("localhost", "127.0.0.2:80", "[::1]:8000", "workstation"):
        assert client.get("/v1/jobs", headers={"Host": name}).status_code == 200
    for name in ("evil.example", "127.0.0.1.evil.example:8000", "8.8.8.8"):
        answer = client.post("/v1/jobs", json=SPEC, headers={"Host": name, "Sec-Fetch-Site": "same-origin"})
        assert "clr token create" in problem(answer, 403)


def test_with_tokens_nothing_but_health_is_served_without_one(client: httpx.Client, token: Any, worker: Any) -> None:
    paths = ("/v1/jobs", "/v1/tasks", "/docs", "/openapi.json", "/dashboard", "/api/studies", "/static/bundle.js", "/x")
    for path in paths:
        answer = client.get(path)
        assert "Authorization: Bearer" in problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="clr"'
    problem(client.post("/v1/jobs", json=SPEC), 401)
    assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@sqlite_only
def test_a_token_that_is_none_is_refused(client: httpx.Client, token: dict[str, str]) -> None:
    for value in ("Bearer", "Bearer x", f"Bearer {token['read']}x", "bearer x y"):
        answer = client.get("/v1/jobs", headers={"Authorization": value})
        assert "not known" in problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="clr", error="invalid_token"'
    assert "Bearer" in problem(client.get("/v1/jobs", headers={"Authorization": "Basic eDp5"}), 401)
    problem(client.get("/v1/jobs", params={"token": token["admin"], "clr_token": token["admin"]}), 401)


@sqlite_only
def test_each_role_may_do_its_own_and_what_those_below_may(as_role: dict[str, httpx.Client]) -> None:
    for role in ROLES:
        assert as_role[role].get("/v1/jobs").status_code == 200
    assert "needs a token of role submit" in problem(as_role["read"].post("/v1/jobs", json=SPEC), 403)
    for role in ("submit", "admin"):
        job = as_role[role].post("/v1/jobs", json=SPEC).json()
        assert job["submitted_by"] == role
        assert as_role["submit"].post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    path = f"/v1/jobs/{job['id']}"
    for role in ("read", "submit"):
        assert "needs a token of role admin" in problem(as_role[role].delete(path), 403)
        problem(as_role[role].get("/v1/audit"), 403)
    assert as_role["admin"].delete(path).status_code == 204
    acts = as_role["admin"].get("/v1/audit", params={"limit": 2}).json()
    assert [(act["token"], act["action"]) for act in acts["items"]] == [("admin", "delete"), ("submit", "cancel")]
    rest = as_role["admin"].get("/v1/audit", params={"cursor": acts["next_cursor"]}).json()["items"]
    assert [act["action"] for act in rest] == ["submit", "cancel", "submit"]


@sqlite_only
def test_the_dashboard_is_read_with_any_role_and_changed_with_admin_alone(
    as_role: dict[str, httpx.Client], settings: Settings
) -> None:
    study = studies.storage(settings.database_url).create_new_study([studies.optuna.study.StudyDirection.MAXIMIZE], "s")
    path = f"/api/studies/{study}"
    for role in ROLES:
        assert len(as_role[role].get("/api/studies").json()["study_summaries"]) == 1
    for role in ("read", "submit"):
        problem(as_role[role].delete(path), 403)
    assert as_role["admin"].delete(path).status_code == 204
    assert as_role["admin"].get("/api/studies").json()["study_summaries"] == []
    act = as_role["admin"].get("/v1/audit").json()["items"][0]
    assert (act["token"], act["action"], act["detail"]) == ("admin", "dashboard", f"DELETE {path}")


@sqlite_only
def test_pages_of_this_service_alone_may_use_the_cookie_to_change_things(
    client: httpx.Client, url: str, token: dict[str, str], worker: Any
) -> None:
    client.cookies.set("clr_token", token["submit"])
    assert client.get("/v1/jobs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    for own in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": url}):
        assert client.post("/v1/jobs", json=SPEC, headers=own).status_code == 201
    other: list[dict[str, str]] = [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": url},
    ]
    for headers in other:
        assert "own pages" in problem(client.post("/v1/jobs", json=SPEC, headers=headers), 403)
    assert client.post("/v1/jobs", json=SPEC, headers=bearer(token["submit"])).status_code == 201
    client.cookies.set("clr_token", "wrong")
    problem(client.get("/v1/jobs"), 401)


@sqlite_only
def test_a_page_of_another_site_changes_nothing_where_there_are_no_tokens(client: httpx.Client, worker: Any) -> None:
    problem(client.post("/v1/jobs", json=SPEC, headers={"Origin": "http://evil.example"}), 403)
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_new_token_closes_and_a_revoked_one_ends_on_every_replica_within_half_a_second(
    client: httpx.Client, settings: Settings, database: Database
) -> None:
    with serving(create_app(settings)) as second, httpx.Client(base_url=second) as replica:
        both = (client, replica)
        assert [one.get("/v1/jobs").status_code for one in both] == [200, 200]
        with database.begin() as session:
            made = bearer(tokens.create(session, "ann", "read"))
        time.sleep(LAG_S)
        assert [one.get("/v1/jobs").status_code for one in both] == [401, 401]
        assert [one.get("/v1/jobs", headers=made).status_code for one in both] == [200, 200]
        with database.begin() as session:
            tokens.revoke(session, "ann")
        time.sleep(LAG_S)
        assert [one.get("/v1/jobs", headers=made).status_code for one in both] == [401, 401]


@sqlite_only
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "clr.example.com"])
def test_listening_beyond_loopback_it_is_closed_even_without_tokens(settings: Settings, host: str) -> None:
    with serving(create_app(settings.model_copy(update={"host": host}))) as url:
        problem(httpx.get(f"{url}/v1/jobs"), 401)


@sqlite_only
def test_a_stream_of_events_ends_with_its_token(
    as_role: dict[str, httpx.Client], token: Any, database: Database
) -> None:
    job_id = as_role["submit"].post("/v1/jobs", json=SPEC).json()["id"]
    with as_role["read"].stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: state"
        with database.begin() as session:
            tokens.revoke(session, "read")
        assert not any(line.startswith("event:") for line in lines)  # it ends
    with database.begin() as session:
        assert jobs.get(session, job_id).state == "queued"


@sqlite_only
def test_the_last_use_is_noted(as_role: dict[str, httpx.Client], database: Database) -> None:
    as_role["read"].get("/v1/jobs")
    with database.read() as session:
        used = {row.name: row.used_at is not None for row in tokens.listed(session)}
    assert used == {"read": True, "submit": False, "admin": False}


class TestLimits:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"rate_limit": 4.0, "queued_limit": 1})

    @sqlite_only
    def test_more_requests_than_the_rate_allows_are_told_when_to_come_again(
        self, as_role: dict[str, httpx.Client]
    ) -> None:
        answers = [as_role["read"].get("/v1/jobs") for _ in range(12)]
        assert [answer.status_code for answer in answers[:4]] == [200] * 4
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "CLR_RATE_LIMIT" in problem(refused, 429)
        assert refused.headers["retry-after"] == "1"
        assert as_role["admin"].get("/v1/jobs").status_code == 200
        assert as_role["read"].get("/healthz").status_code == 200

    def test_more_jobs_than_a_token_may_queue_are_refused(self, as_role: dict[str, httpx.Client]) -> None:
        assert as_role["submit"].post("/v1/jobs", json=SPEC).status_code == 201
        refused = as_role["submit"].post("/v1/jobs", json=SPEC)
        assert "CLR_QUEUED_LIMIT" in problem(refused, 429)
        assert refused.headers["retry-after"] == "10"
        assert as_role["admin"].post("/v1/jobs", json=SPEC).status_code == 201


@sqlite_only
def test_no_token_is_ever_logged(
    app: FastAPI, as_role: dict[str, httpx.Client], token: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    as_role["read"].post("/v1/jobs", json=SPEC)
    as_role["submit"].post("/v1/jobs", json=SPEC)
    assert not any(text in caplog.text for text in token.values())
