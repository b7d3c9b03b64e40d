from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import text, update

from service.store import workers
from service.store.database import Database
from service.store.models import WorkerRow


def unready(client: httpx.Client) -> str:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    return str(answer.json()["detail"])


def test_the_process_lives(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_it_is_ready_with_a_worker(client: httpx.Client, worker: Any) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "workers": 1})


def test_it_is_not_ready_without_a_worker(client: httpx.Client) -> None:
    assert unready(client).startswith("workers: ")


def test_a_worker_that_stopped_or_fell_silent_does_not_count(
    client: httpx.Client, worker: Any, database: Database
) -> None:
    with database.begin() as session:
        session.execute(update(WorkerRow).values(seen_at=WorkerRow.seen_at - 60))
    assert unready(client).startswith("workers: ")
    worker.publish()
    assert client.get("/readyz").status_code == 200
    with database.begin() as session:
        workers.retire(session, "w1")
    assert unready(client).startswith("workers: ")


def test_it_is_not_ready_on_another_schema(client: httpx.Client, worker: Any, database: Database) -> None:
    with database.begin() as session:
        session.execute(text("UPDATE clr_alembic_version SET version_num = 'newer'"))
    assert unready(client).startswith("schema: ")


def test_it_is_not_ready_without_its_database(client: httpx.Client, app: FastAPI) -> None:
    mine = app.state.database
    app.state.database = Database("postgresql://nobody@127.0.0.1:1/none")
    try:
        assert unready(client).startswith("database: ")
        assert client.get("/healthz").status_code == 200
        answer = client.get("/v1/jobs")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"] == "2"
    finally:
        app.state.database = mine
    assert client.get("/v1/jobs").status_code == 200
