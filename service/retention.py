"""Deletes what is old: finished jobs with all that belongs to them."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, select

from service import actions
from service.store.clock import now
from service.store.database import Database
from service.store.errors import StoreError
from service.store.models import Job

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
BATCH = 100


def age(text: str) -> timedelta:
    """A length of time such as 90d."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise StoreError(f"older-than: must be a whole number and s, m, h, d or w, such as 90d, but got {text!r}")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def prune(database: Database, older_than: timedelta, states: Sequence[str], *, dry_run: bool) -> Iterator[str]:
    """Delete the jobs that ended in one of ``states`` longer than that ago; the id of each, the oldest first."""
    with database.read() as session:
        present: datetime = session.scalars(select(now())).one()
    last = ""
    while True:
        with database.read() as session:
            found = list(session.scalars(_old(present - older_than, states, last)))
        if not found:
            return
        for job_id in found:
            if not dry_run:
                actions.delete(database, job_id, by=None, act="prune")
            yield job_id
        last = found[-1]


def _old(before: datetime, states: Sequence[str], last: str) -> Select[str]:
    query = select(Job.id).where(Job.state.in_(states), Job.finished_at < before, Job.id > last)
    return query.order_by(Job.id).limit(BATCH)
