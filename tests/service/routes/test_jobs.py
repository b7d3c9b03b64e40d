import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import optuna
import pytest

from service.settings import Settings
from service.store import jobs, studies
from service.store.database import Database

JSON = {"Content-Type": "application/json"}
Submit = Callable[..., dict[str, Any]]


def test_a_job_is_created_at_its_location(client: httpx.Client, worker: Any) -> None:
    answer = client.post("/v1/jobs", json={"task": "digits", "epochs": 5})
    assert answer.status_code == 201
    job = answer.json()
    assert (job["state"], job["stage"], job["progress"], job["error"]) == ("queued", None, 0.0, None)
    assert (job["name"], job["spec"]["epochs"], job["spec"]["budget"]) == ("digits", 5.0, 6.0)
    assert job["spec"]["optimizer"] is job["spec"]["batch_size"] is job["trained_with"] is None, "the task's own"
    assert job["cost"] == {"steps": 0, "predicted_steps": None, "seconds": 0.0}
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert client.get(answer.headers["location"]).json() == job


def test_times_are_utc_in_rfc_3339(submit: Submit) -> None:
    created_at = submit()["created_at"]
    assert created_at.endswith("Z")
    assert datetime.fromisoformat(created_at).utcoffset() == timedelta(0)


def test_every_link_of_a_job_leads_somewhere(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job = submit()
    client.post(f"/v1/jobs/{job['id']}/cancel")  # so that its events end
    statuses = {name: client.get(path).status_code for name, path in job["links"].items()}
    assert statuses == dict.fromkeys(job["links"], 200) | {"recommendation": 409}


def test_a_running_job_tells_its_stage_progress_and_cost(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.write(
        jobs.set_training, iterations_per_epoch=15, metric="accuracy", direction="maximize", predicted_steps=4000
    )
    worker.write(jobs.progress, stage="search", progress=0.25, steps=1000)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["stage"], job["progress"]) == ("running", "search", 0.25)
    assert (job["cost"]["steps"], job["cost"]["predicted_steps"]) == (1000, 4000)
    assert job["cost"]["seconds"] > 0
    assert (job["started_at"] > job["created_at"], job["finished_at"]) == (True, None)


def test_a_failed_job_tells_why(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.end("fail", error="data: not found")
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["error"]) == ("failed", "data: not found")
    took = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    assert job["cost"]["seconds"] == pytest.approx(took.total_seconds())


def test_the_same_key_and_body_are_the_same_job(client: httpx.Client, worker: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/jobs", json={"task": "digits", "epochs": 5}, headers=headers)
    second = client.post("/v1/jobs", content=b'{"epochs": 5.0,\n"task": "digits"}', headers=headers | JSON)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["location"] == first.headers["location"]
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_the_same_key_with_another_body_is_a_conflict(client: httpx.Client, worker: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    client.post("/v1/jobs", json={"task": "digits"}, headers=headers)
    answer = client.post("/v1/jobs", json={"task": "digits", "epochs": 5}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert "'once'" in answer.json()["detail"]


def test_requests_racing_with_one_key_make_one_job(client: httpx.Client, worker: Any) -> None:
    def post(_: int) -> httpx.Response:
        return client.post("/v1/jobs", json={"task": "digits"}, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_key_must_be_short_and_printable(client: httpx.Client, worker: Any) -> None:
    for key in ("", "k" * 201, "caf\xe9", "tab\there"):
        headers = {b"Idempotency-Key": key.encode("latin1")}
        answer = client.post("/v1/jobs", json={"task": "digits"}, headers=headers)
        assert answer.status_code == 422, key
        assert answer.json()["errors"][0]["field"] == "idempotency-key"
    assert client.post("/v1/jobs", json={"task": "digits"}, headers={"Idempotency-Key": "~" * 200}).status_code == 201


def test_arguments_are_kept_as_they_were_sent(client: httpx.Client) -> None:
    args = {"big": 10**300, "small": 5e-324, "text": "\U0001f600 \u2028 </script> ' \" \\", "": [None, True]}
    answer = client.post("/v1/jobs", content=json.dumps({"task": "a:b", "args": args}), headers=JSON)
    assert answer.status_code == 201
    assert client.get(answer.headers["location"]).json()["spec"]["args"] == args


def test_a_dry_run_stores_nothing(client: httpx.Client, worker: Any) -> None:
    spec = {"task": "digits", "batch_size": 100, "epochs": 10, "args": {"train_size": 500}, "search": {"trials": 4}}
    answer = client.post("/v1/jobs?dry_run=true", json=spec, headers={"Idempotency-Key": "dry"})
    assert answer.status_code == 200
    assert answer.json()["spec"]["search"]["stepsize_multiplier"] == [1, 10]
    assert answer.json()["cost"] == {
        "steps": 500,
        "iterations_per_epoch": 5,
        "epochs": 100.0,
        "relative_to_one_training": 10.0,
        "stages": {"range_test": 1.0, "search": 4.0, "confirm": 5.0},
    }
    assert client.get("/v1/jobs").json() == {"items": [], "next_cursor": None}


def test_a_dry_run_of_a_task_of_unknown_size_has_no_steps(client: httpx.Client, worker: Any) -> None:
    cost = client.post("/v1/jobs?dry_run=true", json={"task": "my.module:task"}).json()["cost"]
    assert (cost["steps"], cost["iterations_per_epoch"], cost["relative_to_one_training"]) == (None, None, 6.0)


@pytest.mark.parametrize(
    ("spec", "budget"),
    [
        ({}, 6.0),
        ({"budget": 0.2}, 0.2),
        ({"search": {"trials": 4}, "confirm": {"seeds": 1, "baselines": ["fixed"]}}, 8.0),
        ({"search": {"trials": 20}, "confirm": None}, 21.0),
        ({"search": None}, 1.0),
    ],
)
def test_a_job_has_the_budget_that_is_given_or_that_its_numbers_take(
    client: httpx.Client, worker: Any, spec: Any, budget: float
) -> None:
    assert client.post("/v1/jobs?dry_run=true", json={"task": "digits"} | spec).json()["spec"]["budget"] == budget


def test_a_budget_that_cannot_hold_the_numbers_given_is_refused(client: httpx.Client, worker: Any) -> None:
    answer = client.post("/v1/jobs", json={"task": "digits", "budget": 5, "search": {"trials": 20}})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("budget", 5.0)
    assert "21 trainings" in error["rule"]


def test_only_a_job_that_succeeded_is_extended(client: httpx.Client, submit: Submit) -> None:
    job = submit()["id"]
    assert client.post(f"/v1/jobs/{job}/extend", json={"budget": 2}).status_code == 409
    assert client.post(f"/v1/jobs/{job}/extend", json={"budget": 0}).status_code == 422


def test_the_normalised_spec_is_accepted_and_stays_as_it_is(client: httpx.Client, worker: Any) -> None:
    normal = client.post("/v1/jobs?dry_run=true", json={"task": "digits", "epochs": 0.3}).json()["spec"]
    assert client.post("/v1/jobs?dry_run=true", json=normal).json()["spec"] == normal


def test_pages_go_through_all_jobs_newest_first(client: httpx.Client, submit: Submit) -> None:
    ids = [submit(name=f"job {number}")["id"] for number in range(5)]
    found, cursor = [], None
    for size in (2, 2, 1):
        page = client.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) == size
        found += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == (ids[::-1], None)


def test_a_page_that_is_exactly_full_is_the_last(client: httpx.Client, submit: Submit) -> None:
    for _ in range(2):
        submit()
    assert client.get("/v1/jobs?limit=2").json()["next_cursor"] is None


def test_filters_narrow_the_list(client: httpx.Client, worker: Any, submit: Submit) -> None:
    worker.publish("moons")
    submit(name="a")
    other = submit(name="b", task="moons")
    cancelled = submit(name="a")
    client.post(f"/v1/jobs/{cancelled['id']}/cancel")

    def ids(**filters: str) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=filters).json()["items"]]

    assert ids(task="moons") == [other["id"]] == ids(name="b")
    assert ids(state="cancelled") == [cancelled["id"]] == ids(state="cancelled", name="a")
    assert ids(task="moons", name="a") == [] == ids(name="no such name")


def test_a_bad_query_is_refused_by_name(client: httpx.Client) -> None:
    cursors = ["cursor=!", "cursor=", "cursor=%00", "cursor=\xe9", "cursor=" + "x" * 300]
    for query in ("limit=0", "limit=201", "limit=x", "state=done", "task=%00", "name=%00", *cursors):
        answer = client.get(f"/v1/jobs?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), query
        assert [error["field"] for error in answer.json()["errors"]] == [query.partition("=")[0]]


def test_a_job_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    for job_id in ("nope", "%00", "a%2Fb", "%F0%9F%92%A9", "x" * 3000):
        for path in ("", "/events", "/range-test", "/trials", "/recommendation", "/range-test.png"):
            answer = client.get(f"/v1/jobs/{job_id}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
        assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 404
        assert client.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_a_queued_job_is_cancelled_at_once(client: httpx.Client, submit: Submit) -> None:
    answer = client.post(f"/v1/jobs/{submit()['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


def test_a_running_job_is_asked_to_stop(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["state"], answer.json()["cancel_requested"]) == (202, "running", True)
    assert worker.write(jobs.renew, lease_s=60, worked_s=0)


def test_a_finished_job_cannot_be_cancelled(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.end()
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 409
    assert "succeeded" in answer.json()["detail"]


def test_a_job_is_deleted_with_its_study(
    client: httpx.Client, worker: Any, submit: Submit, settings: Settings, database: Database
) -> None:
    job_id = submit()["id"]
    other = submit()["id"]
    storage = studies.storage(settings.database_url)
    for name in (job_id, other):
        optuna.create_study(study_name=name, storage=storage)
    client.post(f"/v1/jobs/{job_id}/cancel")
    answer = client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert optuna.get_all_study_names(storage) == [other]
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_a_job_that_is_not_finished_is_not_deleted(
    client: httpx.Client, worker: Any, submit: Submit, settings: Settings
) -> None:
    job_id = submit()["id"]
    storage = studies.storage(settings.database_url)
    optuna.create_study(study_name=job_id, storage=storage)
    for state in ("queued", "running"):
        answer = client.delete(f"/v1/jobs/{job_id}")
        assert (answer.status_code, state in answer.json()["detail"]) == (409, True)
        if state == "queued":
            worker.claim()
    assert client.get(f"/v1/jobs/{job_id}").status_code == 200
    assert optuna.get_all_study_names(storage) == [job_id]
