"""What the databases do to answer the store's queries: go by an index, so that a million jobs are as quick as ten."""

from itertools import chain, combinations
from typing import Any

import pytest
from sqlalchemy import Select, select, text

from service.store import jobs
from service.store.database import Database
from service.store.models import EventRow, PointsRow, RecommendationRow, RunRow

pytestmark = pytest.mark.new_database  # plans go by what a database has counted in its tables

NAMES = ("state", "task", "name")
FILTERS = list(chain.from_iterable(combinations(NAMES, size) for size in range(4)))


def plan(database: Database, query: Select[Any]) -> str:
    with database.read() as session:
        bind = session.get_bind()
        sql = str(query.compile(bind, compile_kwargs={"literal_binds": True}))
        if bind.dialect.name == "sqlite":
            return "\n".join(row.detail for row in session.execute(text(f"EXPLAIN QUERY PLAN {sql}")))
        # So few rows are sorted rather than sought, if that is possible at all: forbid it.
        for way in ("seqscan", "sort", "incremental_sort", "bitmapscan"):
            session.execute(text(f"SET LOCAL enable_{way} = off"))
        return "\n".join(session.scalars(text(f"EXPLAIN {sql}")))


def assert_flat(database: Database, query: Select[Any], index: str) -> None:
    steps = plan(database, query)
    assert index in steps or "sqlite_autoindex" in steps, steps
    for slow in ("SCAN", "TEMP B-TREE", "Seq Scan", "Sort"):
        assert slow not in steps, steps
    if "Scan" in steps:
        assert "Index Cond" in steps, steps


@pytest.mark.parametrize("condition", [jobs.WAITING, jobs.ABANDONED], ids=["waiting", "abandoned"])
def test_claims_go_by_the_claim_index(database: Database, condition: Any) -> None:
    assert_flat(database, jobs.first(condition, "command"), "ix_clr_jobs_claim")


@pytest.mark.parametrize("before", [None, "0"])
@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "-".join(filters) or "all")
def test_pages_of_jobs_go_by_an_index(database: Database, filters: tuple[str, ...], before: str | None) -> None:
    given = dict.fromkeys(NAMES) | dict.fromkeys(filters, "x")
    if not filters:
        before = "0"  # the first page of all is the end of the primary key, which a plan calls a scan
    assert_flat(database, jobs.listing(**given, limit=50, before=before), "clr_jobs")


@pytest.mark.parametrize(
    ("state", "task", "name", "index"),
    [
        ("x", None, None, "ix_clr_jobs_state_id"),
        (None, "x", None, "ix_clr_jobs_task_id"),
        (None, None, "x", "ix_clr_jobs_name_id"),
        ("x", "x", None, "ix_clr_jobs_task_state_id"),
        ("x", None, "x", "ix_clr_jobs_name_state_id"),
    ],
)
def test_filtered_pages_go_by_the_index_of_their_filter(
    database: Database, state: str | None, task: str | None, name: str | None, index: str
) -> None:
    assert_flat(database, jobs.listing(state=state, task=task, name=name, limit=50, before=None), index)


QUERIES = {
    "events after one": (
        select(EventRow).where(EventRow.job_id == "x", EventRow.id > 5).order_by(EventRow.id).limit(500),
        "ix_clr_events_job_id_id",
    ),
    "runs of a stage": (
        select(RunRow).where(RunRow.job_id == "x", RunRow.stage == "search").order_by(RunRow.number).limit(50),
        "pk_clr_runs",
    ),
    "points of runs": (
        select(PointsRow.data)
        .where(PointsRow.job_id == "x", PointsRow.stage == "search", PointsRow.number == 3)
        .order_by(PointsRow.seq),
        "pk_clr_points",
    ),
    "recommendations": (
        select(RecommendationRow)
        .where(RecommendationRow.task == "x", RecommendationRow.optimizer == "y")
        .order_by(RecommendationRow.job_id.desc())
        .limit(50),
        "ix_clr_recommendations_task_optimizer_job_id",
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_what_belongs_to_a_job_goes_by_an_index(database: Database, name: str) -> None:
    assert_flat(database, *QUERIES[name])
