"""A connection to the API: one that sends no whole head of a request in time is closed."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Seconds for the head of a request, from the connection's beginning or the head's first byte on."""


class Connection(H11Protocol):
    """As uvicorn's, which waits for ever for the first request, and for the rest of a body that nobody reads."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self._is_waiting:
            self._relax()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    @property
    def _is_waiting(self) -> bool:
        """Whether nothing is asked at present: the head is not whole, or the answer is and the body not."""
        answered: Any = self.cycle is not None and self.cycle.response_complete
        return self.conn.their_state is h11.IDLE or bool(answered and self.conn.their_state is h11.SEND_BODY)

    def _relax(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
