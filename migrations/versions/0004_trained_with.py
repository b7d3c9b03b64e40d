"""What a job was trained with, the task's own where the spec names nothing, and by how much it was extended.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text()
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("clr_jobs", sa.Column("trained_with", JSON, nullable=True))
    op.add_column("clr_jobs", sa.Column("extensions", JSON, nullable=True))
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.drop_column("optimizer")
    _claim_index_anew()
    with op.batch_alter_table("clr_recommendations") as recommendations:
        recommendations.alter_column("optimizer", existing_type=TEXT, nullable=True)


def downgrade() -> None:
    op.execute("UPDATE clr_recommendations SET optimizer = '' WHERE optimizer IS NULL")
    with op.batch_alter_table("clr_recommendations") as recommendations:
        recommendations.alter_column("optimizer", existing_type=TEXT, nullable=False)
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.add_column(sa.Column("optimizer", TEXT, nullable=False, server_default=""))
        jobs.drop_column("trained_with")
        jobs.drop_column("extensions")
    _claim_index_anew()


def _claim_index_anew() -> None:
    """Where a table is copied, SQLite's index loses the order of its columns."""
    op.drop_index("ix_clr_jobs_claim", "clr_jobs")
    op.create_index("ix_clr_jobs_claim", "clr_jobs", ["mode", "state", sa.text("priority DESC"), "id"])
