"""Jobs, from their claim to their end, on a real Ray and both databases."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
import pytest
import ray
from optuna.trial import TrialState
from sqlalchemy import update

from clr.run import Curve, Point
from clr.spec import JobSpec
from service.store import jobs, recommendations, runs, studies
from service.store.clock import now_s
from service.store.database import Database
from service.store.models import Job
from tests.worker.conftest import Work, working
from worker.engine import Engine

SMALL = {"epochs": 10, "search": {"trials": 4}, "confirm": {"seeds": 2, "baselines": ["fixed"]}}


def recommendation(work: Work, job_id: str) -> dict:
    with work.database.read() as session:
        row = recommendations.get(session, job_id)
    assert row is not None
    return row.document


def rows(work: Work, job_id: str, stage: str) -> list:
    with work.database.read() as session:
        return runs.of_stage(session, job_id, stage)


def states_in_study(work: Work, job_id: str) -> set[TrialState]:
    study = optuna.load_study(study_name=job_id, storage=studies.storage(work.database.url))
    return {trial.state for trial in study.get_trials()}


def test_a_job_goes_through_its_stages_to_a_confirmed_recommendation(work: Work) -> None:
    job_id = work.submit("digits", **SMALL)
    job = work.ended(job_id)
    assert (job.state, job.error, job.progress) == ("succeeded", None, 1.0)
    assert job.trained_with["gpus"] == 0  # of a cluster without any
    assert job.range_test["bounds"]["max_lr"] > job.range_test["bounds"]["base_lr"] > 0
    found = recommendation(work, job_id)
    assert found["source"] == "confirm"
    recommended, other, *baselines = [run["name"] for run in found["evidence"]["runs"]]
    assert (recommended, baselines) == ("recommended", ["fixed"])
    assert other in {"range_test", "candidate"}  # whichever of the finalists is not the one recommended
    assert found["evidence"]["runs"][0]["mean"] > 0.8
    trials = rows(work, job_id, "search")
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert {trial.state for trial in trials} == {"complete"}
    assert job.steps == sum(
        row.steps for stage in ("range_test", "search", "confirm") for row in rows(work, job_id, stage)
    )
    assert found["cost"]["steps"] == job.steps


def test_the_trials_of_a_search_take_equal_steps_and_end_with_a_cycle(work: Work) -> None:
    job_id = work.submit("digits", **SMALL | {"confirm": None})
    work.ended(job_id)
    for trial in rows(work, job_id, "search"):
        assert trial.steps == 2 * trial.params["cycles"] * trial.params["stepsize"]
        assert 0 <= 10 * 18 - trial.steps < 2 * trial.params["cycles"]


def test_what_is_stored_of_a_run_is_what_it_recorded(work: Work) -> None:
    job_id = work.submit("digits", epochs=10, search=None)
    work.ended(job_id)
    for row in rows(work, job_id, "range_test"):
        with work.database.read() as session:
            points = runs.points(session, job_id, "range_test", [row.number])[row.number]
        curve = Curve.of(map(Point.from_dict, points))
        assert row.steps == len(curve.lr) == len(curve.loss)
        assert row.value == curve.value


def test_a_model_that_yields_nan_ends_as_succeeded_and_inconclusive(work: Work) -> None:
    job_id = work.submit("odd_tasks:nan_from_the_start", **SMALL | {"epochs": 40})
    work.succeeded(job_id)
    found = recommendation(work, job_id)
    assert found["confidence"] == "inconclusive"
    assert found["base_lr"] is found["max_lr"] is found["stepsize"] is found["torch"] is None
    assert found["reasons"] == ["the loss is not finite, even at the lowest rate"]
    assert rows(work, job_id, "search") == []


def test_a_task_that_raises_fails_its_job_and_the_worker_goes_on(work: Work) -> None:
    broken = work.submit("odd_tasks:raises", **SMALL | {"epochs": 40})
    good = work.submit("digits", epochs=10, search=None)
    job = work.ended(broken)
    assert job.state == "failed"
    told = job.error.splitlines()[-1]
    assert told.startswith("loss: must compare the output")
    assert told.endswith("ValueError: the labels are out of range")
    assert work.ended(good).state == "succeeded"


@pytest.mark.parametrize(
    ("task", "args", "message"),
    [
        ("odd_tasks:does_not_load", {"folder": "nowhere"}, "FileNotFoundError: no data in nowhere"),
        ("odd_tasks:does_not_load", {}, "args.folder"),
        ("odd_tasks:no_such", {}, "odd_tasks:no_such"),
        ("os:abort", {}, "of a module that jobs may use here (odd_tasks), but got 'os:abort'"),
    ],
)
def test_a_task_that_cannot_be_made_fails_its_job(work: Work, task: str, args: dict, message: str) -> None:
    job = work.ended(work.submit(task, args=args))
    assert job.state == "failed"
    assert message in job.error


def test_a_job_that_no_node_can_hold_fails_and_says_what_there_is(work: Work) -> None:
    job = work.ended(work.submit("digits", resources={"cpus": 64}))
    assert job.state == "failed"
    assert "64" in job.error
    assert "'cpus': 2.0" in job.error


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_runs_go_to_the_nodes_that_have_the_labels_asked_for(work: Work) -> None:
    (node,) = ray.nodes()
    (name, value), *_ = node["Labels"].items()
    work.succeeded(work.submit("digits", search=None, resources={"labels": {name: value}}))
    job = work.ended(work.submit("digits", search=None, resources={"labels": {name: "another"}}))
    assert job.state == "failed"
    assert f"no node has the {{'gpus': 0.0, 'cpus': 1.0, 'labels': {{{name!r}: 'another'}}}}" in job.error


def test_a_cancelled_job_stops_within_five_seconds_and_keeps_what_was_found(work: Work) -> None:
    job_id = work.submit("odd_tasks:slow", epochs=40, search={"trials": 50})
    work.until(job_id, lambda job: job.stage == "search")
    asked = time.monotonic()
    with work.database.begin() as session:
        jobs.request_cancel(session, job_id)
    assert work.ended(job_id, 10).state == "cancelled"
    assert time.monotonic() - asked < 5
    assert recommendation(work, job_id)["source"] == "range_test"
    assert "running" not in {row.state for row in rows(work, job_id, "search")}
    assert TrialState.RUNNING not in states_in_study(work, job_id)


def test_max_steps_is_never_passed_and_what_was_found_is_recommended(work: Work) -> None:
    job_id = work.submit("digits", **SMALL | {"limits": {"max_steps": 600}})
    job = work.ended(job_id)
    assert (job.state, job.steps <= 600) == ("succeeded", True)
    found = recommendation(work, job_id)
    assert found["source"] == "search"
    assert "limits.max_steps = 600" in found["warnings"][0]
    assert found["torch"]["max_lr"] > 0
    assert TrialState.RUNNING not in states_in_study(work, job_id)


def test_max_seconds_ends_the_job_in_time_with_what_was_found(work: Work) -> None:
    limits = {"max_seconds": 8}
    job_id = work.submit("odd_tasks:slow", epochs=40, search={"trials": 500}, limits=limits)
    job = work.ended(job_id)
    assert job.state == "succeeded"
    assert 8 <= (job.finished_at - job.started_at).total_seconds() < 60  # without the limit, hours
    found = recommendation(work, job_id)  # a slow machine is at its range test still
    assert "limits.max_seconds" in " ".join(found["warnings"] + found["reasons"])


def test_a_limit_within_the_range_test_gives_an_inconclusive_recommendation(work: Work) -> None:
    job_id = work.submit("odd_tasks:slow", epochs=200, limits={"max_seconds": 1})
    work.succeeded(job_id)
    found = recommendation(work, job_id)
    assert (found["confidence"], found["max_lr"]) == ("inconclusive", None)
    assert "limits.max_seconds" in found["reasons"][0]


def test_a_run_whose_process_dies_starts_over_as_a_new_attempt(work: Work, tmp_path) -> None:
    job_id = work.submit("odd_tasks:dies_once", args={"folder": str(tmp_path)}, epochs=40, search=None)
    job = work.ended(job_id)
    assert (job.state, job.error) == ("succeeded", None)
    ramps = rows(work, job_id, "range_test")
    assert max(row.attempt for row in ramps) == 2
    for row in ramps:
        with work.database.read() as session:
            points = runs.points(session, job_id, "range_test", [row.number])[row.number]
        assert sum(len(point["loss"]) for point in points) == row.steps


def test_what_a_run_left_behind_in_its_process_is_not_the_next_ones(work: Work) -> None:
    assert work.ended(work.submit("odd_tasks:leaves_gradients_off", search=None)).state == "failed"
    job = work.ended(work.submit("digits", epochs=8, search=None))
    assert (job.state, job.error) == ("succeeded", None)


def test_a_clock_that_leaps_ahead_takes_no_job_from_a_worker_that_is_alive(work: Work) -> None:
    job_id = work.submit("odd_tasks:slow", epochs=30, search=None, limits={"max_seconds": 600})
    work.until(job_id, lambda job: job.stage == "range_test")
    for _ in range(2):
        with work.database.begin() as session:  # as it is seen after a leap of two hours
            hours = {"lease_until": now_s() - 7200, "started_at": datetime.now(UTC) - timedelta(hours=2)}
            session.execute(update(Job).where(Job.id == job_id).values(**hours))
        work.until(job_id, lambda job: job.state == "succeeded" or job.lease_until > time.time())
    job = work.succeeded(job_id)
    assert job.fencing_token == 1
    assert {row.attempt for row in rows(work, job_id, "range_test")} == {1}
    assert recommendation(work, job_id)["warnings"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_passes_between_a_hand_back_and_the_next_claim_counts_for_no_limit(
    database: Database, engine: Engine, tmp_path: Path
) -> None:
    work = Work(database)
    job_id = work.submit("odd_tasks:slow", epochs=40, search=None, limits={"max_seconds": 600})
    with working(database, engine, tmp_path):
        work.until(job_id, lambda job: job.worked_s > 0)
    handed_back = work.job(job_id)
    assert handed_back.state == "queued"
    with database.begin() as session:  # as it is seen after a leap, or a night in the queue
        yesterday = datetime.now(UTC) - timedelta(days=1)
        session.execute(update(Job).where(Job.id == job_id).values(started_at=yesterday))
    with working(database, engine, tmp_path):
        job = work.until(job_id, lambda job: job.worked_s > handed_back.worked_s)
    assert job.worked_s < 600


def test_a_run_that_is_lost_every_time_fails_its_job(work: Work) -> None:
    job = work.ended(work.submit("odd_tasks:dies_always", search=None))
    assert job.state == "failed"
    assert "lost 3 times" in job.error


def test_two_jobs_are_worked_on_at_once(work: Work) -> None:
    first, second = (work.submit("odd_tasks:slow", epochs=40, search=None) for _ in range(2))
    work.until(first, lambda job: job.state == "running")
    work.until(second, lambda job: job.state == "running" and work.job(first).state == "running")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_warm_start_trains_first_what_an_earlier_job_recommended(work: Work) -> None:
    found = {"policy": "triangular", "max_lr": 0.0777, "ratio": 7.0, "stepsize_multiplier": 5.0, "source": "confirm"}
    spec = JobSpec(task="digits", epochs=10).model_dump(mode="json")
    with work.database.begin() as session:  # in one transaction, lest the worker claim it
        earlier, _ = jobs.submit(session, spec=spec, name="earlier", task="digits")
        _, lease = jobs.claim(session, owner="earlier", lease_s=60) or pytest.fail("nothing to claim")
        recommendations.put(session, lease, found | {"job_id": earlier.id}, task="digits", optimizer="SGD")
        jobs.succeed(session, lease)
    job_id = work.submit("digits", epochs=10, confirm=None, search={"trials": 1, "warm_start": True})
    work.succeeded(job_id)
    (trial,) = rows(work, job_id, "search")
    assert (trial.params["max_lr"], trial.params["ratio"]) == (0.0777, 7.0)
    assert recommendation(work, job_id)["reasons"][-1].endswith(f"earlier jobs recommended: {earlier.id}")


@pytest.mark.parametrize(
    ("task", "args", "told"),
    [
        ("digitz", {}, "task: must be module:function or one of "),
        ("digits", {"hiden": 3}, "args.hiden: must be one of "),
    ],
)
def test_what_was_submitted_before_any_worker_was_there_is_checked_by_the_first(
    work: Work, task: str, args: dict, told: str
) -> None:
    job = work.ended(work.submit(task, args=args))
    assert job.state == "failed"
    assert job.error.startswith(told)
    assert "\n" not in job.error


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_limit_that_strikes_while_the_task_loads_gives_an_inconclusive_recommendation(work: Work) -> None:
    job_id = work.submit("odd_tasks:loads_slowly", limits={"max_seconds": 1})
    work.succeeded(job_id)
    found = recommendation(work, job_id)
    assert (found["confidence"], found["max_lr"], found["iterations_per_epoch"]) == ("inconclusive", None, None)
    assert found["reasons"] == ["limits.max_seconds = 1 was reached before the task was loaded"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_says_its_stage_before_its_first_run_has_reported_a_point(work: Work) -> None:
    job_id = work.submit("odd_tasks:slow", epochs=4000, search=None)
    work.until(job_id, lambda job: job.stage == "range_test" and job.steps == 0)
    with work.database.begin() as session:
        jobs.request_cancel(session, job_id)
    work.ended(job_id)
