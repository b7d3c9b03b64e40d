"""The database's clock, the only one that leases and timestamps depend on."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from service.store.columns import Instant


class now_s(FunctionElement[float]):  # noqa: N801
    """Seconds since the epoch."""

    type = Float()
    inherit_cache = True


class now(FunctionElement[datetime]):  # noqa: N801
    """The present instant."""

    type = Instant()
    inherit_cache = True


@compiles(now_s, "postgresql")
def _postgresql_now_s(_element: now_s, _compiler: Any, **_: Any) -> str:
    return "EXTRACT(EPOCH FROM clock_timestamp())::float8"


@compiles(now_s, "sqlite")
def _sqlite_now_s(_element: now_s, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(_element: now, _compiler: Any, **_: Any) -> str:
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _sqlite_now(_element: now, _compiler: Any, **_: Any) -> str:
    # SQLAlchemy reads the fraction as microseconds; SQLite gives milliseconds.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
