"""Seconds that workers have had a job; those of jobs under way are counted from here on.

Revision 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clr_jobs", sa.Column("worked_s", sa.Float(53), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("clr_jobs", "worked_s")
