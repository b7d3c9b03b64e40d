"""Jobs, runs, points, events, recommendations, tasks and workers.

Revision 0001, the first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text()
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
DOUBLE = sa.Float(53)
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def required(name: str, kind: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=False, autoincrement=kind is ROW_NUMBER)


def optional(name: str, kind: sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=True)


def primary_key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def belongs_to_job(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["job_id"], ["clr_jobs.id"], name=f"fk_{table}_job_id", ondelete="CASCADE")


def index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def upgrade() -> None:
    create_jobs()
    create_runs()
    create_events()
    create_recommendations()
    create_workers()


def create_jobs() -> None:
    op.create_table(
        "clr_jobs",
        required("id", TEXT),
        required("mode", TEXT),
        required("name", TEXT),
        required("task", TEXT),
        required("optimizer", TEXT),
        required("priority", sa.Integer()),
        required("state", TEXT),
        optional("stage", TEXT),
        required("progress", DOUBLE),
        required("spec", JSON),
        required("steps", sa.BigInteger()),
        optional("predicted_steps", sa.BigInteger()),
        optional("iterations_per_epoch", sa.BigInteger()),
        optional("metric", TEXT),
        optional("direction", TEXT),
        optional("range_test", JSON),
        optional("error", TEXT),
        required("cancel_requested", sa.Boolean()),
        optional("owner", TEXT),
        required("epoch", sa.Integer()),
        optional("lease_until", DOUBLE),
        optional("idempotency_key", TEXT),
        optional("idempotency_digest", TEXT),
        required("created_at", TIME),
        optional("started_at", TIME),
        optional("finished_at", TIME),
        primary_key("clr_jobs", "id"),
        sa.UniqueConstraint("idempotency_key", name="uq_clr_jobs_idempotency_key"),
    )
    op.create_index("ix_clr_jobs_claim", "clr_jobs", ["mode", "state", sa.text("priority DESC"), "id"])
    for columns in (("state",), ("task",), ("name",), ("task", "state"), ("name", "state")):
        index("clr_jobs", *columns, "id")


def create_runs() -> None:
    op.create_table(
        "clr_runs",
        required("job_id", TEXT),
        required("stage", TEXT),
        required("number", sa.Integer()),
        required("attempt", sa.Integer()),
        required("state", TEXT),
        required("params", JSON),
        required("run", JSON),
        optional("value", DOUBLE),
        required("steps", sa.BigInteger()),
        optional("error", TEXT),
        required("started_at", TIME),
        optional("finished_at", TIME),
        primary_key("clr_runs", "job_id", "stage", "number"),
        belongs_to_job("clr_runs"),
    )
    op.create_table(
        "clr_points",
        required("job_id", TEXT),
        required("stage", TEXT),
        required("number", sa.Integer()),
        required("seq", sa.Integer()),
        required("attempt", sa.Integer()),
        required("data", JSON),
        primary_key("clr_points", "job_id", "stage", "number", "seq"),
        sa.ForeignKeyConstraint(
            ["job_id", "stage", "number"],
            ["clr_runs.job_id", "clr_runs.stage", "clr_runs.number"],
            name="fk_clr_points_job_id_stage_number",
            ondelete="CASCADE",
        ),
    )


def create_events() -> None:
    op.create_table(
        "clr_events",
        required("id", ROW_NUMBER),
        required("job_id", TEXT),
        required("kind", TEXT),
        required("data", JSON),
        required("created_at", TIME),
        primary_key("clr_events", "id"),
        belongs_to_job("clr_events"),
    )
    index("clr_events", "job_id", "id")


def create_recommendations() -> None:
    op.create_table(
        "clr_recommendations",
        required("job_id", TEXT),
        required("source", TEXT),
        required("task", TEXT),
        required("optimizer", TEXT),
        required("document", JSON),
        required("updated_at", TIME),
        primary_key("clr_recommendations", "job_id"),
        belongs_to_job("clr_recommendations"),
    )
    for columns in (("task",), ("optimizer",), ("task", "optimizer")):
        index("clr_recommendations", *columns, "job_id")


def create_workers() -> None:
    op.create_table(
        "clr_tasks",
        required("name", TEXT),
        required("doc", TEXT),
        required("schema", JSON),
        required("worker", TEXT),
        required("updated_at", TIME),
        primary_key("clr_tasks", "name"),
    )
    op.create_table(
        "clr_workers",
        required("id", TEXT),
        required("host", TEXT),
        required("slots", JSON),
        required("seen_at", DOUBLE),
        required("started_at", TIME),
        primary_key("clr_workers", "id"),
    )


def downgrade() -> None:
    for table in ("points", "runs", "events", "recommendations", "tasks", "workers", "jobs"):
        op.drop_table(f"clr_{table}")
