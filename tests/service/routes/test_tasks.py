from typing import Any

import httpx


def test_published_tasks_are_listed_by_name_with_their_schemas(client: httpx.Client, worker: Any) -> None:
    schema = {"type": "object", "properties": {"noise": {"type": "number", "default": 0.1}}}
    worker.publish("Moons", schema)
    worker.publish("blobs", schema)
    page = client.get("/v1/tasks").json()
    assert [task["name"] for task in page["items"]] == ["Moons", "blobs", "digits"]
    assert page["items"][0] == {"name": "Moons", "doc": "The Moons task.", "schema": schema}
    assert page["next_cursor"] is None


def test_without_workers_there_are_none(client: httpx.Client) -> None:
    assert client.get("/v1/tasks").json() == {"items": [], "next_cursor": None}
