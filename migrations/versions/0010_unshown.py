"""Changes of external jobs that their studies do not show yet.

Revision 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WHERE = sa.text("unshown > 0")


def upgrade() -> None:
    op.add_column("clr_jobs", sa.Column("unshown", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_clr_jobs_unshown", "clr_jobs", ["id"], sqlite_where=WHERE, postgresql_where=WHERE)


def downgrade() -> None:
    op.drop_index("ix_clr_jobs_unshown", "clr_jobs")
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.drop_column("unshown")
