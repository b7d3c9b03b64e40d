"""Where each run under way stands.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

from service.store.columns import Document

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clr_jobs", sa.Column("under_way", Document(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("clr_jobs") as jobs:
        jobs.drop_column("under_way")
