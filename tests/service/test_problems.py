import logging
import math
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from service.problems import SHOWN_CHARS, SHOWN_ITEMS, ProblemResponse, shown


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    """The API with a route that has a bug."""

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("a secret of the code")

    return app


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_bug_leaks_nothing(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "uvicorn.error"):
        answer = client.get("/bug")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["title"] == "Internal Server Error"
    assert "secret" not in answer.text
    assert "ZeroDivisionError" not in answer.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_problem_has_the_fields_of_the_standard(client: httpx.Client) -> None:
    answer = client.get("/v1/nothing here?x=1")
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "nothing is at this path; /docs lists what there is",
        "instance": "/v1/nothing here",
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_wrong_method_is_told_all_the_right_ones(client: httpx.Client) -> None:
    for path, methods in (("/v1/jobs", "GET, POST"), ("/v1/jobs/x", "GET, DELETE"), ("/docs", "GET, HEAD")):
        answer = client.put(path)
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
        assert answer.headers["allow"] == methods


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(st.characters(exclude_categories=[])), inner),
)


@given(JSON_VALUES)
def test_any_value_can_be_shown(value: Any) -> None:
    assert ProblemResponse({"value": shown(value)}).body


@given(st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_short_value_is_shown_as_it_is(value: Any) -> None:
    assert shown(value) is value or shown(value) == value
    assert shown([value, {"a": value}]) == [value, {"a": value}]


def test_a_long_value_is_shortened() -> None:
    assert len(shown("x" * 10_000)) == SHOWN_CHARS
    assert len(shown(list(range(1000)))) == SHOWN_ITEMS
    assert len(shown({str(key): 1 for key in range(1000)})) == SHOWN_ITEMS
    assert shown([[[[[1]]]]]) == [[["..."]]]


def test_what_json_cannot_say_is_shown_in_words() -> None:
    assert [shown(value) for value in (math.nan, math.inf, -math.inf)] == ["nan", "inf", "-inf"]
    assert shown(10**300) == str(10**300)[: SHOWN_CHARS - 3] + "..."
