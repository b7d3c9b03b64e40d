"""Problems told to people: a browser that asks for a page gets one, also when something goes wrong."""

import json
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.pages.page import render

API = "/v1/"
"""Below this, problems are documents for everybody."""


class ForPeople:
    """ASGI middleware that puts a page in the place of a problem document, and signing in in that of a 401."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _from_person(scope):
            return await self.app(scope, receive, send)
        held = bytearray()
        is_problem = False

        async def told(message: Message) -> None:
            nonlocal is_problem
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
                is_problem = kind.startswith("application/problem+json")
            if not is_problem:
                await send(message)
            elif message["type"] == "http.response.body":
                held.extend(message.get("body", b""))
                if not message.get("more_body"):
                    await _page(Request(scope), json.loads(held))(scope, receive, send)

        return await self.app(scope, receive, told)


def _from_person(scope: Scope) -> bool:
    return not scope["path"].startswith(API) and "text/html" in Headers(scope=scope).get("accept", "")


def _page(request: Request, problem: dict[str, object]) -> Response:
    if problem["status"] == 401:
        back = request.url.path if request.method == "GET" else "/"
        return RedirectResponse(f"/signin?{urlencode({'next': back})}", 303)
    return render(request, "problem.html", int(str(problem["status"])), problem=problem)
