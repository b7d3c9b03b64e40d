from collections.abc import Callable
from typing import Any

import httpx
import optuna
import pytest

from service.store import studies

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

JOB = {"mode": "external", "task": "my JAX model", "epochs": 10, "search": {"trials": 2}}
POINTS = [{"lr": 1e-5 * 1.06**step, "loss": 2.0 if step < 100 else 1.0 + (step > 190)} for step in range(200)]
TEST = {"points": POINTS, "seed": 0, "direction": "maximize", "iterations_per_epoch": 10}

Start = Callable[..., str]


@pytest.fixture
def start(client: httpx.Client) -> Start:
    """Submits an external job, with its range test; the job's path."""

    def start(**fields: Any) -> str:
        answer = client.post("/v1/jobs", json=JOB | fields)
        assert answer.status_code == 201, answer.text
        path: str = answer.headers["location"]
        assert client.put(f"{path}/range-test", json=TEST).status_code == 200
        return path

    return start


def test_a_trainer_of_any_kind_gets_a_recommendation_by_rest_alone(client: httpx.Client, start: Start) -> None:
    path = start()
    view = client.get(f"{path}/range-test").json()
    assert view == client.put(f"{path}/range-test", json=TEST).json()
    assert [len(curve["points"]) for curve in view["curves"]] == [200]
    assert view["bounds"]["max_lr"] > view["bounds"]["base_lr"]
    assert client.get(f"{path}/range-test", headers={"Accept": "text/csv"}).text.count("\n") == 201
    assert client.get(f"{path}/range-test.svg").text.startswith("<svg")
    assert client.get(f"{path}/recommendation").json()["source"] == "range_test"
    for value in (0.9, 0.8):
        trial = client.post(f"{path}/trials")
        assert trial.status_code == 201
        here = f"{path}/trials/{trial.json()['number']}"
        assert client.post(f"{here}/points", json={"step": 50, "value": 0.5}).json() == {"prune": False}
        told = client.put(f"{here}/result", json={"value": value})
        assert (told.status_code, told.json()["state"], told.json()["value"]) == (200, "complete", value)
    job = client.get(path).json()
    assert (job["state"], job["mode"], job["progress"]) == ("succeeded", "external", 1.0)
    items = client.get(f"{path}/trials").json()["items"]
    assert [(item["value"], item["points"]) for item in items] == [
        (value, [{"step": 50, "value": 0.5}]) for value in (0.9, 0.8)
    ]
    assert client.get(f"{path}/recommendation").json()["source"] == "search"
    assert "CyclicLR" in client.get(f"{path}/recommendation?format=python").text
    assert client.get("/v1/recommendations?task=my JAX model").json()["items"][0]["job_id"] == job["id"]
    stream = client.get(f"{path}/events").text
    assert all(f"event: {kind}" in stream for kind in ("state", "progress", "points", "trial", "recommendation"))
    over = client.post(f"{path}/trials")
    assert (over.status_code, "search with it" in over.json()["detail"]) == (409, True)
    assert client.put(f"{here}/result", json={"value": 0.8}).status_code == 200
    assert client.put(f"{here}/result", json={"value": 0.7}).status_code == 409
    acts = [act["action"] for act in client.get("/v1/audit").json()["items"]]
    assert acts == ["tell", "ask", "tell", "ask", "range test", "submit"]  # each once, however often it was sent
    assert client.delete(path).status_code == 204


def test_an_ask_sent_again_with_its_key_is_one_trial(client: httpx.Client, start: Start) -> None:
    path = start()
    first, again = (client.post(f"{path}/trials", headers={"Idempotency-Key": "k"}).json() for _ in range(2))
    assert first == again
    assert client.post(f"{path}/trials").json()["number"] == first["number"] + 1


def test_a_cancelled_job_ends_at_once_and_its_study_with_it(
    client: httpx.Client, start: Start, database_url: str
) -> None:
    path = start()
    client.post(f"{path}/trials")
    answer = client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    study = optuna.load_study(study_name=answer.json()["id"], storage=studies.storage(database_url))
    assert study.get_trials()[0].state.name == "FAIL"
    assert client.post(f"{path}/trials").status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"value": 0.5, "state": "failed"}, "body"),
        ({}, "body"),
        ({"value": "0.5"}, "value"),
        ({"value": True}, "value"),
        ({"state": "done"}, "state"),
        ({"value": 1, "more": 1}, "more"),
    ],
)
def test_a_result_that_breaks_a_rule_is_refused(
    client: httpx.Client, start: Start, body: dict[str, Any], field: str
) -> None:
    path = start()
    number = client.post(f"{path}/trials").json()["number"]
    answer = client.put(f"{path}/trials/{number}/result", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_a_range_test_that_breaks_a_rule_is_refused(client: httpx.Client, start: Start) -> None:
    path = start()
    for change, field in [
        ({"points": POINTS[:5]}, "points"),
        ({"points": POINTS[::-1]}, "points.lr"),
        ({"points": [{"lr": -1, "loss": 1}] * 30}, "points.0.lr"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch"),
        ({"iterations_per_epoch": 11, "seed": 1}, "iterations_per_epoch"),
        ({"direction": "up"}, "direction"),
        ({"seed": -1}, "seed"),
    ]:
        answer = client.put(f"{path}/range-test", json=TEST | change)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_a_job_that_is_not_external_or_not_there_takes_no_reports(
    client: httpx.Client, submit: Callable[..., dict[str, Any]]
) -> None:
    managed = f"/v1/jobs/{submit()['id']}"
    for path, status in ((managed, 409), (f"/v1/jobs/{'0' * 32}", 404)):
        assert client.put(f"{path}/range-test", json=TEST).status_code == status
        assert client.post(f"{path}/trials").status_code == status
        assert client.post(f"{path}/trials/0/points", json={"step": 1, "value": 1}).status_code == status
    assert client.put(f"{managed}/trials/0/result", json={"value": 1}).status_code == 404


def test_an_external_spec_says_what_it_lacks(client: httpx.Client) -> None:
    for change, field in (({"epochs": None}, "epochs"), ({"task": "a\0b"}, "task"), ({"task": ""}, "task")):
        answer = client.post("/v1/jobs", json=JOB | change)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    answer = client.post("/v1/jobs", json={"mode": "external", "task": "mine"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "epochs")
    assert client.post("/v1/jobs?dry_run=true", json=JOB).json()["cost"]["relative_to_one_training"] == 3.0
