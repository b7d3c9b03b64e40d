"""How long ago something was, whatever is done to the clock."""

from datetime import UTC, datetime, timedelta

import pytest

from service.external.clock import LEAP, Clock
from tests.service.turned_clock import TurnedClock

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def test_what_a_clock_is_set_forward_by_is_no_time_that_went_by(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = TurnedClock(monkeypatch)
    clock = Clock()
    first = clock.look()
    for leaps in range(3):
        turned.turn(HOUR)
        turned.go_on(MINUTE)
        assert abs(clock.since(first) - (leaps + 1) * MINUTE) < LEAP
    last = clock.look()
    turned.go_on(MINUTE)
    assert abs(clock.since(last) - MINUTE) < LEAP, "what came after is as long ago as it seems"


def test_a_clock_that_is_set_back_is_believed_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = TurnedClock(monkeypatch)
    clock = Clock()
    turned.turn(HOUR)
    ahead = clock.look()
    turned.turn(-HOUR)
    assert abs(clock.since(ahead) + HOUR) < LEAP
    now = clock.look()
    turned.go_on(MINUTE)
    assert abs(clock.since(now) - MINUTE) < LEAP


def test_an_instant_before_the_process_is_as_long_ago_as_the_clock_says() -> None:
    assert abs(Clock().since(datetime.now(UTC) - HOUR) - HOUR) < LEAP
