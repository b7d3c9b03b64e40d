"""Range tests of several jobs over one another, and the bounds each recommends."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from clr.charts.look import LIGHT, Look, data
from clr.charts.range_test import window

Document = dict[str, Any]
ROW = 30
"""Pixels of height for each job's name."""


def comparison_chart(
    smoothed: Mapping[str, Document | None], bounds: Mapping[str, Document | None], look: Look = LIGHT
) -> alt.VConcatChart:
    """The smoothed loss of each range test over the rate, and below it base_lr and max_lr with their intervals.

    Args:
        smoothed: by the name to show, ``lr`` and ``loss``; None where a test was not read.
        bounds: by the same names, ``base_lr``, ``max_lr`` and ``interval``; None where there are none.
        look: sizes and colours.
    """
    names = list(smoothed)
    x = alt.X(
        "lr:Q",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=alt.Axis(title="learning rate", format="~g", grid=False),
    )
    shared = {
        "color": alt.Color("name:N", scale=alt.Scale(domain=names, range=look.hues(len(names))), legend=None),
        "x": x,
    }
    return alt.VConcatChart(
        vconcat=[_curves(smoothed, shared, look), _bounds(bounds, names, shared, look)],
        spacing=8,
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(x="shared")),
        config=look.config(),
    )


def _curves(smoothed: Mapping[str, Document | None], shared: dict[str, Any], look: Look) -> alt.Chart:
    rows = [
        {"name": name, "lr": lr, "loss": loss}
        for name, curve in smoothed.items()
        for lr, loss in zip((curve or {}).get("lr", []), (curve or {}).get("loss", []), strict=True)
        if loss is not None and lr > 0
    ]
    windows = [
        window(values, values) for name in smoothed if (values := [r["loss"] for r in rows if r["name"] == name])
    ]
    low, high = zip(*windows, strict=True) if windows else ([0.0], [1.0])
    y = alt.Y(
        "loss:Q",
        scale=alt.Scale(domain=[min(low), max(high)], nice=False),
        axis=alt.Axis(title="training loss, smoothed"),
    )
    marks = alt.Chart(data(rows), width=look.width, height=look.height)
    lines = marks.mark_line(strokeWidth=2.5, clip=True)
    chart: alt.Chart = lines.encode(y=y, strokeDash=_dash(list(smoothed)), **shared)
    return chart


def _bounds(
    bounds: Mapping[str, Document | None], names: list[str], shared: dict[str, Any], look: Look
) -> alt.LayerChart:
    found = [
        {
            "name": name,
            "bound": bound,
            "lr": read[bound],
            "low": read["interval"][bound][0],
            "high": read["interval"][bound][1],
        }
        for name, read in bounds.items()
        if read is not None
        for bound in ("base_lr", "max_lr")
    ]
    y = alt.Y("name:N", sort=names, scale=alt.Scale(domain=names), axis=alt.Axis(title=None, labelLimit=90))
    spans = [row | {"lr": row["low"]} for row in found]
    rules = alt.Chart(data(spans)).mark_rule(strokeWidth=5, opacity=0.4)
    points = alt.Chart(data(found)).mark_point(filled=True, size=90, opacity=1)
    kinds = alt.Shape("bound:N", legend=alt.Legend(title=None, orient="bottom", symbolFillColor=look.label))
    return alt.LayerChart(
        layer=[rules.encode(y=y, x2="high:Q", **shared), points.encode(y=y, shape=kinds, **shared)],
        width=look.width,
        height=max(2, len(names)) * ROW,
    )


def _dash(names: list[str]) -> alt.StrokeDash:
    """Not told apart by colour alone."""
    return alt.StrokeDash("name:N", scale=alt.Scale(domain=names), legend=None)
