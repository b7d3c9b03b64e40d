"""No request body above the limit is read into memory, whether its length was declared or not."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem


class BodyLimit:
    """ASGI middleware that answers 413 to a body above ``limit_bytes``, for uploaded code ``code_limit_bytes``."""

    def __init__(self, app: ASGIApp, limit_bytes: int, code_limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes, self.code_limit_bytes = limit_bytes, code_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit_bytes = self.code_limit_bytes if scope["path"].startswith("/v1/code/") else self.limit_bytes
        rule = f"the body must be at most {limit_bytes} bytes"
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > limit_bytes:
            response = problem(Request(scope), 413, f"{rule}, but {declared[:20]} were announced")
            return await response(scope, receive, send)
        read_bytes = 0

        async def limited() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > limit_bytes:
                raise HTTPException(413, f"{rule}, but more were sent")
            return message

        return await self.app(scope, limited, send)
