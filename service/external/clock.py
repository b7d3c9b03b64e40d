"""How long ago something was, by a clock that may be set meanwhile."""

import time
from datetime import UTC, datetime, timedelta
from threading import Lock

LEAP = timedelta(seconds=1)
"""A clock that runs ahead of this process's own steady one by more than that from one look to the next was set."""


class Clock:
    """The wall clock, and by how much it was set forward while this process looked on.

    Instants come from the store, and have to outlive this process; the clock of the kernel that is never set tells
    nothing of those of another.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen = datetime.now(UTC), time.monotonic()
        self._leaps: list[tuple[datetime, timedelta]] = []  # the last instant before each, and its length

    def look(self) -> datetime:
        """The present instant; to be called now and then, for the more often, the less can be mistaken."""
        with self._lock:
            (seen, steady), self._seen = self._seen, (datetime.now(UTC), time.monotonic())
            present, expected = self._seen[0], seen + timedelta(seconds=self._seen[1] - steady)
            if present - expected > LEAP:
                self._leaps.append((expected, present - expected))
            elif expected - present > LEAP:  # set back: which of the instants were before that, nobody knows
                self._leaps.clear()
            return present

    def since(self, instant: datetime) -> timedelta:
        """How long ago it was, as far as that is known: less than 0 where the clock was set back."""
        present = self.look()
        return present - instant - sum((length for before, length in self._leaps if instant <= before), timedelta())


CLOCK = Clock()
