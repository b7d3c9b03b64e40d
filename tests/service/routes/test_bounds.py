import json
from typing import Any

import httpx
import numpy as np
import pytest

from clr.range_tests.curve_file import bounds_of_file
from clr.range_tests.recorded import read_bounds
from service.routes import bounds as bounds_route

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

LR = np.geomspace(1e-5, 1, 200).tolist()


def loss(seed: int) -> list[float]:
    x = np.log10(LR)
    noise = np.random.default_rng(seed).normal(size=len(x))
    return (2.3 - 1.8 / (1 + np.exp(-3 * (x + 3))) + np.maximum(0, 6 * (x + 0.7)) ** 2 + 0.02 * noise).tolist()


def metric() -> list[float]:
    return (1 / (1 + (0.001 / np.array(LR)) ** 4)).tolist()


def csv(**columns: list[Any]) -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)])


def post(client: httpx.Client, body: str | bytes, kind: str = "text/csv", **params: str) -> httpx.Response:
    return client.post("/v1/bounds", content=body, headers={"Content-Type": kind}, params=params)


def points(**columns: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_a_curve_gives_the_same_bounds_as_json_as_csv_and_in_the_library(client: httpx.Client) -> None:
    found = client.post("/v1/bounds", json={"points": points(lr=LR, loss=loss(0))}).json()
    assert found == post(client, csv(lr=LR, loss=loss(0)), "text/csv; charset=utf-8").json()
    assert found == post(client, "\ufeff" + csv(lr=LR, loss=loss(0))).json()
    assert found == client.post("/v1/bounds", json={"lr": LR, "loss": loss(0)}).json()
    expected = read_bounds(LR, loss(0))
    assert (found["max_lr"], found["confidence"]) == (pytest.approx(expected.max_lr), expected.confidence)
    assert set(found) == {"base_lr", "max_lr", "interval", "confidence", "reasons"}


def test_curves_of_several_seeds_are_read_together(client: httpx.Client) -> None:
    columns = {"lr": LR * 2, "loss": loss(1) + loss(2), "seed": [1] * len(LR) + [2] * len(LR)}
    found = client.post("/v1/bounds", json={"points": points(**columns)}).json()
    assert found == post(client, csv(**columns)).json() == client.post("/v1/bounds", json=columns).json()
    assert found["max_lr"] == pytest.approx(read_bounds(LR, [loss(1), loss(2)]).max_lr)
    assert found["confidence"] == "medium"


def test_a_metric_is_read_in_the_direction_given(client: httpx.Client) -> None:
    falls = [-value for value in metric()]
    expected = read_bounds(LR, loss(0), metric()).max_lr
    columns = {"lr": LR, "loss": [None] * len(LR), "metric": falls}
    body = {"points": points(**columns), "direction": "minimize"}
    assert client.post("/v1/bounds", json=body).json()["max_lr"] == pytest.approx(expected)
    text = csv(lr=LR, loss=loss(0), metric=falls)
    assert post(client, text, direction="minimize").json()["max_lr"] == pytest.approx(expected)
    assert post(client, text).json()["confidence"] == "inconclusive"


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"points": []}, "points", "at least 1 item"),
        ({"points": [{"lr": -1, "loss": 1}]}, "points.0.lr", "greater than or equal to 0"),
        ({"points": [{"lr": 1}]}, "points.0.loss", "required"),
        ({"points": [{"lr": 1, "loss": "x"}]}, "points.0.loss", "number"),
        ({"points": [{"lr": 1, "loss": 1, "los": 2}]}, "points.0.los", "not permitted"),
        ({"points": points(lr=LR[::-1], loss=LR)}, "lr", "never fall"),
        ({"points": points(lr=LR[:5], loss=LR[:5])}, "lr", "at least 20 rates"),
        ({"lr": LR, "loss": LR[1:]}, "loss", "one value for each of 200 rates, but has 199"),
        ({"lr": LR, "loss": LR, "metric": [0.5]}, "metric", "but has 1"),
        ([], "body", "dictionary"),
        ({"points": points(lr=LR, loss=LR), "direction": "up"}, "direction", "'maximize' or 'minimize'"),
    ],
)
def test_a_curve_that_breaks_a_rule_is_refused_by_field_rule_and_value(
    client: httpx.Client, body: dict[str, Any], field: str, says: str
) -> None:
    answer = client.post("/v1/bounds", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    error = answer.json()["errors"][0]
    assert error["field"] == field
    assert says in error["rule"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        ("lr;los\n1;2", "text/csv", 422, "must be one of the curve's columns: lr, los"),
        ("lr,loss\n0.1,x", "text/csv", 422, "must be a number"),
        ("lr,loss\n", "text/csv", 422, "at least one row"),
        ("", "text/csv", 422, "must have the names of its columns"),
        ('lr,loss\n"' + "9" * 200_000, "text/csv", 413, ""),
        (b"lr,loss\n\xff", "text/csv", 400, "UTF-8"),
        ("{", "application/json", 400, "not valid JSON"),
        ("[" * 50_000, "application/json", 400, "not valid JSON"),
        ("lr,loss\n1,2", "text/plain", 415, "text/csv"),
    ],
)
def test_a_body_that_is_no_curve_is_refused(
    client: httpx.Client, body: str | bytes, kind: str, status: int, says: str
) -> None:
    answer = post(client, body, kind)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]


def long_csv(rows: int) -> str:
    return "lr,loss\n" + "".join(
        f"{1e-5 * 1e6 ** (step / rows)},{2 / (1 + 9 * step / rows) + max(0, 9 * step / rows - 7)}\n"
        for step in range(rows)
    )


def test_a_long_curve_is_read_in_a_process_of_its_own_to_the_same_bounds(client: httpx.Client) -> None:
    text = long_csv(1500)
    assert bounds_route.SMALL < len(text) < 65536
    answer = client.post("/v1/bounds", content=text, headers={"Content-Type": "text/csv"}, timeout=60)
    assert answer.json() == json.loads(json.dumps(bounds_of_file(text.encode()).to_dict()))
    broken = client.post("/v1/bounds", content=text + "1,x\n", headers={"Content-Type": "text/csv"}, timeout=60)
    assert (broken.status_code, broken.json()["errors"][0]["field"]) == (422, "loss")


def test_reading_a_curve_is_ended_when_it_takes_too_long(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_route, "READ_S", 0.01)
    answer = client.post("/v1/bounds", content=long_csv(1500), headers={"Content-Type": "text/csv"}, timeout=60)
    assert answer.status_code == 422
    assert "must be a curve that is read within 0.01 s" in answer.json()["detail"]


def test_the_documented_curve_has_bounds(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()["paths"]["/v1/bounds"]["post"]
    text = document["requestBody"]["content"]["text/csv"]["example"]
    answer = client.post("/v1/bounds", content=text, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 200
    assert answer.json()["max_lr"] is not None, answer.text


def test_a_csv_of_other_columns_is_read_by_their_names_or_as_picked(client: httpx.Client) -> None:
    expected = read_bounds(LR, loss(0)).max_lr
    named = "\n".join(
        ["step;learning_rate;train/loss", *(f"0;{lr};{one}" for lr, one in zip(LR, loss(0), strict=True))]
    )
    found = post(client, named).json()
    assert found["max_lr"] == pytest.approx(expected)
    assert found["reasons"][-1] == "columns read: lr from 'learning_rate', loss from 'train/loss'; not read: step"
    picked = csv(a=LR, b=loss(0))
    assert post(client, picked, lr="a", loss="b").json()["max_lr"] == pytest.approx(expected)
    refused = post(client, picked, lr="a", loss="c")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "loss")
    assert refused.json()["errors"][0]["value"] == "c"


def test_a_metric_whose_smaller_values_are_better_is_known_by_its_name(client: httpx.Client) -> None:
    falls = [-value for value in metric()]
    text = csv(lr=LR, loss=loss(0), val_loss=falls)
    found = post(client, text, metric="val_loss").json()
    assert found["max_lr"] == pytest.approx(read_bounds(LR, loss(0), metric()).max_lr)
    assert post(client, text, metric="val_loss", direction="maximize").json()["confidence"] == "inconclusive"


def test_a_field_that_breaks_its_rule_is_shown_with_the_value_given(client: httpx.Client) -> None:
    error = post(client, "lr,loss\n0.1,high\n").json()["errors"][0]
    assert error == {"field": "loss", "rule": "must be a number, also in line 2", "value": "high"}
