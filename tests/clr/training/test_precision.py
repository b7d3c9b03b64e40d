"""Half precision, its scaler, and compiled networks, against a training in full precision."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.training.loop import curve_of
from tests.clr.training.test_loop import VAL, a_run, make, plain


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_trains_close_to_full_precision(precision: Any, dtype: torch.dtype) -> None:
    dtypes = set()

    def forward(model: nn.Module, batch: Any) -> Any:
        output = model(batch[0])
        dtypes.add(output.dtype)
        return output, batch[1]

    run = a_run(steps=80, step_size_up=40, evaluate_every=40)
    full = curve_of(make(model=plain, val=VAL), run)
    mixed = curve_of(make(model=plain, val=VAL, precision=precision, forward=forward), run)
    assert dtypes == {dtype}
    assert not mixed.diverged
    assert mixed.loss[-1] < 0.7 * mixed.loss[0]
    assert mixed.metric == pytest.approx(full.metric, rel=0.1)


def overflowing(times: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A finite loss whose gradients are not, the first so many times."""
    left = iter(range(times))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        steep = 0.0 if next(left, None) is None else torch.sqrt(output.float() * 0).sum()
        return F.cross_entropy(output, target) + steep

    return loss


def test_an_update_that_the_scaler_skips_is_no_step_of_the_schedule_and_no_loss_is_read_from_it() -> None:
    used = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            used.append(self.param_groups[0]["lr"])
            return super().step(closure)

    batches = itertools.count()

    def forward(model: nn.Module, batch: Any) -> Any:
        next(batches)
        return model(batch[0]), batch[1]

    task = make(
        model=plain,
        loss=overflowing(5),
        forward=forward,
        precision="fp16",
        optimizer=lambda groups: Watched(groups, lr=1.0),
    )
    curve = curve_of(task, a_run())
    assert used == curve.lr, "an update under each rate of the schedule, and under each once"
    assert len(curve.loss) == 20
    assert next(batches) == 25
    assert not curve.diverged


def test_gradients_that_are_finite_at_no_scale_end_the_run_as_diverged() -> None:
    curve = curve_of(make(model=plain, loss=overflowing(10**6), precision="fp16"), a_run())
    assert curve.diverged
    assert curve.loss == [math.inf]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_trains_to_the_same_numbers(backend: str) -> None:
    compiled = curve_of(make(model=plain, val=VAL, metric="accuracy", compile=backend), a_run())
    expected = curve_of(make(model=plain, val=VAL, metric="accuracy"), a_run())
    assert compiled.loss == pytest.approx(expected.loss, rel=1e-5)
    assert compiled.metric == pytest.approx(expected.metric)
