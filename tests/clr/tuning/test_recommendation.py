import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import TrainingLength
from clr.schedules.policies import CYCLIC, schedule
from clr.tasks import load_task
from clr.tasks.networks import mlp
from clr.trials.baselines import BASELINES, did_better, lines
from clr.tuning.formats import WRITERS
from clr.tuning.recommendation import TORCH_MODES, Evidence, Recommendation, SpentCost

BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.007, 0.013), "max_lr": (0.07, 0.13)}, "high", ["the seeds agree"])
BUDGET = TrainingLength(4, 10)
RUNS = [{"name": "recommended", "mean": 0.9, "std": 0.01}, {"name": "fixed", "lr": 0.1, "mean": 0.8, "std": 0.02}]

USED = {"optimizer": {"name": "SGD", "args": {"momentum": 0.9}}, "batch_size": 64}
BETTER = {"name": "one_cycle", "lr": 0.25, "mean": 0.95, "python": "import torch\n\nscheduler = None\n"}
WORSE = {"name": "fixed", "lr": 0.1, "mean": 0.8, "python": "scheduler = 1\n"}
AHEAD = [f"{did_better('one_cycle', 0.25)}0.05 +- 0.01"]

CONTRACT = [
    *(
        "job_id",
        "source",
        "policy",
        "base_lr",
        "max_lr",
        "ratio",
        "stepsize",
        "step_size_up",
        "step_size_down",
        "stepsize_multiplier",
    ),
    *("iterations_per_epoch", "gamma", "interval", "confidence", "reasons", "warnings", "evidence", "cost"),
    *("optimizer", "batch_size", "alternatives", "torch"),
]
"""The fields of a recommendation; gamma is there for the policies that decay."""


def make(policy: str = "triangular", **more: Any) -> Recommendation:
    candidate = BUDGET.propose(0.1, 10, 1, policy)
    more = {"cost": SpentCost.of(480, 1.23456, 40), "job_id": "j1"} | more
    return Recommendation.of("search", BOUNDS, candidate, BUDGET.iterations_per_epoch, **more)


INCONCLUSIVE = Recommendation.of(
    "range_test", Bounds.inconclusive("the loss never fell", "too few steps"), None, 10, cost=SpentCost.of(40, 1.0, 40)
)
CONFIRMED = replace(
    make(**USED, alternatives=[WORSE]),
    source="confirm",
    evidence=Evidence("accuracy", "maximize", 4, 3, RUNS, "no difference"),
    warnings=["slow"],
)
ALL = [make(policy) for policy in CYCLIC] + [INCONCLUSIVE, CONFIRMED]


def test_a_newer_services_document_is_read_without_what_is_not_known_yet() -> None:
    document = CONFIRMED.to_dict() | {"colour": "red"}
    document["evidence"] = document["evidence"] | {"shade": "dark"}
    assert Recommendation.from_dict(document) == CONFIRMED


@pytest.mark.parametrize("policy", CYCLIC)
def test_its_scheduler_sets_the_rates_of_its_policy(policy: str) -> None:
    found = make(policy)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = found.scheduler(optimizer)
    rate = schedule(policy, base_lr=0.01, max_lr=0.1, stepsize=12, stepsize_down=28, gamma=found.gamma)
    for step in range(80):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate(step))
        optimizer.step()
        scheduler.step()


def test_without_bounds_there_is_no_scheduler_and_the_error_says_why() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(InvalidArgument, match="inconclusive one has none \\(the loss never fell; too few steps"):
        INCONCLUSIVE.scheduler(optimizer)


def test_a_notebook_shows_it_with_a_picture_of_its_schedule() -> None:
    shown = CONFIRMED._repr_html_()
    assert "<th style='text-align: left'>max_lr</th><td style='text-align: left'>0.1</td>" in shown
    assert "no difference" in shown
    picture = b64decode(shown.partition("base64,")[2].partition("'")[0]).decode()
    assert picture.startswith("<svg")
    assert "learning rate" in picture
    assert "<img" not in INCONCLUSIVE._repr_html_()
    assert "too few steps" in INCONCLUSIVE._repr_html_()


def test_the_document_is_the_contracts() -> None:
    document = CONFIRMED.to_dict()
    assert list(document) == CONTRACT
    assert document == {
        "job_id": "j1",
        "source": "confirm",
        "policy": "triangular",
        "base_lr": 0.01,
        "max_lr": 0.1,
        "ratio": 10.0,
        "stepsize": 20,
        "step_size_up": 12,
        "step_size_down": 28,
        "stepsize_multiplier": 2.0,
        "iterations_per_epoch": 10,
        "gamma": None,
        "interval": {"base_lr": [0.007, 0.013], "max_lr": [0.07, 0.13]},
        "confidence": "high",
        "reasons": ["the seeds agree"],
        "warnings": ["slow"],
        "evidence": {
            "metric": "accuracy",
            "direction": "maximize",
            "epochs": 4,
            "seeds": 3,
            "runs": RUNS,
            "verdict": "no difference",
        },
        "cost": {"steps": 480, "seconds": 1.235, "relative_to_one_training": 12.0},
        "optimizer": {"name": "SGD", "args": {"momentum": 0.9}},
        "batch_size": 64,
        "alternatives": [WORSE],
        "torch": {
            "base_lr": 0.01,
            "max_lr": 0.1,
            "step_size_up": 12,
            "step_size_down": 28,
            "mode": "triangular",
            "cycle_momentum": False,
        },
    }


@pytest.mark.parametrize("recommendation", ALL, ids=lambda one: f"{one.policy} {one.source}")
def test_a_recommendation_survives_json_and_yaml(recommendation: Recommendation) -> None:
    document = recommendation.to_dict()
    text = json.dumps(document, allow_nan=False)
    assert list(document) == CONTRACT
    assert Recommendation.from_dict(json.loads(text)) == recommendation
    assert yaml.safe_load(recommendation.to_yaml()) == json.loads(text)
    assert Recommendation.from_dict(yaml.safe_load(recommendation.to_yaml())) == recommendation


def test_an_inconclusive_recommendation_has_no_bounds_and_says_why() -> None:
    document = INCONCLUSIVE.to_dict()
    absent = [
        *("base_lr", "max_lr", "ratio", "stepsize", "step_size_up", "step_size_down", "stepsize_multiplier", "gamma"),
        *("interval", "evidence", "torch"),
    ]
    assert all(document[name] is None for name in absent)
    assert document["alternatives"] == []
    assert (document["confidence"], document["reasons"]) == ("inconclusive", ["the loss never fell", "too few steps"])
    pasted = INCONCLUSIVE.to_python()
    assert pasted.splitlines() == [
        "# clr: inconclusive, no bounds",
        "# clr: the loss never fell",
        "# clr: too few steps",
    ]
    exec(pasted, {})


def test_the_intervals_hold_what_is_recommended() -> None:
    found = Recommendation.of("search", BOUNDS, BUDGET.propose(0.16, 2, 1), 10)
    assert found.interval == {"base_lr": [0.007, 0.08], "max_lr": [0.07, 0.16]}


@pytest.mark.parametrize("policy", CYCLIC)
def test_torchs_arguments_are_given_where_torch_has_the_policy(policy: str) -> None:
    recommendation = make(policy)
    arguments = recommendation.torch
    assert (arguments is not None) == (policy in ("triangular", "triangular2", "exp_range_amplitude"))
    if arguments is not None:
        assert arguments["mode"] == TORCH_MODES[policy]
        assert arguments.get("gamma") == recommendation.gamma
        assert arguments["cycle_momentum"] is False


@pytest.mark.parametrize("policy", CYCLIC)
def test_what_is_pasted_trains_at_the_policys_rates(policy: str) -> None:
    recommendation = make(policy)
    images, target = load_task("digits", train_size=64).train
    torch.manual_seed(0)
    model = mlp(64, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    scope = {"optimizer": optimizer}
    exec(recommendation.to_python(), scope)
    scheduler: Any = scope["scheduler"]
    steps = 2 * BUDGET.propose(0.1, 10, 1).steps
    rates, losses = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    rate = schedule(policy, base_lr=0.01, max_lr=0.1, stepsize=12, stepsize_down=28, gamma=recommendation.gamma)
    assert rates == pytest.approx([rate(step) for step in range(steps)], rel=1e-9)
    assert losses[-1] < losses[0] / 4
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_what_is_pasted_says_how_sure_it_is_and_how_long_a_cycle_takes() -> None:
    assert make().to_python() == (
        "import torch\n\n"
        "# clr: triangular from 0.01 to 0.1 (high confidence)\n"
        "scheduler = torch.optim.lr_scheduler.CyclicLR(\n"
        "    optimizer,\n"
        "    base_lr=0.01,\n"
        "    max_lr=0.1,\n"
        "    step_size_up=12,\n"
        "    step_size_down=28,\n"
        "    mode='triangular',\n"
        "    cycle_momentum=False,\n"
        ")\n"
        "# call scheduler.step() after every optimizer.step(); train for whole cycles of 40 steps\n"
    )


def test_a_document_from_before_the_halves_of_a_cycle_could_differ_is_read() -> None:
    document = {name: value for name, value in make().to_dict().items() if not name.startswith("step_size_")}
    assert Recommendation.from_dict(document) == replace(make(), step_size_up=20, step_size_down=20)


def test_a_document_from_before_it_told_what_was_trained_with_is_read() -> None:
    new = ("optimizer", "batch_size", "alternatives")
    document = {name: value for name, value in CONFIRMED.to_dict().items() if name not in new}
    assert Recommendation.from_dict(document) == replace(CONFIRMED, optimizer=None, batch_size=None, alternatives=[])


def test_what_is_pasted_says_first_which_other_schedule_did_clearly_better() -> None:
    assert (
        make(alternatives=[BETTER, WORSE], warnings=AHEAD).to_python()
        == (
            "# clr: one_cycle at 0.25 did clearly better on the same seeds; its lines:\n"
            "#   import torch\n"
            "#   \n"
            "#   scheduler = None\n"
        )
        + make().to_python()
    )
    assert make(alternatives=[WORSE]).to_python() == make().to_python()


@pytest.mark.parametrize("policy", CYCLIC)
def test_a_falling_half_is_named_where_it_is_not_as_long_as_the_rising_one(policy: str) -> None:
    found = make(policy)
    assert (found.arguments["stepsize"], found.arguments["stepsize_down"]) == (12, 28)
    even = Recommendation.of("search", BOUNDS, BUDGET.propose(0.1, 10, 2, policy), 10)
    assert (even.stepsize, even.step_size_up, even.step_size_down) == (10, 10, 10)
    assert even.arguments["stepsize"] == 10
    assert "stepsize_down" not in even.arguments


GROUPED = {"optimizer": {"name": "SGD", "args": {}, "lr_mult": [0.1, 1.0]}}


@pytest.mark.parametrize("policy", CYCLIC)
def test_the_pasted_lines_and_its_scheduler_keep_the_proportions_of_parameter_groups(policy: str) -> None:
    found = make(policy, **GROUPED)
    made = []
    for write in ("pasted", "scheduler"):
        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.001, 0.01)]
        scope: dict[str, Any] = {"optimizer": torch.optim.SGD(groups)}
        if write == "pasted":
            exec(found.to_python(), scope)
        else:
            scope["scheduler"] = found.scheduler(scope["optimizer"])
        rates = []
        for _ in range(50):
            rates.append([group["lr"] for group in scope["optimizer"].param_groups])
            scope["optimizer"].step()
            scope["scheduler"].step()
        made.append(rates)
    rate = schedule(policy, base_lr=0.01, max_lr=0.1, stepsize=12, stepsize_down=28, gamma=found.gamma)
    for rates in made:
        assert [high for _, high in rates] == pytest.approx([rate(step) for step in range(50)])
        assert [low for low, _ in rates] == pytest.approx([rate(step) / 10 for step in range(50)])
    assert "0.1, 1 times" in found.to_python()


@pytest.mark.parametrize("name", BASELINES)
def test_the_lines_of_an_alternative_set_the_rate_of_each_group(name: str) -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 1.0)]
    optimizer = torch.optim.SGD(groups)
    scope: dict[str, Any] = {"optimizer": optimizer}
    exec(lines(name, [0.03, 0.3], 100), scope)
    if BASELINES[name].optimizer is None:
        start = BASELINES[name].start or 1.0
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03 * start, 0.3 * start])


@pytest.mark.parametrize("write", [name for name in WRITERS if name != "yaml"])
def test_every_format_says_or_sets_that_groups_have_rates_of_their_own(write: str) -> None:
    text = WRITERS[write](make(**GROUPED))  # type: ignore[index]
    assert "0.1, 1 times" in text
    assert "OneCycle" not in text, "DeepSpeed's takes one rate for all"


def test_a_schedule_for_another_optimizer_than_was_tested_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    network = torch.nn.Linear(2, 1)
    found = make(**GROUPED)
    groups = [{"params": [network.weight], "lr": 0.01}, {"params": [network.bias], "lr": 0.1}]
    found.scheduler(torch.optim.SGD(groups))
    assert not caplog.messages
    found.scheduler(torch.optim.AdamW(network.parameters()))
    assert caplog.messages == [
        "the bounds are for SGD, and good rates of AdamW may be far from them",
        "the bounds are for parameter groups at [0.1, 1.0] times the rate, and those of this optimizer are at [1.0]",
    ]
