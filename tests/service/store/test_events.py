"""Events, on both databases."""

from typing import Any

from service.store import events, jobs
from service.store.database import Database


def test_events_follow_the_last_one_seen_and_belong_to_one_job(database: Database) -> None:
    with database.begin() as session:
        given: dict[str, Any] = {"spec": {}, "name": "demo", "task": "digits"}
        mine, other = (jobs.submit(session, **given)[0].id for _ in range(2))
        for number in range(5):
            events.emit(session, mine, "points", {"number": number})
            events.emit(session, other, "points", {"number": number})
    with database.read() as session:
        first = events.after(session, mine, 0, limit=3)
        rest = events.after(session, mine, first[-1].id)
        none = events.after(session, mine, rest[-1].id)
    assert [(event.kind, event.data.get("number")) for event in first] == [
        ("state", None),
        ("points", 0),
        ("points", 1),
    ]
    assert [event.data for event in rest] == [{"number": 2}, {"number": 3}, {"number": 4}]
    assert none == []
    assert all(event.job_id == mine and event.created_at.tzinfo for event in first + rest)
