"""What this worker process measures; the loop writes it to the store, whence the API's /metrics tells it."""

from collections import defaultdict
from threading import Lock
from typing import Any


class Measures:
    """Counts since the process began; of several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases_lost = 0
        self._runs: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        self._steps: dict[str, int] = defaultdict(int)

    def lease_lost(self) -> None:
        with self._lock:
            self._leases_lost += 1

    def steps_taken(self, stage: str, steps: int) -> None:
        with self._lock:
            self._steps[stage] += steps

    def run_ended(self, stage: str, seconds: float) -> None:
        with self._lock:
            number, total_s = self._runs[stage]
            self._runs[stage] = number + 1, total_s + seconds

    def to_dict(self) -> dict[str, Any]:
        with self._lock:
            return {"leases_lost": self._leases_lost, "runs": dict(self._runs), "steps": dict(self._steps)}


MEASURES = Measures()
