"""What all commands share: settings, and what they say."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from service.settings import Settings
    from service.store.database import Database

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, whatever standard output is.")]


def say(line: str) -> None:
    """Tell people; standard output is for results."""
    typer.echo(line, err=True)


@contextmanager
def store() -> Iterator["Database"]:
    """The settings' database, at the newest migration; a SQLite file is brought there, as clr serve does."""
    from service.serving import check_schema
    from service.store.database import Database, migrate

    url = settings().database_url
    if url.startswith("sqlite"):
        migrate(url)
    check_schema(url)
    with closing(Database(url)) as database:
        yield database


def settings(**given: Any) -> "Settings":
    """The settings of the environment, and those given on the command line before them."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise typer.TyperException(f"CLR_{name}: {first['msg']}, but got {first['input']!r}") from error
