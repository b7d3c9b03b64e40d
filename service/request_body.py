"""How a request's body may come: with one length, up to a size, at a pace. Nothing beyond is read into memory."""

import time
import zlib

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
    """ASGI middleware that answers 413 to a body above ``limit_bytes`` (for uploaded code ``code_limit_bytes``), also
    once it is unzipped, 408 to one that comes too slowly, and 400 to one whose length is said in two ways."""

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
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            detail = f"a body must come as it is or gzipped, but this one is said to be {encoding[:20]!r}"
            return await problem(Request(scope), 415, detail)(scope, receive, send)
        unzip = _Gunzip(limit_bytes, rule) if encoding == "gzip" else None
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
            return message if unzip is None else unzip(message)

        return await self.app(scope, limited, send)


class _Gunzip:
    """Undoes gzip, never to more bytes than a body may have."""

    def __init__(self, limit_bytes: int, rule: str) -> None:
        self._limit_bytes, self._rule = limit_bytes, rule
        self._decoder, self._bytes = zlib.decompressobj(wbits=31), 0

    def __call__(self, message: Message) -> Message:
        if message["type"] != "http.request":
            return message
        try:
            body = self._decoder.decompress(message.get("body", b""), self._limit_bytes + 1 - self._bytes)
        except zlib.error as error:
            raise HTTPException(400, f"the body is said to be gzipped, but is not: {error}", CLOSE) from None
        self._bytes += len(body)
        if self._bytes > self._limit_bytes:
            raise HTTPException(413, f"{self._rule}, but unzipped it is longer", CLOSE)
        if not message.get("more_body", False) and not self._decoder.eof:
            raise HTTPException(400, "the gzipped body breaks off before its end", CLOSE)
        return {**message, "body": body}


async def _in_time(receive: Receive, deadline: float) -> Message:
    with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
        return await receive()
    raise HTTPException(408, f"the body must come within {GRACE_S:g} s and {SLOWEST:g} bytes a second", CLOSE)
