"""Every baseline trains a real task, at rates of its own."""

from dataclasses import replace

import pytest

import clr
from clr.schedules.cycles import TrainingLength
from clr.schedules.plateau import Plateau
from clr.training.loop import curve_of
from clr.training.optimizers import self_tuning
from clr.training.task import Task, optimizer
from clr.trials.baselines import BASELINES

BUDGET = TrainingLength(6, 37)
RATE = {"SGD": 0.1, "AdamW": 0.01}


@pytest.fixture(scope="module")
def digits() -> Task:
    return clr.load_task("digits", hidden=16)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_over_the_whole_budget(digits: Task, name: str, kind: str) -> None:
    task = replace(digits, batch_size=32, optimizer=optimizer(kind))
    curve = curve_of(task, BASELINES[name].run(BASELINES[name].best_rate(RATE[kind]), BUDGET, seed=0))
    assert len(curve.lr) == 222
    assert (curve.value or 0) > 0.8


def test_the_rate_falls_to_a_tenth_where_the_metric_no_longer_improves(digits: Task) -> None:
    run = replace(BASELINES["reduce_on_plateau"].run(0.2, TrainingLength(40, 18), seed=0), patience=2)
    curve = curve_of(digits, run)
    rates = sorted(set(curve.lr), reverse=True)
    assert rates[:2] == pytest.approx([0.2, 0.02])
    first_fall = curve.lr.index(rates[1])
    plateau = Plateau("maximize", patience=2)
    for step, metric in zip(curve.steps, curve.metric, strict=True):
        if plateau.factor < 1:
            break
        plateau.after(metric)
        fell = step
    assert first_fall == fell


def test_a_plateau_goes_on_from_its_state() -> None:
    whole, broken_off = Plateau("minimize", patience=2), Plateau("minimize", patience=2)
    for metric in (1.0, 0.5, 0.5):
        whole.after(metric)
    broken_off.load_state_dict(whole.state_dict())
    for plateau in (whole, broken_off):
        plateau.after(0.5)
    assert whole.factor == broken_off.factor == pytest.approx(0.1)


def test_a_task_without_a_metric_never_meets_a_plateau(digits: Task) -> None:
    curve = curve_of(replace(digits, val=None), BASELINES["reduce_on_plateau"].run(0.05, BUDGET, seed=0))
    assert set(curve.lr) == {0.05}


def test_a_self_tuning_optimizer_keeps_the_groups_rates_and_decay(digits: Task) -> None:
    def groups(model):
        first, *rest = model.parameters()
        return [{"params": [first], "weight_decay": 0.1, "lr_mult": 2.0}, {"params": rest}]

    seen = []
    task = replace(digits, groups=groups)
    for name in ("schedule_free", "prodigy"):
        made = self_tuning(name, task.optimizer(groups(task.model())))
        seen.append([(group["weight_decay"], group.get("lr_mult", 1.0)) for group in made.param_groups])
        assert (curve_of(task, BASELINES[name].run(0.1, BUDGET, seed=0)).value or 0) > 0.5
    assert seen == [[(0.1, 2.0), (0, 1.0)], [(0.1, 1.0), (0, 1.0)]]
