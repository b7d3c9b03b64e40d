import pytest

from service.access import rate
from service.access.rate import Rate


class Clock:
    """Never set, as ``now`` is; the other one jumps at each look."""

    now, jumping = 1000.0, 1e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        self.jumping = -self.jumping
        return self.jumping


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate, "time", clock)
    return clock


def admitted(limit: Rate, name: str = "ann", tries: int = 100) -> int:
    return sum(limit.wait_s(name) == 0 for _ in range(tries))


@pytest.mark.parametrize("per_s", [1.0, 7.0, 50.0])
def test_a_burst_of_one_second_passes_then_as_many_as_become_due(clock: Clock, per_s: float) -> None:
    limit = Rate(per_s)
    assert admitted(limit) == per_s
    for _ in range(20):
        clock.now += 3 / per_s
        assert admitted(limit) == min(3, per_s)


def test_who_waits_as_long_as_told_is_admitted(clock: Clock) -> None:
    for per_s in (0.1, 3.0):
        limit = Rate(per_s)
        admitted(limit)
        wait_s = limit.wait_s("ann")
        assert wait_s == pytest.approx(1 / per_s)
        clock.now += 0.9 * wait_s
        assert limit.wait_s("ann") > 0
        clock.now += 0.1 * wait_s
        assert limit.wait_s("ann") == 0


def test_tokens_do_not_count_for_one_another(clock: Clock) -> None:
    limit = Rate(5)
    assert [admitted(limit, name) for name in ("ann", "bob")] == [5, 5]
