"""The schedule: the rate over a whole training."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import altair as alt

from clr.charts.look import LIGHT, Look, data
from clr.schedules.policies import schedule

SAMPLES = 500
"""Points of one line, beside those at which its policy turns: more than the picture has columns of pixels."""

Document = dict[str, Any]


def schedule_chart(recommendations: Mapping[str, Document], epochs: float, look: Look = LIGHT) -> alt.Chart:
    """The rate of each step of a training, for one recommendation or several over one another.

    Args:
        recommendations: by the name to show, with bounds, as ``GET /v1/jobs/{id}/recommendation`` gives them.
        epochs: length of the training.
        look: sizes and colours.
    """
    rows = [row | {"name": name} for name, found in recommendations.items() for row in _rates(found, epochs)]
    several = len(recommendations) > 1
    colour = alt.Color(
        "name:N",
        sort=None,
        scale=alt.Scale(domain=list(recommendations), range=look.hues(len(recommendations))),
        legend=alt.Legend(title=None, orient="bottom", columns=1) if several else None,
    )
    marks = alt.Chart(data(rows), width=look.width, height=look.height * 0.7, config=look.config())
    chart: alt.Chart = marks.mark_line(strokeWidth=2).encode(
        x=alt.X(
            "epoch:Q",
            axis=alt.Axis(title="epochs", grid=False, format=".6~g", tickCount=6),
            scale=alt.Scale(domain=[0, epochs], nice=False),
        ),
        y=alt.Y(
            "lr:Q",
            axis=alt.Axis(title="learning rate", format="~g", tickCount=5),
            scale=alt.Scale(type="log", nice=False),
        ),
        color=colour,
        **({"strokeDash": alt.StrokeDash("name:N", sort=None, legend=None)} if several else {}),
    )
    return chart


def _rates(found: Document, epochs: float) -> list[Document]:
    per_epoch, cycle = found["iterations_per_epoch"], 2 * found["stepsize"]
    up, down = found.get("step_size_up") or cycle // 2, found.get("step_size_down") or cycle // 2
    bounds = {"base_lr": found["base_lr"], "max_lr": found["max_lr"], "gamma": found.get("gamma")}
    rate = schedule(found["policy"], **bounds, stepsize=up, stepsize_down=down)
    steps = max(1, round(epochs * per_epoch))
    few = 2 * steps / cycle <= SAMPLES
    turns = {*range(0, steps, cycle), *range(up, steps, cycle)} if few else set()
    shown = sorted({*range(0, steps, ceil(steps / SAMPLES)), *turns, steps})
    return [{"epoch": step / per_epoch, "lr": rate(step)} for step in shown]
