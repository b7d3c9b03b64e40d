import csv
import io
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yaml

from clr.trials.baselines import did_better
from clr.tuning.formats import FORMATS
from clr.tuning.recommendation import Recommendation
from service.store import jobs

Submit = Callable[..., dict[str, Any]]
READING = {
    "bounds": {
        "base_lr": 0.001,
        "max_lr": 0.006,
        "interval": {"base_lr": [0.0008, 0.0013], "max_lr": [0.005, 0.0075]},
        "confidence": "high",
        "reasons": [],
    },
    "smoothed": {"lr": [0.001, 0.002], "loss": [2.3, 2.2]},
}


def point(
    step: int, lr: list[float], loss: list[float], metric: float | None, diverged: bool = False
) -> dict[str, Any]:
    return {"step": step, "lr": lr, "loss": loss, "metric": metric, "diverged": diverged}


@pytest.fixture
def tested(worker: Any, submit: Submit) -> str:
    """A job whose range test ran over two seeds, the second of which diverged."""
    job_id = submit()["id"]
    worker.claim()
    worker.write(
        jobs.set_training, iterations_per_epoch=15, metric="accuracy", direction="maximize", predicted_steps=None
    )
    ramp = {"policy": "exponential_ramp"}
    rise = [point(2, [0.1, 0.2], [2.5, 2.0], 0.3), point(3, [0.3], [1.5], 0.5)]
    worker.run("range_test", 0, rise, seed=7, params=ramp)
    worker.run("range_test", 1, [point(2, [0.1, 0.2], [2.5, math.nan], None, True)], seed=8, params=ramp)
    return job_id


def test_the_range_test_has_a_curve_for_each_seed(client: httpx.Client, tested: str) -> None:
    document = client.get(f"/v1/jobs/{tested}/range-test").json()
    assert (document["metric"], document["direction"], document["iterations_per_epoch"]) == ("accuracy", "maximize", 15)
    first, second = document["curves"]
    assert (first["seed"], first["state"], first["diverged"]) == (7, "complete", False)
    assert first["points"] == [
        {"lr": 0.1, "loss": 2.5, "metric": None},
        {"lr": 0.2, "loss": 2.0, "metric": 0.3},
        {"lr": 0.3, "loss": 1.5, "metric": 0.5},
    ]
    assert (second["seed"], second["diverged"], second["points"][-1]) == (
        8,
        True,
        {"lr": 0.2, "loss": None, "metric": None},
    )
    assert (document["bounds"], document["smoothed"]) == (None, None)


def test_the_range_test_once_read_has_its_bounds(client: httpx.Client, worker: Any, tested: str) -> None:
    worker.write(jobs.set_range_test, document=READING)
    document = client.get(f"/v1/jobs/{tested}/range-test").json()
    assert {name: document[name] for name in READING} == READING
    assert len(document["curves"]) == 2


def test_a_queued_job_has_an_empty_range_test(client: httpx.Client, submit: Submit) -> None:
    document = client.get(f"/v1/jobs/{submit()['id']}/range-test").json()
    assert (document["curves"], document["bounds"]) == ([], None)


def test_the_points_of_the_ramps_come_as_csv_where_that_is_accepted(
    client: httpx.Client, worker: Any, tested: str
) -> None:
    worker.run("range_test", 2, [point(1, [0.2], [1.0], 0.5)], params={"policy": "triangular"})
    answer = client.get(f"/v1/jobs/{tested}/range-test", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["lr", "loss", "metric", "seed"],
        ["0.1", "2.5", "", "7"],
        ["0.2", "2.0", "0.3", "7"],
        ["0.3", "1.5", "0.5", "7"],
        ["0.1", "2.5", "", "8"],
        ["0.2", "", "", "8"],
    ]


@pytest.mark.parametrize(
    ("suffix", "kind", "start"), [("svg", "image/svg+xml", b"<svg"), ("png", "image/png", b"\x89PNG\r\n\x1a\n")]
)
def test_the_range_test_is_drawn(
    client: httpx.Client, worker: Any, tested: str, suffix: str, kind: str, start: bytes
) -> None:
    worker.write(jobs.set_range_test, document=READING)
    answer = client.get(f"/v1/jobs/{tested}/range-test.{suffix}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content.startswith(start)


def test_nothing_is_drawn_before_there_are_points(client: httpx.Client, submit: Submit) -> None:
    answer = client.get(f"/v1/jobs/{submit()['id']}/range-test.svg")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")


def test_trials_tell_what_was_tried_and_what_came_of_it(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    ends = [point(30, [0.1] * 30, [1.0] * 30, 0.8), point(60, [0.1] * 30, [0.5] * 30, 0.9)]
    worker.run("search", 0, ends, value=0.9, params={"policy": "triangular", "ratio": 3.0})
    worker.run("search", 1, ends[:1], state="pruned", value=0.8)
    worker.run("search", 2, [point(5, [0.1], [math.inf], None, True)], state="failed", error="out of memory")
    worker.run("search", 3, ends[:1], state="running")
    worker.run("confirm", 0, ends, value=0.9)
    page = client.get(f"/v1/jobs/{job_id}/trials").json()
    assert [(trial["number"], trial["state"]) for trial in page["items"]] == [
        (0, "complete"),
        (1, "pruned"),
        (2, "failed"),
        (3, "running"),
    ]
    first, _, third, last = page["items"]
    assert first["points"] == [{"step": 30, "value": 0.8}, {"step": 60, "value": 0.9}]
    assert (first["value"], first["steps"], first["params"]["ratio"]) == (0.9, 60, 3.0)
    assert first["started_at"] <= first["finished_at"]
    assert first["finished_at"].endswith("Z")
    assert (third["error"], third["value"], third["points"]) == ("out of memory", None, [{"step": 5, "value": None}])
    assert (last["finished_at"], page["next_cursor"]) == (None, None)


def test_trials_are_paged_by_number(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]
    worker.claim()
    for number in range(12):
        worker.run("search", number, [point(1, [0.1], [1.0], 0.5)], value=0.5)
    found, query = [], "limit=5"
    while query:
        page = client.get(f"/v1/jobs/{job_id}/trials?{query}").json()
        found += [trial["number"] for trial in page["items"]]
        query = page["next_cursor"] and f"limit=5&cursor={page['next_cursor']}"
    assert found == list(range(12))


def test_a_cursor_of_another_list_is_refused(client: httpx.Client, submit: Submit) -> None:
    job_id = submit()["id"]
    submit()
    cursor = client.get("/v1/jobs?limit=1").json()["next_cursor"]
    answer = client.get(f"/v1/jobs/{job_id}/trials", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")


def test_without_a_recommendation_the_answer_says_why(client: httpx.Client, worker: Any, submit: Submit) -> None:
    job_id = submit()["id"]

    def reason() -> str:
        answer = client.get(f"/v1/jobs/{job_id}/recommendation")
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        return str(answer.json()["detail"])

    assert "queued" in reason()
    worker.claim()
    assert "running" in reason()
    worker.end("fail", error="data: not found")
    assert "failed" in reason()
    assert "data: not found" in reason()
    job_id = submit()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert "cancelled" in reason()


def test_a_recommendation_comes_as_json_python_and_yaml(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    used = {"optimizer": {"name": "SGD", "args": {"momentum": 0.9}}, "batch_size": 64}
    other = {"name": "one_cycle", "lr": 0.1, "mean": 0.9, "python": "scheduler = None\n"}
    warnings = [f"{did_better('one_cycle', 0.1)}0.09 +- 0.01"]
    stored = recommendation | used | {"job_id": job_id, "alternatives": [other], "warnings": warnings}
    document = Recommendation.from_dict(stored).to_dict()
    worker.recommend(document)
    path = f"/v1/jobs/{job_id}/recommendation"
    assert client.get(path).json() == document == client.get(f"{path}?format=json").json()
    python = client.get(f"{path}?format=python")
    assert python.headers["content-type"].startswith("text/plain")
    compile(python.text, "pasted", "exec")
    assert "CyclicLR" in python.text
    assert "step_size_up=45,\n    step_size_down=105," in python.text
    assert python.text.startswith("# clr: one_cycle at 0.1 did clearly better")
    for name in FORMATS:
        assert client.get(f"{path}?format={name}").status_code == 200
    assert "learning_rate" in client.get(f"{path}?format=keras").text
    as_yaml = client.get(f"{path}?format=yaml")
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert yaml.safe_load(as_yaml.text) == document


def test_a_recommendation_outlives_a_cancelled_job(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    worker.recommend(recommendation)
    worker.end("cancelled")
    assert client.get(f"/v1/jobs/{job_id}/recommendation").json() == recommendation


def test_an_inconclusive_recommendation_is_given_as_it_is(
    client: httpx.Client, worker: Any, submit: Submit, recommendation: dict[str, Any]
) -> None:
    job_id = submit()["id"]
    worker.claim()
    bare = ("base_lr", "max_lr", "ratio", "stepsize", "step_size_up", "step_size_down", "stepsize_multiplier")
    worker.recommend(recommendation | dict.fromkeys((*bare, "interval", "torch")) | {"confidence": "inconclusive"})
    assert client.get(f"/v1/jobs/{job_id}/recommendation").json()["max_lr"] is None
    assert "inconclusive" in client.get(f"/v1/jobs/{job_id}/recommendation?format=python").text


def test_an_unknown_format_is_refused(client: httpx.Client, submit: Submit) -> None:
    answer = client.get(f"/v1/jobs/{submit()['id']}/recommendation?format=xml")
    assert (answer.status_code, answer.json()["errors"][0]) == (
        422,
        {"field": "format", "rule": f"input should be {', '.join(map(repr, FORMATS[:-1]))} or 'table'", "value": "xml"},
    )
