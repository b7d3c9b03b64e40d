"""Pictures, each made from one specification that serves files, notebooks and pages alike. Altair, no torch."""

from collections.abc import Iterable
from typing import Any, Literal

import altair as alt
import numpy as np
import vl_convert

from clr.policies import schedule
from clr.repetition import TAIL

SHOWN = 400
"""Points drawn of one curve: about one for each pixel column of the picture."""

WIDTH, HEIGHT = 640, 220
SEEDS, SMOOTHED, BASE, MAX = "#9aa5b1", "#1f2933", "#0b7285", "#c92a2a"

LABEL = "#52606d"
DOT: dict[str, Any] = {
    "filled": True,
    "size": 55,
    "color": "#e67700",
    "stroke": "white",
    "strokeWidth": 1,
    "opacity": 1,
}
LEGEND = "thin: each ramp; thick: their smoothed mean; dots: where a short cycle that peaks at this rate ends"

Document = dict[str, Any]


def range_test_chart(document: Document) -> alt.VConcatChart:
    """The curves of a range test against the rate, with base_lr, max_lr and their intervals marked.

    Args:
        document: ``curves`` (each with ``params.policy`` and ``points`` of lr, loss, metric), ``smoothed``,
            ``bounds`` and ``metric``, as ``GET /v1/jobs/{id}/range-test`` gives them.
    """
    ramps = [curve for curve in document["curves"] if curve["params"].get("policy", "").endswith("_ramp")]
    panels = [_panel(document, ramps, "loss", "training loss")]
    if any(point["metric"] is not None for curve in ramps for point in curve["points"]):
        panels.append(_panel(document, ramps, "metric", f"validation {document.get('metric') or 'metric'}"))
    return alt.VConcatChart(
        vconcat=panels,
        title=alt.Title(_title(document), subtitle=LEGEND, anchor="start", subtitleColor=LABEL, offset=10),
        spacing=8,
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(x="shared")),
        config=alt.Config(view=alt.ViewConfig(strokeWidth=0)),
    )


def schedule_svg(policy: str, base_lr: float, max_lr: float, stepsize: int, gamma: float | None = None) -> str:
    """The rate over two cycles, as SVG text.

    Args:
        policy: name in ``clr.POLICIES``.
        base_lr, max_lr, stepsize, gamma: as that policy takes them.
    """
    rate = schedule(policy, base_lr=base_lr, max_lr=max_lr, stepsize=stepsize, gamma=gamma)
    steps = sorted({round(share * stepsize / SHOWN) for share in range(4 * SHOWN + 1)})
    line = alt.Chart(alt.InlineData(values=[{"step": step, "lr": rate(step)} for step in steps]))
    x = alt.X("step:Q", axis=alt.Axis(title="optimizer step", grid=False))
    y = alt.Y("lr:Q", axis=alt.Axis(title="learning rate", format="~g", gridOpacity=0.4))
    layers = [line.mark_line(color=SMOOTHED, strokeWidth=2).encode(x=x, y=y)]
    return svg(alt.VConcatChart(vconcat=[alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT)]))


def svg(chart: alt.VConcatChart) -> str:
    """The picture as SVG text."""
    text: str = vl_convert.vegalite_to_svg(chart.to_json())
    return text


def png(chart: alt.VConcatChart) -> bytes:
    """The picture as PNG bytes, at twice the nominal size."""
    data: bytes = vl_convert.vegalite_to_png(chart.to_json(), scale=2)
    return data


def range_test_svg(document: Document) -> str:
    """The range test's picture as SVG text."""
    return svg(range_test_chart(document))


def range_test_png(document: Document) -> bytes:
    """The range test's picture as PNG bytes."""
    return png(range_test_chart(document))


def _title(document: Document) -> str:
    bounds = document.get("bounds") or {}
    if bounds.get("max_lr") is None:
        return "LR range test" if not bounds else f"LR range test: inconclusive, {'; '.join(bounds['reasons'])[:80]}"
    return f"LR range test: base_lr {bounds['base_lr']:.3g}, max_lr {bounds['max_lr']:.3g} ({bounds['confidence']})"


def _panel(document: Document, ramps: list[Document], field: str, title: str) -> alt.LayerChart:
    rows = [
        {"lr": point["lr"], "value": point[field], "seed": str(number)}
        for number, curve in enumerate(ramps)
        for point in _thinned([p for p in curve["points"] if p[field] is not None and p["lr"] > 0])
    ]
    smoothed = document.get("smoothed") or {}
    line = [
        {"lr": lr, "value": value}
        for lr, value in zip(smoothed.get("lr", []), smoothed.get(field) or [], strict=False)
        if value is not None and lr > 0
    ]
    ends = _ends(document) if field == "loss" else []
    seen = [row["value"] for row in (*rows, *ends)]
    low, high = _window(seen, [row["value"] for row in line] if field == "loss" else [])
    x = alt.X(
        "lr:Q",
        scale=alt.Scale(type="log", nice=False, domain=_rates(smoothed, rows)),
        axis=alt.Axis(title="learning rate", format="~g", grid=False),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[low, high], nice=False), axis=alt.Axis(title=title, gridOpacity=0.4))
    layers: list[alt.Chart] = [
        *_marks(document.get("bounds") or {}),
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(clip=True, color=SEEDS, strokeWidth=1, opacity=0.7)
        .encode(x=x, y=y, detail="seed:N"),
    ]
    if line:
        marks = alt.Chart(alt.InlineData(values=line)).mark_line(clip=True, color=SMOOTHED, strokeWidth=2.5)
        layers.append(marks.encode(x=x, y=y))
    if ends:
        layers.append(alt.Chart(alt.InlineData(values=ends)).mark_point(clip=True, **DOT).encode(x=x, y=y))
    return alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT)


def _ends(document: Document) -> list[Document]:
    """Peak and final loss of the short cycles that stayed finite."""
    found = []
    for curve in document["curves"]:
        losses = [point["loss"] for point in curve["points"] if point["loss"] is not None]
        if curve["params"].get("policy") == "triangular" and len(losses) == len(curve["points"]) > 0:
            rate = max(point["lr"] for point in curve["points"])
            found.append({"lr": rate, "value": float(np.mean(losses[-max(1, len(losses) // TAIL) :]))})
    return found


def _rates(smoothed: Document, rows: list[Document]) -> list[float]:
    """The rates worth seeing: a decade below the ramps that were read, half a decade above; all, where none were."""
    if smoothed.get("lr"):
        return [smoothed["lr"][0] / 10, smoothed["lr"][-1] * 3]
    rates = [row["lr"] for row in rows] or [1e-7, 1.0]
    return [min(rates), max(rates)]


def _marks(bounds: Document) -> Iterable[alt.Chart]:
    """A band over each bound's interval, and a line with its name at the bound, all of the panel's height."""
    marks: list[tuple[str, str, Literal["left", "right"]]] = [("base_lr", BASE, "right"), ("max_lr", MAX, "left")]
    for name, colour, align in marks:
        if bounds.get(name) is None:
            continue
        first, last = bounds["interval"][name]
        band = alt.Chart(alt.InlineData(values=[{"first": first, "last": last}]))
        yield band.mark_rect(color=colour, opacity=0.15).encode(x="first:Q", x2="last:Q")
        here = alt.Chart(alt.InlineData(values=[{"lr": bounds[name], "label": f"{name} {bounds[name]:.3g}"}]))
        yield here.mark_rule(color=colour, strokeWidth=2).encode(x="lr:Q")
        text = here.mark_text(align=align, baseline="top", dx=-5 if align == "right" else 5, dy=3, color=colour)
        yield text.encode(x="lr:Q", y=alt.value(0), text="label:N")


def _window(values: list[float], smoothed: list[float]) -> tuple[float, float]:
    """The values' range; of a loss only up to a quarter of its fall above its start: no divergence is worth its height.

    ``smoothed`` is the smoothed loss; empty where the curve is a metric, which may rise.
    """
    if not values:
        return 0.0, 1.0
    low, high = float(np.min(values)), float(np.max(values))
    if smoothed:
        start = float(np.median(smoothed[: max(1, len(smoothed) // 20)]))
        high = min(high, start + 0.25 * max(start - low, 0.05 * abs(start)))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _thinned(points: list[Document]) -> list[Document]:
    return points[:: max(1, len(points) // SHOWN)]
