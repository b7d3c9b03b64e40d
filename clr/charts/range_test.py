"""The range test: curves over the rate, and the bounds read from them."""

from collections.abc import Iterable
from typing import Any, Literal

import altair as alt
import numpy as np

from clr.charts.look import LIGHT, Look, data
from clr.run import TAIL

SHOWN = 400
"""Points drawn of one curve: about one for each pixel column of the picture."""

LEGEND = "thin: each ramp; thick: their smoothed mean; dots: where a short cycle that peaks at this rate ends"

Document = dict[str, Any]


def range_test_chart(document: Document, look: Look = LIGHT) -> alt.VConcatChart:
    """The curves of a range test against the rate, with base_lr, max_lr and their intervals marked.

    Args:
        document: ``curves`` (each with ``params.policy`` and ``points`` of lr, loss, metric), ``smoothed``,
            ``bounds`` and ``metric``, as ``GET /v1/jobs/{id}/range-test`` gives them.
        look: sizes and colours.
    """
    ramps = [curve for curve in document["curves"] if curve["params"].get("policy", "").endswith("_ramp")]
    panels = [_panel(document, ramps, "loss", "training loss", look)]
    if any(point["metric"] is not None for curve in ramps for point in curve["points"]):
        panels.append(_panel(document, ramps, "metric", f"validation {document.get('metric') or 'metric'}", look))
    return alt.VConcatChart(
        vconcat=panels,
        title=look.title(_title(document), LEGEND),
        spacing=8,
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(x="shared")),
        config=look.config(),
    )


def _title(document: Document) -> str:
    bounds = document.get("bounds") or {}
    if bounds.get("max_lr") is None:
        return "LR range test" if not bounds else f"LR range test: inconclusive, {'; '.join(bounds['reasons'])[:80]}"
    return f"LR range test: base_lr {bounds['base_lr']:.3g}, max_lr {bounds['max_lr']:.3g} ({bounds['confidence']})"


def _panel(document: Document, ramps: list[Document], field: str, title: str, look: Look) -> alt.LayerChart:
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
    low, high = window(seen, [row["value"] for row in line] if field == "loss" else [])
    x = alt.X(
        "lr:Q",
        scale=alt.Scale(type="log", nice=False, domain=_rates(document, rows)),
        axis=alt.Axis(title="learning rate", format="~g", grid=False, labelSeparation=4),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[low, high], nice=False), axis=alt.Axis(title=title))
    layers: list[alt.Chart] = [
        *_marks(document.get("bounds") or {}, look),
        alt.Chart(data(rows))
        .mark_line(clip=True, color=look.faint, strokeWidth=1, opacity=0.7)
        .encode(x=x, y=y, detail="seed:N"),
    ]
    if line:
        marks = alt.Chart(data(line)).mark_line(clip=True, color=look.ink, strokeWidth=2.5)
        layers.append(marks.encode(x=x, y=y))
    if ends:
        layers.append(alt.Chart(data(ends)).mark_point(clip=True, **look.dot()).encode(x=x, y=y))
    return alt.LayerChart(layer=layers, width=look.width, height=look.height)


def _ends(document: Document) -> list[Document]:
    """Peak and final loss of the short cycles that stayed finite."""
    found = []
    for curve in document["curves"]:
        losses = [point["loss"] for point in curve["points"] if point["loss"] is not None]
        if curve["params"].get("policy") == "triangular" and len(losses) == len(curve["points"]) > 0:
            rate = max(point["lr"] for point in curve["points"])
            found.append({"lr": rate, "value": float(np.mean(losses[-max(1, len(losses) // TAIL) :]))})
    return found


def _rates(document: Document, rows: list[Document]) -> list[float]:
    """The rates worth seeing: a decade below the ramps that were read, half a decade above; all, where none were.

    The bounds are among them with room for their names: after ramps that learnt nothing they lie below.
    """
    smoothed, bounds = document.get("smoothed") or {}, document.get("bounds") or {}
    if smoothed.get("lr"):
        seen = [smoothed["lr"][0] / 10, smoothed["lr"][-1] * 3]
    else:
        seen = [row["lr"] for row in rows] or [1e-7, 1.0]
    if bounds.get("max_lr") is not None:
        seen += [bounds["interval"]["base_lr"][0] / 10, bounds["interval"]["max_lr"][1] * 4]
    return [min(seen), max(seen)]


def _marks(bounds: Document, look: Look) -> Iterable[alt.Chart]:
    """A band over each bound's interval, and a line with its name at the bound, all of the panel's height."""
    marks: list[tuple[str, str, Literal["left", "right"]]] = [
        ("base_lr", look.base, "right"),
        ("max_lr", look.max, "left"),
    ]
    for name, colour, align in marks:
        if bounds.get(name) is None:
            continue
        first, last = bounds["interval"][name]
        band = alt.Chart(data([{"first": first, "last": last}]))
        yield band.mark_rect(color=colour, opacity=0.15).encode(x="first:Q", x2="last:Q")
        here = alt.Chart(data([{"lr": bounds[name], "label": f"{name} {bounds[name]:.3g}"}]))
        yield here.mark_rule(color=colour, strokeWidth=2).encode(x="lr:Q")
        text = here.mark_text(align=align, baseline="top", dx=-5 if align == "right" else 5, dy=3, color=colour)
        yield text.encode(x="lr:Q", y=alt.value(0), text="label:N")


def window(values: list[float], smoothed: list[float]) -> tuple[float, float]:
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
