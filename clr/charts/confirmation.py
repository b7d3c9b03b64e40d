"""The confirmation: the recommended schedule beside its baselines."""

from typing import Any

import altair as alt

from clr.charts.look import LIGHT, Look, data

Document = dict[str, Any]
ROW = 34
"""Pixels of height for each run's name."""


def confirmation_chart(evidence: Document, look: Look = LIGHT) -> alt.LayerChart:
    """Mean and standard deviation of each run over its seeds, and every seed as a dot.

    Args:
        evidence: ``metric``, ``epochs`` and ``runs`` (name, mean, std, values), as a recommendation has them.
        look: sizes and colours.
    """
    runs = [run for run in evidence["runs"] if run["mean"] is not None]
    names = [run["name"] for run in evidence["runs"]]
    spans = [{**run, "low": run["mean"] - run["std"], "high": run["mean"] + run["std"]} for run in runs]
    seeds = [{"name": run["name"], "value": value} for run in runs for value in run.get("values", [])]
    y = alt.Y(
        "name:N",
        sort=names,
        scale=alt.Scale(domain=names),
        axis=alt.Axis(title=None, labelLimit=120, labelExpr="replace(datum.label, '_', ' ')"),
    )
    axis = alt.Axis(title=f"{evidence['metric']} after {evidence['epochs']:g} epochs", format="~g", tickCount=5)
    scale = alt.Scale(zero=False, padding=14)
    ours = alt.when(alt.datum.name == "recommended").then(alt.value(look.mark)).otherwise(alt.value(look.label))
    means = alt.Chart(data(spans))
    dots = alt.Chart(data(seeds)).mark_point(size=30, color=look.faint, opacity=0.9)
    layers = [
        means.mark_rule(strokeWidth=3).encode(y=y, x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", color=ours),
        dots.encode(y=y, x=alt.X("value:Q", scale=scale, axis=axis)),
        means.mark_point(filled=True, size=90, opacity=1).encode(
            y=y, x=alt.X("mean:Q", scale=scale, axis=axis), color=ours
        ),
    ]
    width = look.width - 80
    return alt.LayerChart(layer=layers, width=width, height=max(2, len(names)) * ROW, config=look.config())
