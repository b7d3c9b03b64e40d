from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from clr.errors import InvalidArgument
from clr.training.data import (
    TrainingBatches,
    batch_length,
    batches_per_epoch,
    examples,
    is_resident,
    placed,
    to_device,
    validation_batches,
)

CPU = torch.device("cpu")
X, Y = torch.arange(10.0).view(10, 1), torch.arange(10)
Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Record:
    name: str
    x: Tensor
    more: dict[str, Tensor]


class Graphs:
    """Moves itself."""

    def __init__(self, device: Any = "cpu") -> None:
        self.device = device

    def to(self, device: Any) -> "Graphs":
        return Graphs(device)


class Unsized:
    def __iter__(self) -> Iterator[Any]:
        yield X, Y


class Stream(IterableDataset[Any]):
    """Yields batches, and knows how many."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        yield X[:5], Y[:5]
        yield X[5:], Y[5:]


class Words(Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return {"text": "x" * index, "label": index}


FORMS: dict[str, Any] = {
    "tuple": (X, Y),
    "mapping": {"x": X, "labels": Y},
    "dataset": TensorDataset(X, Y),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=5),
    "list of batches": [(X[:5], Y[:5]), (X[5:], Y[5:])],
    "iterable dataset": Stream(),
}
each_form = pytest.mark.parametrize("form", FORMS)


def labels(batch: Any) -> Tensor:
    target: Tensor = batch["labels"] if isinstance(batch, dict) else batch[1]
    return target


@each_form
def test_every_form_of_data_trains_on_each_example_once_an_epoch(form: str) -> None:
    batches = TrainingBatches(FORMS[form], 5, seed=0, device=CPU)
    for _ in range(3):
        epoch = list(islice(batches, batches_per_epoch(FORMS[form], 5)))
        assert sorted(torch.cat([labels(batch) for batch in epoch]).tolist()) == list(range(10))


@each_form
def test_every_form_of_data_is_scored_in_order_with_its_weights(form: str) -> None:
    scored = list(validation_batches(FORMS[form], 5, None, CPU))
    assert [weight for _, weight in scored] == [5, 5]
    assert torch.cat([labels(batch) for batch, _ in scored]).tolist() == list(range(10))


@each_form
def test_scoring_stops_once_its_limit_is_reached(form: str) -> None:
    assert sum(weight for _, weight in validation_batches(FORMS[form], 5, 5, CPU)) == 5


def test_a_limit_of_tensors_is_met_exactly_and_the_last_batch_may_be_short() -> None:
    assert [weight for _, weight in validation_batches((X, Y), 4, None, CPU)] == [4, 4, 2]
    assert [weight for _, weight in validation_batches((X, Y), 4, 7, CPU)] == [4, 3]


@pytest.mark.parametrize("data", [(X, Y), {"x": X, "labels": Y}, TensorDataset(X, Y)])
def test_the_order_is_shuffled_anew_each_epoch_and_fixed_by_the_seed(data: Any) -> None:
    def order(seed: int) -> list[int]:
        return torch.cat([labels(batch) for batch in islice(TrainingBatches(data, 5, seed, CPU), 4)]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0)[:10] != order(0)[10:]
    assert sorted(order(0)[:10]) == sorted(order(0)[10:]) == list(range(10))


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y)])
def test_inputs_stay_with_their_targets(data: Any) -> None:
    for x, y in islice(TrainingBatches(data, 3, 0, CPU), 9):
        assert x[:, 0].tolist() == y.tolist()


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y)])
def test_a_partial_batch_is_dropped_unless_it_is_the_only_one(data: Any) -> None:
    assert batches_per_epoch(data, 4) == 2
    assert [len(batch[1]) for batch in islice(TrainingBatches(data, 4, 0, CPU), 5)] == [4] * 5
    assert batches_per_epoch(data, 64) == 1
    assert [len(batch[1]) for batch in islice(TrainingBatches(data, 64, 0, CPU), 2)] == [10, 10]


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form != "loader"]
)  # a loader of the caller's own draws from it itself
def test_training_and_scoring_leave_the_global_random_state_alone(form: str) -> None:
    before = torch.get_rng_state()
    list(islice(TrainingBatches(FORMS[form], 5, 0, CPU), 5))
    list(validation_batches(FORMS[form], 5, None, CPU))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_collate_function_makes_the_batches_of_a_dataset() -> None:
    def collate(rows: list[Any]) -> dict[str, Any]:
        return {"text": [row["text"] for row in rows], "labels": torch.tensor([row["label"] for row in rows])}

    batch = next(TrainingBatches(Words(), 3, 0, CPU, collate))
    assert [len(text) for text in batch["text"]] == batch["labels"].tolist()
    assert [weight for _, weight in validation_batches(Words(), 4, None, CPU, collate)] == [4, 2]


def test_moving_a_batch_keeps_its_structure() -> None:
    batch = {"a": [X, "text", None], "b": (Y, {"c": X}), "d": Pair(X, Y)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"][1]["c"].device.type == "meta"
    assert moved["a"][1:] == ["text", None]
    assert isinstance(moved["d"], Pair)
    assert moved["d"].y.device.type == "meta"
    assert [type(moved[key]) for key in "abd"] == [list, tuple, Pair]
    record = to_device(Record("a", X, {"y": Y}), torch.device("meta"))
    assert (record.name, record.x.device.type, record.more["y"].device.type) == ("a", "meta", "meta")
    assert to_device([Graphs()], torch.device("meta"))[0].device.type == "meta"


@pytest.mark.parametrize(
    ("batch", "length"),
    [
        (X, 10),
        ((X[:3], Y[:3]), 3),
        ({"text": ["a", "b"], "x": {"ids": X[:2]}}, 2),
        ([torch.tensor(1.0), X[:4]], 4),
        (torch.tensor(1.0), 1),
        (Record("a", X[:3], {}), 3),
        ("text", 1),
    ],
)
def test_the_length_of_a_batch_is_that_of_its_first_tensor(batch: Any, length: int) -> None:
    assert batch_length(batch) == length


def test_only_tensors_and_tuples_and_mappings_of_them_are_resident() -> None:
    assert is_resident(X)
    assert is_resident((X, Y))
    assert is_resident({"x": X})
    assert not any(is_resident(data) for data in ([X, Y], (X, "y"), (), {}, TensorDataset(X)))


def test_only_tensors_and_map_style_datasets_have_a_number_of_examples() -> None:
    known = {"tuple": 10, "mapping": 10, "dataset": 10}
    assert {form: examples(data) for form, data in FORMS.items()} == {form: known.get(form) for form in FORMS}


@pytest.mark.parametrize("empty", [(X[:0], Y[:0]), TensorDataset(X[:0]), [], Unsized()])
def test_the_length_of_an_epoch_must_be_known_and_above_zero(empty: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"train: must (hold at least one|have a length)"):
        batches_per_epoch(empty, 4)


@pytest.mark.parametrize("empty", [(X[:0], Y[:0]), TensorDataset(X[:0]), []])
def test_training_on_nothing_is_refused_rather_than_endless(empty: Any) -> None:
    with pytest.raises(InvalidArgument, match="train: must "):
        next(TrainingBatches(empty, 4, 0, CPU))


def test_an_iterator_that_is_used_up_after_a_pass_is_told_from_data_without_a_batch() -> None:
    once = TrainingBatches(iter([(X, Y)]), 5, 0, CPU)
    next(once)
    with pytest.raises(InvalidArgument, match=r"^train: must yield its batches anew at each pass"):
        next(once)


class Numbered(Stream):
    """Notes which epochs it is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_samplers_of_several_processes_and_streams_are_told_their_epoch() -> None:
    data = TensorDataset(X, Y)
    shards = [DistributedSampler(data, num_replicas=2, rank=rank, seed=3) for rank in (0, 1)]
    orders = []
    for seed in (0, 0, 1):
        runs = [TrainingBatches(DataLoader(data, batch_size=5, sampler=shard), 5, seed, CPU) for shard in shards]
        orders.append([[next(run)[1].tolist() for run in runs] for _ in range(2)])
    assert all(sorted(first + second) == Y.tolist() for first, second in [*orders[0], *orders[2]])
    assert orders[0] == orders[1] != orders[2], "the order is the run's, and every rank's"
    assert orders[0][0] != orders[0][1], "and another in the next epoch"
    stream = Numbered()
    batches = TrainingBatches(DataLoader(stream, batch_size=None), 5, 7, CPU)
    for _ in range(3):
        next(batches)
    assert stream.epochs == [7, 8]


def test_tensors_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"must hold equally long tensors, but got \[10, 9\]"):
        batches_per_epoch((X, Y[:9]), 4)


def test_tensors_are_placed_on_the_device_once_and_loaders_are_left_alone() -> None:
    meta = torch.device("meta")
    assert {tensor.device.type for tensor in placed((X, Y), meta)} == {"meta"}
    assert placed((X, Y), CPU)[0] is X
    dataset = TensorDataset(X, Y)
    assert placed(dataset, meta) is dataset


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_that_do_not_fit_on_a_gpu_stay_where_they_are_and_their_batches_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = torch.device("cuda")
    assert placed((X, Y), cuda)[0].is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * X.nbytes, 0))
    data = placed((X, Y), cuda)
    assert data[0] is X
    x, y = next(TrainingBatches(data, 5, 0, cuda))
    assert x.is_cuda
    assert x[:, 0].tolist() == y.tolist()
