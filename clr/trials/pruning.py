"""Pruning across phases: trials are compared at the ends of their cycles alone.

Within a cycle a trial near its max_lr looks bad for its phase, not for its worth. At the end of a cycle every trial is
at its lowest rate, so the values there form a curve of their own over the share of the training spent, whatever the
number of cycles; between two ends that curve is interpolated, never extrapolated. A schedule of one cycle has its only
end at the end of the training: it is never pruned and prunes none. Figures: docs/decisions/0007.
"""

from collections.abc import Iterable, Sequence

import numpy as np

EARLIEST = 1 / 3
"""Share of the training before which nothing is pruned: the ranking of schedules at a fifth of it says little of the
ranking at its end."""

FEWEST = 4
"""Trials to compare with: the fewest that have a lower third."""

WORST = 1 / 3
"""Share of the comparable trials that a trial must be behind. At one half, twice as much of what is best is lost."""

Ends = Sequence[tuple[float, float]]
"""(share of the training spent, value) at the ends of a trial's cycles, in order; larger values are better."""


def falls_behind(ends: Ends, others: Iterable[Ends]) -> bool:
    """Whether the last of ``ends`` is below the lowest third of the other trials at the same share of the training.

    Args:
        ends: of the trial in question.
        others: of all other trials, under way or ended.

    >>> others = [[(0.5, value), (1.0, 0.9)] for value in (0.6, 0.7, 0.8, 0.9)]
    >>> falls_behind([(0.5, 0.5)], others), falls_behind([(0.5, 0.75)], others)
    (True, False)
    """
    if not ends or ends[-1][0] < EARLIEST:
        return False
    share, value = ends[-1]
    values = [other for one in others if (other := _at(share, one)) is not None]
    return len(values) >= FEWEST and value < float(np.quantile(values, WORST))


def _at(share: float, ends: Ends) -> float | None:
    """The value between the ends of two cycles; None outside the first and the last of them."""
    if not ends or not ends[0][0] <= share <= ends[-1][0]:
        return None
    shares, values = np.transpose(ends)
    return float(np.interp(share, shares, values))
