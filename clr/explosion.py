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

    def after(self, losses: list[float]) -> bool:
        """Whether it exploded by the end of ``losses``, which follow those of the call before."""
        self.head = (self.head + losses)[:8]
        self.last = (self.last + losses)[-3:]
        self.lowest = min(self.lowest, *losses)
        start = median(self.head)
        scale = max(start - self.lowest, max(self.head) - min(self.head), 1e-3 * abs(start))
        return min(self.last) > start + self.falls * scale
