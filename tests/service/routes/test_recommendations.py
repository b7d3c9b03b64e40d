from collections.abc import Callable
from typing import Any

import httpx
import pytest

Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def found(worker: Any, submit: Submit, recommendation: dict[str, Any]) -> list[str]:
    """Ids of three jobs with recommendations, oldest first."""
    ids = []
    for task, optimizer in (("digits", "SGD"), ("digits", "AdamW"), ("moons", "SGD")):
        worker.publish(task)
        job_id = submit(task=task, optimizer={"name": optimizer})["id"]
        assert worker.claim() == job_id
        used = {"optimizer": {"name": optimizer, "args": {}}, "batch_size": 32}
        worker.recommend(recommendation | used | {"job_id": job_id}, task=task, optimizer=optimizer)
        worker.end()
        ids.append(job_id)
    return ids


def ids(client: httpx.Client, query: str = "") -> list[str]:
    return [item["job_id"] for item in client.get(f"/v1/recommendations?{query}").json()["items"]]


def test_what_was_found_before_is_listed_newest_first(client: httpx.Client, found: list[str]) -> None:
    assert ids(client) == found[::-1]


def test_a_found_recommendation_says_what_it_is_for(
    client: httpx.Client, found: list[str], recommendation: dict[str, Any]
) -> None:
    item = client.get("/v1/recommendations?optimizer=AdamW").json()["items"][0]
    assert item.pop("updated_at").endswith("Z")
    trained = {"task": "digits", "args": {}, "optimizer": "AdamW", "batch_size": 32, "epochs": 20.0}
    assert item == recommendation | trained | {"job_id": found[1]}


@pytest.mark.parametrize("batch_size", [8, None])
def test_one_that_does_not_tell_its_batch_size_was_found_for_the_specs(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any], batch_size: int | None
) -> None:
    submit(batch_size=batch_size)
    worker.claim()
    worker.recommend(recommendation)
    assert client.get("/v1/recommendations").json()["items"][0]["batch_size"] == batch_size


def test_task_and_optimizer_narrow_the_list(client: httpx.Client, found: list[str]) -> None:
    assert ids(client, "task=digits") == found[1::-1]
    assert ids(client, "task=digits&optimizer=SGD") == found[:1]
    assert ids(client, "task=none") == []


def test_pages_go_through_all(client: httpx.Client, found: list[str]) -> None:
    page = client.get("/v1/recommendations?limit=2").json()
    rest = client.get(f"/v1/recommendations?limit=2&cursor={page['next_cursor']}").json()
    assert [item["job_id"] for item in page["items"] + rest["items"]] == found[::-1]
    assert rest["next_cursor"] is None


def test_a_bad_query_is_refused(client: httpx.Client) -> None:
    for query in ("task=%00", "optimizer=%00", "limit=0", "cursor=*"):
        answer = client.get(f"/v1/recommendations?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, query.partition("=")[0])
