"""Pictures, each made from one specification that serves files, notebooks and pages alike. Altair, no torch."""

from typing import Any

import vl_convert

from clr.charts.comparison import comparison_chart
from clr.charts.confirmation import confirmation_chart
from clr.charts.look import Look, Size, Theme, look
from clr.charts.parameters import importance_chart, parallel_chart
from clr.charts.range_test import range_test_chart
from clr.charts.schedule import schedule_chart
from clr.charts.search import history_chart, search_chart

__all__ = [
    "Look",
    "Size",
    "Theme",
    "comparison_chart",
    "confirmation_chart",
    "history_chart",
    "importance_chart",
    "look",
    "parallel_chart",
    "png",
    "range_test_chart",
    "schedule_chart",
    "search_chart",
    "svg",
]


def svg(chart: Any) -> str:
    """The picture as SVG text."""
    text: str = vl_convert.vegalite_to_svg(chart.to_json())
    return text


def png(chart: Any) -> bytes:
    """The picture as PNG bytes, at twice the nominal size."""
    data: bytes = vl_convert.vegalite_to_png(chart.to_json(), scale=2)
    return data
