"""What all commands share: settings, and what they say."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, whatever standard output is.")]


def say(line: str) -> None:
    """Tell people; standard output is for results."""
    typer.echo(line, err=True)


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
