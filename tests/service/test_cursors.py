from hypothesis import given
from hypothesis import strategies as st

from service.cursors import split


def test_a_page_says_where_the_next_begins() -> None:
    assert split([1, 2, 3], 2, int) == ([1, 2], "2")
    assert split([1, 2], 2, int) == ([1, 2], None)
    assert split([], 2, int) == ([], None)


@given(st.integers(0, 40), st.integers(1, 10))
def test_pages_hold_every_item_once(count: int, limit: int) -> None:
    found: list[int] = []
    cursor: str | None = "-1"
    while cursor is not None:
        rows = [number for number in range(count) if number > int(cursor)][: limit + 1]
        page, cursor = split(rows, limit, lambda number: number)
        found += page
    assert found == list(range(count))
