"""How a request's body may come: with one length, up to a size, at a pace. Nothing beyond is read into memory."""

import time

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem

GRACE_S = 20.0
SLOWEST = 4096.0
"""A body may take ``GRACE_S`` seconds, and one more for so many bytes."""

CLOSE = {"Connection": "close"}
"""Whatever else comes over the connection was sent to go with what is refused."""


class RequestBody:
    """ASGI middleware that answers 413 to a body above ``limit_bytes`` (for uploaded code ``code_limit_bytes``), 408 to
    one that comes too slowly, and 400 to one whose length is said in two ways."""

    def __init__(self, app: ASGIApp, limit_bytes: int, code_limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes, self.code_limit_bytes = limit_bytes, code_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit_bytes = self.code_limit_bytes if scope["path"].startswith("/v1/code/") else self.limit_bytes
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if "transfer-encoding" in headers and "content-length" in headers:
            rule = "a body must have a Content-Length or a Transfer-Encoding, but this one has both"
            return await problem(Request(scope), 400, rule, headers=CLOSE)(scope, receive, send)
        rule = f"the body must be at most {limit_bytes} bytes"
        if declared.isdecimal() and int(declared[:20]) > limit_bytes:
            detail = f"{rule}, but {declared[:20]} were announced"
            return await problem(Request(scope), 413, detail)(scope, receive, send)
        read_bytes, began, is_whole = 0, time.monotonic(), False

        async def limited() -> Message:
            nonlocal read_bytes, is_whole
            if is_whole:
                return await receive()
            message = await _in_time(receive, began + GRACE_S + read_bytes / SLOWEST)
            read_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if read_bytes > limit_bytes:
                raise HTTPException(413, f"{rule}, but more were sent")
            return message

        return await self.app(scope, limited, send)


async def _in_time(receive: Receive, deadline: float) -> Message:
    with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
        return await receive()
    raise HTTPException(408, f"the body must come within {GRACE_S:g} s and {SLOWEST:g} bytes a second", CLOSE)
