"""Reading a range test's curves: base_lr and max_lr with intervals, or why there are none. NumPy alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Confidence = Literal["high", "medium", "low", "inconclusive"]


@dataclass(frozen=True)
class Bounds:
    """What a range test says.

    Args:
        base_lr, max_lr: the bounds, per step; None when inconclusive.
        interval: name -> (low, high) over the seeds; None when inconclusive.
        confidence: how far the seeds and the curve's shape agree.
        reasons: why, in plain words.
    """

    base_lr: float | None
    max_lr: float | None
    interval: dict[str, tuple[float, float]] | None
    confidence: Confidence
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def inconclusive(cls, *reasons: str) -> "Bounds":
        """No bounds, and why."""
        return cls(None, None, None, "inconclusive", list(reasons))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """Bounds, and the smoothed curve they were read from."""

    bounds: Bounds
    smoothed: dict[str, list[float]]


def read_curves(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Reading:
    """PROVISIONAL: the rate at the smoothed minimum of each seed's loss."""
    found = []
    grids = []
    for lr, loss in curves:
        x, y = np.log10(np.asarray(lr)), np.asarray(loss, float)
        if len(y) < 10:
            continue
        start = np.nanmedian(y[: max(3, len(y) // 20)])
        y = np.minimum(np.nan_to_num(y, nan=np.inf), start + 1)
        width = max(1.0, len(x) / 40)
        k = np.exp(-0.5 * (np.arange(-int(3 * width), int(3 * width) + 1) / width) ** 2)
        z = np.convolve(y, k, "same") / np.convolve(np.ones_like(y), k, "same")
        i = int(np.argmin(z))
        if z[i] < start - 0.05 * abs(start):
            found.append(10 ** x[i])
        grids.append((10**x, z))
    if not found:
        return Reading(
            Bounds.inconclusive("the loss never fell: the network did not learn at any rate tried"),
            {"lr": [], "loss": []},
        )
    top = float(np.median(found))
    low, high = float(min(found)), float(max(found))
    lr, z = max(grids, key=lambda g: len(g[0]))
    bounds = Bounds(
        top / 10,
        top,
        {"base_lr": (low / 10, high / 10), "max_lr": (low, high)},
        "medium",
        ["smoothed minimum of the loss"],
    )
    return Reading(bounds, {"lr": lr.tolist(), "loss": z.tolist()})
