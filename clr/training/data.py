"""Batches: from tensors held in memory, from a dataset, or from a loader of the caller's own."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from clr.errors import InvalidArgument, shown
from clr.training.random_states import random_states, set_random_states

Batch = Any
Data = Any  # a tuple or mapping of equally long tensors, one tensor, a map-style Dataset, or an iterable of batches

LONGEST_EPOCH = 10**8
"""Batches in a pass above which nobody means an epoch: a sampler that should never end."""

SEEDS = 2**31
"""Epochs that are told to a sampler begin at the run's seed, below this, so that no sum with its own overflows."""

DESCRIBED = 4
"""Parts of a batch that a message shows."""

RESIDENT_SHARE = 0.5
"""Share of a GPU's free memory that data may take: the other half is for the network and its activations."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor in a batch of any structure to ``device``.

    Args:
        batch: a tensor, anything with a method ``to`` of its own, or a tuple, list, mapping or dataclass of these.
        device: where to.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if type(batch) in (list, tuple):  # nearly every batch, and the rest takes a hundredth of a small step to find out
        return type(batch)([to_device(value, device) for value in batch])
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{name: to_device(value, device) for name, value in vars(batch).items()})
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)  # a named tuple, or none
    return batch


def is_resident(data: Data) -> bool:
    """Whether ``data`` is a tensor or a tuple or mapping of them, indexed directly rather than through a loader."""
    values = list(_parts(data))
    return bool(values) and all(isinstance(value, torch.Tensor) for value in values)


def _parts(data: Data) -> Iterable[Any]:
    if isinstance(data, torch.Tensor):
        return (data,)
    return data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple) else ()


def lies_on(data: Data, kind: str) -> bool:
    """Whether ``data`` are resident, on a device of that kind."""
    return is_resident(data) and all(tensor.device.type == kind for tensor in _tensors(data))


def placed(data: Data, device: torch.device) -> Data:
    """Resident ``data`` on ``device`` where it fits there; else as it is, and its batches are moved one by one."""
    if not is_resident(data):
        return data
    size = sum(tensor.nbytes for tensor in _tensors(data) if tensor.device != device)
    if device.type == "cuda" and size > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return data
    return to_device(data, device)


def examples(data: Data) -> int | None:
    """Number of examples, or None where only a loader knows.

    Raises:
        InvalidArgument: tensors of different lengths.
    """
    if is_resident(data):
        lengths = [batch_length(value) for value in _parts(data)]
        if len(set(lengths)) > 1:
            raise InvalidArgument("train, val", "must hold equally long tensors", lengths)
        return lengths[0]
    return len(data) if is_dataset(data) else None


def is_dataset(data: Data) -> bool:
    """Whether ``data`` are examples, of which batches have yet to be made."""
    return isinstance(data, Dataset) and not isinstance(data, IterableDataset) and isinstance(data, Sized)


def take(data: Data, index: torch.Tensor | slice) -> Batch:
    """The examples of resident ``data`` at ``index``, in the same structure."""
    if isinstance(data, torch.Tensor):
        return data[index]
    if isinstance(data, Mapping):
        return {key: value[index] for key, value in data.items()}
    return tuple(value[index] for value in data)


def batches_per_epoch(data: Data, batch_size: int) -> int:
    """Batches in one pass over ``data``; the last, partial one is dropped unless it is the only one.

    Raises:
        InvalidArgument: when ``data`` is empty or of unknown length.
    """
    count = examples(data)
    if count is None:
        if any(isinstance(value, np.ndarray) for value in (*_parts(data), data)):
            raise InvalidArgument("train", "must hold tensors, not arrays; use torch.as_tensor", data)
        try:
            count, batch_size = len(data), 1
        except TypeError:  # also a loader whose dataset has none
            raise InvalidArgument("train", f"must have a length, its number of batches; {_STEPS}", data) from None
    if count == 0:
        raise InvalidArgument("train", "must hold at least one example", data)
    if count // batch_size > LONGEST_EPOCH:
        rule = f"must have an epoch of at most {LONGEST_EPOCH:,} batches; {_STEPS}"
        raise InvalidArgument("train", rule, count // batch_size)
    return max(1, count // batch_size)


_STEPS = "give iterations_per_epoch=, the optimizer steps that count as one"


def no_batch(field: str, data: Data, rule: str) -> InvalidArgument:
    """The error of data that yield nothing: they break the rule, or did yield before and can but once."""
    once = "must yield its batches anew at each pass, as a loader or a list does"
    return InvalidArgument(field, once if isinstance(data, Iterator) else rule, data)


class _Shuffled:
    """Batches of resident data, in an order drawn anew at each pass; a last, partial one is dropped."""

    def __init__(self, data: Data, count: int, batch_size: int) -> None:
        self.data, self.count, self.size = data, count, min(batch_size, count)
        self.generator = torch.Generator()
        self.device = next(_tensors(data)).device

    def __iter__(self) -> Iterator[Batch]:
        for index in self.order():
            yield take(self.data, index)

    def order(self) -> torch.Tensor:
        """The examples of each batch of a new pass, a row each."""
        order = torch.randperm(self.count, generator=self.generator)
        return order[: self.count - self.count % self.size].view(-1, self.size).to(self.device)


class TrainingBatches(Iterator[Batch]):
    """Shuffled batches on ``device`` without end, epoch after epoch; the order is fixed by ``seed``.

    Args:
        data: as in ``clr.Task``.
        batch_size: examples in a batch, >= 1; where ``data`` yields batches itself, it is ignored.
        seed: of the order.
        device: where the batches go.
        collate, workers: for a ``Dataset``, as in ``DataLoader``.

    Raises:
        InvalidArgument: there is no example, or a pass over a loader yields none.
    """

    def __init__(
        self, data: Data, batch_size: int, seed: int, device: torch.device, collate: Any = None, workers: int = 0
    ) -> None:
        self.device = device
        self._loader = _loader(data, batch_size, collate, workers)
        self._generators = loader_generators(self._loader)
        for own in self._generators:
            own.manual_seed(seed)
        self._epoch: Iterator[Batch] = iter(())
        self._taken, self._passes = 0, 0
        there = torch.empty(0, device=device).device  # with its number
        self._elsewhere = not isinstance(self._loader, _Shuffled) or self._loader.device != there
        self._seed = seed % SEEDS

    def __next__(self) -> Batch:
        try:
            batch = next(self._epoch)
        except StopIteration:
            self._begin()
            batch = next(self._epoch, None)
            if batch is None:
                raise no_batch("train", self._loader, "must yield at least one batch an epoch") from None
        self._taken += 1
        return to_device(batch, self.device) if self._elsewhere else batch

    def _begin(self) -> None:
        # read for nothing where batches are indexed: a small step's twentieth, in short epochs
        states = None if isinstance(self._loader, _Shuffled) else random_states()
        self._began = states, [own.get_state() for own in self._generators]
        for owner in epoch_owners(self._loader):
            owner.set_epoch(self._seed + self._passes)
        self._epoch, self._taken = iter(self._loader), 0
        self._passes += 1

    @property
    def has_places(self) -> bool:
        """Whether an epoch's order is decided by the random states at its begin, so that a place can be found again."""
        if isinstance(self._loader, _Shuffled):
            return True
        batches = getattr(self._loader, "batch_sampler", None)
        return type(batches) is BatchSampler and type(batches.sampler) in (RandomSampler, SequentialSampler)

    @property
    def place(self) -> dict[str, Any]:
        """Where the epoch stands: the random states it began with, and how many batches were taken of it."""
        states, generators = self._began
        return {"states": states, "generators": generators, "taken": self._taken, "passes": self._passes - 1}

    def go_to(self, place: dict[str, Any]) -> None:
        """Go on from a ``place`` of the same data; the global random states are left anywhere."""
        if place["states"] is not None:
            set_random_states(place["states"])
        for own, state in zip(self._generators, place["generators"], strict=True):
            own.set_state(state)
        self._passes = place["passes"]
        self._begin()
        for _ in range(place["taken"]):
            next(self)


def training_order(data: Data, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """The examples of each of the ``TrainingBatches`` of resident data, as indices on its device."""
    count = examples(data)
    assert count is not None
    batches = _Shuffled(data, count, batch_size)
    batches.generator.manual_seed(seed)
    while True:
        yield from batches.order()


def _loader(data: Data, batch_size: int, collate: Any, workers: int) -> Iterable[Batch]:
    count = examples(data)
    if count is None:
        loader: Iterable[Batch] = data
        return loader
    if count == 0:
        raise InvalidArgument("train", "must hold at least one example", data)
    if is_resident(data):
        return _Shuffled(data, count, batch_size)
    return DataLoader(
        data,
        batch_size=min(batch_size, count),
        shuffle=True,
        drop_last=True,
        generator=torch.Generator(),
        collate_fn=collate,
        num_workers=workers,
    )


def loader_generators(loader: Any) -> list[torch.Generator]:
    """The random generators that a loader and its sampler hold themselves; an order drawn from them is not global."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = {id(own): own for owner in owners if isinstance(own := getattr(owner, "generator", None), torch.Generator)}
    return list(found.values())


def epoch_owners(loader: Any) -> list[Any]:
    """What decides the order by the number of the epoch: samplers of several processes, and data sets that stream."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (
        getattr(loader, "sampler", None),
        batches,
        getattr(batches, "sampler", None),
        getattr(loader, "dataset", None),
    )
    found = {id(owner): owner for owner in owners if callable(getattr(owner, "set_epoch", None))}
    return list(found.values())


def validation_batches(
    data: Data, batch_size: int, limit: int | None, device: torch.device, collate: Any = None
) -> Iterator[tuple[Batch, int]]:
    """Batches in fixed order with their weights, up to about ``limit`` examples (None: all)."""
    count = examples(data)
    if is_resident(data):
        assert count is not None
        stop = min(count, limit or count)
        for start in range(0, stop, batch_size):
            end = min(start + batch_size, stop)
            yield to_device(take(data, slice(start, end)), device), end - start
        return
    loader: Iterable[Batch] = data
    if count is not None:
        # A generator of its own: scoring must not draw from the random numbers that training goes on with.
        loader = DataLoader(data, batch_size=batch_size, collate_fn=collate, generator=torch.Generator())
    seen = 0
    for batch in loader:
        size = batch_length(batch)
        yield to_device(batch, device), size
        seen += size
        if limit is not None and seen >= limit:
            return


def batch_length(batch: Batch) -> int:
    """Examples in a batch: the length of the first tensor found in it."""
    return next((len(tensor) for tensor in _tensors(batch) if tensor.ndim), 1)


def is_one_tensor(batch: Batch) -> bool:
    """Whether a batch is a tensor, alone or in a list: an input without a target."""
    if isinstance(batch, list | tuple) and len(batch) == 1:
        (batch,) = batch
    return isinstance(batch, torch.Tensor)


def described(value: Any, within: int = 2) -> str:
    """What a batch or an output is made of, short enough for a message.

    >>> described([torch.zeros(8, 4), {"labels": torch.zeros(8, dtype=torch.int64)}])
    '(float32[8, 4], {labels: int64[8]})'
    """
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping) and within:
        parts = [f"{key}: {described(one, within - 1)}" for key, one in islice(value.items(), DESCRIBED)]
        return f"{{{', '.join(parts + ['...'] * (len(value) > DESCRIBED))}}}"
    if isinstance(value, list | tuple) and within:
        parts = [described(one, within - 1) for one in value[:DESCRIBED]]
        return f"({', '.join(parts + ['...'] * (len(value) > DESCRIBED))})"
    return shown(value)


def _tensors(batch: Batch) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
        return
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for value in vars(batch).values() if is_dataclass(batch) else values:
        yield from _tensors(value)
