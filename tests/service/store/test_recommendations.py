"""Recommendations, on both databases."""

import math
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.store import events, jobs, recommendations
from service.store.database import Database
from service.store.jobs import Lease


def claimed(database: Database) -> Lease:
    with database.begin() as session:
        jobs.submit(session, spec={}, name="demo", task="digits")
        found = jobs.claim(session, owner="worker", lease_s=60)
    assert found is not None
    return found[1]


def recommended(database: Database, task: str = "digits", optimizer: str = "SGD") -> str:
    lease = claimed(database)
    with database.begin() as session:
        document = {"source": "search", "max_lr": 0.1}
        recommendations.put(session, lease, document, task=task, optimizer=optimizer)
    return lease.job_id


def test_a_job_has_no_recommendation_at_first(database: Database) -> None:
    with database.read() as session:
        assert recommendations.get(session, claimed(database).job_id) is None


def test_a_later_recommendation_replaces_the_earlier_and_both_are_told(database: Database) -> None:
    lease = claimed(database)
    told = [{"source": "range_test", "max_lr": 0.1}, {"source": "search", "max_lr": math.inf}]
    for document in told:
        with database.begin() as session:
            recommendations.put(session, lease, document, task="digits", optimizer="SGD")
    with database.read() as session:
        row = recommendations.get(session, lease.job_id)
        seen = [e.data for e in events.after(session, lease.job_id, 0) if e.kind == "recommendation"]
    assert row is not None
    assert (row.source, row.task, row.optimizer) == ("search", "digits", "SGD")
    assert row.document == {"source": "search", "max_lr": None}
    assert row.updated_at.tzinfo is not None
    assert seen == [told[0], row.document]


@pytest.mark.parametrize(
    ("task", "optimizer", "expected"),
    [(None, None, [3, 2, 1, 0]), ("digits", None, [2, 1, 0]), (None, "AdamW", [3, 1]), ("digits", "AdamW", [1])],
)
def test_pages_are_newest_first_by_task_and_optimizer(
    database: Database, task: str | None, optimizer: str | None, expected: list[int]
) -> None:
    kinds = [("digits", "SGD"), ("digits", "AdamW"), ("digits", "SGD"), ("fashion", "AdamW")]
    ids = [recommended(database, *kind) for kind in kinds]
    with database.read() as session:
        found = [row.job_id for row, _ in recommendations.browse(session, task=task, optimizer=optimizer)]
        rest = recommendations.browse(session, task=task, optimizer=optimizer, before=found[0], limit=1)
    assert found == [ids[number] for number in expected]
    assert [row.job_id for row, _ in rest] == found[1:2]


def test_alike_are_the_newest_of_finished_jobs_that_trained_the_same(database: Database) -> None:
    same = {"mode": "managed", "task": "digits", "args": {"a": 1}, "optimizer": {"name": "SGD"}, "batch_size": 8}
    found = []
    for change in (
        {},
        {"args": {}},
        {"batch_size": 9},
        {"mode": "external"},
        {"optimizer": {"name": "SGD", "args": {}}},
    ):
        found.append(ended(database, same | change))
    found.append(ended(database, same, optimizer="AdamW"))
    found += [ended(database, same, max_lr=None), ended(database, same, source="range_test")]
    found += [ended(database, same) for _ in range(3)]
    with database.begin() as session:
        job_id = described(session, same).job_id
        assert [one["job_id"] for one in recommendations.alike(session, job_id)] == found[:-4:-1]
        assert [one["job_id"] for one in recommendations.alike(session, found[-1])] == [*found[-2:-4:-1], found[0]]


@pytest.mark.parametrize("mode", ["managed", "external"])
def test_where_the_spec_leaves_the_optimizer_open_alike_are_those_that_were_trained_with_the_same(
    database: Database, mode: str
) -> None:
    same = {"mode": mode, "task": "digits", "args": {}, "optimizer": None, "batch_size": None}
    found = {name: ended(database, same, optimizer=name) for name in ("SGD", "AdamW", None)}
    with database.begin() as session:
        for name, expected in found.items():
            job_id = described(session, same, name).job_id
            assert [one["job_id"] for one in recommendations.alike(session, job_id)] == [expected]


def described(session: Session, spec: dict[str, Any], optimizer: str | None = "SGD") -> Lease:
    """A running job whose training is known."""
    jobs.submit(session, spec=spec, name="demo", task="digits")
    _, lease = jobs.claim(session, owner="worker", lease_s=60) or pytest.fail("nothing to claim")
    used = {"optimizer": optimizer and {"name": optimizer, "args": {}}, "batch_size": 8, "gpus": 0}
    training: dict[str, Any] = {"iterations_per_epoch": 10, "metric": "accuracy", "direction": "maximize"}
    jobs.set_training(session, lease, **training, trained_with=used, predicted_steps=None)
    return lease


def ended(
    database: Database,
    spec: dict[str, Any],
    source: str = "search",
    max_lr: float | None = 0.1,
    optimizer: str | None = "SGD",
) -> str:
    with database.begin() as session:
        lease = described(session, spec, optimizer)
        document = {"job_id": lease.job_id, "source": source, "max_lr": max_lr}
        recommendations.put(session, lease, document, task="digits", optimizer=optimizer)
        jobs.succeed(session, lease)
    return lease.job_id
