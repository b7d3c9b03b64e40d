"""Tokens, who submitted a job, the audit, and what workers measure.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text()
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("clr_jobs", sa.Column("submitted_by", TEXT, nullable=True))
    op.create_index("ix_clr_jobs_submitted_by_state", "clr_jobs", ["submitted_by", "state"])
    op.add_column("clr_workers", sa.Column("metrics", JSON, nullable=True))
    op.create_table(
        "clr_tokens",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("used_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_clr_tokens"),
        sa.UniqueConstraint("digest", name="uq_clr_tokens_digest"),
    )
    op.create_table(
        "clr_audit",
        sa.Column("id", ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("token", TEXT, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=True),
        sa.Column("detail", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_clr_audit"),
    )


def downgrade() -> None:
    op.drop_table("clr_audit")
    op.drop_table("clr_tokens")
    with op.batch_alter_table("clr_workers") as workers:
        workers.drop_column("metrics")
    op.drop_index("ix_clr_jobs_submitted_by_state", "clr_jobs")
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.drop_column("submitted_by")
