"""Batches: from tensors held in memory, from a dataset, or from a loader of the caller's own."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from clr.errors import InvalidArgument

Batch = Any
Data = Any  # a tuple or mapping of equally long tensors, a map-style Dataset, or an iterable of batches


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor in a batch of any structure (tuple, list, mapping, nested) to ``device``."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)  # a named tuple, or none
    return batch


def is_resident(data: Data) -> bool:
    """Whether ``data`` is a tuple or mapping of tensors, indexed directly rather than through a loader."""
    values = data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple) else ()
    return bool(values) and all(isinstance(value, torch.Tensor) for value in values)


def examples(data: Data) -> int | None:
    """Number of examples, or None where only a loader knows.

    Raises:
        InvalidArgument: tensors of different lengths.
    """
    if is_resident(data):
        lengths = [batch_length(value) for value in (data.values() if isinstance(data, Mapping) else data)]
        if len(set(lengths)) > 1:
            raise InvalidArgument(f"train, val: tensors must be equally long, but are {lengths}")
        return lengths[0]
    map_style = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
    return len(data) if map_style and isinstance(data, Sized) else None


def take(data: Data, index: torch.Tensor | slice) -> Batch:
    """The examples of resident ``data`` at ``index``, in the same structure."""
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
        if not isinstance(data, Sized):
            raise InvalidArgument("train: must have a length (its number of batches), but has none; wrap it")
        count, batch_size = len(data), 1
    if count == 0:
        raise InvalidArgument("train: must hold at least one example, but is empty")
    return max(1, count // batch_size)


def training_batches(
    data: Data, batch_size: int, seed: int, device: torch.device, collate: Any = None, workers: int = 0
) -> Iterator[Batch]:
    """Shuffled batches on ``device`` without end, epoch after epoch; the order is fixed by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    count = examples(data)
    if count == 0:
        raise InvalidArgument("train: must hold at least one example, but is empty")
    if is_resident(data):
        assert count is not None
        data, size = to_device(data, device), min(batch_size, count)
        while True:
            order = torch.randperm(count, generator=generator)
            for index in order[: count - count % size].view(-1, size):
                yield take(data, index.to(device))
    loader: Iterable[Batch] = data
    if count is not None:
        loader = DataLoader(
            data,
            batch_size=min(batch_size, count),
            shuffle=True,
            drop_last=True,
            generator=generator,
            collate_fn=collate,
            num_workers=workers,
        )
    for own in loader_generators(loader):
        own.manual_seed(seed)
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield to_device(batch, device)
        if empty:
            raise InvalidArgument("train: must yield at least one batch an epoch, but yielded none")


def loader_generators(loader: Any) -> list[torch.Generator]:
    """The random generators that a loader and its sampler hold themselves; an order drawn from them is not global."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = {id(own): own for owner in owners if isinstance(own := getattr(owner, "generator", None), torch.Generator)}
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


def _tensors(batch: Batch) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(value)
