"""Server-sent events: the bytes of a ``text/event-stream`` as events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a job: ``kind`` is state, progress, points, trial or recommendation; ids ascend."""

    id: int
    kind: str
    data: dict[str, Any]


class EventDecoder:
    """Makes events of bytes that come in pieces; comments and a last, unfinished event are dropped.

    Lines end with a line feed alone: JSON may hold the other characters that ``str.splitlines`` splits at.

    >>> decoder = EventDecoder()
    >>> list(decoder.feed(b"id: 7\\nevent: sta"))
    []
    >>> list(decoder.feed(b'te\\ndata: {"state": "queued"}\\n\\n'))
    [Event(id=7, kind='state', data={'state': 'queued'})]
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that are whole with this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._line(line.rstrip(b"\r").decode())

    def _line(self, line: str) -> Iterator[Event]:
        name, _, value = line.partition(":")
        value, fields = value.removeprefix(" "), self._fields
        if line:
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
            return
        self._fields = {}
        if {"id", "data"} <= fields.keys():
            yield Event(int(fields["id"]), fields.get("event", "message"), json.loads(fields["data"]))
