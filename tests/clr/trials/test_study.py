from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.run import fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.schedules.policies import CYCLIC
from clr.spec import JobSpec, SearchSpec
from clr.trials.study import Search, best, create_study, label_study

BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.007, 0.013), "max_lr": (0.07, 0.13)}, "high")
BUDGET = TrainingLength(20, 100)


def make(spec: SearchSpec | None = None, length: TrainingLength = BUDGET, study: optuna.Study | None = None) -> Search:
    return Search(study or create_study(None, None, "maximize", 0), spec or SearchSpec(), BOUNDS, length)


def score(candidate: Candidate) -> float:
    """A made-up accuracy, best at max_lr 0.1, ratio 4 and two cycles."""
    return 1 - abs(candidate.max_lr - 0.1) - abs(candidate.ratio - 4) / 100 - abs(candidate.cycles - 2) / 100


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/studies.db")
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def test_the_range_tests_own_schedule_is_tried_first_and_then_the_papers() -> None:
    search = make()
    asked = [search.ask()[1] for _ in range(6)]
    assert asked[0] == BOUNDS.candidate(BUDGET)
    assert [p.max_lr for p in asked] == [0.1, 0.2, 0.1, 0.1, 0.1, 0.1]
    assert [p.ratio for p in asked] == pytest.approx([10, 10, 4, 3, 6, 1.5], rel=1e-3)
    multipliers = [p.stepsize_multiplier for p in asked]
    assert multipliers == [10, 10, 10, 2, 3.33, 5], "the nearest to 10, 10, 8, 2, 4 and 6 there are"


def test_the_papers_settings_take_a_quarter_of_a_short_search_at_most() -> None:
    search = make(SearchSpec(trials=8))
    ratios = [search.ask()[1].ratio for _ in range(8)]
    assert ratios[:4] == pytest.approx([10, 10, 4, 3], rel=1e-3)
    assert len({round(ratio, 1) for ratio in ratios}) > 4


def test_the_own_schedule_of_a_long_budget_keeps_the_stepsize_of_the_range_tests_recommendation() -> None:
    length = TrainingLength(50, 100)
    assert make(length=length).ask()[1] == BOUNDS.candidate(length)


@pytest.mark.parametrize(
    "ranges",
    [
        {"ratio": (2.0, 2.5)},
        {"ratio": (15.0, 15.0)},
        {"stepsize_multiplier": (2.0, 2.5)},
        {"stepsize_multiplier": (10.0, 10.0)},
        {"ratio": (3.5, 4.5), "stepsize_multiplier": (1.0, 1.25), "policies": ["welch"]},
        {"stepsize_multiplier": (1e-7, 1e-3)},
    ],
)
def test_every_trial_lies_in_the_ranges_however_narrow(ranges: dict[str, Any]) -> None:
    spec = SearchSpec(**ranges)
    search = make(spec)
    for _ in range(14):
        number, candidate = search.ask()
        search.tell(number, score(candidate))
        assert spec.ratio[0] * 0.999 <= candidate.ratio <= spec.ratio[1] * 1.001
        assert 0.05 * 0.999 <= candidate.max_lr <= 0.2 * 1.001
        assert candidate.policy in spec.policies
        if spec.stepsize_multiplier and spec.stepsize_multiplier[0] > 1e-3:
            low, high = spec.stepsize_multiplier
            assert low * 0.95 <= candidate.stepsize_multiplier <= high
        assert BUDGET.steps - 2 * candidate.cycles < candidate.steps <= BUDGET.steps


def test_narrow_ranges_do_not_run_the_same_first_trial_twice() -> None:
    search = make(SearchSpec(ratio=(4, 4), stepsize_multiplier=(10, 10)))
    asked = [search.ask()[1] for _ in range(4)]
    assert asked[0].max_lr == 0.1
    assert len({candidate.max_lr for candidate in asked}) == 4


def test_the_interval_of_max_lr_is_searched_where_it_is_wider_than_a_factor_of_two() -> None:
    wide = replace(BOUNDS, interval={"base_lr": (0.001, 0.1), "max_lr": (0.01, 0.5)})
    assert Search(create_study(None, None, "maximize", 0), SearchSpec(), wide, BUDGET).max_lr == (0.01, 0.5)
    assert make().max_lr == (0.05, 0.2)


def test_trials_asked_for_at_once_differ() -> None:
    search = make()
    asked = [search.ask() for _ in range(16)]
    assert [number for number, _ in asked] == list(range(16))
    assert len({candidate for _, candidate in asked}) == 16
    for number, candidate in reversed(asked):
        search.tell(number, score(candidate))
    more = [search.ask()[1] for _ in range(16)]
    assert len({*more, *(candidate for _, candidate in asked)}) == 32


def test_told_values_draw_the_search_to_where_they_are_best() -> None:
    search = make()
    found = []
    for _ in range(40):
        number, candidate = search.ask()
        search.tell(number, score(candidate))
        found.append((score(candidate), candidate))
    first, last = found[5:15], found[30:]
    assert sum(value for value, _ in last) > sum(value for value, _ in first)
    winner = best(found, "maximize")
    assert winner is not None
    assert search.study.best_value == score(winner)


def test_a_study_taken_up_again_goes_on_where_it_stopped(storage: optuna.storages.RDBStorage) -> None:
    search = make(study=create_study(storage, "job", "maximize", 0))
    before = [search.ask() for _ in range(8)]
    for number, candidate in before[:6]:
        search.tell(number, score(candidate))

    again = make(study=create_study(storage, "job", "maximize", 0))
    assert again.study.get_trials()[3].params == search.study.get_trials()[3].params
    for number, candidate in before:
        again.tell(number, score(candidate))
    after = [again.ask() for _ in range(8)]
    assert [number for number, _ in after] == list(range(8, 16))
    assert len({candidate for _, candidate in before + after}) == 16, "no draw is repeated"
    assert storage.get_all_studies()[0].study_name == "job"
    assert len(storage.get_all_studies()) == 1


def test_first_trials_that_were_not_enqueued_before_an_accident_are_enqueued_after_it(
    storage: optuna.storages.RDBStorage,
) -> None:
    search = make()
    expected = [search.ask()[1] for _ in range(5)]
    study = create_study(storage, "job", "maximize", 0)
    study.enqueue_trial({"max_lr": 0.1, "ratio": 10.0, "cycles": 1})  # and then the worker died
    resumed = make(study=create_study(storage, "job", "maximize", 0))
    assert [resumed.ask()[1] for _ in range(5)] == expected


def test_trials_lost_in_an_accident_are_failed_and_their_schedules_asked_again(
    storage: optuna.storages.RDBStorage,
) -> None:
    search = make(study=create_study(storage, "job", "maximize", 0))
    asked = [search.ask() for _ in range(7)]
    search.tell(0, 0.5)
    resumed = make(study=create_study(storage, "job", "maximize", 0))
    resumed.forget_all_but({2, 3, 4, 5})
    states = [trial.state for trial in resumed.study.get_trials()]
    running = [TrialState.RUNNING] * 4
    assert states[:7] == [TrialState.COMPLETE, TrialState.FAIL, *running, TrialState.FAIL]
    assert [resumed.ask()[1] for _ in range(2)] == [asked[1][1], asked[6][1]]
    resumed.tell(3, 0.9)
    assert resumed.study.best_trial.number == 3


def test_a_trial_that_diverged_is_pruned_and_never_best() -> None:
    search = make()
    for value in (None, 0.3, None):
        number, _ = search.ask()
        search.tell(number, value)
    assert [trial.state.name for trial in search.study.trials[:3]] == ["PRUNED", "COMPLETE", "PRUNED"]
    assert search.study.best_trial.number == 1


def test_a_trial_told_again_keeps_what_it_was_told_first() -> None:
    search = make()
    number, _ = search.ask()
    search.tell(number, 0.3)
    search.tell(number, 0.9)
    search.tell(number, None)
    assert search.study.trials[number].value == 0.3


def test_a_metric_that_is_minimised_is_best_where_it_is_lowest() -> None:
    search = make(study=create_study(None, None, "minimize", 0))
    told = []
    for value in (0.5, 0.2, None, 0.9):
        number, candidate = search.ask()
        search.tell(number, value)
        told.append((value, candidate))
    assert search.study.best_value == 0.2
    assert best(told, "minimize") == told[1][1]
    assert best(told, "maximize") == told[3][1]


def test_there_is_no_best_where_every_trial_diverged() -> None:
    assert best([(None, make().ask()[1])], "maximize") is None
    assert best([], "minimize") is None


def test_several_policies_are_all_tried() -> None:
    search = make(SearchSpec.model_validate({"policies": list(CYCLIC)}))
    asked = [search.ask()[1] for _ in range(40)]
    assert {candidate.policy for candidate in asked} == set(CYCLIC)
    assert all((candidate.gamma is not None) == candidate.policy.startswith("exp_range") for candidate in asked)


def test_the_study_shows_the_whole_schedule_of_a_trial() -> None:
    search = make(SearchSpec(policies=["exp_range"]))
    number, candidate = search.ask()
    trial = search.study.trials[number]
    assert trial.params.keys() == {"max_lr", "ratio", "cycles", "policy"}
    assert trial.user_attrs == {
        "base_lr": candidate.base_lr,
        "stepsize": candidate.stepsize,
        "stepsize_multiplier": candidate.stepsize_multiplier,
        "gamma": candidate.gamma,
        "steps": candidate.steps,
    }


def half_way(study: optuna.Study | None = None) -> Search:
    """A search of two-cycle schedules, four of which ended, and had 0.6, 0.7, 0.8 and 0.9 half-way."""
    search = make(SearchSpec(stepsize_multiplier=(5, 5)), study=study)
    for value in (0.6, 0.7, 0.8, 0.9):
        number, candidate = search.ask()
        search.should_prune(number, [(2 * candidate.stepsize, value)])
        search.tell(number, value)
    return search


def test_a_trial_in_the_lowest_third_at_the_end_of_a_cycle_is_pruned_and_the_study_shows_why() -> None:
    search = half_way()
    number, candidate = search.ask()
    assert not search.should_prune(number, [(2 * candidate.stepsize, 0.75)])
    number, candidate = search.ask()
    assert search.should_prune(number, [(2 * candidate.stepsize, 0.65)])
    search.tell(number, None)
    trial = search.study.trials[number]
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {2 * candidate.stepsize: 0.65})


def test_a_trial_is_not_judged_within_a_cycle() -> None:
    search = half_way()
    number, candidate = search.ask()
    assert not search.should_prune(number, [(2 * candidate.stepsize - 1, 0.0), (3 * candidate.stepsize, 0.0)])
    assert search.study.trials[number].intermediate_values == {}


def test_a_trial_whose_metric_is_minimised_is_pruned_where_it_is_highest() -> None:
    search = half_way(create_study(None, None, "minimize", 0))
    number, candidate = search.ask()
    assert not search.should_prune(number, [(2 * candidate.stepsize, 0.65)])
    assert search.should_prune(number, [(2 * candidate.stepsize, 0.85)])


def test_a_study_says_what_it_is_of_and_what_its_values_are(storage: optuna.storages.RDBStorage) -> None:
    spec = JobSpec(task="digits", name="my first", epochs=5)
    for _ in range(2):
        study = create_study(storage, "job", "maximize", 0)
        label_study(study, spec, "accuracy")
    seed = fresh_seeds(0, "search", 1)[0]
    attributes = {"name": "my first", "task": "digits", "optimizer": "SGD", "epochs": 5, "seed": seed}
    assert study.user_attrs == attributes
    assert study.metric_names == ["accuracy"]


def test_a_search_taken_up_again_prunes_by_what_was_shown_before(storage: optuna.storages.RDBStorage) -> None:
    number, candidate = half_way(create_study(storage, "job", "maximize", 0)).ask()
    again = make(SearchSpec(stepsize_multiplier=(5, 5)), study=create_study(storage, "job", "maximize", 0))
    assert again.should_prune(number, [(2 * candidate.stepsize, 0.5)])
    assert again.should_prune(number, [(2 * candidate.stepsize, 0.5)]), "told twice is shown once"


def test_bounds_that_are_inconclusive_cannot_be_searched_around() -> None:
    with pytest.raises(InvalidArgument, match=r"bounds\.max_lr: must be known"):
        Search(create_study(None, None, "maximize", 0), SearchSpec(), Bounds.inconclusive("all noise"), BUDGET)


def test_multipliers_that_no_number_of_cycles_meets_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"stepsize_multiplier: must hold 20 epochs / \(2 k\) .* \[6.0, 9.0\]"):
        make(SearchSpec(stepsize_multiplier=(6, 9)))


def test_trials_train_on_a_seed_that_no_other_stage_has() -> None:
    (seed,) = fresh_seeds(0, "search", 1)
    assert not {seed} & {one for stage in ("range_test", "probe", "confirm") for one in fresh_seeds(0, stage, 20)}


EARLIER = {
    "job_id": "one",
    "policy": "triangular",
    "max_lr": 0.5,
    "ratio": 30.0,
    "stepsize_multiplier": 2.4,
    "confidence": "high",
}


def warm(study: optuna.Study, *earlier: dict[str, Any], **fields: Any) -> Search:
    return Search(study, SearchSpec(warm_start=True, **fields), BOUNDS, BUDGET, earlier)


def test_a_warm_start_tries_earlier_recommendations_first_as_far_as_the_ranges_allow() -> None:
    search = warm(create_study(None, None, "maximize", 0), EARLIER, EARLIER | {"policy": "hann", "job_id": "two"})
    asked = [search.ask()[1] for _ in range(2)]
    assert (asked[0].max_lr, asked[0].ratio, asked[0].cycles) == (0.5, 20.0, 4)
    assert asked[1] == BOUNDS.candidate(BUDGET)
    assert search.max_lr == (0.05, 0.5), "as wide as what was found before"
    assert search.reasons == ["the search began with what earlier jobs recommended: one"]


def test_a_warm_start_taken_up_again_keeps_to_what_it_began_with(storage: optuna.storages.RDBStorage) -> None:
    begun = warm(create_study(storage, "job", "maximize", 0), EARLIER)
    again = warm(create_study(storage, "job", "maximize", 0), EARLIER | {"job_id": "newer", "max_lr": 0.9})
    assert again.max_lr == (0.05, 0.5)
    assert [one["job_id"] for one in again.earlier] == ["one"]
    assert len(again.study.get_trials()) == len(begun.study.get_trials())


def test_without_a_warm_start_earlier_recommendations_are_not_looked_at() -> None:
    search = Search(create_study(None, None, "maximize", 0), SearchSpec(), BOUNDS, BUDGET, [EARLIER])
    assert (search.ask()[1], search.reasons) == (BOUNDS.candidate(BUDGET), [])
