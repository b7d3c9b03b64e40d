"""Bad specs, as a client sends them."""

from typing import Any

import httpx
import pytest

from service.store import workers

JSON = {"Content-Type": "application/json"}

# what is refused never reaches a database
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def post(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/v1/jobs", content=body, headers=JSON)


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ('{"epochs": 1}', "task", None),
        ('{"task": 1}', "task", 1),
        ('{"task": ""}', "task", ""),
        ('{"task": "no such task"}', "task", "no such task"),
        ('{"task": "digits", "epoch": 3}', "epoch", 3),
        ('{"task": "digits", "epochs": 0}', "epochs", 0),
        ('{"task": "digits", "epochs": -3}', "epochs", -3),
        ('{"task": "digits", "epochs": "5"}', "epochs", "5"),
        ('{"task": "digits", "epochs": NaN}', "epochs", "nan"),
        ('{"task": "digits", "epochs": 1e999}', "epochs", "inf"),
        ('{"task": "digits", "seed": -Infinity}', "seed", "-inf"),
        ('{"task": "digits", "batch_size": true}', "batch_size", True),
        ('{"task": "digits", "optimizer": {"name": "Sgd"}}', "optimizer.name", "Sgd"),
        ('{"task": "digits", "optimizer": {"args": {}}}', "optimizer.name", None),
        ('{"task": "digits", "optimizer": {"name": "SGD", "args": {"lr": 0.1}}}', "optimizer.args.lr", 0.1),
        ('{"task": "digits", "optimizer": {"name": "Adam", "args": {"betas": [0.9, 1]}}}', "optimizer.args.betas.1", 1),
        ('{"task": "digits", "search": {"ratio": [5, 2]}}', "search.ratio", [5, 2]),
        ('{"task": "digits", "search": {"policies": ["zigzag"]}}', "search.policies.0", "zigzag"),
        (
            '{"task": "digits", "search": {"stepsize_multiplier": [1.01, 1.02]}}',
            "search.stepsize_multiplier",
            [1.01, 1.02],
        ),
        ('{"task": "digits", "name": "a\\u0000b"}', "name", "a\0b"),
        ('{"task": "digits", "name": "\\ud800"}', "name", "?"),
        ('{"task": "a:b", "args": {"x": [{"y": "\\u0000"}]}}', "args.x.0.y", "\0"),
        ('{"task": "a:b", "args": {"x": {"\\u0000": 1}}}', "args.x", "\0"),
        ('{"task": "a:b", "args": {"x": "\\udfff"}}', "args.x", "?"),
        ('{"task": "a:b", "args": {"x": [1, Infinity]}}', "args.x.1", "inf"),
        ('{"task": "digits", "args": {"hidden": 0}}', "args.hidden", 0),
        ('{"task": "digits", "args": {"hidden": "64"}}', "args.hidden", "64"),
        ('{"task": "digits", "args": {"hidden": 64.0}}', "args.hidden", 64.0),
        ('{"task": "digits", "args": {"hiden": 64}}', "args.hiden", 64),
        ('{"task": "strict", "args": {"a": {"c": 2}}}', "args.a.b", None),
        ('{"task": "strict", "args": {"a": {"b": [1, "x"]}}}', "args.a.b.1", "x"),
        ('{"task": "strict", "args": {"a": {"b": []}, "maybe": {"b": 0}}}', "args.maybe.b", 0),
        ('{"task": "strict"}', "args.a", None),
        ("[]", "body", []),
        ("null", "body", None),
        ("", "body", None),
    ],
)
def test_an_invalid_spec_is_refused_with_field_rule_and_value(
    client: httpx.Client, worker: Any, body: str, field: str, value: object
) -> None:
    inner = {"type": "object", "required": ["b"], "properties": {"b": {"items": {"type": "integer"}}}}
    maybe = {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"b": {"minimum": 1}}}]}
    worker.publish("strict", {"type": "object", "required": ["a"], "properties": {"a": inner, "maybe": maybe}})
    answer = post(client, body.encode())
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert [(error["field"], error["value"]) for error in problem["errors"]] == [(field, value)]
    assert problem["errors"][0]["rule"] in problem["detail"]
    assert client.get("/v1/jobs").json()["items"] == []


def test_every_field_in_error_is_named(client: httpx.Client, worker: Any) -> None:
    spec = {"task": "digits", "epochs": 0, "batch_size": -1, "args": {"hidden": 0}}
    assert {error["field"] for error in client.post("/v1/jobs", json=spec).json()["errors"]} == {"epochs", "batch_size"}
    args = {"hidden": 0, "train_size": "x", "more": 1}
    answer = client.post("/v1/jobs", json={"task": "digits", "args": args})
    assert {error["field"] for error in answer.json()["errors"]} == {"args.hidden", "args.train_size", "args.more"}


def test_an_unknown_task_is_told_which_there_are(client: httpx.Client, worker: Any) -> None:
    worker.publish("moons")
    assert "digits, moons" in client.post("/v1/jobs", json={"task": "digit"}).json()["detail"]


@pytest.mark.parametrize("name", ["digits", "a-task-installed-today"])
def test_a_task_is_left_to_the_worker_that_is_still_to_come(client: httpx.Client, worker: Any, name: str) -> None:
    with worker.database.begin() as session:
        workers.retire(session, "w1")
    assert client.post("/v1/jobs", json={"task": name}).status_code == 201
    worker.publish("moons")
    assert client.post("/v1/jobs", json={"task": "another"}).status_code == 422


def test_before_the_first_worker_a_job_is_taken(client: httpx.Client) -> None:
    assert client.post("/v1/jobs", json={"task": "digits", "args": {"hidden": 8}}).status_code == 201
    assert client.post("/v1/jobs?dry_run=true", json={"task": "digits"}).status_code == 200


def test_a_task_in_an_allowed_module_is_left_to_its_worker(client: httpx.Client) -> None:
    assert client.post("/v1/jobs", json={"task": "my.module:task", "args": {"any": 1}}).status_code == 201


@pytest.mark.parametrize(
    "task", ["clr.bundles.process:load_from", "venv.__main__:x", "os:system", "mine:task", "clr.tasks.digits:digits"]
)
def test_a_task_in_any_other_module_is_refused_with_the_modules_allowed(
    client: httpx.Client, worker: Any, task: str
) -> None:
    answer = client.post("/v1/jobs", json={"task": task, "args": {"folder": "/etc"}})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("task", task)
    assert error["rule"] == (
        "must be a published task (digits) or module:function of a module that the operator allows in "
        "CLR_TASK_MODULES (a, my)"
    )


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"task": }', b"\xff\xfe\xfa", b'{"task": "\xff"}', b"[" * 50_000, b'{"task": ' + b"9" * 5000 + b"}"],
)
def test_a_body_that_is_not_json_is_a_bad_request(client: httpx.Client, body: bytes) -> None:
    answer = post(client, body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("levels", [50, 300, 900, 5000])
def test_nesting_of_any_depth_is_answered(client: httpx.Client, levels: int) -> None:
    answer = post(client, f'{{"task": "a:b", "args": {deep(levels)}}}'.encode())
    assert answer.status_code == (201 if levels == 50 else 422 if levels < 5000 else 400), answer.text
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense", ""])
def test_a_body_of_another_type_is_refused(client: httpx.Client, kind: str) -> None:
    answer = client.post("/v1/jobs", content=b'{"task": "a:b"}', headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/problem+json")
    assert "application/json" in answer.json()["detail"]


def test_a_long_value_is_shortened_in_the_answer(client: httpx.Client, worker: Any) -> None:
    long = {"task": "digits", "name": "n" * 30_000, "search": {"policies": ["x" * 1000] * 30}}
    answer = client.post("/v1/jobs", json=long)
    assert answer.status_code == 422
    assert len(answer.content) < 20_000
    assert len(answer.json()["errors"]) == 20
