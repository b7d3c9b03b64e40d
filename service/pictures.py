"""Charts as answers: how a picture is asked for, drawn and kept."""

import logging
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Response

log = logging.getLogger(__name__)

Form = Literal["svg", "png"]

KEPT = "private, max-age=31536000, immutable"
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def _look(
    theme: Annotated[Literal["light", "dark"], Query(description="colour of the paper")] = "light",
    size: Annotated[Literal["wide", "half", "narrow"], Query(description="narrow: for a phone")] = "wide",
) -> Any:
    from clr.charts import look

    return look(theme, size)


LookOfPicture = Annotated[Any, Depends(_look)]
Version = Annotated[
    str | None,
    Query(
        max_length=64,
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="not read; a picture asked for with it may be kept for good",
    ),
]


@cache
def warm() -> None:
    """Draw once, for nobody: the first picture of a process takes a second longer than those that follow."""
    import altair

    from clr.charts import svg

    try:
        svg(altair.Chart(altair.InlineData([])).mark_point())
    except Exception:  # whatever it is, those who ask for a picture are told; the rest of the service goes on
        log.exception("no picture can be drawn")


def rendered(chart: Any, form: Form, version: str | None) -> Response:
    """The chart as a file. Scripts in it would not run, nor anything be fetched."""
    from clr.charts import png, svg

    headers = {
        "Cache-Control": KEPT if version else "no-cache",
        "Content-Security-Policy": SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }
    if form == "png":
        return Response(png(chart), media_type="image/png", headers=headers)
    return Response(svg(chart), media_type="image/svg+xml", headers=headers)
