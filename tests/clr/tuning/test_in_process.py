import dataclasses
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from optuna.trial import TrialState
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import clr
from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest
from clr.run import Run, fresh_seeds
from clr.schedules.cycles import TrainingLength
from clr.spec import RangeTestSpec
from clr.tasks import load_task
from clr.tasks.networks import mlp
from clr.training import packing
from clr.training.loop import curve_of
from clr.training.pack import train_together
from clr.training.task import Task, optimizer
from clr.trials.baselines import USUAL_BASELINES
from clr.tuning.recommendation import Recommendation

BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.007, 0.013), "max_lr": (0.07, 0.13)}, "high")
GOOD = {"SGD": (0.03, 0.8), "AdamW": (0.003, 0.2)}
"""Where max_lr of the digits network lies with each optimizer: trainings at both ends are worse by 1 % or more."""


@pytest.fixture(scope="module")
def digits() -> Task:
    return replace(load_task("digits"), device="cpu")


@pytest.fixture(scope="module")
def tested(digits: Task) -> RangeTest:
    return clr.range_test(digits, epochs=20)


def unlearnable() -> Task:
    """A loss that depends on nothing."""
    data = torch.randn(64, 4), torch.randn(64, 1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (0 * output).sum() + 1.0

    return Task(model=lambda: nn.Linear(4, 1), train=data, loss=loss, device="cpu", batch_size=8)


def test_digits_are_tested_at_the_cost_of_one_training_and_trained_well_at_the_answer(
    digits: Task, tested: RangeTest
) -> None:
    bounds, length = tested.bounds, TrainingLength(20, digits.iterations_per_epoch)
    assert bounds.max_lr is not None
    assert GOOD["SGD"][0] < bounds.max_lr < GOOD["SGD"][1]
    assert bounds.confidence in ("medium", "high")
    assert 0.8 * length.steps < tested.cost_steps <= length.steps
    candidate = bounds.candidate(length)
    assert candidate is not None
    ends = [curve_of(digits, candidate.run(seed)).value or 0 for seed in range(2)]
    assert sum(ends) / 2 > 0.94


def test_the_ramps_record_the_loss_of_every_step_and_the_metric_at_many(digits: Task, tested: RangeTest) -> None:
    assert len(tested.curves) == 3
    for curve in tested.curves:
        assert len(curve.lr) == len(curve.loss)
        assert len(curve.metric) >= len(curve.loss) - 1 or len(curve.metric) >= 50
        assert all(0 <= accuracy <= 1 for accuracy in curve.metric)


def test_the_same_seed_gives_the_same_test_and_another_seed_another_but_close(digits: Task, tested: RangeTest) -> None:
    other = clr.range_test(digits, epochs=20, seed=1)
    assert clr.range_test(digits, epochs=20) == tested
    assert other.bounds.max_lr is not None
    assert tested.bounds.max_lr is not None
    assert other.bounds.max_lr != tested.bounds.max_lr
    assert abs(math.log(other.bounds.max_lr / tested.bounds.max_lr)) < math.log(2.5)


def test_the_number_of_seeds_and_the_ends_of_the_ramp_are_the_callers(digits: Task) -> None:
    alone = clr.range_test(digits, epochs=8, seeds=1)
    assert len(alone.curves) == 3
    limited = clr.range_test(digits, epochs=8, test=RangeTestSpec(min_lr=1e-5, max_lr=0.02, seeds=1))
    rates = [lr for _, curve in limited.runs for lr in curve.lr]
    assert max(rates) == 0.02
    assert limited.curves[0].lr[0] == 1e-5


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_model_of_the_callers_own_is_tested_and_left_as_it_was(digits: Task, name: str) -> None:
    torch.manual_seed(0)
    model = mlp(64, 64)
    weights = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    made: dict[str, Any] = {
        "SGD": torch.optim.SGD(model.parameters(), lr=0.123, momentum=0.9),
        "AdamW": torch.optim.AdamW(model.parameters(), lr=0.123),
    }
    optimizer = made[name]
    train = DataLoader(TensorDataset(*digits.train), batch_size=64, shuffle=True, drop_last=True)
    random = torch.get_rng_state()
    own: dict[str, Any] = {"model": model, "optimizer": optimizer, "loss": F.cross_entropy, "train": train}
    found = clr.range_test(**own, val=digits.val, metric="accuracy", epochs=10)
    assert found.bounds.max_lr is not None
    assert GOOD[name][0] < found.bounds.max_lr < GOOD[name][1]
    assert found.cost_steps <= 10 * len(train)
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), weights)
    assert torch.equal(torch.get_rng_state(), random)
    assert (optimizer.param_groups[0]["lr"], len(optimizer.state)) == (0.123, 0)


MODEL = nn.Linear(4, 3)
OWN = {"model": MODEL, "optimizer": torch.optim.SGD(MODEL.parameters()), "train": (torch.zeros(8, 4),)}


@pytest.mark.parametrize(
    ("task", "own", "given"),
    [
        (None, {}, []),
        (True, OWN, ["task", "model", "optimizer", "train"]),
        (True, {"loss": F.cross_entropy}, ["task", "loss"]),
        (True, {"workers": 0}, ["task", "workers"]),
        (None, {"model": MODEL}, ["model"]),
        (None, {"optimizer": OWN["optimizer"], "train": OWN["train"]}, ["optimizer", "train"]),
    ],
)
def test_both_or_neither_of_a_task_and_ones_own_are_refused(
    digits: Task, task: bool | None, own: dict[str, Any], given: list[str]
) -> None:
    with pytest.raises(InvalidArgument, match=r"^task: must be given, .* or else model=") as refused:
        clr.range_test(digits if task else None, **own)
    assert refused.value.value == given
    with pytest.raises(InvalidArgument, match=r"^task: must be given, .* or else model=") as refused:
        clr.recommend(digits if task else None, **own)
    assert refused.value.value == given


@pytest.mark.parametrize("call", [clr.range_test, clr.recommend])
def test_a_network_in_the_place_of_a_task_is_told_how_to_make_one(call: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^task: must be a clr.Task, such as clr.Task\(model=\.\.\., train="):
        call(MODEL)


def grouped() -> dict[str, Any]:
    """A model, an optimizer whose groups have rates of one to ten, and what to train on."""
    torch.manual_seed(0)
    x = torch.randn(640, 8)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    groups = [{"params": model[0].parameters(), "lr": 0.001}, {"params": model[2].parameters(), "lr": 0.01}]
    train = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=20, shuffle=True)
    own = {"model": model, "optimizer": torch.optim.SGD(groups, momentum=0.9), "train": train}
    return own | {"loss": F.cross_entropy}


def test_ones_own_objects_are_recommended_for_and_left_as_they_were(tmp_path: Path) -> None:
    own = grouped()
    model, made = own["model"], own["optimizer"]
    weights = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    asked: dict[str, Any] = {"epochs": 4, "budget": 3, "save": tmp_path / "runs.db", "progress": False}
    found = clr.recommend(**own, **asked)
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), weights)
    assert ([group["lr"] for group in made.param_groups], len(made.state)) == ([0.001, 0.01], 0)
    assert found.max_lr is not None
    assert found.evidence is not None
    assert found.optimizer == {"name": "SGD", "args": {"momentum": 0.9}, "lr_mult": [0.1, 1.0]}
    assert found.torch is not None
    assert found.torch["max_lr"] == pytest.approx([found.max_lr / 10, found.max_lr])
    again = clr.recommend(**own, **asked)
    assert again.max_lr == found.max_lr, "from what was saved"


def test_ones_own_data_without_an_end_are_tested_by_the_length_given() -> None:
    class Endless(torch.utils.data.IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            while True:
                x = torch.randn(8)
                yield x, (x.sum() > 0).long()

    own = grouped() | {"train": DataLoader(Endless(), batch_size=20)}
    tested = clr.range_test(**own, iterations_per_epoch=30, clip_value=1.0, epochs=4, seeds=1, progress=False)
    assert tested.bounds.max_lr is not None
    with pytest.raises(InvalidArgument, match="give iterations_per_epoch="):
        clr.range_test(**own, progress=False)


def test_range_test_and_recommend_take_all_that_a_task_is_made_of() -> None:
    fields = {field.name for field in dataclasses.fields(Task)} - {"device"}
    for call in (clr.range_test, clr.recommend):
        assert fields <= inspect.signature(call).parameters.keys()


@pytest.mark.parametrize("epochs", [0, -1, math.inf, math.nan])
def test_a_length_that_is_none_is_refused(digits: Task, epochs: float) -> None:
    with pytest.raises(InvalidArgument, match="epochs: input should be"):
        clr.range_test(digits, epochs=epochs)


def test_too_short_a_training_is_inconclusive_and_costs_nothing(digits: Task) -> None:
    found = clr.range_test(digits, epochs=2)
    assert found.bounds.confidence == "inconclusive"
    assert "at least 76 steps, but may take 36" in found.bounds.reasons[0]
    assert found.cost_steps == 0


def test_digits_are_learnt_by_the_best_of_a_few_trials(digits: Task) -> None:
    found = clr.search(digits, BOUNDS, epochs=4, trials=4, seed=0)
    assert len(found.trials) == len(found.study.get_trials(states=[TrialState.COMPLETE])) == 4
    values = [value for _, value in found.trials]
    assert max(value for value in values if value is not None) > 0.93
    assert found.best == found.trials[values.index(found.study.best_value)][0]
    again = clr.search(digits, BOUNDS, epochs=4, trials=4, seed=0)
    assert again.trials == found.trials


def test_the_trials_of_a_search_are_trained_on_the_seed_of_the_search(digits: Task) -> None:
    found = clr.search(digits, BOUNDS, epochs=1, trials=1, seed=5, ratio=(2.0, 2.0), policies=["hann"])
    ((candidate, value),) = found.trials
    assert (candidate.policy, candidate.ratio) == ("hann", 2.0)
    assert curve_of(digits, candidate.run(*fresh_seeds(5, "search", 1))).value == value


def test_digits_are_recommended_bounds_with_evidence(digits: Task) -> None:
    found = clr.recommend(digits, epochs=8, trials=2, seeds=2, policies=["triangular", "exp_range"])
    assert found.source == "confirm"
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert found.stepsize is not None
    assert 0 < found.base_lr < found.max_lr
    assert found.iterations_per_epoch == digits.iterations_per_epoch == 18
    evidence, cost = found.evidence, found.cost
    assert evidence is not None
    assert (evidence.metric, evidence.direction, evidence.epochs, evidence.seeds) == ("accuracy", "maximize", 8, 2)
    assert {run["name"] for run in evidence.runs} - {"candidate", "range_test"} == {"recommended", *USUAL_BASELINES}
    assert all(len(run["values"]) == 2 for run in evidence.runs)
    assert evidence.runs[0]["mean"] > 0.9
    assert cost is not None
    assert cost.relative_to_one_training == pytest.approx(cost.steps / (8 * 18), abs=0.01)
    assert 10 < cost.relative_to_one_training <= 13, "a test, two trials, and four or five schedules on two seeds"
    assert Recommendation.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the tracker's own making
def test_what_was_found_is_written_to_the_tracker_that_is_named(
    digits: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidArgument, match=r"track: must be mlflow:URI, .* but got 'mlflow'"):
        clr.recommend(digits, epochs=8, budget=2, track="mlflow")
    found = clr.recommend(digits, epochs=8, budget=2, track=f"tensorboard:{tmp_path}/logs")
    assert list((tmp_path / "logs" / "clr" / "recommendation").glob("events.*"))
    (tmp_path / "file").touch()
    again = clr.recommend(digits, epochs=8, budget=2, track=f"tensorboard:{tmp_path}/file")
    assert (again.max_lr, "not written to tensorboard" in caplog.text) == (found.max_lr, True)


def test_a_task_that_cannot_be_learnt_is_recommended_nothing() -> None:
    found = clr.recommend(unlearnable(), epochs=20, trials=1, seeds=2)
    assert (found.source, found.confidence, found.max_lr) == ("range_test", "inconclusive", None)
    assert found.reasons
    assert found.cost is not None
    assert 0 < found.cost.relative_to_one_training <= 1


def test_a_search_around_an_inconclusive_range_test_is_refused() -> None:
    task = unlearnable()
    with pytest.raises(InvalidArgument, match=r"bounds: must be conclusive .*, but got 'inconclusive'"):
        clr.search(task, clr.range_test(task).bounds)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Packs are used without a GPU, too; how many runs each had."""
    sizes: list[int] = []

    def counted(task: Task, runs: Sequence[Run], tell_every_s: float) -> Any:
        sizes.append(len(runs))
        return train_together(task, runs, tell_every_s)

    monkeypatch.setattr(packing, "_foreseen", lambda task: None)
    monkeypatch.setattr(packing.Packing, "pays", True)
    monkeypatch.setattr(packing, "train_together", counted)
    return sizes


def answer(**asked: Any) -> dict[str, Any]:
    found = clr.recommend(**asked, progress=False).to_dict()
    del found["cost"]["seconds"]
    return found


def test_packs_answer_what_one_run_after_the_other_answers(
    digits: Task, packed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked in ({"epochs": 20}, {"epochs": 8, "trials": 3, "seeds": 2}):
        in_packs = answer(task=digits, **asked)
        assert {1, 2} < set(packed), "ramps, and what is raced, are trained side by side"
        with monkeypatch.context() as changed:
            changed.setattr(packing, "_foreseen", lambda task: "no GPU")
            assert answer(task=digits, **asked) == in_packs


def test_all_repetitions_of_a_range_test_share_a_pack(digits: Task, packed: list[int]) -> None:
    spec = RangeTestSpec(epochs=170, seeds=3)
    tested = clr.range_test(digits, epochs=200, test=spec, progress=False)
    assert packed[:3] == [3, 6, 6], "brackets, ramps and first proofs of all three"
    assert len(tested.curves) == 9


def test_a_call_in_packs_goes_on_from_what_was_saved(digits: Task, packed: list[int], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"task": digits, "epochs": 20, "budget": 3, "save": tmp_path / "runs.db"}
    assert answer(**asked) == answer(**asked)
    assert sum(packed) > 5
    before = len(packed)
    answer(**asked)
    assert len(packed) == before


def test_runs_of_a_pack_that_breaks_are_trained_one_after_the_other(
    digits: Task, packed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(task: Task, runs: Sequence[Run], tell_every_s: float) -> Any:
        if len(runs) == 1:
            return train_together(task, runs, tell_every_s)
        packed.append(len(runs))
        return broken(task, runs)

    def broken(task: Task, runs: Sequence[Run]) -> Any:
        for seen, made in enumerate(train_together(task, runs)):
            yield made
            if seen == 4:
                raise RuntimeError("out of memory")

    expected = clr.range_test(digits, epochs=20, progress=False)
    packed.clear()
    monkeypatch.setattr(packing, "train_together", breaking)
    assert clr.range_test(digits, epochs=20, progress=False) == expected
    assert packed == [2]


def test_a_metric_without_validation_data_is_refused_or_told() -> None:
    with pytest.raises(InvalidArgument, match=r"metric: must be left out, or val given, .* but got 'accuracy'"):
        clr.range_test(**grouped(), metric="accuracy")
    own = grouped() | {"metric": "accuracy"}
    bare = Task(model=lambda: nn.Linear(8, 2), **{name: own[name] for name in ("train", "loss", "metric")})
    assert bare.remarks[0] in clr.range_test(bare, epochs=1, progress=False).bounds.reasons


def test_a_changed_task_gets_no_runs_of_the_former(digits: Task, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"epochs": 10, "budget": 1, "save": tmp_path / "runs.db", "progress": False}
    found = clr.recommend(digits, **asked)
    changed = clr.recommend(digits.changed(optimizer=optimizer("AdamW")), **asked)
    assert changed.optimizer != found.optimizer
    assert changed.max_lr != found.max_lr


def test_one_name_where_a_list_is_wanted_is_an_error_of_its_own(digits: Task) -> None:
    for field in ("baselines", "policies"):
        with pytest.raises(InvalidArgument, match=rf"^{field}: must be a list of names, but got 'fixed'"):
            clr.recommend(digits, **{field: "fixed"})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^bounds: must be those of a range test, .* but got 'high'"):
        clr.search(digits, "high")  # type: ignore[arg-type]
