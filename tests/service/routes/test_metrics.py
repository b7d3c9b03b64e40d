from collections.abc import Callable
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from service.store import workers
from service.store.database import Database
from service.store.models import WorkerRow

Submit = Callable[..., dict[str, Any]]


def scraped(client: httpx.Client) -> Callable[..., float | None]:
    """The samples of a scrape, by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, frozenset(labels.items())))


def test_the_queue_and_what_runs_are_counted(client: httpx.Client, worker: Any, submit: Submit) -> None:
    for _ in range(3):
        submit()
    worker.claim()
    value = scraped(client)
    assert value("clr_database_up") == 1
    assert (value("clr_jobs", state="queued"), value("clr_jobs", state="running")) == (2, 1)


def test_what_workers_measured_is_told_while_they_live(client: httpx.Client, worker: Any, database: Database) -> None:
    assert scraped(client)("clr_leases_lost_total", worker="w1") == 0
    with database.begin() as session:
        workers.seen(session, "w1", {"leases_lost": 2, "runs": {"search": [4, 1.5]}, "steps": {"search": 700}})
    value = scraped(client)
    assert (value("clr_workers"), value("clr_leases_lost_total", worker="w1")) == (1, 2)
    assert value("clr_training_steps_total", worker="w1", stage="search") == 700
    assert value("clr_trial_seconds_count", worker="w1", stage="search") == 4
    assert value("clr_trial_seconds_sum", worker="w1", stage="search") == 1.5
    with database.begin() as session:
        session.execute(update(WorkerRow).values(seen_at=0))
    value = scraped(client)
    assert (value("clr_workers"), value("clr_leases_lost_total", worker="w1")) == (0, None)


def test_requests_are_timed_by_route_and_status_without_ids(client: httpx.Client, submit: Submit) -> None:
    job_id = submit()["id"]
    client.get(f"/v1/jobs/{job_id}")
    client.get("/v1/jobs/nobody")
    client.get("/nowhere")
    client.get("/api/studies")
    value = scraped(client)
    for count, method, route, status in (
        (1, "POST", "/v1/jobs", "201"),
        (1, "GET", "/v1/jobs/{job_id}", "200"),
        (1, "GET", "/v1/jobs/{job_id}", "404"),
        (1, "GET", "none", "404"),
        (1, "GET", "/api", "200"),
    ):
        assert value("clr_http_request_seconds_count", method=method, route=route, status=status) == count, route
    took_s = value("clr_http_request_seconds_sum", method="POST", route="/v1/jobs", status="201")
    assert took_s is not None
    assert 0 < took_s < 30


def test_without_the_database_the_process_still_tells_of_itself(client: httpx.Client, app: FastAPI) -> None:
    mine = app.state.database
    app.state.register.refresh(mine)
    app.state.database = Database("postgresql://nobody@127.0.0.1:1/none")
    try:
        value = scraped(client)
    finally:
        app.state.database = mine
    assert (value("clr_database_up"), value("clr_jobs", state="queued")) == (0, None)
    assert value("process_resident_memory_bytes")
