"""The parameters of a search: all of a trial's as one line, and how much each matters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from clr.charts.look import LIGHT, Look, data

Document = dict[str, Any]

NAMES = {"max_lr": "max_lr", "ratio": "ratio", "rise": "rise", "stepsize_multiplier": "stepsize, epochs"}
"""Parameters that are numbers, and what their axes are called."""

EDGE = 0.06
"""Room above and below the lines, as a share of the height, for the ends of each axis."""


def parallel_chart(trials: Sequence[Document], metric: str, direction: str, look: Look = LIGHT) -> alt.LayerChart:
    """Each trial as a line through its parameters to its value, coloured by the value, the best one on top.

    Args:
        trials: each with ``number``, its parameters and ``value``; those without one are left out.
        metric, direction: what the value is, and whether larger is better.
        look: sizes and colours.
    """
    scored = [trial for trial in trials if trial["value"] is not None]
    axes = [name for name in NAMES if len({trial.get(name) for trial in scored} - {None}) > 1] + ["value"]
    titles = [NAMES.get(name, metric) for name in axes]
    better = sorted(scored, key=lambda trial: trial["value"], reverse=direction == "minimize")
    spans = {name: _span(name, [trial[name] for trial in scored if trial.get(name) is not None]) for name in axes}
    rows = [
        {"trial": order, "axis": title, "height": _height(name, trial[name], spans[name]), "value": trial["value"]}
        for order, trial in enumerate(better)
        for name, title in zip(axes, titles, strict=True)
        if trial.get(name) is not None
    ]
    ends = [
        {"axis": title, "height": height, "end": f"{spans[name][end]:.3g}"}
        for name, title in zip(axes, titles, strict=True)
        for end, height in ((0, -EDGE), (1, 1 + EDGE))
    ]
    x = alt.X(
        "axis:N",
        sort=titles,
        axis=alt.Axis(title=None, labelAngle=0, grid=True, domain=False),
        scale=alt.Scale(type="point", padding=0.4),
    )
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[-2 * EDGE, 1 + 2 * EDGE]))
    colours = alt.SchemeParams(name=look.scheme, extent=look.extent)
    scale = alt.Scale(scheme=colours, reverse=direction == "minimize")
    last = len(better) - 1
    lines = alt.Chart(data(rows)).encode(x=x, y=y, detail="trial:O")
    layers = [
        lines.mark_line(strokeWidth=1.2, opacity=0.55).encode(color=alt.Color("value:Q", scale=scale, legend=None)),
        lines.mark_line(strokeWidth=2.5, color=look.max).transform_filter(f"datum.trial == {last}"),
        alt.Chart(data(ends)).mark_text(color=look.label, fontSize=11).encode(x=x, y=y, text="end:N"),
    ]
    return alt.LayerChart(layer=layers, width=look.width, height=look.height, config=look.config())


def importance_chart(shares: Mapping[str, float], metric: str, look: Look = LIGHT) -> alt.LayerChart:
    """How much each parameter has to do with how much the trials' values differ.

    Args:
        shares: by parameter, as ``clr.trials.importance.importances`` gives them.
        metric: what the values are.
        look: sizes and colours.
    """
    rows = [
        {"name": NAMES.get(name, name), "share": share, "label": f"{100 * share:.0f} %"}
        for name, share in shares.items()
    ]
    bars = alt.Chart(data(rows)).encode(
        x=alt.X(
            "share:Q",
            axis=alt.Axis(title=f"share in the differences of {metric}", format="%", grid=False),
            scale=alt.Scale(domain=[0, 1.1]),
        ),
        y=alt.Y("name:N", sort=None, axis=alt.Axis(title=None)),
    )
    layers = [
        bars.mark_bar(color=look.base, height=16),
        bars.mark_text(align="left", dx=5, color=look.ink).encode(text="label:N"),
    ]
    return alt.LayerChart(layer=layers, width=look.width - 60, height=34 * max(1, len(rows)), config=look.config())


def _span(name: str, values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _height(name: str, value: float, span: tuple[float, float]) -> float:
    """Where a value is between the ends of its axis: by its logarithm, but for the trial's own value."""
    low, high = span
    if low == high:
        return 0.5
    if name == "value" or low <= 0:
        return (value - low) / (high - low)
    return math.log(value / low) / math.log(high / low)
