"""How notebooks show what was found: a table, and the picture as an image of its own."""

import json
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clr.tuning.recommendation import Recommendation


def job_html(document: Mapping[str, Any], picture: str | None) -> str:
    """A job and, where it has one yet, its range test's picture (SVG)."""
    rows = {name: document[name] for name in ("id", "task", "state", "stage", "error")}
    rows |= {"progress": f"{document['progress']:.0%}", "steps": document["cost"]["steps"]}
    return _html(f"job {document['name']}", rows, picture)


def range_test_html(document: Mapping[str, Any]) -> str:
    """A range test: its bounds and its picture."""
    from clr.charts import range_test_chart, svg

    bounds = document.get("bounds") or {}
    shown = svg(range_test_chart(dict(document))) if any(curve["points"] for curve in document["curves"]) else None
    rows = {name: bounds.get(name) for name in ("base_lr", "max_lr", "confidence")}
    return _html("LR range test", rows | {"reasons": "; ".join(bounds.get("reasons", []))}, shown)


def recommendation_html(found: "Recommendation") -> str:
    """A recommendation and its schedule."""
    from clr.charts import schedule_chart, svg

    rows: dict[str, Any] = {name: getattr(found, name) for name in ("policy", "base_lr", "max_lr", "stepsize")}
    rows |= {"confidence": f"{found.confidence}, from the {found.source.replace('_', ' ')}"}
    rows |= {"beside its baselines": found.evidence and found.evidence.verdict}
    rows |= {"reasons": "; ".join(found.reasons), "warnings": "; ".join(found.warnings)}
    shown = None
    if found.stepsize is not None and found.iterations_per_epoch is not None:
        two_cycles = 4 * found.stepsize / found.iterations_per_epoch
        shown = svg(schedule_chart({"recommended": found.to_dict()}, two_cycles))
    return _html("recommendation", rows, shown)


def _html(title: str, rows: Mapping[str, object], picture: str | None) -> str:
    """Rows without a value are left out. Within an image element, a picture's ids meet those of no other picture."""
    cells = "".join(
        f"<tr><th style='text-align: left'>{escape(name)}</th><td style='text-align: left'>{_cell(value)}</td></tr>"
        for name, value in rows.items()
        if value not in (None, "")
    )
    shown = ""
    if picture is not None:
        shown = f"<img alt='{escape(title)}' src='data:image/svg+xml;base64,{b64encode(picture.encode()).decode()}'>"
    return f"<table><caption>{escape(title)}</caption>{cells}</table>{shown}"


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return escape(text)
