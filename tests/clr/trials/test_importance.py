import random
from typing import Any

import pytest

from clr.trials.importance import importances


def trials(count: int = 60, **fixed: Any) -> list[dict[str, Any]]:
    """The value depends on max_lr, a little on the policy, and on nothing else."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        max_lr, policy = 10 ** draw.uniform(-3, 0), draw.choice(["triangular", "hann"])
        value = -(max_lr**0.5) - (0.02 if policy == "hann" else 0.0)
        drawn = {"max_lr": max_lr, "ratio": draw.uniform(2, 20), "policy": policy, "rise": 0.3}
        found.append({"number": number, **drawn, "value": value, **fixed})
    return found


def test_what_the_values_depend_on_has_the_largest_share() -> None:
    shares = importances(trials(), "maximize")
    assert next(iter(shares)) == "max_lr"
    assert shares["max_lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() == {"max_lr", "ratio", "policy"}, "all had the same rise"
    assert shares == importances(trials(), "maximize"), "the same trials, the same answer"


def test_baselines_which_have_no_ratio_and_diverged_trials_are_left_out() -> None:
    others = [{"number": 60, "max_lr": 0.1, "policy": "fixed", "value": 9.0}, trials(1)[0] | {"value": None}]
    assert importances(trials() + others, "maximize") == importances(trials(), "maximize")


@pytest.mark.parametrize(
    "given", [[], trials(3), trials(9, value=0.5), trials(9, max_lr=1.0, ratio=2.0, policy="hann")]
)
def test_of_too_few_or_too_like_trials_nothing_is_told(given: list[dict[str, Any]]) -> None:
    given = [trial | {"value": 0.5} if trial["max_lr"] == 1.0 else trial for trial in given]
    assert importances(given, "maximize") == {}
