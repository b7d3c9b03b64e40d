from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tenacity import Retrying

from clr.client.calls import retries

Outcome = httpx.Response | httpx.TransportError


def answer(status: int, **headers: str) -> httpx.Response:
    request = httpx.Request("GET", "http://h/v1/jobs")
    return httpx.Response(
        status, headers={name.replace("_", "-"): text for name, text in headers.items()}, request=request
    )


def pauses(outcomes: list[Outcome], **policy: Any) -> tuple[list[float], Any]:
    """The pauses between attempts that have those outcomes, and the last outcome."""
    coming: Iterator[Outcome] = iter(outcomes)
    paused: list[float] = []

    def attempt() -> httpx.Response:
        outcome = next(coming)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    call: Callable[..., Any] = Retrying(**retries(**policy), sleep=paused.append)
    try:
        return paused, call(attempt)
    except httpx.TransportError as error:
        return paused, error


def test_the_pauses_grow_and_are_no_shorter_than_the_service_asks_for() -> None:
    asked = [answer(503, retry_after="7"), answer(503, retry_after="soon")]
    paused, last = pauses([*[answer(503)] * 6, *asked, answer(200)], repeatable=True, patience_s=60)
    assert paused == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 7.0, 2.0]
    assert last.status_code == 200


def test_a_pause_that_outlasts_the_patience_is_not_made() -> None:
    paused, last = pauses([answer(503, retry_after="4")], repeatable=True, patience_s=3)
    assert (paused, last.status_code) == ([], 503)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_would_be_answered_alike_is_not_tried_again(status: int) -> None:
    paused, last = pauses([answer(status)], repeatable=True, patience_s=60)
    assert (paused, last.status_code) == ([], status)


@pytest.mark.parametrize("outcome", [httpx.ReadError("reset"), answer(502), answer(504)])
def test_what_may_have_arrived_is_tried_again_only_where_that_does_no_harm(outcome: Outcome) -> None:
    assert pauses([outcome, answer(200)], repeatable=True, patience_s=60)[0] == [0.1]
    assert pauses([outcome], repeatable=False, patience_s=60) == ([], outcome)


@pytest.mark.parametrize("outcome", [httpx.ConnectError("refused"), answer(503)])
def test_what_never_arrived_is_always_tried_again(outcome: Outcome) -> None:
    assert pauses([outcome, answer(200)], repeatable=False, patience_s=60)[0] == [0.1]
