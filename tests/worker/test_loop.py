"""Which leases a worker takes for lost."""

import pytest

from worker import loop
from worker.loop import Watch


class Steady:
    """In the place of ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_lease_is_lost_when_nobody_renewed_it_while_it_was_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = Steady()
    monkeypatch.setattr(loop, "time", steady)
    watch = Watch(patience_s=3)
    assert watch.silent([("a", 1, 10.0), ("b", 1, 10.0)]) == []
    steady.now = 2.9
    assert watch.silent([("a", 1, 10.0), ("b", 1, 11.0)]) == []
    steady.now = 3.0
    assert watch.silent([("a", 1, 10.0), ("b", 1, 11.0)]) == ["a"]
    assert watch.silent([("a", 2, 20.0)]) == [], "another holds it since"
    assert watch.silent([]) == []
    steady.now = 9.0
    assert watch.silent([("b", 1, 11.0)]) == [], "who was out of sight is watched anew"
