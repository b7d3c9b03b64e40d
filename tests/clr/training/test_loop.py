import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR
from torch.utils.data import DataLoader, TensorDataset

from clr.errors import InvalidArgument
from clr.run import Curve, Plan, Run
from clr.schedules.policies import POLICIES, schedule
from clr.training.loop import SYNC_STEPS, curve_of, execute, train
from clr.training.task import Task

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
VAL = (X[:40], Y[:40])


def noisy() -> nn.Module:
    """A network that draws random numbers when it is made and at every step, and that counts what it sees."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def make(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "model": noisy,
        "train": (X, Y),
        "loss": F.cross_entropy,
        "batch_size": 8,
        "device": "cpu",
    }
    return Task(**fields | changes)


def a_run(**changes: Any) -> Run:
    fields: dict[str, Any] = {"policy": "triangular", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 10, "steps": 20}
    return Run(**fields | {"seed": 0, "evaluate_every": 5} | changes)


class Kept:
    """Makes models, and keeps them."""

    def __init__(self, kind: Callable[[], nn.Module] = plain) -> None:
        self.kind = kind
        self.models: list[nn.Module] = []

    def __call__(self) -> nn.Module:
        self.models.append(self.kind())
        return self.models[-1]

    def weights(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.models[-1].parameters()).detach()


def random_states() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, list(keys), rest, torch.get_rng_state().tolist()]


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def reseed() -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def test_the_same_seed_gives_the_same_points_and_another_seed_others() -> None:
    task = make(val=VAL, metric="accuracy")
    points = list(train(task, a_run()))
    draw()
    assert list(train(task, a_run())) == points
    assert list(train(task, a_run(seed=1))) != points


def test_the_random_states_of_the_caller_are_untouched_between_points_and_at_the_end() -> None:
    before = random_states()
    for _ in train(make(val=VAL, metric="accuracy"), a_run()):
        assert random_states() == before
    assert random_states() == before


def test_what_the_caller_draws_between_points_changes_nothing_on_either_side() -> None:
    reseed()
    undisturbed = list(train(make(), a_run()))
    expected = [draw() for _ in undisturbed]
    reseed()
    points = []
    drawn = []
    for point in train(make(), a_run()):
        points.append(point)
        drawn.append(draw())
    assert (points, drawn) == (undisturbed, expected)


def test_the_random_states_of_the_caller_are_untouched_when_training_is_stopped_early() -> None:
    before = random_states()
    points = train(make(), a_run())
    next(points)
    points.close()  # type: ignore[attr-defined]
    assert random_states() == before
    points = train(make(), a_run())
    next(points)
    del points
    assert random_states() == before


def broken_model() -> nn.Module:
    nn.Linear(3, 3)
    draw()
    raise RuntimeError("broken")


def broken_forward(model: nn.Module, batch: Any) -> Any:
    if draw()[0] > 0.9:
        raise RuntimeError("broken")
    return model(batch[0]), batch[1]


def broken_metric(output: Tensor, target: Tensor) -> Tensor:
    draw()
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "changes", [{"model": broken_model}, {"forward": broken_forward}, {"val": VAL, "metric": broken_metric}]
)
def test_the_random_states_of_the_caller_are_untouched_when_the_tasks_own_code_raises(changes: dict[str, Any]) -> None:
    before = random_states()
    with pytest.raises(RuntimeError, match="broken"):
        list(train(make(**changes), a_run(steps=200, evaluate_every=50)))
    assert random_states() == before


def test_the_callers_data_is_left_as_it_was() -> None:
    x, y = X.clone(), Y.clone()
    list(train(make(val=VAL, metric="accuracy"), a_run()))
    assert torch.equal(X, x)
    assert torch.equal(Y, y)


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (20, 5, [5, 10, 15, 20]),
        (20, 7, [7, 14, 20]),
        (20, 50, [20]),
        (1, 1, [1]),
        (50, 49, [49, 50]),
        (40, 20, [20, 40]),
    ],
)
def test_points_come_every_so_many_steps_and_at_the_end(steps: int, every: int, expected: list[int]) -> None:
    points = list(train(make(val=VAL, metric="accuracy"), a_run(steps=steps, evaluate_every=every)))
    assert [point.step for point in points] == expected
    assert [len(point.loss) for point in points] == np.diff([0, *expected]).tolist()
    assert all(len(point.lr) == len(point.loss) and point.metric is not None for point in points)
    assert not any(point.diverged for point in points)


@pytest.mark.parametrize("policy", [*POLICIES, "linear_ramp", "exponential_ramp"])
def test_the_rate_of_each_step_is_the_policys(policy: str) -> None:
    gamma = 0.99 if policy.startswith("exp_range") else None
    run = a_run(policy=policy, gamma=gamma, steps=45, evaluate_every=11)
    rate = schedule(policy, base_lr=0.01, max_lr=0.1, stepsize=10, gamma=gamma)
    assert curve_of(make(), run).lr == [rate(step) for step in range(45)]


def test_the_optimizer_has_the_policys_rate_at_each_update() -> None:
    used = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            used.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    curve = curve_of(make(optimizer=lambda groups: Watched(groups, lr=123.0)), a_run())
    assert used == [[lr] for lr in curve.lr]


def test_a_run_equals_a_plain_torch_loop_under_cyclic_lr_bit_for_bit() -> None:
    kept = Kept(noisy)
    # Powers of two, in which torch's formula for the triangle and this one's round alike.
    run = a_run(base_lr=2**-6, max_lr=2**-3, step_size_up=16, steps=64, evaluate_every=64, seed=5)
    curve = curve_of(make(model=kept), run)

    torch.manual_seed(5)
    model = noisy()
    sgd = torch.optim.SGD(model.parameters(), lr=2**-6, momentum=0.9)
    cycle = CyclicLR(sgd, 2**-6, 2**-3, step_size_up=16, cycle_momentum=False)
    order = torch.Generator().manual_seed(5)
    losses: list[float] = []
    while len(losses) < 64:
        for index in torch.randperm(64, generator=order).view(-1, 8):
            sgd.zero_grad()
            loss = F.cross_entropy(model(X[index]), Y[index])
            loss.backward()
            sgd.step()
            cycle.step()
            losses.append(loss.item())
    assert curve.loss == losses
    for ours, theirs in zip(kept.models[0].state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_how_often_a_run_is_scored_does_not_change_its_training() -> None:
    task = make(val=VAL, metric="accuracy")
    seldom, often = (curve_of(task, a_run(steps=40, evaluate_every=every)) for every in (40, 3))
    assert seldom.loss == often.loss
    assert seldom.metric[-1] == often.metric[-1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("every", [7, 40])
@pytest.mark.parametrize("at", [1, SYNC_STEPS, SYNC_STEPS + 1, 23, 35])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(at: int, every: int, bad: float) -> None:
    calls = itertools.count(1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) + (bad if next(calls) >= at else 0.0)

    *before, last = train(make(loss=loss), a_run(steps=40, evaluate_every=every))
    assert (last.step, last.diverged, last.metric) == (at, True, None)
    assert not math.isfinite(last.loss[-1])
    assert all(math.isfinite(one) for one in last.loss[:-1])
    assert len(last.loss) == len(last.lr) == at - (before[-1].step if before else 0)
    assert not any(point.diverged for point in before)
    assert Curve.of([*before, last]).value is None


def test_a_rate_far_too_high_ends_as_a_divergence_and_not_as_an_error() -> None:
    task = make(model=lambda: nn.Linear(4, 1), loss=lambda out, y: ((out[:, 0] - y) ** 2).mean())
    curve = curve_of(task, a_run(policy="fixed", max_lr=1e6, steps=400, evaluate_every=100))
    assert curve.diverged
    assert len(curve.loss) < 100


def test_a_metric_that_is_not_finite_ends_the_run() -> None:
    values = iter([torch.tensor(0.5), torch.tensor(math.nan)])
    task = make(val=VAL, metric=lambda output, target: next(values))
    first, second = train(task, a_run())
    assert (first.metric, first.diverged) == (0.5, False)
    assert (second.step, second.metric, second.diverged) == (10, None, True)
    assert all(math.isfinite(loss) for loss in second.loss)


def test_there_is_no_metric_without_validation_data() -> None:
    points = list(train(make(), a_run()))
    assert [point.metric for point in points] == [None] * 4
    assert Curve.of(points).value == points[-1].loss[-1]


def test_the_validation_loss_is_the_metric_where_no_other_is_named() -> None:
    kept = Kept()
    curve = curve_of(make(model=kept, val=VAL), a_run())
    with torch.no_grad():
        assert curve.metric[-1] == pytest.approx(F.cross_entropy(kept.models[0](VAL[0]), VAL[1]).item())


def test_the_metric_is_the_mean_over_examples_and_not_over_batches() -> None:
    x, y = X.repeat(5, 1)[:300], Y.repeat(5)[:300]
    kept = Kept()
    curve = curve_of(make(model=kept, val=DataLoader(TensorDataset(x, y), batch_size=256), metric="accuracy"), a_run())
    with torch.no_grad():
        expected = (kept.models[0](x).argmax(1) == y).float().mean().item()
    assert curve.metric[-1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("limit", "accumulate", "examples"), [(None, 1, 40), (10, 1, 10), (40, 1, 3 * 5 * 2 // 2), (40, 2, 3 * 5 * 4 // 2)]
)
def test_a_limited_point_scores_no_more_than_half_as_long_as_was_trained(
    limit: int | None, accumulate: int, examples: int
) -> None:
    seen = []

    def metric(output: Tensor, target: Tensor) -> float:
        seen.append(len(target))
        return 0.5

    list(train(make(val=VAL, metric=metric, batch_size=2, accumulate=accumulate), a_run(val_limit=limit)))
    assert seen == 4 * [examples]


def test_a_network_trains_in_train_mode_and_is_scored_in_eval_mode() -> None:
    modes = []

    def forward(model: nn.Module, batch: Any) -> Any:
        modes.append((model.training, torch.is_grad_enabled()))
        return model(batch[0]), batch[1]

    list(train(make(val=VAL, metric="accuracy", forward=forward), a_run(steps=4, evaluate_every=2)))
    training, scoring = (True, True), (False, False)
    assert modes == [training, training, scoring, training, training, scoring]


def test_accumulated_batches_equal_one_big_batch() -> None:
    small, big = Kept(), Kept()
    run = a_run(steps=24)
    of_small = curve_of(make(model=small, batch_size=8, accumulate=2), run)
    of_big = curve_of(make(model=big, batch_size=16), run)
    assert of_small.lr == of_big.lr
    assert of_small.loss == pytest.approx(of_big.loss, rel=1e-5)
    assert torch.allclose(small.weights(), big.weights(), atol=1e-6)


def test_a_step_is_an_optimizer_step_however_many_batches_it_takes() -> None:
    batches = itertools.count(1)

    def forward(model: nn.Module, batch: Any) -> Any:
        next(batches)
        return model(batch[0]), batch[1]

    task = make(forward=forward, accumulate=3)
    curve = curve_of(task, a_run(steps=4))
    assert (len(curve.loss), next(batches) - 1) == (4, 12)
    assert task.iterations_per_epoch == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_update_is_as_long_as_the_clipped_gradient_times_the_rate(precision: Any) -> None:
    lengths = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            (group,) = self.param_groups
            before = nn.utils.parameters_to_vector(group["params"]).detach()
            super().step(closure)
            lengths.append(torch.norm(nn.utils.parameters_to_vector(group["params"]) - before).item())

    task = make(
        loss=lambda output, target: 50 * F.cross_entropy(output, target),
        optimizer=lambda groups: Watched(groups, lr=1.0),
        clip_norm=0.5,
        precision=precision,
    )
    curve_of(task, a_run(policy="fixed", max_lr=0.1, steps=10))
    assert len(lengths) == 10 or (precision == "fp16" and 0 < len(lengths) < 10), "fp16 first finds its scale"
    assert lengths == pytest.approx([0.05] * len(lengths), rel=0.01)


def test_groups_have_the_rate_times_their_multiplier() -> None:
    kept, used = Kept(), []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            used.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def groups(model: Any) -> list[dict[str, Any]]:
        return [
            {"params": model[0].parameters(), "lr_mult": 0.0},
            {"params": [model[2].weight], "lr_mult": 2.0},
            {"params": [model[2].bias]},
        ]

    curve = curve_of(make(model=kept, groups=groups, optimizer=lambda given: Watched(given, lr=1.0)), a_run())
    assert used == [[0.0, 2.0 * lr, lr] for lr in curve.lr]
    torch.manual_seed(0)
    fresh: Any = plain()
    trained: Any = kept.models[0]
    assert torch.equal(trained[0].weight, fresh[0].weight)
    assert not torch.equal(trained[2].weight, fresh[2].weight)


class Own(nn.Module):
    """A model that computes its own loss, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.inner(inputs), labels)}


def test_mappings_train_a_model_that_computes_its_own_loss() -> None:
    task = Task(model=Own, train={"inputs": X, "labels": Y}, val={"inputs": X, "labels": Y}, batch_size=8, device="cpu")
    curve = curve_of(task, a_run(steps=64, step_size_up=32))
    assert curve.metric[-1] < curve.metric[0]
    assert curve.loss == curve_of(make(model=plain), a_run(steps=64, step_size_up=32)).loss


def test_a_loader_of_the_callers_own_is_shuffled_by_the_runs_seed() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    task = make(train=loader, val=VAL, metric="accuracy")
    before = random_states()
    points = list(train(task, a_run()))
    assert random_states() == before
    draw()
    assert list(train(task, a_run())) == points
    assert list(train(task, a_run(seed=1))) != points


def test_a_dataset_is_trained_on_and_scored() -> None:
    data = TensorDataset(X, Y)
    curve = curve_of(make(model=plain, train=data, val=data, metric="accuracy"), a_run(steps=64, step_size_up=32))
    assert curve.metric[-1] > 0.6


def test_losses_may_be_negative() -> None:
    curve = curve_of(make(loss=lambda output, target: F.cross_entropy(output, target) - 10), a_run(steps=40))
    assert not curve.diverged
    assert max(curve.loss) < 0
    assert curve.value is not None


def test_training_goes_no_further_than_it_is_pulled() -> None:
    batches = itertools.count(1)

    def forward(model: nn.Module, batch: Any) -> Any:
        next(batches)
        return model(batch[0]), batch[1]

    points = train(make(forward=forward), a_run(steps=1000))
    next(points)
    next(points)
    points.close()  # type: ignore[attr-defined]
    assert next(batches) - 1 == 10


@pytest.mark.parametrize("field", ["steps", "step_size_up", "evaluate_every"])
def test_a_run_of_no_steps_is_refused(field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{field}: must be at least 1, but got 0"):
        next(train(make(), a_run(**{field: 0})))


def test_a_policy_that_is_refused_leaves_the_random_states_alone() -> None:
    before = random_states()
    with pytest.raises(InvalidArgument, match="base_lr: must be at most max_lr"):
        next(train(make(), a_run(base_lr=1.0)))
    assert random_states() == before


def test_validation_data_without_examples_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="val: must hold at least one example"):
        list(train(make(val=(X[:0], Y[:0])), a_run()))


def test_a_plan_is_sent_the_curves_of_its_runs_in_order_until_it_returns() -> None:
    task = replace(make(), batch_size=16)

    def plan() -> Plan[list[int]]:
        first = yield [a_run(steps=steps) for steps in (3, 1, 2)]
        nothing = yield []
        second = yield [a_run(steps=4)]
        return [len(curve.loss) for curve in [*first, *nothing, *second]]

    assert execute(task, plan()) == [3, 1, 2, 4]


def test_a_plan_may_return_without_a_run() -> None:
    def plan() -> Plan[str]:
        return "nothing to do"
        yield []

    assert execute(make(), plan()) == "nothing to do"


def test_points_are_given_one_by_one_and_not_all_at_the_end() -> None:
    points: Iterator[Any] = train(make(), a_run(steps=10**9))
    assert [next(points).step for _ in range(3)] == [5, 10, 15]
    points.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("max_lr", [0.1, 1e6])
def test_a_run_that_is_followed_closely_trains_as_one_that_is_not(max_lr: float) -> None:
    ramp = a_run(policy="exponential_ramp", base_lr=1e-3, max_lr=max_lr, step_size_up=90, steps=90, explode=3.0)
    whole = curve_of(make(model=plain, val=VAL), ramp)
    closely = list(train(make(model=plain, val=VAL), ramp, tell_every_s=1e-9))
    assert len(closely) == len(whole.loss)
    assert Curve.of(closely) == whole
    assert whole.diverged == (max_lr > 1)


def test_a_followed_run_whose_end_is_far_tells_of_its_steps() -> None:
    points = train(make(), a_run(steps=10**9, step_size_up=5 * 10**8, evaluate_every=10**9), tell_every_s=0.05)
    first, second = next(points), next(points)
    assert 0 < first.step < second.step
    assert len(second.loss) == second.step - first.step
    assert (first.metric, first.diverged) == (None, False)
