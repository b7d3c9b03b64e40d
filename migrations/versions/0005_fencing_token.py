"""The number that fences a lease's writes by its name: ``epoch`` is a pass over training data everywhere else.

Revision 0005, after 0004.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE clr_jobs RENAME COLUMN epoch TO fencing_token")


def downgrade() -> None:
    op.execute("ALTER TABLE clr_jobs RENAME COLUMN fencing_token TO epoch")
