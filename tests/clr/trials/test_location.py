"""The location of the best rate, on values made up of a parabola, a seed's luck and noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from clr.range_tests.bounds import Bounds
from clr.run import Point, Run, fresh_seeds
from clr.schedules.cycles import TrainingLength, way_of
from clr.trials.best_rate import BestRate
from clr.trials.location import Location
from clr.trials.race import ALIKE, Entrant, Heat, Peak, Race, baseline_entrant, entrant_of

LENGTH = TrainingLength(20, 50)
BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.005, 0.03), "max_lr": (0.03, 0.3)}, "low")
Worth = Callable[[Run], float | None]


def at(max_lr: float) -> Entrant:
    return entrant_of(LENGTH.propose(max_lr, 10, 1))


def valley(best: float, noise: float = 0.0, seed: int = 0) -> Worth:
    """A tenth is lost a factor of four away."""
    random = np.random.default_rng(seed)
    return lambda run: 0.9 - 0.1 * math.log(run.max_lr / best, 4) ** 2 + float(random.normal(0, noise))


def located(worth: Worth, most: int, upto: float = math.inf) -> Location:
    race = Race([at(0.1)], "maximize", 0.1)
    location = Location(race, BestRate.of(BOUNDS), lambda lr: at(lr) if lr <= upto else None)
    go_on(location, worth, most)
    return location


def go_on(
    location: Location, worth: Worth, most: int, told: Callable[[Heat], None] = lambda heat: None
) -> list[list[float]]:
    """The rates of each round."""
    used = {seed for one in location.race.entrants for seed in one.values}
    plan = location.rounds(most, (seed for seed in fresh_seeds(0, "race", 99) if seed not in used))
    rounds: list[list[float]] = []
    values: list[float | None] | None = None
    while True:
        try:
            heats = plan.send(values)  # type: ignore[arg-type]
        except StopIteration:
            assert sum(map(len, rounds)) <= most
            return rounds
        rounds.append([heat.run.max_lr for heat in heats])
        values = [worth(heat.run) for heat in heats]
        for heat in heats:
            told(heat)


@pytest.mark.parametrize("best", [0.05, 0.1, 0.17])
def test_the_candidate_loses_hardly_anything(best: float) -> None:
    found = located(valley(best), 4).candidate()
    assert 0.9 - (valley(best)(found.make(0)) or 0.0) < 2 * ALIKE * 0.8, "a share of what a training gains"


def test_the_own_rate_stays_where_hardly_less_is_lost_at_another() -> None:
    location = located(valley(0.104), 4)
    assert location.candidate() is location.race.own


def test_the_first_round_is_the_own_rate_half_and_twice_it() -> None:
    race = Race([at(0.1)], "maximize", 0.1)
    assert go_on(Location(race, BestRate.of(BOUNDS), at), valley(0.1), 4) == [[0.1, 0.05, 0.2]]


def test_two_trainings_are_the_own_rate_and_half_of_it() -> None:
    race = Race([at(0.1)], "maximize", 0.1)
    assert go_on(Location(race, BestRate.of(BOUNDS), at), valley(0.1), 2) == [[0.1, 0.05]]


def test_more_trainings_go_to_either_side_of_where_it_seems_to_be_until_nothing_is_to_be_gained() -> None:
    race = Race([at(0.1)], "maximize", 0.1)
    location = Location(race, BestRate.of(BOUNDS), at)
    rounds = go_on(location, valley(0.07, noise=0.1, seed=3), 30)
    assert len(rounds) > 1
    assert all(len(rates) == 2 for rates in rounds[1:])
    assert sum(map(len, rounds)) <= 17


def test_no_rate_is_tried_above_the_limit() -> None:
    location = located(valley(0.3), 6, upto=0.15)
    assert max(one.params["max_lr"] for one in location.race.entrants) <= 0.15
    assert location.candidate().params["max_lr"] <= 0.15


def test_where_the_own_rate_diverged_a_lower_one_goes_on() -> None:
    location = located(lambda run: None if run.max_lr > 0.07 else 0.8, 4)
    assert location.candidate().params["max_lr"] < 0.075


def test_where_every_rate_diverged_half_of_the_lowest_goes_on() -> None:
    assert located(lambda run: None, 4).candidate().params["max_lr"] == pytest.approx(0.025)


def test_one_lucky_training_does_not_move_the_answer_by_more_than_it_is_worth() -> None:
    lucky = located(lambda run: 0.93 if run.max_lr > 0.15 else 0.9, 4).candidate().params["max_lr"]
    assert 0.1 <= lucky < 0.2


def test_schedules_of_another_shape_say_nothing_of_the_rate() -> None:
    location = located(valley(0.1), 4)
    before = location.best_rate
    others = [entrant_of(LENGTH.propose(0.05, 3, 2)), baseline_entrant("fixed", 0.1, LENGTH)]
    for one in others:
        one.values = {0: 0.99, 1: 0.99}
    location.race.entrants += others
    assert location.best_rate.x == pytest.approx(before.x)
    assert location.best_rate.deviation == pytest.approx(before.deviation, rel=0.1)


def test_without_the_value_of_an_untrained_network_there_is_an_answer_too() -> None:
    race = Race([at(0.1)], "minimize", None)
    location = Location(race, BestRate.of(BOUNDS), at)
    go_on(location, lambda run: 1 - (valley(0.06)(run) or 0.0), 4)
    assert location.candidate().params["max_lr"] < 0.1


def test_where_the_trainings_scatter_about_every_parabola_a_difference_on_one_seed_counts_less() -> None:
    quiet = located(valley(0.1), 4).race
    noisy = [located(valley(0.1, 0.2, seed), 4).race for seed in range(20)]
    assert float(np.mean([race.noise[0] for race in noisy])) > 2 * quiet.noise[0]
    assert quiet.noise[1] == 4, "worth two trainings more than what was assumed"


def fitting(enough: float) -> tuple[Worth, Callable[[Heat], None]]:
    """Scores that are best once the rates have summed up to ``enough``; at the end, and within."""

    def points(run: Run) -> list[Point]:
        steps = [step for step in range(1, run.steps + 1) if step % run.evaluate_every == 0 or step == run.steps]
        return [Point(step, [], [], 0.9 - 0.1 * math.log(way_of(run, step) / enough, 4) ** 2) for step in steps]

    def told(heat: Heat) -> None:
        heat.entrant.peaks[heat.run.seed] = Peak.of(heat.run, points(heat.run), 1)

    return lambda run: points(run)[-1].metric, told


@pytest.mark.parametrize("lower", [6, 16, 40])
def test_where_all_trainings_did_better_before_their_ends_the_rate_that_goes_as_far_goes_on(lower: float) -> None:
    enough = way_of(at(0.1 / lower).make(0), LENGTH.steps)
    worth, told = fitting(enough)
    race = Race([at(0.1)], "maximize", 0.1)
    location = Location(race, BestRate.of(BOUNDS), at)
    go_on(location, worth, 4, told)
    candidate = location.candidate()
    assert candidate.params["max_lr"] == pytest.approx(0.1 / lower, rel=0.8)
    candidate.values[99], candidate.peaks[99] = 0.9, Peak(0.9, 1.0)
    best = location.best_rate
    assert best.interval[0] < 0.1 / lower < best.interval[1]
    assert location.said(best).endswith("each scored far better before its end: it fits too much")


def test_a_score_that_was_hardly_better_before_an_end_changes_nothing() -> None:
    worth, _ = fitting(way_of(at(0.1).make(0), LENGTH.steps))
    known = located(worth, 4).candidate().params["max_lr"]
    race = Race([at(0.1)], "maximize", 0.1)
    location = Location(race, BestRate.of(BOUNDS), at)

    def told(heat: Heat) -> None:
        heat.entrant.peaks[heat.run.seed] = Peak((worth(heat.run) or 0.0) + 0.01, 0.1)

    go_on(location, worth, 4, told)
    assert location.candidate().params["max_lr"] == known


def test_the_trainings_around_are_scored_several_times() -> None:
    race = Race([at(0.1)], "maximize", 0.1)
    heats = next(Location(race, BestRate.of(BOUNDS), at).rounds(4, iter([1])))
    assert all(heat.run.evaluate_every == math.ceil(heat.run.steps / 8) for heat in heats)


def test_a_peak_is_told_as_a_share_of_the_way_and_nothing_without_scores() -> None:
    run = at(0.1).make(0)
    half = run.steps // 2
    peak = Peak.of(run, [Point(half, [], [], 0.2), Point(run.steps, [], [], 0.3)], -1)
    assert peak is not None
    assert (peak.value, peak.share) == (0.2, way_of(run, half) / way_of(run, run.steps))
    assert Peak.of(run, [], 1) is None
