"""What all pages have in common: templates, and the headers that keep them safe."""

from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

FOLDER = Path(__file__).parent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY}


def page_router() -> APIRouter:
    return APIRouter(include_in_schema=False, default_response_class=Response)


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    return _templates.TemplateResponse(request, template, context, status, HEADERS)


class Assets(StaticFiles):
    """Styles and scripts; a browser keeps them and asks whether they are still the same."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / "assets")

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def rate(value: float | None) -> str:
    """A learning rate, or another number of which three digits matter."""
    return "–" if value is None else f"{value:.4g}"


def count(value: int | None) -> str:
    """A whole number, its thousands apart."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.0f} s"


def moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


def words(value: str) -> str:
    return value.replace("_", " ")


def stage(value: str) -> str:
    return "confirmation" if value == "confirm" else words(value)


_templates = Jinja2Templates(directory=FOLDER / "templates")
_templates.env.trim_blocks = _templates.env.lstrip_blocks = True
_templates.env.filters |= {function.__name__: function for function in (rate, count, duration, moment, words, stage)}
