"""Pages of a list, and the cursors that lead from one to the next: opaque to clients, the last item's id to us."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

T = TypeVar("T")

LIMIT = 50
MAX_LIMIT = 200

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description=f"items on the page, {LIMIT} unless given")]
JobCursor = Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$", description="next_cursor of the page before")]
NumberCursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,9}$", description="next_cursor of the page before")]


def split(rows: Sequence[T], limit: int, place: Callable[[T], object]) -> tuple[Sequence[T], str | None]:
    """One page of ``limit`` rows out of ``limit + 1`` asked for, and the cursor of the next."""
    page = rows[:limit]
    return page, str(place(page[-1])) if len(rows) > limit else None
