"""A trial that a service handed to a trainer of the user's own. Needs no torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from clr.client import calls
from clr.client.results import TrialResult
from clr.schedules.policies import schedule

if TYPE_CHECKING:
    from clr.client.asynchronous import AsyncClient
    from clr.client.sync import Client


class ProposedTrial:
    """A schedule to train.

    Args:
        job_id: of the job it belongs to.
        document: number, policy, base_lr, max_lr, ratio, stepsize, stepsize_multiplier, cycles, gamma, steps and seed.
    """

    def __init__(self, job_id: str, document: Mapping[str, Any]):
        self.job_id, self.document = job_id, dict(document)
        self.number: int = self.document["number"]
        self.steps: int = self.document["steps"]
        self.seed: int = self.document["seed"]
        self.lr: Callable[[int], float] = schedule(
            self.document["policy"],
            base_lr=self.document["base_lr"],
            max_lr=self.document["max_lr"],
            stepsize=self.document["step_size_up"],
            stepsize_down=self.document["step_size_down"],
            gamma=self.document["gamma"],
        )
        """The rate of each step, counted from 0."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.document!r})"


class Trial(ProposedTrial):
    """A schedule to train, from ``Job.ask``: report on the way, and tell or fail it in the end.

    Args:
        client: through which it was asked for.
        job_id, document: as the service told it.
    """

    def __init__(self, client: "Client", job_id: str, document: Mapping[str, Any]):
        super().__init__(job_id, document)
        self._client = client

    def report(self, step: int, value: float) -> bool:
        """Report a value on the way, best at the ends of cycles.

        Args:
            step: optimizer steps taken so far, more than at the last report, <= ``steps``.
            value: of the validation data; one that is not finite counts as diverged.

        Returns:
            Whether to stop: then tell the value as it is now, and ask for the next trial.
        """
        return self._client._do(calls.report(self.job_id, self.number, step, value))

    def tell(self, value: float) -> TrialResult:
        """Tell the value at its end; one that is not finite counts as diverged. The trial as the service has it now."""
        return self._client._do(calls.tell(self.job_id, self.number, value))

    def fail(self, error: str) -> TrialResult:
        """Tell that it broke for a reason that is not the schedule's. The trial as the service has it now."""
        return self._client._do(calls.fail(self.job_id, self.number, error))


class AsyncTrial(ProposedTrial):
    """As ``Trial``, from ``AsyncJob.ask``; what asks the service is awaited."""

    def __init__(self, client: "AsyncClient", job_id: str, document: Mapping[str, Any]):
        super().__init__(job_id, document)
        self._client = client

    async def report(self, step: int, value: float) -> bool:
        """As ``Trial.report``."""
        return await self._client._do(calls.report(self.job_id, self.number, step, value))

    async def tell(self, value: float) -> TrialResult:
        """As ``Trial.tell``."""
        return await self._client._do(calls.tell(self.job_id, self.number, value))

    async def fail(self, error: str) -> TrialResult:
        """As ``Trial.fail``."""
        return await self._client._do(calls.fail(self.job_id, self.number, error))
