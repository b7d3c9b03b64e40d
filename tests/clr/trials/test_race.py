"""The race on values made up of a schedule's worth, a seed's luck and noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.run import Run, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.trials.baselines import BASELINES, USUAL_BASELINES, lines
from clr.trials.race import Entrant, Race, baseline_entrant, entrant_of, field_size, race_plan, summary, verdict

LENGTH = TrainingLength(20, 50)
OWN = LENGTH.propose(0.1, 10, 1)
BOTH = ("fixed", "one_cycle")
Worth = Callable[[Run, int], float | None]


def safer(candidate: Candidate) -> Entrant:
    return entrant_of(LENGTH.propose(candidate.max_lr / 2, 10, 1))


def run_race(worth: Worth, entrants: list[Entrant], trainings: int, floor: float | None = 0.1) -> Race:
    race = Race(entrants, "maximize", floor)
    plan = race_plan(race, entrants, trainings, iter(fresh_seeds(0, "race", trainings)), safer)
    values: list[float | None] | None = None
    spent = 0
    while True:
        try:
            heats = plan.send(values)  # type: ignore[arg-type]
        except StopIteration:
            assert spent <= trainings
            return race
        spent += len(heats)
        assert len({heat.run.seed for heat in heats}) == 1, "all of a round share a seed"
        values = [worth(heat.run, heat.run.seed) for heat in heats]


def field(*names: str) -> list[Entrant]:
    return [entrant_of(OWN, "recommended"), *(baseline_entrant(name, OWN.max_lr, LENGTH) for name in names)]


def with_noise(worth: dict[str, float], sd: float) -> Worth:
    def value(run: Run, seed: int) -> float:
        random = np.random.default_rng([seed, int(1e6 * run.max_lr), len(run.policy)])
        luck = np.random.default_rng(seed).normal(0, 3 * sd)  # all of a seed share it
        return float(worth[run.policy] + luck + random.normal(0, sd))

    return value


def test_the_range_tests_own_is_recommended_unless_another_is_ahead_twice() -> None:
    other = entrant_of(LENGTH.propose(0.2, 10, 1))
    lucky = iter([0.9, 0.93, 0.9, 0.9])
    race = run_race(lambda run, seed: next(lucky), [*field(), other], 2)
    assert race.winner is race.own, "one lucky training replaces nothing"


def test_a_candidate_that_is_ahead_on_every_seed_wins() -> None:
    better = entrant_of(LENGTH.propose(0.2, 10, 1))
    race = run_race(lambda run, seed: 0.95 if run.max_lr > 0.15 else 0.9, [*field(), better], 4)
    assert race.winner is better


def test_a_schedule_that_collapses_on_a_seed_is_replaced_by_a_safer_one() -> None:
    seen: list[int] = []

    def worth(run: Run, seed: int) -> float:
        seen.append(seed)
        return 0.1 if run.max_lr == OWN.max_lr and run.policy == "triangular" and len(set(seen)) > 1 else 0.9

    race = run_race(worth, field("fixed", "one_cycle"), 12)
    assert race.is_fragile(race.own)
    assert race.winner is not race.own
    assert race.winner is not None
    assert race.winner.candidate == safer(OWN).candidate


def test_where_every_candidate_diverged_there_is_no_winner() -> None:
    race = run_race(lambda run, seed: None, field("fixed"), 4)
    assert race.winner is None
    assert verdict(race, race.own, race.entrants[1:])[0] == "the recommended schedule diverged"


@pytest.mark.parametrize(("fixed", "said"), [(0.6, "CLR ahead by"), (0.9, "no difference"), (0.97, "a fixed rate did")])
def test_the_verdict_is_beside_the_fixed_rate(fixed: float, said: str) -> None:
    race = run_race(with_noise({"triangular": 0.9, "fixed": fixed}, 0.002), field("fixed"), 6)
    text, warnings = verdict(race, race.own, race.entrants[1:])
    assert text.startswith(said)
    assert bool(warnings) == (fixed > 0.95)


@pytest.mark.parametrize(
    ("fixed", "one_cycle", "said"),
    [
        (0.9, 0.97, "one cycle did better"),
        (0.97, 0.97, "a fixed rate and one cycle did better"),
        (0.9, 0.9, "no difference to a fixed rate and one cycle"),
        (0.6, 0.9, "CLR ahead by 0.3 +- 0.0092 of a fixed rate, no difference to one cycle"),
        (None, 0.9, "CLR ahead as a fixed rate diverged, no difference to one cycle"),
    ],
)
def test_the_verdict_speaks_of_every_baseline(fixed: float | None, one_cycle: float, said: str) -> None:
    values = {"triangular": 0.9, "fixed": fixed, "one_cycle": one_cycle}
    race = run_race(lambda run, seed: values[run.policy], field("fixed", "one_cycle"), 6)
    text, warnings = verdict(race, race.own, race.entrants[1:])
    assert text == said
    assert len(warnings) == text.count("did better") + text.count(" and one cycle did better")


def test_a_seed_that_is_left_goes_to_the_baseline_that_it_may_settle() -> None:
    race = run_race(lambda run, seed: {"fixed": 0.88, "one_cycle": 0.9}.get(run.policy, 0.9), field(*BOTH), 5)
    own, fixed, one_cycle = race.entrants
    assert [len(one.values) for one in (own, fixed, one_cycle)] == [2, 2, 1]


def test_a_candidate_that_is_ahead_goes_on_before_any_baseline() -> None:
    other = entrant_of(LENGTH.propose(0.2, 10, 1))
    worth = {OWN.max_lr: 0.9, other.params["max_lr"]: 0.92}
    race = run_race(lambda run, seed: worth.get(run.max_lr, 0.88), [*field("fixed"), other], 5)
    assert len(other.values) == 2
    assert race.winner is other


def test_a_decided_race_leaves_trainings_over() -> None:
    race = run_race(
        with_noise({"triangular": 0.9, "fixed": 0.3, "one_cycle": 0.2}, 0.001), field("fixed", "one_cycle"), 40
    )
    assert race.is_decided
    assert sum(len(one.values) for one in race.entrants) < 12


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 5))
def test_a_race_never_takes_more_trainings_than_it_may_and_two_of_its_field_train_twice(
    trainings: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    entrants = [entrant_of(LENGTH.propose(0.01 * 1.3**k, 10, 1)) for k in range(field_size(trainings))]
    race = run_race(lambda run, at: float(random.normal()), entrants, trainings)
    if trainings > 3:
        assert sorted(len(one.values) for one in race.entrants)[-2] >= 2


def test_in_other_units_of_the_metric_the_same_is_recommended() -> None:
    worth = with_noise({"triangular": 0.9, "fixed": 0.8}, 0.01)
    plain = run_race(worth, field("fixed"), 8)
    scaled = run_race(lambda run, seed: 1000 * (worth(run, seed) or 0) - 7, field("fixed"), 8, floor=93.0)
    plain_lead, scaled_lead = (race.lead(race.own, race.entrants[1]) for race in (plain, scaled))
    assert plain_lead is not None
    assert scaled_lead is not None
    assert scaled_lead.difference == pytest.approx(1000 * plain_lead.difference)
    assert scaled_lead.error == pytest.approx(1000 * plain_lead.error)


def test_a_summary_tells_values_mean_and_spread() -> None:
    one = baseline_entrant("fixed", 0.1, LENGTH)
    one.values = {1: 0.5, 2: 0.7}
    told = summary(one)
    assert told["mean"] == pytest.approx(0.6)
    assert told["std"] == pytest.approx(math.sqrt(0.02))
    assert told["lr"] == one.lr
    one.values[3] = None
    assert summary(one)["mean"] is None


@pytest.mark.parametrize("name", USUAL_BASELINES)
def test_the_lines_of_a_baseline_train_at_the_rates_it_was_trained_at(name: str) -> None:
    import torch

    from clr.schedules.cycles import rate_of

    run = BASELINES[name].run(0.1, LENGTH, 0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scope: dict[str, object] = {"optimizer": optimizer, "torch": torch}
    exec(lines(name, 0.1, run.steps), scope)
    rates = []
    for _ in range(run.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if "scheduler" in scope:
            scope["scheduler"].step()  # type: ignore[attr-defined]
    assert rates == pytest.approx([rate_of(run)(step) for step in range(run.steps)], rel=1e-6)
