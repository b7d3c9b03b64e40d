"""What an installation may leave out: the parts of clr that need more packages, each an extra of the same name."""

from importlib.util import find_spec

EXTRAS = {
    "cli": ("typer",),
    "server": (
        "a2wsgi",
        "alembic",
        "fastapi",
        "fastapi_offline",
        "jinja2",
        "jsonschema",
        "optuna_dashboard",
        "prometheus_client",
        "psycopg",
        "pydantic_settings",
        "sqlalchemy",
        "typer",
        "uvicorn",
    ),
    "worker": ("alembic", "psycopg", "pydantic_settings", "ray", "sqlalchemy", "typer"),
    "lightning": ("lightning",),
    "transformers": ("accelerate", "transformers"),
    "mcp": ("mcp",),
    "tracking": ("mlflow", "tensorboardX", "wandb"),
}
"""The modules that each extra brings."""


class MissingExtra(ImportError):
    """What was asked for needs packages that are not installed; the message says how to install them."""


def require(*extras: str) -> None:
    """See that the modules of ``extras``, keys of ``EXTRAS``, can be imported; none of them is.

    Raises:
        MissingExtra: one is not installed; the message names the extra.
    """
    for extra in extras:
        missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
        if missing:
            raise MissingExtra(_sentence(extra, missing))


def told(error: ModuleNotFoundError) -> str:
    """What to install for a module that was looked for in vain; of a module that no extra brings, the error itself."""
    name = (error.name or "").partition(".")[0]
    bringing = [extra for extra, modules in EXTRAS.items() if name in modules]
    return _sentence(bringing[0], [name]) if bringing else str(error)


def _sentence(extra: str, missing: list[str]) -> str:
    return (
        f"this needs clr's extra {extra!r}, of which {', '.join(missing)} is not installed: pip install 'clr[{extra}]'"
    )
