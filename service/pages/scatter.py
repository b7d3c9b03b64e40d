"""A search's trials over their highest rate, as marks of the page itself: each can be pointed at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TICKS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 5.0), (1.0,))
"""Of a decade: the first of these that are not too many."""

MOST_TICKS = 7
"""Labels of rates that a telephone's width has room for."""

TOLD = ("name", "policy", "base_lr", "max_lr", "ratio", "stepsize_multiplier", "rise")
WORST = 10
"""One in so many values may lie below the picture's floor: one failure must not flatten all others."""


@dataclass(frozen=True)
class Dot:
    """A trial: where it is drawn, whether it is the best or a baseline, and all that is known of it in words.

    Places are in per cent of the picture, from left and top: it is as wide as the screen, its words stay as large.
    """

    x: float
    y: float
    kind: str
    told: str


@dataclass(frozen=True)
class Scatter:
    """Dots and the marks of the axes: places in per cent, and labels."""

    dots: list[Dot]
    rates: list[tuple[float, str]]
    values: list[tuple[float, str]]


def scatter(trials: Sequence[Mapping[str, Any]], direction: str | None, metric: str) -> Scatter | None:
    """The trials that have a value, over max_lr; None where there are none."""
    scored = [trial for trial in trials if trial["value"] is not None and (trial.get("max_lr") or 0) > 0]
    if not scored:
        return None
    sign = -1 if direction == "minimize" else 1
    best = max(scored, key=lambda trial: sign * trial["value"])
    ranked = sorted((trial["value"] for trial in scored), key=lambda value: sign * value)
    values = _widened(ranked[len(ranked) // WORST], ranked[-1], 0.06)
    logs = [math.log10(trial["max_lr"]) for trial in scored]
    rates = _widened(min(logs), max(logs), 0.04)

    def x(rate: float) -> float:
        return round(100 * _share(math.log10(rate), rates), 2)

    def y(value: float) -> float:
        return round(100 * (1 - min(1.0, max(0.0, _share(value, values)))), 2)

    dots = [
        Dot(
            x(trial["max_lr"]),
            y(trial["value"]),
            "best" if trial is best else "baseline" if "baseline" in trial else "",
            _told(trial, metric),
        )
        for trial in sorted(scored, key=lambda trial: trial is best)
    ]
    return Scatter(
        dots, [(x(tick), f"{tick:g}") for tick in _decades(rates)], [(y(tick), f"{tick:.4g}") for tick in _even(values)]
    )


def _told(trial: Mapping[str, Any], metric: str) -> str:
    known = [f"{name} {_shown(trial[name])}" for name in TOLD if trial.get(name) is not None]
    return f"trial {trial['number']}: {metric} {trial['value']:.5g}; {', '.join(known)}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(value: float, span: tuple[float, float]) -> float:
    return (value - span[0]) / (span[1] - span[0])


def _widened(low: float, high: float, by: float) -> tuple[float, float]:
    low, high = min(low, high), max(low, high)
    margin = by * (high - low) or 0.25 * (abs(high) or 1.0)
    return low - margin, high + margin


def _decades(span: tuple[float, float]) -> list[float]:
    """Round rates within the logarithms of ``span``."""
    decades = range(math.floor(span[0]), math.ceil(span[1]) + 1)
    for steps in TICKS:
        found = [step * 10.0**decade for decade in decades for step in steps]
        within = [rate for rate in found if span[0] <= math.log10(rate) <= span[1]]
        if len(within) <= MOST_TICKS:
            break
    return within


def _even(span: tuple[float, float]) -> list[float]:
    """About five round values within ``span``."""
    rough = (span[1] - span[0]) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    first = math.ceil(span[0] / step)
    return [index * step for index in range(first, math.floor(span[1] / step) + 1)]
