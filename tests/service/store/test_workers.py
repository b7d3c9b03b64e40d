"""Workers and their tasks, on both databases."""

from typing import Any

from sqlalchemy import update

from service.store import workers
from service.store.clock import now_s
from service.store.database import Database
from service.store.models import WorkerRow

DIGITS = {"name": "digits", "doc": "Handwritten digits.", "schema": {"type": "object", "properties": {}}}


def publish(database: Database, owner: str, *tasks: dict[str, Any]) -> None:
    with database.begin() as session:
        workers.publish(session, owner=owner, host="host", slots={"cpus": 2, "gpus": 0}, tasks=tasks)


def alive(database: Database) -> list[str]:
    with database.read() as session:
        return [worker.id for worker in workers.alive(session, within_s=30)]


def be_silent(database: Database, owner: str, for_s: float) -> None:
    with database.begin() as session:
        session.execute(update(WorkerRow).where(WorkerRow.id == owner).values(seen_at=now_s() - for_s))


def test_a_published_worker_is_alive_and_its_tasks_are_known(database: Database) -> None:
    publish(database, "a", DIGITS, {"name": "cifar", "doc": "", "schema": {}})
    with database.read() as session:
        [worker] = workers.alive(session)
        assert (worker.id, worker.host, worker.slots) == ("a", "host", {"cpus": 2, "gpus": 0})
        cifar, digits = workers.tasks(session)
        assert workers.schema(session, "digits") == DIGITS["schema"]
        assert workers.schema(session, "unheard of") is None
    assert (cifar.name, digits.name) == ("cifar", "digits")
    assert (digits.doc, digits.schema, digits.worker) == (DIGITS["doc"], DIGITS["schema"], "a")


def test_a_task_published_again_is_overwritten(database: Database) -> None:
    publish(database, "a", DIGITS)
    publish(database, "b", DIGITS | {"doc": "New."})
    with database.read() as session:
        [task] = workers.tasks(session)
    assert (task.doc, task.worker) == ("New.", "b")


def test_a_silent_worker_counts_as_alive_no_longer_until_it_is_seen_again(database: Database) -> None:
    publish(database, "a")
    publish(database, "b")
    be_silent(database, "a", for_s=31)
    be_silent(database, "b", for_s=29)
    assert alive(database) == ["b"]
    with database.begin() as session:
        workers.seen(session, "a")
    assert alive(database) == ["a", "b"]


def test_a_retired_worker_is_gone_and_its_tasks_stay(database: Database) -> None:
    publish(database, "a", DIGITS)
    with database.begin() as session:
        workers.retire(session, "a")
    assert alive(database) == []
    with database.read() as session:
        assert [task.name for task in workers.tasks(session)] == ["digits"]
