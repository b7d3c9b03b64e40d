"""A clock of the service's own that tests set."""

import time
from datetime import datetime, timedelta, tzinfo

import pytest

from service.external import clock


class TurnedClock:
    """In the place of ``datetime`` and ``time`` where the service asks how long ago something was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead, self.later = timedelta(), timedelta()
        monkeypatch.setattr(clock, "datetime", self)
        monkeypatch.setattr(clock, "time", self)

    def turn(self, by: timedelta) -> None:
        """Set the wall clock."""
        self.ahead += by

    def go_on(self, by: timedelta) -> None:
        """Let time go by."""
        self.later += by

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.ahead + self.later

    def monotonic(self) -> float:
        return time.monotonic() + self.later.total_seconds()
