"""How often a run lost its own process, and which claim a job is held by.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clr_runs", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("clr_jobs", sa.Column("claim_id", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.drop_column("claim_id")
    with op.batch_alter_table("clr_runs") as runs:
        runs.drop_column("losses")
