"""The search: its trials over ratio and stepsize, and in the order in which they came."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from clr.charts.look import LIGHT, Look, data

Document = dict[str, Any]


def search_chart(trials: Sequence[Document], metric: str, direction: str, look: Look = LIGHT) -> alt.LayerChart:
    """The finished trials over ratio and stepsize multiplier, coloured by value, the best one ringed.

    Args:
        trials: each with ``number``, ``ratio``, ``stepsize_multiplier`` and ``value``, null where it diverged.
        metric, direction: what the value is, and whether larger is better.
        look: sizes and colours.
    """
    scored, diverged = _scored(trials)
    rings = [best] if (best := _best(scored, direction)) else []
    x = alt.X("ratio:Q", scale=alt.Scale(type="log", nice=False, padding=12), axis=_axis("ratio max_lr / base_lr"))
    y = alt.Y(
        "stepsize_multiplier:Q", scale=alt.Scale(type="log", nice=False, padding=12), axis=_axis("stepsize in epochs")
    )
    bar = alt.Legend(title=metric, format="~g", gradientLength=look.height * 0.8)
    colours = alt.SchemeParams(name=look.scheme, extent=look.extent)
    scale = alt.Scale(scheme=colours, reverse=direction == "minimize", domain=_range(scored, direction), clamp=True)
    layers = [
        _marks(diverged).mark_point(shape="cross", size=50, color=look.faint, filled=True, angle=45, opacity=0.9),
        _marks(scored).mark_circle(size=70, opacity=0.9).encode(color=alt.Color("value:Q", scale=scale, legend=bar)),
        _marks(rings).mark_point(size=190, color=look.max, strokeWidth=2),
    ]
    return alt.LayerChart(
        layer=[layer.encode(x=x, y=y) for layer in layers],
        width=look.width - 60,
        height=look.height,
        config=look.config(),
    )


def history_chart(trials: Sequence[Document], metric: str, direction: str, look: Look = LIGHT) -> alt.LayerChart:
    """The value of each trial by its number, and the best so far as a line.

    Args:
        trials: as for ``search_chart``, each with ``best``, the best value up to it.
        metric, direction: what the value is, and whether larger is better.
        look: sizes and colours.
    """
    scored, _ = _scored(trials)
    x = alt.X(
        "number:Q",
        scale=alt.Scale(nice=False, padding=8),
        axis=alt.Axis(title="trial", grid=False, tickMinStep=1, format="d"),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=_range(scored, direction), clamp=True, padding=8), axis=_axis(metric))
    line = _marks([row | {"value": row["best"]} for row in scored]).mark_line(
        color=look.base, strokeWidth=2, interpolate="step-after", clip=True
    )
    dots = _marks(scored).mark_circle(color=look.faint, size=36, opacity=0.8)
    return alt.LayerChart(
        layer=[layer.encode(x=x, y=y) for layer in (dots, line)],
        width=look.width,
        height=look.height * 0.7,
        config=look.config(),
    )


def _scored(trials: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    scored = [trial for trial in trials if trial["value"] is not None]
    return scored, [trial for trial in trials if trial["value"] is None]


def _best(scored: list[Document], direction: str) -> Document | None:
    if not scored:
        return None
    sign = 1 if direction == "maximize" else -1
    return max(scored, key=lambda trial: sign * trial["value"])


def _range(scored: list[Document], direction: str) -> list[float]:
    """The range of values without the worst tenth: one failure must not blind all others."""
    values = sorted(trial["value"] for trial in scored) or [0.0, 1.0]
    cut = len(values) // 10
    low, high = (values[cut], values[-1]) if direction == "maximize" else (values[0], values[-1 - cut])
    return [low, high] if low < high else [low - 0.5, high + 0.5]


def _axis(title: str) -> alt.Axis:
    return alt.Axis(title=title, format="~g", tickCount=6)


def _marks(rows: list[Document]) -> alt.Chart:
    return alt.Chart(data(rows))
