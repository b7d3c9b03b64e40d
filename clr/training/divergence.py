"""When a loss that is still finite counts as diverged."""

import math
from statistics import median


class Explosion:
    """Says when the last three losses lie ``falls`` times the deepest fall, or the scatter, above the start."""

    def __init__(self, falls: float) -> None:
        self.falls = falls
        self.head: list[float] = []
        self.last: list[float] = []
        self.lowest = math.inf
        self.start = self.scatter = math.nan

    def after(self, losses: list[float]) -> bool:
        """Whether it exploded by the end of ``losses``, which follow those of the call before."""
        if len(self.head) < 8:
            self.head = (self.head + losses)[:8]
            self.start = median(self.head)
            self.scatter = max(max(self.head) - min(self.head), 1e-3 * abs(self.start))
        self.last = (self.last + losses)[-3:]
        self.lowest = min(self.lowest, *losses)
        return min(self.last) > self.start + self.falls * max(self.start - self.lowest, self.scatter)
