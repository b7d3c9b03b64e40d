"""The session on made-up trainings: its order, its budget, and its taking up from what was told."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.range_tests.bounds import Bounds
from clr.run import Curve, Point, Run
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.trials.race import NOT_COMPARED
from clr.tuning.orders import Order, Over, ToldRun, Training, Waiting
from clr.tuning.recommendation import PROVISIONAL
from clr.tuning.session import COMPARED, Session
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, rates_of

LENGTH = TrainingLength(20, 50)
TRAINING = Training(LENGTH, "loss", "minimize", {"name": "SGD", "args": {}}, 32)


def make(**fields: Any) -> Session:
    return Session(JobSpec(task="digits", **fields), TRAINING, extensions=fields.pop("extensions", ()))


def points_of(curve: Curve) -> list[Point]:
    return [Point(len(curve.loss), curve.lr, curve.loss, curve.metric[-1] if curve.metric else None, curve.diverged)]


def finish(
    session: Session, simulate: Simulate, stop_after: int | None = None, told: Callable[[ToldRun], None] | None = None
) -> list[Order]:
    orders = []
    while stop_after is None or len(orders) < stop_after:
        order = session.next()
        if isinstance(order, Over):
            break
        assert isinstance(order, Order)
        orders.append(order)
        session.hear(order.stage, order.number, points_of(simulate(order.run)))
        ended = session.end(order.stage, order.number)
        if told is not None:
            told(ended)
    return orders


def test_a_default_job_costs_six_trainings_at_most_and_compares_its_answer() -> None:
    session = make()
    orders = finish(session, bowl())
    assert session.steps_so_far <= 6 * LENGTH.steps
    assert [order.stage for order in orders] == sorted(
        (order.stage for order in orders), key=["range_test", "search"].index
    )
    found = session.recommendation
    assert found is not None
    assert found.source == "search"
    assert found.evidence is not None
    assert {run["name"] for run in found.evidence.runs} >= {"recommended", "fixed", "one_cycle"}
    assert found.max_lr is not None
    assert found.max_lr < EDGE_OF_STABILITY
    assert (found.optimizer, found.batch_size) == ({"name": "SGD", "args": {}}, 32)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 30), st.integers(0, 3))
def test_no_job_costs_more_than_its_budget(budget: float, seed: int) -> None:
    session = make(budget=budget, seed=seed)
    finish(session, bowl())
    assert session.steps_so_far <= max(1.0, budget * LENGTH.steps + 1e-9), "3.9999999999999964 trainings are four"


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 40), st.booleans())
def test_a_session_broken_off_anywhere_goes_on_to_the_same_end(after: int, with_trials: bool) -> None:
    fields: dict[str, Any] = {"search": {"trials": 6}, "confirm": {"seeds": 2}} if with_trials else {"budget": 12}
    whole = make(**fields)
    finish(whole, bowl())
    told: list[ToldRun] = []
    finish(make(**fields), bowl(), stop_after=after, told=told.append)
    again = make(**fields)
    again.restore(told)
    finish(again, bowl())
    assert whole.recommendation == again.recommendation


@pytest.mark.parametrize("seeds", [1, 3])
def test_first_bounds_come_before_the_range_test_has_ended_and_say_that_they_are_provisional(seeds: int) -> None:
    session = make(range_test={"seeds": seeds, "epochs": 60}, budget=6)
    found = None
    while found is None:
        finish(session, bowl(), stop_after=1)
        found = session.recommendation
    assert session.bounds is None
    assert found.max_lr is not None
    assert found.max_lr < 2 * EDGE_OF_STABILITY
    assert (found.source, found.confidence, found.reasons[0]) == ("range_test", "low", PROVISIONAL)
    finish(session, bowl())
    assert session.recommendation is not None
    assert PROVISIONAL not in session.recommendation.reasons


def test_a_limit_that_strikes_within_the_range_test_leaves_its_first_bounds() -> None:
    session = make()
    while session.recommendation is None:
        finish(session, bowl(), stop_after=1)
    session.limit("limits.max_seconds = 5")
    found = session.recommendation
    assert found is not None
    assert found.max_lr is not None
    assert (found.confidence, found.reasons[0]) == (
        "low",
        "limits.max_seconds = 5 was reached before the range test ended",
    )


def test_given_numbers_are_kept_to() -> None:
    session = make(search={"trials": 5}, confirm={"seeds": 2, "baselines": ["fixed"]})
    orders = finish(session, bowl())
    assert sum(order.stage == "search" for order in orders) == 5
    confirmed = [order for order in orders if order.stage == "confirm"]
    assert len(confirmed) in (4, 6)  # the range test's own, the best trial unless it is the same, a fixed rate
    assert session.recommendation is not None
    assert session.recommendation.source == "confirm"


@pytest.mark.parametrize("search", [{}, {"trials": 3}, {"trials": 3, "epochs": 10}])
@pytest.mark.parametrize("budget", [None, 9.0])
def test_the_ranges_that_were_given_hold_for_the_range_tests_own_schedule_too(
    search: dict[str, Any], budget: float | None
) -> None:
    ranges = {"ratio": [3, 4], "stepsize_multiplier": [2, 2.5], "rise": [0.1, 0.2], "policies": ["hann"]}
    session = make(search=ranges | search, budget=budget)
    own = [order for order in finish(session, bowl()) if order.params.get("ratio")]
    assert own
    for order in own:
        assert order.run.policy == "hann"
        assert order.params["ratio"] == pytest.approx(3.5, abs=0.51)
        assert order.params["rise"] == pytest.approx(0.15, abs=0.051)
        assert order.params["stepsize_multiplier"] == pytest.approx(2.25, abs=0.26)
    found = session.recommendation
    assert found is not None
    assert found.stepsize_multiplier == pytest.approx(2.25, abs=0.26)
    assert found.ratio == pytest.approx(3.5, abs=0.51)


def test_seeds_of_a_comparison_are_kept_to_without_trials_too() -> None:
    session = make(confirm={"seeds": 3, "baselines": ["fixed", "cosine"]})
    confirmed = [order for order in finish(session, bowl()) if order.stage == "confirm"]
    names = [order.params["name"] for order in confirmed]
    assert {names.count(name) for name in ("recommended", "fixed", "cosine")} == {3}
    assert session.steps_so_far <= session.predicted_steps


def test_evidence_is_of_the_length_that_was_compared() -> None:
    session = make(search={"trials": 2, "epochs": 5}, confirm={"seeds": 1})
    compared = {order.run.steps for order in finish(session, bowl()) if order.stage == "confirm"}
    assert session.recommendation is not None
    assert session.recommendation.evidence is not None
    assert compared == {LENGTH.steps}
    assert session.recommendation.evidence.epochs == LENGTH.epochs


DOUBTED = Bounds(0.1, 1.0, {"base_lr": (0.05, 0.2), "max_lr": (0.5, 2.0)}, "low")
NAMED = ["cosine", "reduce_on_plateau", "one_cycle", "schedule_free"]


@pytest.mark.parametrize("search", [{}, {"trials": 2}])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_baseline_that_was_named_is_trained_however_sure_the_range_test_is(
    search: dict[str, Any], count: int
) -> None:
    spec = JobSpec(task="digits", search=search, confirm={"baselines": NAMED[:count]})
    session = Session(spec, TRAINING, recorded=DOUBTED)
    ended = {order.params.get("name") for order in finish(session, bowl())}
    assert set(NAMED[:count]) <= ended
    assert session.steps_so_far <= session.predicted_steps


def test_where_the_range_test_is_not_sure_trainings_around_its_rate_say_where_the_best_one_lies() -> None:
    session = Session(JobSpec(task="digits", budget=5), TRAINING, recorded=DOUBTED)
    *around, own, beside = finish(session, bowl())
    assert [order.run.max_lr for order in around] == [1.0, 0.5, 2.0]
    assert len({order.run.seed for order in around}) == 1
    assert beside.params["name"] == "fixed"
    assert own.run.seed == beside.run.seed != around[0].run.seed
    found = session.recommendation
    assert found is not None
    assert found.max_lr == own.run.max_lr != 1.0, "what is recommended has been trained itself"
    assert found.interval is not None
    low, high = found.interval["max_lr"]
    assert low < found.max_lr < high
    assert high / low < 2.0 / 0.5
    assert any("4 trainings at max_lr 0.5 to 2 put the best at" in reason for reason in found.reasons)
    assert found.evidence is not None
    assert [run["name"] for run in found.evidence.runs][:2] == ["recommended", "range_test"]


@pytest.mark.parametrize("after", [1, 3, 4, 7])
def test_a_location_that_is_broken_off_goes_on_to_the_same_end(after: int) -> None:
    def begun() -> Session:
        return Session(JobSpec(task="digits", budget=9), TRAINING, extensions=[3], recorded=DOUBTED)

    told: list[ToldRun] = []
    whole, first = begun(), begun()
    finish(whole, bowl())
    finish(first, bowl(), stop_after=after, told=told.append)
    second = begun()
    second.restore(told)
    finish(second, bowl())
    assert second.recommendation == whole.recommendation
    assert second.steps_so_far <= 12 * LENGTH.steps


def test_a_named_baseline_for_which_the_budget_has_no_room_is_told() -> None:
    session = make(budget=3, confirm={"baselines": NAMED})
    ended = {order.params.get("name") for order in finish(session, bowl())}
    assert session.recommendation is not None
    missing = [name for name in NAMED if name not in ended]
    said = [reason for reason in session.recommendation.reasons if "no room to compare" in reason]
    assert bool(missing) == bool(said)
    assert all(name in said[0] for name in missing)


def test_after_trials_the_answer_is_compared_with_baselines_rather_than_with_other_rates() -> None:
    session = Session(JobSpec(task="digits", search={"trials": 2}), TRAINING, recorded=DOUBTED)
    confirmed = {order.params["name"] for order in finish(session, bowl()) if order.stage == "confirm"}
    assert "fixed" in confirmed


def test_without_a_search_the_range_test_is_all() -> None:
    session = make(search=None)
    assert {order.stage for order in finish(session, bowl())} == {"range_test"}
    found, bounds = session.recommendation, session.bounds
    assert found is not None
    assert bounds is not None
    assert bounds.max_lr is not None
    assert found.source == "range_test"
    assert found.max_lr == pytest.approx(bounds.max_lr, rel=1e-3)


def late(run: Run) -> Curve:
    """Nothing is learnt in the first 300 steps; then most at a rate of .1."""
    random, steps = np.random.default_rng(run.seed), np.arange(run.steps)
    share = np.clip((steps - 300) / 300, 0, 1) * math.exp(-((math.log(run.max_lr / 0.1) / 2) ** 2))
    loss = 1 - 0.9 * share + random.normal(0, 0.02, run.steps) - 1e-6 * run.max_lr
    rates = rates_of(run)
    broke = next((at for at, lr in enumerate(rates) if lr > 1), run.steps)
    return Curve(
        rates[: broke + 1], [*loss[:broke], *([math.nan] if broke < run.steps else [])], diverged=broke < run.steps
    )


def test_a_range_test_that_was_too_short_to_tell_is_made_again_three_times_as_long() -> None:
    session = make()
    orders = finish(session, late)
    found = session.recommendation
    assert found is not None
    assert found.max_lr == pytest.approx(0.1, rel=0.7)
    assert any("steps, was too short to tell: no short cycle" in reason for reason in found.reasons)
    assert found.source == "search"
    assert session.steps_so_far <= 6 * LENGTH.steps
    assert sum(order.stage == "range_test" for order in orders) > 8


@pytest.mark.parametrize("fields", [{"search": None}, {"budget": 2}, {"range_test": {"epochs": 10}}])
def test_a_range_test_is_made_once_where_its_length_was_given_or_nothing_is_left(fields: dict[str, Any]) -> None:
    session = make(**fields)
    finish(session, late)
    assert session.recommendation is not None
    assert session.recommendation.confidence == "inconclusive"
    assert session.steps_so_far <= LENGTH.steps


def test_where_every_training_diverges_nothing_that_did_is_recommended() -> None:
    def simulate(run: Run) -> Curve:
        curve = bowl()(run)
        short = run.steps < LENGTH.steps // 2
        return curve if short else replace(curve, diverged=True)

    for fields in ({}, {"search": {"trials": 4}, "confirm": None}):
        session = make(**fields)
        finish(session, simulate)
        found = session.recommendation
        assert found is not None
        assert found.max_lr is None
        assert found.confidence == "inconclusive"
        assert "every training diverged or failed" in found.reasons[0]


@pytest.mark.parametrize("at", [0, 3, -1])
def test_runs_that_were_recorded_under_another_plan_are_never_taken_for_those_of_this_one(at: int) -> None:
    told: list[ToldRun] = []
    first = make()
    finish(first, bowl(), told=told.append)
    other = told[at].order
    told[at] = replace(told[at], order=replace(other, run=replace(other.run, max_lr=2 * other.run.max_lr)))
    second = make()
    second.restore(told)
    assert finish(second, bowl()) == []
    assert second.failure is not None
    assert f"{other.stage} run {other.number} was recorded under another plan" in second.failure


def test_a_failing_range_test_ends_the_session_with_the_reason() -> None:
    session = make()
    order = session.next()
    assert isinstance(order, Order)
    session.tell_failed(order.stage, order.number)
    over = session.next()
    assert isinstance(over, Over)
    assert session.failure == over.reason == "range_test run 0 failed"


def test_others_wait_until_the_runs_under_way_have_ended() -> None:
    session = make()
    taken = []
    while isinstance(order := session.next(), Order):
        taken.append(order)
    assert isinstance(order, Waiting)
    assert session.under_way == taken
    for one in taken:
        session.hear(one.stage, one.number, points_of(bowl()(one.run)))
        session.end(one.stage, one.number)
    assert isinstance(session.next(), Order)


def test_runs_in_the_hands_of_trainers_are_not_ordered_again() -> None:
    session = make()
    first = session.next()
    assert isinstance(first, Order)
    again = make()
    again.restore([ToldRun(first, "running", [], None)], in_hands=True)
    second = again.next()
    assert second != first
    assert first in again.under_way


def test_max_steps_is_never_passed_and_what_was_found_until_then_is_recommended() -> None:
    session = make(limits={"max_steps": 3 * LENGTH.steps})
    finish(session, bowl())
    assert session.steps_so_far <= 3 * LENGTH.steps
    found = session.recommendation
    assert found is not None
    assert found.max_lr is not None
    assert "limits.max_steps = 3000 was reached" in found.warnings[0]


def break_off(session: Session, share: float) -> tuple[Order, int]:
    """Order a run and report so much of it; the order, and the steps reported."""
    order = session.next()
    assert isinstance(order, Order)
    step = round(share * order.run.steps)
    session.hear(order.stage, order.number, [Point(step, [0.1] * step, [1.0] * step, None)])
    return order, step


def test_steps_that_are_trained_anew_count_and_max_steps_strikes_in_mid_run() -> None:
    session = make(limits={"max_steps": 2 * LENGTH.steps})
    order, step = break_off(session, 0.9)
    spent = step
    while session.reached is None:
        assert session.steps_so_far == spent <= 2 * LENGTH.steps
        session = rebuilt(session, order, step)
        assert session.next() == order
        advice = session.hear(order.stage, order.number, [Point(step, [0.1] * step, [1.0] * step, None)])
        spent += step
    assert (advice.stop, advice.reason) == (True, "limits.max_steps = 2000 was reached")
    assert session.end(order.stage, order.number).state == "running", "it was broken off, which says nothing of it"
    assert isinstance(session.next(), Over)
    assert session.steps_so_far == spent
    found = session.recommendation
    assert found is not None
    assert found.reasons == ["limits.max_steps = 2000 was reached before the range test ended"]


def rebuilt(session: Session, order: Order, step: int) -> Session:
    """As a store does that knows the steps of all attempts, of which the last was broken off."""
    again = Session(session.spec, TRAINING)
    points = [Point(step, [0.1] * step, [1.0] * step, None)]
    again.restore([ToldRun(order, "running", points, None, session.steps_so_far - step)])
    return again


def test_steps_that_are_read_back_from_a_checkpoint_are_counted_once() -> None:
    session = make()
    order, step = break_off(session, 0.5)
    session.hand_out_again(order.stage, order.number)
    assert session.steps_so_far == step
    place, kept = (order.stage, order.number), step // 2
    session.hear(*place, [Point(kept, [0.1] * kept, [1.0] * kept, None)], restored=True)
    assert session.steps_so_far == step
    session.hear(*place, [Point(step, [0.1] * kept, [1.0] * kept, None)])
    assert session.steps_so_far == step + (step - kept), "the second half was trained twice"


def test_a_limit_before_the_range_test_ended_is_inconclusive() -> None:
    session = make()
    session.next()
    session.limit("limits.max_seconds = 5")
    assert session.hear("range_test", 0, []).stop
    found = session.recommendation
    assert found is not None
    assert found.reasons == ["limits.max_seconds = 5 was reached before the range test ended"]


def test_an_extension_goes_on_from_all_that_was_known() -> None:
    told: list[ToldRun] = []
    first = make()
    finish(first, bowl(), told=told.append)
    more = Session(first.spec, TRAINING, extensions=[4])
    more.restore(told)
    orders = finish(more, bowl())
    assert 2 <= len(orders) <= 4
    assert {order.stage for order in orders} == {"search"}
    assert orders[0].number == sum(one.order.stage == "search" for one in told)
    assert {order.run.seed for order in orders}.isdisjoint(one.order.run.seed for one in told)


def test_a_recorded_ramp_takes_the_place_of_the_range_test() -> None:
    bounds = Bounds(0.01, 0.1, {"base_lr": (0.005, 0.03), "max_lr": (0.05, 0.2)}, "medium")
    session = Session(JobSpec(task="mine"), TRAINING, recorded=bounds, recorded_steps=LENGTH.steps)
    assert {order.stage for order in finish(session, bowl())} == {"search"}
    assert session.steps_so_far <= 6 * LENGTH.steps


def test_a_budget_that_holds_few_trainings_shortens_them_and_says_so() -> None:
    session = make(budget=2.5)
    orders = finish(session, bowl())
    searched = [order for order in orders if order.stage == "search"]
    assert searched
    assert all(order.run.steps < LENGTH.steps for order in searched)
    assert session.recommendation is not None
    assert any("of the epochs, which the budget allows" in reason for reason in session.recommendation.reasons)
    assert session.recommendation.stepsize == LENGTH.steps // 2, "it is recommended for the whole training"


@pytest.mark.parametrize("epochs", [2.5, 5])
def test_trials_of_a_short_training_that_the_budget_shortens_find_their_whole_cycles(epochs: float) -> None:
    spec = JobSpec(task="digits", epochs=epochs, budget=2)
    session = Session(spec, Training(TrainingLength(epochs, 100), "loss", "minimize"))
    orders = finish(session, bowl())
    assert any(order.stage == "search" for order in orders)
    assert session.steps_so_far <= 2 * epochs * 100
    found = session.recommendation
    assert found is not None
    assert found.stepsize == round(epochs * 100 / 2), "one cycle over the whole training"


@pytest.mark.parametrize("max_lr", [0.001, 0.02])
def test_no_rate_above_the_callers_own_limit_is_tried(max_lr: float) -> None:
    session = make(range_test={"max_lr": max_lr}, budget=12)
    orders = finish(session, bowl())
    ours = [order.run.max_lr for order in orders if order.params.get("baseline") is None]
    assert max(ours) <= max_lr * 1.0001


def test_what_the_optimizer_does_to_rates_is_known_to_the_range_test() -> None:
    found = []
    for name in ("SGD", "Adagrad"):
        training = replace(TRAINING, optimizer={"name": name, "args": {}}, length=TrainingLength(200, 50))
        session = Session(JobSpec(task="mine", epochs=200, search=None), training)
        finish(session, bowl())
        assert session.range_test is not None
        found.append(session.range_test.bounds.max_lr or 0)
    assert found[1] > 1.5 * found[0] > 0


@pytest.mark.parametrize("confirm", [{}, {"baselines": []}])
def test_where_no_baseline_was_trained_a_reason_names_the_line_that_does(confirm: dict[str, Any]) -> None:
    told: list[ToldRun] = []
    spec = JobSpec(task="digits", budget=3, confirm=confirm)
    first = Session(spec, TRAINING, recorded=DOUBTED, job_id="17")
    finish(first, bowl(), told=told.append)
    found = first.recommendation
    assert found is not None
    assert found.evidence is not None
    assert found.evidence.verdict == NOT_COMPARED
    said = [reason for reason in found.reasons if reason.startswith("not compared with a baseline")]
    if confirm:
        assert said == []
        return
    assert said == ["not compared with a baseline, which clr extend 17 --budget 4 does"]
    more = Session(spec, TRAINING, recorded=DOUBTED, extensions=[COMPARED])
    more.restore(told)
    finish(more, bowl())
    assert more.recommendation is not None
    assert more.recommendation.evidence is not None
    assert more.recommendation.evidence.verdict != NOT_COMPARED
    assert not any(reason.startswith("not compared") for reason in more.recommendation.reasons)
