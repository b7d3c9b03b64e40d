from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest

from clr.errors import InvalidArgument
from clr.trials.study import Search
from service.external import study as study_module
from service.external import trials as trials_module
from service.external.reports import Proposed
from service.store import jobs, studies
from service.store.database import Database
from service.store.errors import Conflict, NotFound
from tests.service.external.conftest import ON_SQLITE, Submit, Trainer


def test_a_job_goes_from_its_range_test_over_its_trials_to_success(submit: Submit) -> None:
    trainer = submit()
    assert trainer.job.state == "queued"
    trainer.put()
    assert (trainer.job.state, trainer.job.stage, trainer.job.steps) == ("running", "range_test", 200)
    first = trainer.recommendation
    assert (first["source"], first["stepsize"]) == ("range_test", 50)
    values = [0.5, 0.9, 0.7]
    asked = []
    for value in values:
        trial = trainer.ask()
        assert (trainer.job.state, trainer.job.stage) == ("running", "search")
        assert trial.steps == 2 * trial.cycles * trial.stepsize <= 100
        assert trainer.report(trial.number, 50, value / 2) is False
        trainer.tell(trial.number, value)
        asked.append(trial)
    assert [trial.number for trial in asked] == [0, 1, 2]
    assert len({trial.seed for trial in asked}) == 1
    assert asked[0].max_lr == first["max_lr"]
    assert (trainer.job.state, trainer.job.progress) == ("succeeded", 1.0)
    assert trainer.job.steps == 200 + sum(trial.steps for trial in asked)
    found = trainer.recommendation
    assert (found["source"], found["max_lr"], found["ratio"]) == ("search", asked[1].max_lr, asked[1].ratio)
    assert found["cost"]["steps"] == trainer.job.steps
    assert [(row.state, row.value) for row in trainer.trials] == [("complete", value) for value in values]
    assert [trial.value for trial in trainer.study.get_trials()[:3]] == values
    assert [event["state"] for event in trainer.events("state")] == ["queued", "running", "succeeded"]
    assert [event["source"] for event in trainer.events("recommendation")][-1] == "search"


@ON_SQLITE
def test_a_trial_asked_for_before_a_range_test_is_refused_and_the_job_stays_queued(submit: Submit) -> None:
    trainer = submit()
    with pytest.raises(Conflict, match="no range test yet"):
        trainer.ask()
    assert trainer.job.state == "queued"


@ON_SQLITE
def test_an_inconclusive_range_test_is_searched_around_once_another_heals_it(submit: Submit) -> None:
    trainer = submit()
    flat = [{"lr": 1e-5 * 1.05**step, "loss": 2.3 + 0.01 * (step % 3)} for step in range(200)]
    trainer.put(flat)
    assert trainer.recommendation["confidence"] == "inconclusive"
    with pytest.raises(Conflict, match="inconclusive, so there is nothing to search around: the loss never fell"):
        trainer.ask()
    trainer.put()
    assert trainer.ask().max_lr == trainer.recommendation["max_lr"]


def test_replicas_asked_at_once_hand_out_every_trial_once(submit: Submit, database: Database) -> None:
    trainer = submit(search={"trials": 8})
    trainer.put()
    replicas = [Database(database.url) for _ in range(2)]

    def work(replica: Database) -> list[Proposed]:
        own, asked = Trainer(replica, trainer.job_id), []
        while True:
            try:
                trial = own.ask()
            except Conflict:
                return asked
            own.report(trial.number, 10, 0.1)
            asked.append(trial)
            own.tell(trial.number, 1 / (1 + trial.number))

    with ThreadPoolExecutor(4) as threads:
        asked = [trial for mine in threads.map(work, replicas * 2) for trial in mine]
    for replica in replicas:
        replica.dispose()
    assert sorted(trial.number for trial in asked) == list(range(8))
    assert len({(trial.max_lr, trial.ratio, trial.cycles) for trial in asked}) == 8
    assert trainer.job.state == "succeeded"
    assert trainer.job.steps == 200 + sum(trial.steps for trial in asked)
    assert trainer.states_in_study == ["COMPLETE"] * 8


@ON_SQLITE
def test_asked_again_with_the_same_key_it_is_the_same_trial(submit: Submit) -> None:
    trainer = submit()
    trainer.put()
    first = trainer.ask("k")
    assert trainer.ask("k") == first
    assert trainer.ask("other").number == 1
    assert trainer.ask("k") == first


@ON_SQLITE
def test_a_schedule_of_an_ask_that_died_halfway_is_asked_for_again(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = submit(search={"trials": 4})
    trainer.put()
    start = trials_module.runs.start
    monkeypatch.setattr(trials_module.runs, "start", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.ask()
    assert trainer.states_in_study[0] == "RUNNING"
    monkeypatch.setattr(trials_module.runs, "start", start)
    own = trainer.recommendation
    asked = [trainer.ask() for _ in range(4)]
    assert (own["max_lr"], own["ratio"]) in [(trial.max_lr, trial.ratio) for trial in asked]
    assert trainer.states_in_study == ["FAIL"] + ["RUNNING"] * 4


def test_an_ask_waits_for_another_and_takes_over_from_one_that_died(
    submit: Submit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = submit()
    trainer.put()
    with database.begin() as session:
        dead = jobs.hold(session, jobs.attend(session, trainer.job_id)[1], lease_s=0.3)
        assert jobs.hold(session, jobs.attend(session, trainer.job_id)[1], lease_s=0.3) is None
    assert dead is not None
    assert trainer.ask().number == 0
    assert trainer.job.fencing_token == dead.fencing_token + 1
    with database.begin() as session:
        jobs.hold(session, jobs.attend(session, trainer.job_id)[1], lease_s=60)
    monkeypatch.setattr(trials_module, "PATIENCE_S", 0.1)
    with pytest.raises(trials_module.Busy, match=r"no turn to ask came within 0\.1 s"):
        trainer.ask()


def test_a_job_cancelled_while_it_is_asked_keeps_no_trial_running(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = submit()
    trainer.put()
    ask = Search.ask

    def ask_and_be_cancelled(search: Search) -> Any:
        asked = ask(search)
        trainer.cancel()
        return asked

    monkeypatch.setattr(Search, "ask", ask_and_be_cancelled)
    with pytest.raises(Conflict, match="it is cancelled"):
        trainer.ask()
    assert trainer.trials == []
    assert "RUNNING" not in trainer.states_in_study


def test_a_job_deleted_while_it_is_asked_leaves_no_study(
    submit: Submit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = submit()
    trainer.put()
    ask = Search.ask

    def ask_and_be_deleted(search: Search) -> Any:
        asked = ask(search)
        trainer.cancel()
        with database.begin() as session:
            jobs.delete(session, trainer.job_id)
        return asked

    monkeypatch.setattr(Search, "ask", ask_and_be_deleted)
    with pytest.raises(NotFound):
        trainer.ask()
    assert trainer.job_id not in optuna.get_all_study_names(studies.storage(database.url))


def test_told_again_the_same_is_fine_and_another_value_is_refused(submit: Submit) -> None:
    trainer = submit(search={"trials": 1})
    trainer.put()
    trainer.ask()
    with pytest.raises(NotFound, match="no search run 7"):
        trainer.tell(7, 0.5)
    for _ in range(2):
        trainer.tell(0, 0.5)  # the second time the job has succeeded
    for other in (0.6, None):
        with pytest.raises(Conflict, match=r"told once, but trial 0 is complete with value 0\.5"):
            trainer.tell(0, other)
    with pytest.raises(Conflict, match="told once"):
        trainer.fail(0)
    with pytest.raises(Conflict, match="its search with it"):
        trainer.ask()


@ON_SQLITE
def test_a_result_that_never_reached_the_study_reaches_it_when_told_again(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = submit(search={"trials": 1})
    trainer.put()
    trainer.ask()
    tell = study_module._tell
    monkeypatch.setattr(study_module, "_tell", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.tell(0, 0.5)
    assert trainer.states_in_study[0] == "RUNNING"
    monkeypatch.setattr(study_module, "_tell", tell)
    trainer.tell(0, 0.5)
    assert trainer.study.best_value == 0.5


@ON_SQLITE
def test_points_rise_in_step_and_the_last_may_be_sent_again(submit: Submit) -> None:
    trainer = submit()
    trainer.put()
    trial = trainer.ask()
    for step in (20, 40, 40):
        assert trainer.report(trial.number, step, 0.5) is False
    for step in (40, 10, trial.steps + 1):
        with pytest.raises(InvalidArgument, match="must be above 40, the last one reported, and at most 100"):
            trainer.report(trial.number, step, 0.6)
    assert trainer.trials[0].steps == 40
    assert trainer.job.steps == 240
    trainer.tell(trial.number, 0.7)
    with pytest.raises(Conflict, match="only a running trial takes points, but trial 0 is complete"):
        trainer.report(trial.number, 100, 0.7)


@ON_SQLITE
def test_a_trial_stopped_as_advised_is_pruned_and_never_recommended(submit: Submit) -> None:
    trainer = submit(search={"trials": 5, "stepsize_multiplier": [1, 1]})
    trainer.put()
    for value in (0.6, 0.7, 0.8, 0.9):
        number = trainer.ask().number
        assert [trainer.report(number, step, value) for step in (20, 40, 50)] == [False] * 3
        trainer.tell(number, value)
    assert trainer.report(trainer.ask().number, 20, 0.1) is False, "too early to judge"
    assert trainer.report(4, 30, 0.1) is False, "in the midst of a cycle"
    assert [trainer.report(4, 40, 0.1) for _ in range(2)] == [True, True]
    for _ in range(2):
        trainer.tell(4, 0.95)
    assert [(row.state, row.steps) for row in trainer.trials[3:]] == [("complete", 100), ("pruned", 40)]
    assert trainer.recommendation["max_lr"] == trainer.trials[3].params["max_lr"]
    assert trainer.job.state == "succeeded"
    assert trainer.states_in_study == ["COMPLETE"] * 4 + ["PRUNED"]


@ON_SQLITE
def test_a_diverged_value_stops_its_trial_and_counts_as_pruned(submit: Submit) -> None:
    trainer = submit(search={"trials": 2})
    trainer.put()
    assert trainer.report(trainer.ask().number, 30, None) is True
    trainer.tell(0, None)
    trainer.tell(trainer.ask().number, None)
    assert [row.state for row in trainer.trials] == ["pruned", "pruned"]
    assert (trainer.job.state, trainer.recommendation["source"]) == ("succeeded", "range_test")


@ON_SQLITE
def test_a_failed_trial_is_one_of_those_there_are(submit: Submit) -> None:
    trainer = submit(search={"trials": 2})
    trainer.put()
    dead = trainer.ask()  # its trainer is gone; anybody may tell
    trainer.tell(trainer.ask().number, 0.5)
    with pytest.raises(Conflict, match="all 2 trials were handed out; still to be told: 0"):
        trainer.ask()
    for _ in range(2):
        trainer.fail(dead.number, "lost its node")
    assert [(row.state, row.error) for row in trainer.trials] == [("failed", "lost its node"), ("complete", None)]
    assert (trainer.job.state, trainer.recommendation["source"]) == ("succeeded", "search")
    assert trainer.states_in_study[:2] == ["FAIL", "COMPLETE"]


@ON_SQLITE
def test_a_metric_that_is_minimised_is_recommended_where_it_is_lowest(submit: Submit) -> None:
    trainer = submit()
    trainer.put(direction="minimize")
    rates = {}
    for value in (0.5, 0.2, 0.4):
        trial = trainer.ask()
        rates[value] = trial.ratio
        trainer.tell(trial.number, value)
    assert trainer.recommendation["ratio"] == rates[0.2]
    assert trainer.study.best_value == 0.2


@ON_SQLITE
def test_shorter_trials_are_recommended_at_the_length_of_the_whole_training(submit: Submit) -> None:
    trainer = submit(epochs=20, search={"trials": 1, "epochs": 5})
    trainer.put()
    trial = trainer.ask()
    trainer.tell(trial.number, 0.5)
    assert trial.steps == 50
    assert trainer.recommendation["stepsize"] == trial.stepsize


@ON_SQLITE
def test_max_steps_is_never_passed_and_what_was_found_is_recommended(submit: Submit) -> None:
    trainer = submit(limits={"max_steps": 450})
    trainer.put()
    first, second = trainer.ask(), trainer.ask()
    with pytest.raises(Conflict, match=r"max_steps = 450 leaves no room .* of 100 steps; still to be told: 0, 1"):
        trainer.ask()
    trainer.tell(first.number, 0.4)
    assert trainer.job.state == "running"
    trainer.tell(second.number, 0.5)
    assert (trainer.job.state, trainer.job.steps) == ("succeeded", 400)
    assert trainer.recommendation["ratio"] == second.ratio
    assert "max_steps = 450" in trainer.recommendation["warnings"][0]


@ON_SQLITE
def test_a_limit_that_the_range_test_has_used_up_ends_the_job_at_the_first_ask(submit: Submit) -> None:
    trainer = submit(limits={"max_steps": 250})
    trainer.put()
    with pytest.raises(Conflict, match="max_steps = 250 leaves no room"):
        trainer.ask()
    assert (trainer.job.state, trainer.recommendation["source"]) == ("succeeded", "range_test")
