import csv
import json
import math
from collections.abc import Generator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.charts import svg
from clr.range_tests.bounds import RATIO, Bounds, Confidence
from clr.range_tests.evidence import Finding
from clr.range_tests.method import METHOD, rate
from clr.range_tests.plan import (
    MOST,
    REPETITION,
    RangeTest,
    range_test_plan,
    read_together,
    side_by_side,
    steps_of_test,
)
from clr.range_tests.repetition import repetition
from clr.run import Curve, Plan, Run
from clr.schedules.cycles import TrainingLength
from clr.spec import RangeTestSpec
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, carry_out, in_batches, losses_of, rates_of

SPEC = RangeTestSpec()
FEWEST_STEPS = METHOD.fewest_steps
LOWEST, HIGHEST = rate(METHOD.bracket.lowest), rate(METHOD.bracket.highest)


def find(simulate: Simulate, steps: int = 1000, seed: int = 0, spec: RangeTestSpec = SPEC) -> RangeTest:
    """The range test of a training of 20 epochs."""
    return carry_out(range_test_plan(TrainingLength(20, steps // 20), spec, seed), simulate)


@cache
def found(steps: int = 1000, seed: int = 0) -> RangeTest:
    return find(bowl(), steps, seed)


def conclusive(bounds: Bounds) -> tuple[float, float]:
    """base_lr and max_lr of bounds that are sound in every respect."""
    assert bounds.base_lr is not None
    assert bounds.max_lr is not None
    assert bounds.interval is not None
    assert 0 < bounds.base_lr < bounds.max_lr
    for name, value in (("base_lr", bounds.base_lr), ("max_lr", bounds.max_lr)):
        low, high = bounds.interval[name]
        assert 0 < low <= value <= high
    assert bounds.reasons
    return bounds.base_lr, bounds.max_lr


def is_inconclusive(bounds: Bounds) -> bool:
    return (bounds.base_lr, bounds.max_lr, bounds.interval, bounds.confidence) == (None, None, None, "inconclusive")


def trained(steps: int, max_lr: float) -> float:
    """Mean loss, without its noise, at the end of whole trainings on seeds of their own."""
    ends = []
    for seed in range(1000, 1004):
        run = Run(
            policy="triangular",
            base_lr=max_lr / RATIO,
            max_lr=max_lr,
            step_size_up=steps // 2,
            steps=steps,
            seed=seed,
            evaluate_every=steps,
        )
        ends.append(np.mean(bowl(noise=0)(run).loss[-max(3, steps // 50) :]))
    return float(np.mean(ends))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [200, 1000, 10_000])
def test_trainings_at_the_answer_end_as_low_as_at_the_best_rate_there_is(steps: int, seed: int) -> None:
    bounds = found(steps, seed).bounds
    base_lr, max_lr = conclusive(bounds)
    assert max_lr < EDGE_OF_STABILITY
    assert max_lr / base_lr == pytest.approx(RATIO)
    assert bounds.confidence in ("medium", "high") or steps == 200
    best = min(trained(steps, rate) for rate in (0.05, 0.1, 0.25, 0.5, 1, 2))
    assert trained(steps, max_lr) - best < 0.01 * trained(2, 1e-9), "a hundredth of the loss at the start"


def test_a_short_training_is_advised_a_rate_within_a_factor_of_four_of_the_edge_of_stability() -> None:
    for seed in range(4):
        assert EDGE_OF_STABILITY / 4 < conclusive(found(200, seed).bounds)[1] < EDGE_OF_STABILITY


def test_seeds_of_the_test_hardly_matter() -> None:
    rates = [conclusive(found(1000, seed).bounds)[1] for seed in range(6)]
    assert max(rates) / min(rates) < 2


@pytest.mark.parametrize("steps", [200, 1000])
def test_the_same_seed_gives_the_same_test(steps: int) -> None:
    again = find(bowl(), steps)
    assert again == found(steps)
    assert again.runs[0][0].seed != found(steps, 1).runs[0][0].seed


@settings(max_examples=12, deadline=None)
@given(a=st.floats(1e-3, 1e4), b=st.floats(-100, 100), k=st.floats(1e-3, 1e3))
def test_other_units_of_loss_and_rate_give_the_same_answer(a: float, b: float, k: float) -> None:
    spec = RangeTestSpec(min_lr=k * LOWEST, max_lr=k * HIGHEST)
    changed = find(bowl(a=a, b=b, k=k), spec=spec).bounds
    assert conclusive(changed)[1] / k == pytest.approx(conclusive(found().bounds)[1], rel=0.05)
    assert changed.confidence == found().bounds.confidence


@pytest.mark.parametrize("k", [1e-4, 1e-2, 10])
def test_a_network_of_another_scale_is_found_on_the_default_bracket(k: float) -> None:
    assert conclusive(find(bowl(k=k)).bounds)[1] / k == pytest.approx(conclusive(found().bounds)[1], rel=0.4)


@settings(max_examples=60, deadline=None)
@given(
    epochs=st.floats(0.1, 200),
    iterations=st.integers(1, 500),
    seeds=st.integers(1, 20),
    own_epochs=st.none() | st.floats(0.1, 100),
    max_steps=st.none() | st.integers(1, 3000),
)
def test_a_test_never_takes_more_steps_than_it_may(
    epochs: float, iterations: int, seeds: int, own_epochs: float | None, max_steps: int | None
) -> None:
    length, spec = TrainingLength(epochs, iterations), RangeTestSpec(seeds=seeds, epochs=own_epochs)
    if (own_epochs or 0) * iterations > 5000:
        return
    plan = range_test_plan(length, spec, 0, max_steps)
    made = carry_out(plan, bowl(noise=0.3))
    allowed = steps_of_test(length, spec, max_steps)
    assert made.cost_steps == sum(run.steps for run, _ in made.runs) <= allowed
    assert allowed <= (max_steps or math.inf)
    assert own_epochs is not None or allowed <= length.steps
    assert (made.cost_steps == 0) == (allowed < FEWEST_STEPS)
    if allowed >= FEWEST_STEPS:
        enough = allowed > length.steps  # no proof is longer than the training
        assert made.cost_steps > 0.75 * allowed or allowed < 20 * FEWEST_STEPS or enough
        count = repetitions(made)
        assert 1 <= count <= seeds
        longest = min(length.steps, REPETITION)
        assert count == 1 or allowed // count >= longest, "never shorter than a training, or 1,000 steps"


def repetitions(made: RangeTest) -> int:
    """How many brackets begin at the lowest rate."""
    return sum(run.is_ramp and run.base_lr == LOWEST for run, _ in made.runs)


@pytest.mark.parametrize(
    ("steps", "allowed"), [(160, 160), (999, 999), (1000, 1000), (9000, 1000), (20_000, 2000), (10**6, MOST)]
)
def test_a_test_takes_a_tenth_of_the_training_within_limits(steps: int, allowed: int) -> None:
    assert steps_of_test(TrainingLength(1, steps), SPEC) == allowed
    assert steps_of_test(TrainingLength(steps, 1), SPEC) == allowed, "epochs make no difference"


@pytest.mark.parametrize(
    ("steps", "spec", "count"),
    [
        (1000, {}, 1),
        (1000, {"epochs": 40, "seeds": 1}, 1),
        (1000, {"epochs": 40}, 2),
        (1000, {"epochs": 80}, 3),
        (1000, {"epochs": 80, "seeds": 20}, 4),
        (1000, {"epochs": 15}, 1),
        (10_000, {}, 1),
        (20_000, {}, 2),
        (100, {}, 1),
        (100, {"epochs": 40}, 2),
    ],
)
def test_there_are_as_many_repetitions_of_a_thousand_steps_or_a_training_as_the_steps_allow(
    steps: int, spec: dict[str, float], count: int
) -> None:
    made = find(bowl(), steps, spec=RangeTestSpec.model_validate(spec))
    assert repetitions(made) == count
    assert f"{len(made.runs)} runs in {count} repetition" in made.bounds.reasons[0]


@pytest.mark.parametrize(
    ("length", "steps"), [(TrainingLength(1, 40), 40), (TrainingLength(0.5, 2), 2), (TrainingLength(20, 500), 75)]
)
def test_too_few_steps_are_inconclusive_and_say_how_many_are_needed(length: TrainingLength, steps: int) -> None:
    made = carry_out(range_test_plan(length, RangeTestSpec(), 0, max_steps=75), bowl())
    assert is_inconclusive(made.bounds)
    assert made.bounds.reasons == [
        f"a range test takes at least {FEWEST_STEPS} steps, but may take {steps}: train longer, or allow more"
    ]
    assert (made.runs, made.curves, made.cost_steps, made.rows()) == ([], [], 0, [])


def test_the_fewest_steps_there_may_be_are_enough_for_an_answer() -> None:
    made = carry_out(range_test_plan(TrainingLength(1, FEWEST_STEPS), SPEC, 0), bowl())
    assert made.cost_steps <= FEWEST_STEPS
    assert 0.1 < conclusive(made.bounds)[1] < 2 * EDGE_OF_STABILITY


HOPELESS: dict[str, Simulate] = {
    "never finite": losses_of(lambda step, random: math.nan),
    "soon infinite": losses_of(lambda step, random: math.inf if step > 1 else 1.0),
    "constant": losses_of(lambda step, random: 1.0),
    "noise": losses_of(lambda step, random: 1 + 0.1 * random.normal()),
    "negative noise": losses_of(lambda step, random: -50 + 0.1 * random.normal()),
}


@pytest.mark.parametrize("steps", [100, 400, 1000])
@pytest.mark.parametrize("case", HOPELESS)
def test_what_cannot_be_learnt_is_inconclusive(case: str, steps: int) -> None:
    for seed in range(3):
        made = find(HOPELESS[case], steps, seed)
        assert is_inconclusive(made.bounds)
        assert made.bounds.reasons
        json.dumps(made.to_dict(), allow_nan=False)


DOOMED: dict[str, Simulate] = {
    "rises from the start": losses_of(lambda step, random: 1 + step + 0.1 * random.normal()),
    "explodes after a while": losses_of(lambda step, random: math.exp(step) if step < 700 else math.inf),
    "dies in every run": losses_of(lambda step, random: math.nan if step > 12 else 1 + 0.1 * random.normal()),
    "random walk": losses_of(lambda step, random: 1 + 0.3 * random.normal() * step**0.5),
}


@pytest.mark.parametrize("steps", [100, 400, 1000])
@pytest.mark.parametrize("case", DOOMED)
def test_what_only_diverges_is_never_trusted(case: str, steps: int) -> None:
    for seed in range(3):
        made = find(DOOMED[case], steps, seed)
        assert made.bounds.confidence in ("inconclusive", "low")
        json.dumps(made.to_dict(), allow_nan=False)


@pytest.mark.parametrize("max_lr", [0.02, 0.5, 5.0])
def test_neither_the_runs_nor_the_answer_exceed_the_highest_rate_that_was_asked_for(max_lr: float) -> None:
    made = find(bowl(), spec=RangeTestSpec(max_lr=max_lr))
    assert max(lr for _, curve in made.runs for lr in curve.lr) <= max_lr * (1 + 1e-9)
    assert made.bounds.interval is not None
    assert made.bounds.interval["max_lr"][1] <= max_lr * (1 + 1e-9)
    conclusive(made.bounds)


def test_the_bracket_begins_at_the_lowest_rate_that_was_asked_for() -> None:
    made = find(bowl(), spec=RangeTestSpec(min_lr=1e-4, max_lr=20.0))
    assert (made.runs[0][0].base_lr, made.runs[0][0].max_lr) == (1e-4, 20)
    assert made.runs[0][1].lr[0] == pytest.approx(1e-4)


def test_a_plan_resumed_over_recorded_curves_ends_as_if_never_interrupted() -> None:
    length, simulate = TrainingLength(20, 50), bowl()
    recorded: list[list[Curve]] = []

    def interrupted_after(batches: int) -> RangeTest | None:
        """The plan from the start, over what is recorded, until it has made ``batches`` batches anew."""
        plan = range_test_plan(length, SPEC, 0)
        runs = next(plan)
        try:
            for curves in recorded:
                runs = plan.send(curves)
            for _ in range(batches):
                recorded.append([simulate(run) for run in runs])
                runs = plan.send(recorded[-1])
        except StopIteration as stop:
            done: RangeTest = stop.value
            return done
        return None

    parts = [interrupted_after(1) for _ in range(20)]
    assert next(part for part in parts if part is not None) == found()
    assert interrupted_after(0) == found()
    assert [len(curves) for curves in recorded][:3] == [1, 2, 2]


def test_plans_side_by_side_find_what_each_finds_alone() -> None:
    def plans() -> list[Plan[Finding]]:
        return [repetition(length, 1000, seed) for seed, length in enumerate((200, 300, 400))]

    joined = carry_out(side_by_side(plans()), bowl())
    alone = [carry_out(plan, bowl()) for plan in plans()]
    assert [replace(one, ramps=None) for one in joined] == [replace(one, ramps=None) for one in alone]


def test_a_plan_that_ends_early_leaves_the_others_their_curves() -> None:
    def counting(rounds: int) -> Generator[list[Run], list[Curve], int]:
        total = 0
        for _ in range(rounds):
            curves = yield [bracket] * rounds
            total += len(curves)
        return total

    bracket = found().runs[0][0]
    joined: Any = side_by_side([counting(3), counting(1), counting(2)])  # type: ignore[list-item]
    assert in_batches(joined, lambda run: Curve()) == ([9, 1, 4], [6, 5, 3])


TWO = RangeTestSpec(epochs=40)
"""Two repetitions."""


@cache
def seeds_of_the_second() -> set[int]:
    runs = [run for run, _ in find(bowl(), spec=TWO).runs]
    second = [i for i, run in enumerate(runs) if run.is_ramp][3]
    return {run.seed for run in runs[second:]}


def test_repetitions_that_contradict_each_other_are_trusted_less() -> None:
    second = seeds_of_the_second()
    bounds = find(lambda run: bowl(k=2 if run.seed in second else 1)(run), spec=TWO).bounds
    conclusive(bounds)
    assert any("max_lr differ" in reason for reason in bounds.reasons)


def test_repetitions_that_contradict_each_other_by_more_than_a_basin_are_inconclusive() -> None:
    second = seeds_of_the_second()
    bounds = find(lambda run: bowl(k=100 if run.seed in second else 1)(run), spec=TWO).bounds
    assert is_inconclusive(bounds)
    assert "repetitions contradict each other" in bounds.reasons[0]


def test_a_repetition_that_neither_learnt_nor_broke_has_no_vote() -> None:
    second = seeds_of_the_second()
    flat = losses_of(lambda step, random: 1 + 0.01 * random.normal())
    one = find(lambda run: (flat if run.seed in second else bowl())(run), spec=TWO)
    assert "1 of 2 are inconclusive by themselves" in one.bounds.reasons
    assert conclusive(one.bounds)[1] == pytest.approx(conclusive(found().bounds)[1], rel=0.4)
    assert one.bounds.confidence == "low"


def reading(max_lr: float | None, confidence: Confidence = "high", end: float = 1.0) -> Finding:
    interval = None if max_lr is None else (max_lr / 2, max_lr * 2)
    return Finding(max_lr, interval, (end, 0.01), None, confidence, [], None, [])


@pytest.mark.parametrize(
    ("others", "max_lr", "left_out"),
    [
        ([reading(0.2, "inconclusive")], math.sqrt(0.1 * 0.2), 0),
        ([reading(0.41, "inconclusive")], 0.1, 1),
        ([reading(0.1, "low"), reading(1e-5, "inconclusive"), reading(None, "inconclusive")], 0.1, 1),
        ([reading(0.39, "low", end=1.5)], math.sqrt(0.1 * 0.39), 0),
        ([reading(0.9, "high", end=1.5)], 0.1, 1),
        ([reading(0.9, "high", end=0.5)], 0.9, 1),
    ],
)
def test_where_repetitions_contradict_each_other_the_one_that_ended_better_counts(
    others: list[Finding], max_lr: float, left_out: int
) -> None:
    bounds = read_together([reading(0.1), *others])
    assert conclusive(bounds)[1] == pytest.approx(max_lr)
    assert [reason[0] for reason in bounds.reasons if "do not count" in reason] == left_out * ["1"]
    assert bounds.confidence == "low" or not left_out


def test_where_neither_of_two_that_contradict_each_other_ended_better_nothing_is_recommended() -> None:
    bounds = read_together([reading(0.1), reading(0.9, "low", end=1.04)])
    assert is_inconclusive(bounds)
    assert "a factor of 9" in bounds.reasons[0]


def test_bounds_are_told_as_soon_as_ramps_are_read_and_whenever_more_is_known() -> None:
    told: list[tuple[int, Bounds]] = []
    steps = 0

    def simulate(run: Run) -> Curve:
        nonlocal steps
        steps += run.steps
        return bowl()(run)

    plan = range_test_plan(TrainingLength(20, 50), SPEC, 0, tell=lambda bounds: told.append((steps, bounds)))
    made = carry_out(plan, simulate)
    assert next(bounds.confidence for _, bounds in told) == "low"
    assert told[0][0] < 0.15 * steps_of_test(TrainingLength(20, 50), SPEC)
    assert len(told) == 2
    for _, bounds in told:
        assert EDGE_OF_STABILITY / 20 < conclusive(bounds)[1] < EDGE_OF_STABILITY
    assert made == found()


def test_with_no_onset_any_base_lr_may_be_right_that_does_equally_well() -> None:
    interval = read_together([reading(0.1)]).interval
    assert interval is not None
    assert interval["base_lr"] == pytest.approx((0.005, 0.1 / 3))


def test_rows_are_the_ramps_steps_with_their_seeds() -> None:
    rows = found().rows()
    ramps = [(run, curve) for run, curve in found().runs if run.is_ramp]
    assert len(ramps) == len(found().curves) == 3
    assert len(rows) == sum(len(curve.loss) for _, curve in ramps)
    assert rows[0] == {"lr": 1e-7, "loss": ramps[0][1].loss[0], "metric": None, "seed": ramps[0][0].seed}
    assert [row["lr"] for row in rows] == [lr for run, curve in ramps for lr in rates_of(run)[: len(curve.loss)]]
    assert len({row["seed"] for row in rows}) == 3


def test_the_csv_has_the_rows_and_can_be_read_back(tmp_path: Path) -> None:
    run, curve = found().runs[0]
    measured = replace(curve, steps=[2, len(curve.loss)], metric=[0.5, 0.75], loss=[math.nan, *curve.loss[1:]])
    made = replace(found(), runs=[(run, measured), *found().runs[1:]])
    made.to_csv(tmp_path / "curve.csv")
    with open(tmp_path / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["lr", "loss", "metric", "seed"]
    assert (rows[0]["loss"], rows[0]["metric"], rows[1]["metric"]) == ("", "", "0.5")
    assert [float(row["lr"]) for row in rows] == [row["lr"] for row in made.rows()]
    assert [int(row["seed"]) for row in rows] == [row["seed"] for row in made.rows()]


def test_the_document_is_plain_and_the_smoothed_curve_is_as_long_as_its_rates() -> None:
    document = found().to_dict()
    assert json.loads(json.dumps(document, allow_nan=False))["bounds"]["max_lr"] == found().bounds.max_lr
    assert document.keys() == {"bounds", "smoothed"}
    assert document["smoothed"].keys() == {"lr", "loss"}
    lr, loss = document["smoothed"]["lr"], document["smoothed"]["loss"]
    assert len(lr) == len(loss) > 20
    assert lr == sorted(lr)
    assert min(loss) < loss[0] / 2


def test_the_picture_marks_the_bounds() -> None:
    drawn = svg(found().chart())
    assert drawn.startswith("<svg")
    assert all(name in drawn for name in ("base_lr", "max_lr"))


@pytest.mark.parametrize("simulate", [losses_of(lambda step, random: math.nan), HOPELESS["constant"]])
def test_an_inconclusive_test_has_a_picture_rows_and_a_document(simulate: Simulate, tmp_path: Path) -> None:
    made = find(simulate)
    assert svg(made.chart()).startswith("<svg")
    made.to_csv(tmp_path / "curve.csv")
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 1 + len(made.rows())
    assert len(made.smoothed["lr"]) == len(made.smoothed["loss"])


def test_a_test_without_a_run_has_a_picture_too() -> None:
    made = find(bowl(), steps=40)
    assert made.runs == []
    assert svg(made.chart()).startswith("<svg")
