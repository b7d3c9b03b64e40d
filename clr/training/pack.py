"""A pack: runs of one task that are trained side by side on one GPU, which a small network alone leaves idle.

Each is a run like any other, with its own network, optimizer, data order and end. But a step of all of them is recorded
as one CUDA graph, with a branch for each, and replayed.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from clr.run import Point, Run
from clr.training.data import Batch, Data, lies_on, take, training_order
from clr.training.loop import RunUnderWay, device_of, total_score
from clr.training.random_states import OwnRandomStates
from clr.training.replay import Replay, side_by_side
from clr.training.task import Task

WARM_STEPS = 3
"""Steps before one is recorded."""

WARM_SCORES = 2
"""Evaluations before one is recorded: proofs and most trials have no more."""

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
CAPTURABLE = (torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adadelta)
"""Optimizers whose step can be recorded with a rate that lies on the device. Others step as they do elsewhere."""


def train_together(
    task: Task, runs: Sequence[Run], tell_every_s: float = math.inf
) -> Generator[tuple[int, Point], bool | None, None]:
    """Train runs side by side, yielding the points of each with its place in ``runs``; sent true, that run ends there.

    Each yields what ``train`` would.

    Args:
        task: whose data lie on the device, and whose steps draw no random numbers.
        runs: how to train.
        tell_every_s: as for ``train``.

    Raises:
        InvalidArgument: a rule of a run is broken.
    """
    under_way = [begun(task, run) for run in runs]
    pack = Pack(under_way)
    tell_at = time.monotonic() + tell_every_s
    while not all(run.ended for run in under_way):
        for at, point in pack.advance(tell_at):
            tell_at = time.monotonic() + tell_every_s
            if (yield at, point):
                under_way[at].ended = True


def begun(task: Task, run: Run) -> RunUnderWay:
    """A run that others of the task may be under way beside, at its first step."""
    device = device_of(task, run)
    with OwnRandomStates(run.seed, device):
        return RunUnderWay(task, run, device, apart=True)


class Pack:
    """Runs under way of one task, all at the same step.

    Args:
        runs: at their first step.
    """

    def __init__(self, runs: Sequence[RunUnderWay]) -> None:
        self.runs, self.device, self.task = list(runs), runs[0].device, runs[0].task
        self._order = {
            run.run.seed: training_order(self.task.train, self.task.batch_size, run.run.seed) for run in runs
        }
        self._next: dict[int, Tensor] = {}
        """By seed, the examples of the next step: (accumulate, batch size)."""
        self._rates = torch.zeros(sum(len(run.multipliers) for run in runs), device=self.device)
        groups = self._rates.split([len(run.multipliers) for run in runs])
        self._recorded = [_make_recordable(run.optimizer, rates) for run, rates in zip(runs, groups, strict=True)]
        for run in self.runs:
            if self.device.type == "cuda" and _can_replay_scores(self.task):
                run.evaluate = _replayed_score(run)
        self._alive: list[int] = []

    def advance(self, tell_at: float) -> list[tuple[int, Point]]:
        """Train until losses are read from the device; the points that are due by then, or by the clock."""
        self._leave_out_the_ended()
        alive = [self.runs[at] for at in self._alive]
        unread: list[Tensor] = []
        late = False
        while not late and not any(run.reads(len(unread)) for run in alive):
            unread.append(self._update())
            for run in alive:
                run.step += 1
            late = time.monotonic() >= tell_at
        losses = torch.stack(unread, dim=1).float().tolist()
        points = [(at, self.runs[at].read(row, late)) for at, row in zip(self._alive, losses, strict=True)]
        return [(at, point) for at, point in points if point is not None]

    def _leave_out_the_ended(self) -> None:
        alive = [at for at, run in enumerate(self.runs) if not run.ended]
        if alive != self._alive:
            self._alive = alive
            step = self.runs[alive[0]].step
            self._step = Replay[Tensor](self.device, max(0, WARM_STEPS - step))

    def _update(self) -> Tensor:
        """One optimizer step of each run that goes on; their losses before it, detached, on the device."""
        for seed in {self.runs[at].run.seed for at in self._alive}:
            self._draw(seed)
        self._set_rates()
        losses = self._step(self._step_of_all).clone()  # the next replay writes to the same place
        for at in self._alive:
            if not self._recorded[at]:
                self.runs[at].optimizer.step()
        return losses

    def _draw(self, seed: int) -> None:
        drawn = [next(self._order[seed]) for _ in range(self.task.accumulate)]
        if seed not in self._next:
            self._next[seed] = torch.stack(drawn)
            return
        for place, index in zip(self._next[seed], drawn, strict=True):
            place.copy_(index)

    def _set_rates(self) -> None:
        values: list[float] = []
        for at, run in enumerate(self.runs):
            rates = [0.0] * len(run.multipliers) if run.ended else run.next_rates()
            values += rates
            if not self._recorded[at]:
                for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate
        self._rates.copy_(torch.tensor(values), non_blocking=True)

    def _step_of_all(self) -> Tensor:
        return torch.stack(side_by_side([partial(self._step_of, at) for at in self._alive], self.device))

    def _step_of(self, at: int) -> Tensor:
        run = self.runs[at]
        loss = run.backpropagate(_batches(self.task.train, self._next[run.run.seed]))
        if self._recorded[at]:
            run.optimizer.step()
        return loss


def _batches(data: Data, indices: Tensor) -> Iterator[Batch]:
    for index in indices:
        yield take(data, index)


def _make_recordable(optimizer: Optimizer, rates: Tensor) -> bool:
    """Let an optimizer read the rates of its groups from the device, if it can, and keep its counters there."""
    kind, groups = type(optimizer), optimizer.param_groups
    plain = not any(group.get("differentiable") for group in groups) and not optimizer.state
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if rates.device.type != "cuda" or kind not in (*FUSED, *CAPTURABLE) or not plain or hooks:
        return False
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
        if kind in FUSED:
            group |= {"fused": True, "foreach": False}
        if "capturable" in group:
            group["capturable"] = True
    vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True  # it is, for the first few steps
    return True


def _can_replay_scores(task: Task) -> bool:
    """Whether all is on the device; what a metric of the caller's own does with its numbers is not known."""
    return task.val is not None and not callable(task.metric) and lies_on(task.val, "cuda")


def _replayed_score(run: RunUnderWay) -> Callable[[], float | None]:
    summed = partial(total_score, run.task, run.network, run.device, run.val_limit)
    replay = Replay[tuple[Tensor, int]](run.device, WARM_SCORES)

    def score() -> float | None:
        total, weight = replay(summed)
        return total.item() / weight

    return score
