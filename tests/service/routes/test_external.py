"""External jobs through the calls of a trainer, on both databases."""

import gzip
import json
import time
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError

from clr.run import Run
from clr.schedules.cycles import rate_of
from clr.trials.study import StudyMirror
from service.external.job import settle_all
from service.routes.external import RETRY_AFTER_S
from service.store import jobs, runs, studies
from service.store.database import Database
from tests.clr.simulated import bowl
from tests.service.turned_clock import TurnedClock

SPEC = {"mode": "external", "task": "my model", "epochs": 10, "iterations_per_epoch": 40, "direction": "minimize"}
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what depends on no database: PostgreSQL has its turn where transactions and locks matter."""

simulate = bowl()


def shown(database: Database, job: str, timeout_s: float = 30) -> optuna.Study:
    """The job's study, once nothing of it is missing: the service may be at it of its own accord."""
    deadline = time.monotonic() + timeout_s
    while True:
        settle_all(database)
        with database.read() as session:
            if not jobs.get(session, job).unshown:
                break
        assert time.monotonic() < deadline, "the study still lacks something"
        time.sleep(0.05)
    return optuna.load_study(study_name=job, storage=studies.storage(database.url))


def submit(client: httpx.Client, **fields: Any) -> str:
    answer = client.post("/v1/jobs", json=SPEC | fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(client: httpx.Client, job: str, key: str | None = None) -> httpx.Response:
    return client.post(f"/v1/jobs/{job}/runs", headers={} if key is None else {"Idempotency-Key": key})


def points(run: dict[str, Any], every: int = 1) -> list[dict[str, Any]]:
    """What a simulated training reports of a run, every so many steps."""
    fields = {name: run[name] for name in Run.__dataclass_fields__ if name in run}
    curve = simulate(Run(**fields | {"step_size_down": run["step_size_down"] or None}))
    told = [{"step": step, "loss": loss if np.isfinite(loss) else None} for step, loss in enumerate(curve.loss, 1)]
    return [point for point in told if point["step"] % every == 0 or point is told[-1]]


def place(job: str, run: dict[str, Any]) -> str:
    return f"/v1/jobs/{job}/runs/{run['stage']}/{run['number']}"


def train(client: httpx.Client, job: str, run: dict[str, Any], every: int = 1) -> httpx.Response:
    told = points(run, every)
    assert client.post(f"{place(job, run)}/points", json={"points": told}).status_code == 200
    value = told[-1]["loss"] if told[-1]["step"] == run["steps"] else None
    return client.put(f"{place(job, run)}/result", json={"value": value})


def finish(client: httpx.Client, job: str, every: int = 1) -> list[dict[str, Any]]:
    trained = []
    while (answer := ask(client, job)).status_code == 201:
        trained.append(answer.json())
        told = train(client, job, trained[-1], every)
        assert told.status_code == 200, told.text
    assert answer.status_code == 409, answer.text
    return trained


def state(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/v1/jobs/{job}").json()["state"])


@pytest.mark.parametrize("every", [1, 7])
def test_a_trainer_is_given_the_whole_method_and_its_job_succeeds(
    client: httpx.Client, database: Database, every: int
) -> None:
    job = submit(client)
    trained = finish(client, job, every)
    stages = [run["stage"] for run in trained]
    searched = stages.count("search")
    assert searched >= 3
    assert stages == ["range_test"] * (len(trained) - searched) + ["search"] * searched
    assert {run["policy"] for run in trained} >= {"exponential_ramp", "triangular", "fixed", "one_cycle"}
    assert state(client, job) == "succeeded"
    found = client.get(f"/v1/jobs/{job}/recommendation").json()
    assert found["source"] == "search"
    assert found["evidence"]["runs"][0]["name"] == "recommended"
    study = shown(database, job)
    assert len(study.trials) == searched, "one trial for each run of the search"
    assert all(trial.state.is_finished() for trial in study.trials)


@ON_SQLITE
def test_a_study_has_no_trial_for_a_run_that_nobody_has_asked_for(client: httpx.Client, database: Database) -> None:
    job = submit(client)
    while (run := ask(client, job).json())["stage"] != "search":
        assert train(client, job, run).status_code == 200
    assert train(client, job, run).status_code == 200
    study = shown(database, job)
    assert len(study.trials) == 1, "the next is known to the service alone"
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    assert len(study.trials) == 1


@ON_SQLITE
def test_a_study_that_nobody_could_show_is_shown_later(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(client, search={"trials": 2}, confirm=None)
    while (run := ask(client, job).json())["stage"] != "search":
        train(client, job, run)
    with monkeypatch.context() as broken:
        broken.setattr(StudyMirror, "show", raising(UpdateFinishedTrialError("another was faster")))
        assert train(client, job, run).status_code == 200, "it is told, whatever becomes of the study"
        assert train(client, job, ask(client, job).json()).status_code == 200
    assert state(client, job) == "succeeded"
    assert [trial.state.is_finished() for trial in shown(database, job).trials] == [True, True]


def raising(error: Exception) -> Any:
    def act(*_args: Any, **_more: Any) -> None:
        raise error

    return act


@ON_SQLITE
def test_a_run_says_how_to_train_it(client: httpx.Client) -> None:
    run = ask(client, submit(client)).json()
    assert (run["stage"], run["number"], run["attempt"], run["policy"]) == ("range_test", 0, 1, "exponential_ramp")
    assert (run["step_size_up"], run["step_size_down"], run["gamma"]) == (run["steps"], 0, None)
    assert 0 < run["base_lr"] < run["max_lr"]
    assert run["evaluate_every"] >= 1


@ON_SQLITE
def test_several_ask_at_once_and_wait_where_others_must_end_first(client: httpx.Client) -> None:
    job = submit(client)
    taken = []
    while (answer := ask(client, job, str(len(taken)))).status_code == 201:
        taken.append(answer.json())
    assert [run["number"] for run in taken] == list(range(len(taken)))
    assert ask(client, job, "0").json() == taken[0], "the same key gives the same run"
    assert answer.status_code == 204
    assert int(answer.headers["retry-after"]) >= 1
    for run in taken:
        train(client, job, run)
    assert ask(client, job, "next").json()["number"] == len(taken)


@ON_SQLITE
def test_reports_are_counted_once_whatever_is_sent_again_and_may_be_gzipped(
    client: httpx.Client, database: Database
) -> None:
    job = submit(client)
    run = ask(client, job).json()
    told = points(run)
    path = f"{place(job, run)}/points"
    for some in (told[:5], told[:8], told[3:8]):
        assert client.post(path, json={"points": some}).json() == {"stop": False, "reason": None}
    body = gzip.compress(json.dumps({"points": told}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post(path, content=body, headers=headers).status_code == 200
    with database.read() as session:
        recorded = runs.points(session, job, "range_test", [0])[0]
    assert [point["step"] for point in recorded] == [point["step"] for point in told]


@ON_SQLITE
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"points": [{"step": 10**6, "loss": 1.0}]}, "points.0.step"),
        ({"points": [{"step": 2, "loss": 1.0}, {"step": 2, "loss": 1.0}]}, "points.1.step"),
        ({"points": [{"step": 1, "loss": 1.0, "lr": 0.5}]}, "points.0.lr"),
        ({"points": [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]}, "points.0.loss"),
        ({"points": []}, "points"),
        ({"points": [{"step": 1}]}, "points.0.loss"),
    ],
)
def test_a_report_that_breaks_a_rule_is_refused_by_field(client: httpx.Client, body: Any, field: str) -> None:
    job = submit(client)
    run = ask(client, job).json()
    answer = client.post(f"{place(job, run)}/points", json=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


@ON_SQLITE
def test_the_rate_that_was_ordered_is_accepted(client: httpx.Client) -> None:
    job = submit(client)
    run = ask(client, job).json()
    rate = rate_of(Run(**{n: run[n] for n in Run.__dataclass_fields__ if n in run} | {"step_size_down": None}))
    told = [{"step": step, "loss": 2.0, "lr": rate(step - 1)} for step in (1, 2, 3)]
    assert client.post(f"{place(job, run)}/points", json={"points": told}).status_code == 200


@ON_SQLITE
def test_a_run_of_the_range_test_is_told_once_all_its_steps_are_reported(client: httpx.Client) -> None:
    job = submit(client)
    run = ask(client, job).json()
    early = client.put(f"{place(job, run)}/result", json={"value": 0.5})
    assert early.status_code == 422
    assert "all" in early.json()["errors"][0]["rule"]
    diverged = client.put(f"{place(job, run)}/result", json={"value": None})
    assert (diverged.status_code, diverged.json()["state"]) == (200, "complete")


def test_a_result_is_told_once(client: httpx.Client) -> None:
    job = submit(client)
    run = ask(client, job).json()
    told = train(client, job, run).json()
    value = points(run)[-1]["loss"]
    again = client.put(f"{place(job, run)}/result", json={"value": value})
    assert (again.status_code, again.json()["value"]) == (200, told["value"])
    assert client.put(f"{place(job, run)}/result", json={"value": 123.0}).status_code == 409


@ON_SQLITE
def test_a_failing_run_is_handed_out_three_times_and_then_fails_the_range_test(client: httpx.Client) -> None:
    job = submit(client)
    for attempt in (1, 2, 3):
        run = ask(client, job).json()
        assert (run["number"], run["attempt"]) == (0, attempt)
        told = {"state": "failed", "error": "no memory", "attempt": attempt}
        assert client.put(f"{place(job, run)}/result", json=told).status_code == 200
    document = client.get(f"/v1/jobs/{job}").json()
    assert (document["state"], document["error"]) == ("failed", "range_test run 0 failed")


@ON_SQLITE
def test_a_silent_trainers_run_is_handed_out_again_and_its_late_report_is_refused(
    client: httpx.Client, database: Database
) -> None:
    job = submit(client, limits={"run_seconds": 0.001})
    run = ask(client, job).json()
    again = ask(client, job).json()
    assert (again["number"], again["attempt"]) == (run["number"], 2)
    late = client.post(f"{place(job, run)}/points", json={"points": points(run)[:3], "attempt": 1})
    assert late.status_code == 409
    assert "another trainer's hands" in late.json()["detail"]


@ON_SQLITE
@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_jumps_takes_no_run_from_a_trainer_and_holds_none_up(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    job = submit(client, search=None, range_test={"seeds": 1}, limits={"max_seconds": 7200})
    run = ask(client, job, "a").json()
    path, told = f"{place(job, run)}/points", points(run)
    clock = TurnedClock(monkeypatch)
    for turn in range(4):  # a run that was lost three times would be given up
        assert client.post(path, json={"points": told[turn : turn + 1], "attempt": 1}).status_code == 200
        clock.turn(timedelta(hours=hours))
        answer = ask(client, job, f"b{turn}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (204, str(RETRY_AFTER_S))
    clock.go_on(timedelta(minutes=11))
    again = ask(client, job, "c").json()
    assert again["attempt"] == 2, "a dead trainer's run is handed out when it is time"
    assert train(client, job, again).status_code == 200
    finish(client, job)
    assert state(client, job) == "succeeded"


@ON_SQLITE
def test_max_steps_counts_what_is_trained_anew_and_ends_the_job_in_mid_run(client: httpx.Client) -> None:
    job = submit(client, limits={"max_steps": 1000})
    ramp = [{"lr": 1e-5 * 1.07**step, "loss": 1.1 - 0.9 * np.tanh((step - 120) / 20)} for step in range(200)]
    assert client.put(f"/v1/jobs/{job}/range-test", json={"points": ramp}).status_code == 200
    spent = len(ramp)
    for attempt in (1, 2, 3):
        run = ask(client, job).json()
        assert (run["stage"], run["steps"], run["attempt"]) == ("search", 400, attempt)
        told = {"points": [{"step": step, "loss": 0.5} for step in range(1, 361)]}
        answer = client.post(f"{place(job, run)}/points", json=told).json()
        spent += 360
        if spent <= 1000:
            assert not answer["stop"]
            died = {"state": "failed", "error": "out of luck"}
            assert client.put(f"{place(job, run)}/result", json=died).status_code == 200
    assert answer == {"stop": True, "reason": "limits.max_steps = 1000 was reached"}
    assert state(client, job) == "succeeded"
    assert ask(client, job).status_code == 409
    found = client.get(f"/v1/jobs/{job}/recommendation").json()
    assert "limits.max_steps = 1000 was reached" in found["warnings"][0]
    assert client.get(f"/v1/jobs/{job}").json()["cost"]["steps"] == found["cost"]["steps"] == spent


@ON_SQLITE
def test_where_every_training_diverges_the_answer_is_inconclusive(client: httpx.Client) -> None:
    job = submit(client, search={"trials": 3}, confirm=None)
    while (answer := ask(client, job)).status_code == 201:
        run = answer.json()
        if run["stage"] == "range_test":
            train(client, job, run)
        else:
            client.put(f"{place(job, run)}/result", json={"value": None})
    found = client.get(f"/v1/jobs/{job}/recommendation").json()
    assert (found["confidence"], found["max_lr"], found["torch"]) == ("inconclusive", None, None)
    assert "every training diverged or failed" in found["reasons"][0]


@ON_SQLITE
def test_an_extended_job_takes_up_its_runs_again(client: httpx.Client) -> None:
    job = submit(client)
    before = [run["stage"] for run in finish(client, job)].count("search")
    assert client.post(f"/v1/jobs/{job}/extend", json={"budget": 3}).status_code == 202
    more = finish(client, job)
    assert 2 <= len(more) <= 3
    assert {run["stage"] for run in more} == {"search"}
    assert more[0]["number"] == before
    assert state(client, job) == "succeeded"


@ON_SQLITE
def test_a_recorded_ramp_takes_the_place_of_the_range_test_until_a_run_is_asked_for(client: httpx.Client) -> None:
    job = submit(client)
    ramp = [{"lr": 1e-5 * 1.06**step, "loss": 2.0 if step < 100 else 1.0} for step in range(200)]
    ramp[-1]["loss"] = None  # type: ignore[assignment]
    thinned = [point | {"step": 50 * number} for number, point in enumerate(ramp, 1)]
    for seed, told in enumerate((ramp, thinned)):
        answer = client.put(f"/v1/jobs/{job}/range-test", json={"points": told, "seed": seed})
        assert answer.status_code == 200, answer.text
    assert client.get(f"/v1/jobs/{job}").json()["cost"]["steps"] == 200 + 50 * 200
    run = ask(client, job)
    assert run.status_code in (201, 409)
    refused = client.put(f"/v1/jobs/{job}/range-test", json={"points": ramp, "seed": 7})
    assert refused.status_code == 409


@ON_SQLITE
def test_only_an_external_job_takes_reports(client: httpx.Client, worker: Any) -> None:
    worker.publish()
    job = client.post("/v1/jobs", json={"task": "digits"}).json()["id"]
    answer = ask(client, job)
    assert answer.status_code == 409
    assert "only an external job takes reports" in answer.json()["detail"]


@ON_SQLITE
def test_a_cancelled_job_takes_no_more_reports(client: httpx.Client, database: Database) -> None:
    job = submit(client)
    run = ask(client, job).json()
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.post(f"{place(job, run)}/points", json={"points": points(run)[:2]}).status_code == 409
    assert ask(client, job).status_code == 409
    with database.read() as session:
        assert jobs.get(session, job).state == "cancelled"
