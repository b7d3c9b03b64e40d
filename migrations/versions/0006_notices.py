"""What jobs' own addresses are to be told.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text()
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "clr_notices",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("delivered_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_clr_notices"),
        sa.ForeignKeyConstraint(["job_id"], ["clr_jobs.id"], name="fk_clr_notices_job_id_clr_jobs", ondelete="CASCADE"),
    )
    op.create_index("ix_clr_notices_job_id", "clr_notices", ["job_id"])
    op.create_index("ix_clr_notices_due_at", "clr_notices", ["due_at"])


def downgrade() -> None:
    op.drop_table("clr_notices")
