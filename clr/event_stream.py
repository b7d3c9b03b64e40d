"""Server-sent events: the lines of a ``text/event-stream`` as events."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a job: ``kind`` is state, progress, points, trial or recommendation; ids ascend."""

    id: int
    kind: str
    data: dict[str, Any]


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by a line feed alone: JSON may hold the other characters that ``str.splitlines`` splits at.

    >>> list(lines([b"id: ", b"7\\nda"]))
    ['id: 7']
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip(b"\r").decode() for line in whole)


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Events in ``lines``; comments and a last, unfinished event are dropped.

    >>> list(events(["id: 7", "event: state", 'data: {"state": "queued"}', ""]))
    [Event(id=7, kind='state', data={'state': 'queued'})]
    """
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line:
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        else:
            if {"id", "data"} <= fields.keys():
                yield Event(int(fields["id"]), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
