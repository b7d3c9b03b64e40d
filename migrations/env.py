"""Runs migrations on the connection that `service.store.database.migrate` hands over, or on the settings' database."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from service.settings import Settings
from service.store import models
from service.store.columns import Document, Instant, Words
from service.store.database import VERSION_TABLE, connect, database_url


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether a name found in the database is this project's; Optuna's tables are in the same database."""
    return kind != "table" or str(name).startswith("clr_")


def plain(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """How a column type is written in a revision, which must go on working when the store's own types change."""
    if kind != "type":
        return False
    return {
        Words: "sa.Text()",
        Instant: "sa.DateTime(timezone=True)",
        Document: 'sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")',
    }.get(type(item), False)


def run(connection: Connection) -> None:
    """Run what Alembic was asked for."""
    context.configure(
        connection=connection,
        target_metadata=models.Base.metadata,
        version_table=VERSION_TABLE,
        include_name=is_ours,
        render_item=plain,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on_settings() -> None:
    """Serve Alembic's own command line."""
    engine = connect(database_url(Settings().database_url), foreign_keys=False)
    with engine.begin() as connection:
        run(connection)
    engine.dispose()


given = context.config.attributes.get("connection")
if given is None:
    run_on_settings()
else:
    run(given)
