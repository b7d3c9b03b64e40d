"""``clr token``: who may use the service. Works on the database itself, on any machine that reaches it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.terminal import AsJson, say, store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(help="Tokens: who may read, submit and administer.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")]


@app.command()
def create(
    role: Annotated[Literal["read", "submit", "admin"], typer.Option(help="Each may do what those before it may.")],
    name: Annotated[str, typer.Option(help="Who or what it is for; new, and never used again.")],
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    from service.store import audit, tokens

    with _in_force() as session:
        token = tokens.create(session, name, role)
        audit.record(session, None, "token create", detail=f"{name} ({role})")
    say(f"the token {name!r}, role {role}; keep it, it is not shown again:")
    typer.echo(token)


@app.command("list")
def listed(json: AsJson = False) -> None:
    """List all tokens, and when each was used last, to the minute."""
    from service import screen
    from service.store import tokens

    with store() as database, database.read() as session:
        columns = ("name", "role", "created_at", "used_at", "revoked_at")
        rows = [{column: getattr(row, column) for column in columns} for row in tokens.listed(session)]
    screen.rows(rows, json)


@app.command()
def revoke(name: Name) -> None:
    """End a token for good; its name stays taken."""
    from service.store import audit, tokens

    with _in_force() as session:
        tokens.revoke(session, name)
        audit.record(session, None, "token revoke", detail=name)


@contextmanager
def _in_force() -> Iterator["Session"]:
    """A transaction after which every API process knows of it."""
    from service.access.principal import LAG_S

    with store() as database, database.begin() as session:
        yield session
    time.sleep(LAG_S)
