import pytest

from service.external.job import expire_all
from service.external.study import settle
from service.store.errors import Conflict
from tests.service.external.conftest import ON_SQLITE, Submit, ramp


def test_max_seconds_ends_a_job_whose_trainers_are_silent_with_what_was_found(submit: Submit) -> None:
    trainer, other = submit(limits={"max_seconds": 60}), submit()
    for one in (trainer, other):
        one.put()
    trial = trainer.ask()
    trainer.tell(trial.number, 0.5)
    trainer.ask()
    expire_all(trainer.database)
    assert trainer.job.state == "running"
    for one in (trainer, other):
        one.wait(61)
    expire_all(trainer.database)
    assert trainer.job.state == "succeeded"
    found = trainer.recommendation
    assert (found["source"], found["ratio"]) == ("search", trial.ratio)
    assert "max_seconds = 60 was reached" in found["warnings"][0]
    assert "RUNNING" not in trainer.states_in_study
    assert [row.state for row in trainer.trials] == ["complete", "failed"]
    assert other.job.state == "running"


@ON_SQLITE
def test_a_call_after_max_seconds_ends_the_job_and_is_refused(submit: Submit) -> None:
    trainer = submit(limits={"max_seconds": 60})
    trainer.put()
    trainer.wait(61)
    with pytest.raises(Conflict, match="it is succeeded"):
        trainer.ask()
    assert "max_seconds" in trainer.recommendation["warnings"][0]


def test_a_cancelled_job_takes_no_more_reports_and_keeps_what_was_found(submit: Submit) -> None:
    trainer = submit()
    trainer.put()
    trial = trainer.ask()
    trainer.cancel()
    settle(trainer.database, trainer.job_id)
    assert trainer.job.state == "cancelled"
    assert "RUNNING" not in trainer.states_in_study
    for act in (trainer.ask, lambda: trainer.put(seed=2), lambda: trainer.report(trial.number, 10, 0.5)):
        with pytest.raises(Conflict, match="it is cancelled; submit another"):
            act()
    with pytest.raises(Conflict, match="job cancelled before the run ended"):
        trainer.tell(trial.number, 0.5)
    assert trainer.recommendation["source"] == "range_test"


def test_a_warm_start_tries_first_what_earlier_jobs_of_the_same_training_found(submit: Submit) -> None:
    alike = {"args": {"hidden": 64}, "batch_size": 32}
    others = [{"args": {"hidden": 65}}, {"batch_size": 64}, {"optimizer": {"name": "SGD", "args": {"momentum": 0.5}}}]
    earlier = []
    for change in ({}, *others, {"epochs": 20}):
        trainer = submit(**alike | {"search": {"trials": 2}} | change)
        trainer.put(ramp(best=0.2 if "epochs" in change else 0.1))
        for value in (0.4, 0.9):
            trainer.tell(trainer.ask().number, value)
        earlier.append(trainer)
    warm = submit(**alike, search={"trials": 4, "warm_start": True})
    warm.put()
    asked = [warm.ask() for _ in range(2)]
    same = [earlier[4], earlier[0]]  # newest first, whatever its epochs
    assert [(t.max_lr, t.ratio) for t in asked] == [
        (one.recommendation["max_lr"], pytest.approx(one.recommendation["ratio"], rel=1e-3)) for one in same
    ]
    ids = [one.job_id for one in same]
    assert [one["job_id"] for one in warm.study.user_attrs["warm_start"]] == ids
    for trial in asked:
        warm.tell(trial.number, 0.5)
    assert warm.recommendation["reasons"][-1] == (
        f"the search began with what earlier jobs recommended: {', '.join(ids)}"
    )
    cold = submit(**alike)
    cold.put()
    cold.ask()
    assert "warm_start" not in cold.study.user_attrs
