"""Whether runs of a task are packed: tried once, on a few steps, beside the same steps as they are made alone."""

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clr.run import Point, Run
from clr.training.data import lies_on
from clr.training.loop import RunUnderWay
from clr.training.module_state import attributes
from clr.training.pack import WARM_STEPS, Pack, begun, train_together
from clr.training.random_states import OwnRandomStates, random_states
from clr.training.task import Task

log = logging.getLogger(__name__)

TRIED = WARM_STEPS + 5
"""Steps that are tried: those before one is recorded, that one, and four that are timed."""

TRIED_RATES = (1e-5, 1e-3)
"""They are a ramp between these: high enough to move a network, too low to break most."""

GAIN = 1.2
"""How many times as fast two runs must be in a pack as one after the other."""

APART = 0.02
"""How far a tensor may end from where it ends alone, as a share of its way, beside rounding: a recording that repeats
one step's numbers, such as an optimizer's count, takes it further."""

ROUNDING = 1e-6
"""The same as a share of the tensor."""


def packing(task: Task, tell_every_s: float) -> "Packing | None":
    """What trains runs of a task in packs; None where that cannot be, or never is faster: without a GPU."""
    against = _foreseen(task)
    if against:
        log.debug("runs are trained one after the other: %s", against)
    return None if against else Packing(task, tell_every_s)


class Packing:
    """Trains runs of a task in packs, as long as that goes well.

    Args:
        task: of which there are runs.
        tell_every_s: as for ``train``.
    """

    def __init__(self, task: Task, tell_every_s: float) -> None:
        self.task, self.tell_every_s = task, tell_every_s

    def __call__(self, runs: Sequence[Run]) -> Generator[tuple[int, Point], bool | None, None]:
        """As ``train_together``; runs that did not end by then are to be trained alone, from their first step."""
        if not self.pays:
            return
        try:
            yield from train_together(self.task, runs, self.tell_every_s)
        except Exception as error:  # trained alone, a run shows whose fault that is
            self._decline(f"{type(error).__name__}: {error}")

    @cached_property
    def pays(self) -> bool:
        """Whether packed runs do what runs alone do, in less time."""
        try:
            against = _tried(self.task)
        except Exception as error:
            against = f"{type(error).__name__}: {error}"
        if against:
            log.info("runs are trained one after the other: %s", against)
        return not against

    def _decline(self, why: str) -> None:
        log.warning("runs are trained one after the other from now on: %s", why)
        self.pays = False


def _foreseen(task: Task) -> str | None:
    """What speaks against packs before anything is tried."""
    if not lies_on(task.train, "cuda"):
        return "the training data do not lie on a GPU"
    if task.precision == "fp16" or task.compile:
        return "the network is compiled, or its gradients are scaled"
    return "several processes train" if dist.is_available() and dist.is_initialized() else None


def _tried(task: Task) -> str | None:
    """Train a few steps alone and two of a pack; what speaks against packs then."""
    task = replace(task, val=None)
    low, high = TRIED_RATES
    first, second = (
        Run(
            policy="exponential_ramp",
            base_lr=low * times,
            max_lr=high * times,
            step_size_up=TRIED,
            steps=TRIED,
            seed=seed,
            evaluate_every=1,
        )
        for seed, times in enumerate((1.0, 3.0))
    )
    alone = begun(task, first)
    if any(_has_hooks(module) for module in alone.model.modules()):
        return "modules have hooks, which a recorded step does not call"
    began = {name: tensor.detach().clone() for name, tensor in _tensors(alone.model).items()}
    with OwnRandomStates(first.seed, alone.device):
        _advance(alone, WARM_STEPS + 1)
        kept = _kept(alone)
        alone_s = _advance(alone, TRIED - WARM_STEPS - 1)
        if not _same(kept, _kept(alone)):
            return "a step draws random numbers, or changes what is no tensor or lies elsewhere after it"
    runs = [begun(task, run) for run in (first, second)]
    pack = Pack(runs)
    _advance(pack, WARM_STEPS + 1)
    pack_s = _advance(pack, TRIED - WARM_STEPS - 1)
    there = _tensors(runs[0].model)
    for name, tensor in _tensors(alone.model).items():
        if not _ends_alike(there[name], tensor, began[name]):
            return f"{name} ends elsewhere than alone"
    gain = 2 * alone_s / pack_s
    log.info("a pack of two is %.1f times as fast as one after the other", gain)
    return None if gain >= GAIN else f"a pack of two would be {gain:.2f} times as fast"


def _advance(what: RunUnderWay | Pack, steps: int) -> float:
    """Seconds that so many steps take, each of them a point."""
    began = time.perf_counter()
    for _ in range(steps):
        what.advance(float("inf"))
    return time.perf_counter() - began


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _ends_alike(tensor: Tensor, alone: Tensor, began: Tensor) -> bool:
    if not alone.is_floating_point():
        return torch.equal(tensor, alone)
    tensor, alone, began = (one.detach().double() for one in (tensor, alone, began))
    allowed = APART * (alone - began).norm() + ROUNDING * alone.norm()
    return bool((tensor - alone).norm() <= allowed)


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _kept(run: RunUnderWay) -> list[Any]:
    """What a step leaves as it is, where it can be recorded."""
    modules = [one for one in (run.model, run.task.loss) if isinstance(one, nn.Module)]
    places = [tensor.data_ptr() for tensor in _tensors(run.model).values()]
    return [*map(attributes, modules), places, random_states()]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
