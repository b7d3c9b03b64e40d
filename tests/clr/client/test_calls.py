import httpx
import pytest

from clr.client.calls import Attempts, ClientError


def answer(status: int, **headers: str) -> httpx.Response:
    request = httpx.Request("GET", "http://h/v1/jobs")
    return httpx.Response(
        status, headers={name.replace("_", "-"): text for name, text in headers.items()}, request=request
    )


def test_the_pauses_grow_and_are_no_shorter_than_the_service_asks_for() -> None:
    attempts = Attempts("http://h", True, 60)
    pauses = [attempts.pause_s(answer(503)) for _ in range(6)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert attempts.pause_s(answer(503, retry_after="7")) == 7
    assert attempts.pause_s(answer(503, retry_after="soon")) == 2


def test_a_pause_that_outlasts_the_patience_is_refused_at_once() -> None:
    with pytest.raises(ClientError) as caught:
        Attempts("http://h", True, 3).pause_s(answer(503, retry_after="4"))
    assert caught.value.status == 503


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_would_be_answered_alike_is_not_tried_again(status: int) -> None:
    with pytest.raises(ClientError):
        Attempts("http://h", True, 60).pause_s(answer(status))


def test_what_may_have_arrived_is_tried_again_only_where_that_does_no_harm() -> None:
    for outcome in (httpx.ReadError("reset"), answer(502), answer(504)):
        assert Attempts("http://h", True, 60).pause_s(outcome) == 0.1
        with pytest.raises(ClientError):
            Attempts("http://h", False, 60).pause_s(outcome)
    for outcome in (httpx.ConnectError("refused"), answer(503)):
        assert Attempts("http://h", False, 60).pause_s(outcome) == 0.1
