"""Headers that every answer has which brings none of its own: of the API, of pages, of the dashboard."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRAMES = "frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache, private",
    "Referrer-Policy": "same-origin",
}


class AnswerHeaders:
    """ASGI middleware: what is answered is of the type that it says, kept by nobody else, and in no other's frame."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                policy = headers.get("Content-Security-Policy", "")
                if "frame-ancestors" not in policy:  # the dashboard has a policy of its own
                    headers["Content-Security-Policy"] = "; ".join(filter(None, [policy, FRAMES]))
            await send(message)

        await self.app(scope, receive, with_headers)
