import numpy as np
import pytest

from clr.trials.pruning import falls_behind

HALF_WAY = [[(0.5, value), (1.0, 1.0)] for value in (0.6, 0.7, 0.8, 0.9)]


@pytest.mark.parametrize(("value", "behind"), [(0.5, True), (0.69, True), (0.71, False), (0.95, False)])
def test_a_trial_below_the_lowest_third_falls_behind(value: float, behind: bool) -> None:
    assert falls_behind([(0.5, value)], HALF_WAY) is behind


def test_nothing_is_pruned_with_fewer_than_four_to_compare_with() -> None:
    assert not falls_behind([(0.5, 0.0)], HALF_WAY[:3])
    assert not falls_behind([(0.5, 0.0)], [*HALF_WAY[:3], [(0.75, 0.9)], [(1.0, 0.9)], []])


def test_nothing_is_pruned_before_a_third_of_the_budget() -> None:
    others = [[(0.25, value), (1.0, 1.0)] for value in (0.6, 0.7, 0.8, 0.9)]
    assert not falls_behind([(0.25, 0.0)], others)
    assert falls_behind([(0.25, 0.0), (0.5, 0.0)], others)
    assert not falls_behind([], others)


def test_cycles_of_other_lengths_are_compared_at_the_same_share_of_the_budget() -> None:
    thirds = [[(1 / 3, value), (2 / 3, value + 0.2)] for value in (0.5, 0.6, 0.7, 0.8)]
    assert falls_behind([(0.5, 0.65)], thirds), "half-way between 0.6 and 0.8 lies the lowest third"
    assert not falls_behind([(0.5, 0.75)], thirds)


def test_equal_schedules_are_pruned_equally_often_whatever_their_number_of_cycles() -> None:
    """A made-up training whose cycle ends lie on one curve, but for noise, and which is far worse within a cycle."""
    rng = np.random.default_rng(0)

    def ends(cycles: int) -> list[tuple[float, float]]:
        shares = np.arange(1, cycles + 1) / cycles
        return [(share, 1 - 0.1 / share + rng.normal(0, 0.01)) for share in shares]

    pruned = dict.fromkeys((1, 2, 4), 0)
    for _ in range(300):
        others = [ends(cycles) for cycles in (1, 2, 2, 2, 4, 4, 4)]
        for cycles in pruned:
            pruned[cycles] += falls_behind(ends(cycles)[: cycles // 2], others)
    assert pruned[1] == 0
    assert 60 < pruned[2] < 160
    assert abs(pruned[2] - pruned[4]) < 40
