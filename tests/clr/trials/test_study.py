"""The study: what is tried first, what is told, and its mirror in Optuna's own store."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import TrainingLength
from clr.spec import SearchSpec
from clr.trials.space import SearchSpace
from clr.trials.study import Study, StudyMirror, stored_in

LENGTH = TrainingLength(20, 50)
BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.005, 0.03), "max_lr": (0.05, 0.2)}, "high")
ABOUT = {"name": "mine", "task": "digits", "epochs": 20.0, "metric": "accuracy"}


def make(trials: int = 8, **ranges: object) -> Study:
    study = Study(SearchSpace.of(SearchSpec(trials=trials, **ranges), LENGTH), BOUNDS, "maximize", 0)  # type: ignore[arg-type]
    study.begin(trials)
    return study


def test_the_range_tests_own_schedule_is_tried_first_and_twice_its_rate_next() -> None:
    study = make()
    own, twice = study.ask()[1], study.ask()[1]
    assert own == BOUNDS.candidate(LENGTH)
    assert (twice.max_lr, twice.ratio, twice.rise) == (0.2, own.ratio, own.rise)


def test_what_is_asked_stays_within_the_ranges_and_above_no_limit_on_the_rate() -> None:
    spec = SearchSpec(trials=30, ratio=(2, 5), rise=(0.1, 0.4), policies=["triangular", "hann"])
    study = Study(SearchSpace.of(spec, LENGTH), BOUNDS, "maximize", 0, highest=0.12)
    study.begin(30)
    for _ in range(30):
        number, candidate = study.ask()
        assert 2 <= candidate.ratio <= 5.01
        assert 0.1 <= candidate.rise <= 0.4
        assert candidate.max_lr <= 0.12
        assert candidate.policy in ("triangular", "hann")
        study.tell(number, candidate.max_lr)


def test_a_recorded_search_taken_up_again_has_the_same_trials() -> None:
    first, again = make(), make()
    for _ in range(5):
        number, candidate = first.ask()
        assert again.ask(candidate.to_dict()) == (number, candidate)
    assert again.ask()[0] == 5


def test_inconclusive_bounds_and_an_empty_range_of_cycles_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="bounds: must be conclusive"):
        Study(SearchSpace.of(SearchSpec(), LENGTH), Bounds.inconclusive("noise"), "maximize", 0)
    with pytest.raises(InvalidArgument, match=r"search\.stepsize_multiplier"):
        Study(SearchSpace.of(SearchSpec(stepsize_multiplier=(7, 8)), LENGTH), BOUNDS, "maximize", 0)


def test_suggestions_make_no_trial() -> None:
    study = make()
    assert len(study.suggest(3)) == 3
    assert study.optuna.trials == []


def mirrored(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="job", storage=stored_in(path))


def test_each_run_is_one_trial_of_the_stored_study_however_often_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = make()
    mirror = StudyMirror(stored_in(path), "job", ABOUT)
    for value in (0.7, None, 0.9):
        number, candidate = study.ask()
        mirror.show(study)
        study.should_prune(number, [(candidate.steps // candidate.cycles, 0.5)])
        mirror.show(study)
        study.tell(number, value)
        mirror.show(study)
        StudyMirror(stored_in(path), "job", ABOUT).show(study)
    study.place(name="fixed", max_lr=0.05)
    mirror.show(study)
    shown = mirrored(path)
    assert [trial.state for trial in shown.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.RUNNING,
    ]
    assert (shown.best_value, shown.metric_names, shown.user_attrs["task"]) == (0.9, ["accuracy"], "digits")
    assert shown.trials[0].params["max_lr"] == 0.1
    mirror.show(study, over=True)
    assert mirrored(path).trials[3].state == TrialState.FAIL


def test_a_stored_study_with_more_trials_than_runs_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = make()
    number, _ = study.ask()
    study.tell(number, 0.5)
    StudyMirror(stored_in(path), "job", ABOUT).show(study)
    stray = mirrored(path)
    stray.tell(stray.ask(), 0.1)
    StudyMirror(stored_in(path), "job", ABOUT).show(study)
    assert [trial.value for trial in mirrored(path).trials] == [0.5]
