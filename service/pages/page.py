"""What all pages have in common: templates, headers, and problems that are pages too."""

import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from service import problems

FOLDER = Path(__file__).parent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache, private",
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route for people: what goes wrong is told on a page, and every page has the headers that keep it safe."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                response = await handle(request)
            except Exception as error:
                answer = problems.answer(request, error)
                if answer is None:
                    raise
                response = problem_page(request, answer)
            response.headers.update(HEADERS)
            return response

        return handle_page


def page_router() -> APIRouter:
    return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=Response)


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    return _templates.TemplateResponse(request, template, context, status)


def problem_page(request: Request, answer: problems.ProblemResponse) -> Response:
    """A problem document as a page of the same status."""
    return render(request, "problem.html", answer.status_code, problem=json.loads(bytes(answer.body)))


class Assets(StaticFiles):
    """Styles and scripts; a browser keeps them and asks whether they are still the same."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / "assets")

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
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


_templates = Jinja2Templates(directory=FOLDER / "templates")
_templates.env.trim_blocks = _templates.env.lstrip_blocks = True
_templates.env.filters |= {function.__name__: function for function in (rate, count, duration, moment, words)}
