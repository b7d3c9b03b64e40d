"""Signing in to the pages with a token."""

from collections.abc import Callable

import httpx
import pytest

from service.store import tokens
from service.store.database import Database

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PERSON = {"Accept": "text/html,*/*"}
OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def token(database: Database) -> Callable[[str], str]:
    """Makes a token of a role."""

    def make(role: str) -> str:
        with database.begin() as session:
            return tokens.create(session, name=role, role=role)

    return make


def sign_in(client: httpx.Client, token: str, place: str = "/") -> httpx.Response:
    return client.post("/signin", data={"token": token, "next": place}, headers=OWN)


def test_who_has_no_token_is_sent_to_sign_in_and_back_again(client: httpx.Client, token: Callable[[str], str]) -> None:
    admin = token("admin")
    sent = client.get("/jobs/new", headers=PERSON)
    assert (sent.status_code, sent.headers["location"]) == (303, "/signin?next=%2Fjobs%2Fnew")
    assert client.get("/assets/style.css").status_code == 200
    page = client.get(sent.headers["location"], headers=PERSON)
    assert 'value="/jobs/new"' in page.text
    answer = sign_in(client, admin, "/jobs/new")
    assert answer.headers["location"] == "/jobs/new"
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict"))
    assert client.get("/jobs/new", headers=PERSON).status_code == 200
    assert client.post("/signout", headers=OWN).headers["location"] == "/signin"
    assert client.get("/", headers=PERSON).status_code == 303


def test_a_token_that_is_none_is_told_so(client: httpx.Client, token: Callable[[str], str]) -> None:
    token("admin")
    answer = sign_in(client, "mistyped")
    assert (answer.status_code, "no token of this service" in answer.text) == (401, True)
    assert "set-cookie" not in answer.headers


def test_another_site_can_sign_nobody_in_or_out(client: httpx.Client, token: Callable[[str], str]) -> None:
    sent = {"token": token("admin")}
    for path in ("/signin", "/signout"):
        answer = client.post(path, data=sent, headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)


@pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example", "/\\evil.example", "jobs"])
def test_nobody_is_sent_elsewhere(client: httpx.Client, token: Callable[[str], str], place: str) -> None:
    assert sign_in(client, token("admin"), place).headers["location"] == "/"


def test_a_cookie_has_its_tokens_role_and_serves_own_pages_alone(
    client: httpx.Client, token: Callable[[str], str]
) -> None:
    sign_in(client, token("submit"))
    assert client.post("/jobs/x/delete", headers=OWN | PERSON).status_code == 403
    for elsewhere in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert client.post("/jobs/x/cancel", headers=elsewhere).status_code == 403
    assert client.post("/jobs/x/cancel", headers=OWN).status_code == 404
