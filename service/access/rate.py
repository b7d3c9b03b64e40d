"""How fast one token may send requests, within one process."""

import time


class Rate:
    """Lets ``per_s`` requests a second through, and as many at once after a quiet second.

    The generic cell rate algorithm: of each token only the time is kept at which it would be even.
    """

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._even_at: dict[str, float] = {}

    def wait_s(self, name: str) -> float:
        """Seconds until the next request may come; 0: now, and it counts."""
        now = time.monotonic()
        even_at = max(now, self._even_at.get(name, now)) + self._interval_s
        wait_s = even_at - now - max(1.0, self._interval_s)
        if wait_s > 1e-9:
            return wait_s
        self._even_at[name] = even_at
        return 0.0
