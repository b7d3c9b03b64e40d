"""The events of a job out of a stream of server-sent events."""

import json
from dataclasses import dataclass
from typing import Any

from httpx_sse import ServerSentEvent


@dataclass(frozen=True)
class Event:
    """One event of a job: ``kind`` is state, progress, points, trial or recommendation; ids ascend."""

    id: int
    kind: str
    data: dict[str, Any]

    @classmethod
    def of(cls, sent: ServerSentEvent) -> "Event":
        """As the service sent it."""
        return cls(int(sent.id), sent.event, json.loads(sent.data))
