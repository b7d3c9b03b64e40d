from typing import Any

import pytest
from pydantic import ValidationError

from clr.errors import InvalidArgument
from clr.range_tests.recorded import read_bounds
from service.store import runs
from service.store.errors import Conflict
from tests.service.external.conftest import ON_SQLITE, Submit, ramp


@ON_SQLITE
def test_the_bounds_are_what_the_library_reads_from_the_same_curves(submit: Submit) -> None:
    trainer = submit()
    curves = [ramp(0), ramp(1, best=0.12)]
    for seed, points in enumerate(curves):
        trainer.put(points, seed=seed)
        told = [[[point[name] for point in curve] for curve in curves[: seed + 1]] for name in ("lr", "loss")]
        expected = read_bounds(*told).to_dict()
        stored = trainer.job.range_test["bounds"]
        assert stored | {"interval": None} == expected | {"interval": None}
        assert {name: tuple(both) for name, both in stored["interval"].items()} == expected["interval"]
        assert trainer.recommendation["max_lr"] == pytest.approx(expected["max_lr"], rel=1e-3)
    assert trainer.job.range_test["bounds"]["confidence"] == "medium"
    assert (trainer.job.steps, trainer.job.predicted_steps) == (400, 400 + 3 * 100)
    smoothed = trainer.job.range_test["smoothed"]
    assert len(smoothed["lr"]) == len(smoothed["loss"]) > 100


@ON_SQLITE
def test_a_metric_is_read_where_there_is_enough_of_it(submit: Submit) -> None:
    def with_metric(every: int) -> list[dict[str, Any]]:
        points = ramp()
        for step in range(every - 1, len(points), every):
            points[step]["metric"] = 1 / (1 + (0.02 / points[step]["lr"]) ** 2)
        return points

    trainer = submit()
    trainer.put(with_metric(every=5))
    assert trainer.job.range_test["bounds"]["reasons"][0].startswith("read from a recorded metric")
    trainer.put(with_metric(every=20))
    assert trainer.job.range_test["bounds"]["reasons"][0].startswith("read from the training loss alone")
    with trainer.database.read() as session:
        stored = runs.points(session, trainer.job_id, "range_test", [0])[0]
    assert [point["step"] for point in stored] == list(range(20, 201, 20))
    assert all(len(point["lr"]) == len(point["loss"]) == 20 and point["metric"] is not None for point in stored)


def test_a_seed_given_again_replaces_its_ramp_until_a_trial_is_asked_for(submit: Submit) -> None:
    trainer = submit()
    trainer.put(ramp(best=1.0))
    trainer.put(ramp(best=0.1))
    assert trainer.job.steps == 200
    assert 0.05 < trainer.recommendation["max_lr"] < 0.2
    trainer.ask()
    trainer.put(ramp(best=0.1))  # the same once more, since its answer was lost
    for change in ({"points": ramp(best=1.0)}, {"seed": 1}):
        with pytest.raises(Conflict, match="ends when the first trial is asked for, and 1 were handed out"):
            trainer.put(**change)
    assert 0.05 < trainer.recommendation["max_lr"] < 0.2


@ON_SQLITE
@pytest.mark.parametrize(("field", "value"), [("direction", "minimize"), ("iterations_per_epoch", 20)])
def test_all_seeds_are_of_one_training(submit: Submit, field: str, value: Any) -> None:
    trainer = submit()
    trainer.put()
    with pytest.raises(InvalidArgument, match=f"{field}: must be"):
        trainer.put(seed=1, **{field: value})
    trainer.put(**{field: value})  # the only one may be replaced
    assert getattr(trainer.job, field) == value


@ON_SQLITE
def test_a_loss_that_diverged_is_null_or_enormous(submit: Submit) -> None:
    trainer = submit()
    points = ramp()
    points[-2]["loss"], points[-1]["loss"] = 1e300, None
    trainer.put(points)
    assert trainer.job.range_test["bounds"]["max_lr"] == pytest.approx(0.1, rel=0.5)
    assert trainer.job.range_test["smoothed"]["lr"][-1] == points[-3]["lr"]


@ON_SQLITE
def test_a_ramp_that_cannot_be_read_is_refused_and_changes_nothing(submit: Submit) -> None:
    trainer = submit()
    for points, message in [
        (ramp()[::-1], "points.lr: must be finite, at least 0 and never fall"),
        ([{"lr": 0.1, "loss": 1.0}] * 50, r"points.lr: must be at least 20 rates above 0 that rise"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            trainer.put(points)
    with pytest.raises(ValidationError, match="at least 20 items"):
        trainer.put(ramp()[:19])
    assert (trainer.job.state, trainer.job.range_test, trainer.job.steps) == ("queued", None, 0)


@ON_SQLITE
def test_without_a_search_the_job_ends_with_its_last_seed(submit: Submit) -> None:
    trainer = submit(search=None, range_test={"seeds": 2})
    trainer.put()
    with pytest.raises(Conflict, match="search = null"):
        trainer.ask()
    assert trainer.job.state == "running"
    for _ in range(2):
        trainer.put(seed=1)
    assert (trainer.job.state, trainer.recommendation["source"]) == ("succeeded", "range_test")
