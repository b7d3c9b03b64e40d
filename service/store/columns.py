"""Column types that mean the same on SQLite and on PostgreSQL."""

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

_encode = json.JSONEncoder(allow_nan=False).encode


def storable_text(value: str) -> str:
    """``value`` with what PostgreSQL refuses (NUL, lone surrogates) replaced."""
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def storable(value: Any) -> Any:
    """``value`` as JSON that both databases take: numbers that are not finite become null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return storable_text(value)
        case dict():
            return {storable_text(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value


def to_json(value: Any) -> str:
    """``value``, made storable where it is not, which is rare: to look at every item takes longer than to write it."""
    try:
        text = _encode(value)
    except ValueError:  # a number that is not finite
        return _encode(storable(value))
    return _encode(storable(value)) if "\\u0000" in text or "\\ud" in text else text


class Words(TypeDecorator[str]):
    """Text of any length."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value)


class Document(TypeDecorator[Any]):
    """A JSON value; None is SQL's NULL. Its engine writes it by ``to_json``."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        kind = JSONB if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(kind(none_as_null=True))


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite gives back what was written, in UTC but without saying so.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
