"""A run that a service handed to a trainer of the user's own. Needs no torch."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clr.client import calls
from clr.client.results import TrialResult
from clr.commands import DECIDES
from clr.commands.current_run import CurrentRun
from clr.errors import InvalidArgument
from clr.run import Run

if TYPE_CHECKING:
    from clr.client.asynchronous import AsyncClient
    from clr.client.sync import Client

SEND_EVERY_S = 1.0
"""Points wait this long to be sent together: often enough to be watched and stopped, rare enough not to be felt."""

SEND_AT_MOST = 5000
"""Points of one report: well within what a service takes as a body."""

Point = dict[str, Any]


class OrderedRun(CurrentRun):
    """A run as a service orders it; what is logged is sent in batches.

    Args:
        job_id: of the job it belongs to.
        document: stage, number, attempt, policy, base_lr, max_lr, step_size_up, step_size_down, gamma, steps, seed and
            evaluate_every.
    """

    def __init__(self, job_id: str, document: Mapping[str, Any]):
        values = {name: document[name] for name in DECIDES}
        if values["step_size_down"] == 0:  # a ramp only rises
            values["step_size_down"] = None
        super().__init__(Run(**values), self._keep)
        self.job_id, self.document = job_id, dict(document)
        self.place = job_id, str(document["stage"]), int(document["number"])
        self.attempt: int = document["attempt"]
        self.stop = False
        """Whether the service wants no more of it: then tell its value as it is."""
        self._waiting: list[Point] = []
        self._sent_at = time.monotonic()
        self._last: float | None = None

    def _keep(self, step: int, loss: float | None, metric: float | None) -> None:
        seen = [value for value in (metric, loss) if value is not None]
        self._last = seen[0] if metric is not None or self._last is None else self._last
        if self._waiting and self._waiting[-1]["step"] == step:
            self._waiting[-1]["metric"] = calls.finite(metric)
            return
        self._waiting.append({"step": step, "loss": calls.finite(loss), "metric": calls.finite(metric)})

    @property
    def _is_due(self) -> bool:
        late = time.monotonic() - self._sent_at > SEND_EVERY_S
        return len(self._waiting) > 1 and (late or len(self._waiting) >= SEND_AT_MOST)

    def _batch(self, *, last: bool) -> list[Point]:
        """What is to be sent; before the end all but the latest, which may still get its metric."""
        kept = 0 if last else 1
        batch, self._waiting = self._waiting[: len(self._waiting) - kept], self._waiting[len(self._waiting) - kept :]
        self._sent_at = time.monotonic()
        return batch

    def _value(self, value: float | None) -> float | None:
        if value is None and self._last is None:
            raise InvalidArgument("value", "must be given where nothing was logged")
        return self._last if value is None else value


class ServiceRun(OrderedRun):
    """From ``Job.next_run``: train it, ``log`` each step, and ``tell`` or ``fail`` it in the end.

    Args:
        client: through which it was asked for.
        job_id, document: as the service told it.
    """

    def __init__(self, client: "Client", job_id: str, document: Mapping[str, Any]):
        super().__init__(job_id, document)
        self._client = client

    def log(self, *, loss: Any = None, metric: Any = None, step: int | None = None) -> None:
        """As ``CurrentRun.log``; ``stop`` tells afterwards whether to go on."""
        super().log(loss=loss, metric=metric, step=step)
        if self._is_due:
            self._send(self._batch(last=False))

    def tell(self, value: float | None = None) -> TrialResult:
        """Tell how it ended: a value, not finite where it diverged; None: the last metric, else the last loss."""
        self._send(self._batch(last=True))
        return self._client._do(calls.tell(*self.place, self._value(value), self.attempt))

    def fail(self, error: str) -> TrialResult:
        """Tell that it broke for a reason that is not the schedule's; the service hands it out again."""
        return self._client._do(calls.fail(*self.place, error, self.attempt))

    def _send(self, points: list[Point]) -> None:
        if points:
            self.stop = self._client._do(calls.report(*self.place, points, self.attempt)) or self.stop


class AsyncServiceRun(OrderedRun):
    """As ``ServiceRun``, from ``AsyncJob.next_run``; what asks the service is awaited."""

    def __init__(self, client: "AsyncClient", job_id: str, document: Mapping[str, Any]):
        super().__init__(job_id, document)
        self._client = client

    async def log(self, *, loss: Any = None, metric: Any = None, step: int | None = None) -> None:  # type: ignore[override]
        """As ``ServiceRun.log``."""
        super().log(loss=loss, metric=metric, step=step)
        if self._is_due:
            await self._send(self._batch(last=False))

    async def tell(self, value: float | None = None) -> TrialResult:
        """As ``ServiceRun.tell``."""
        await self._send(self._batch(last=True))
        return await self._client._do(calls.tell(*self.place, self._value(value), self.attempt))

    async def fail(self, error: str) -> TrialResult:
        """As ``ServiceRun.fail``."""
        return await self._client._do(calls.fail(*self.place, error, self.attempt))

    async def _send(self, points: list[Point]) -> None:
        if points:
            self.stop = await self._client._do(calls.report(*self.place, points, self.attempt)) or self.stop
