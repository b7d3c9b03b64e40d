"""A session carried out one run after the other, whatever trains them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clr.errors import ProgramDied
from clr.run import Point
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.tuning.orders import Order, Training
from clr.tuning.saved_runs import SavedRuns
from clr.tuning.sequential import carry_out
from clr.tuning.session import Session
from tests.clr.simulated import bowl

TRAINING = Training(TrainingLength(20, 50), "loss", "minimize")
simulate = bowl()


def session(max_steps: int | None) -> Session:
    return Session(JobSpec(task="mine", limits={"max_steps": max_steps}), TRAINING)


def train(order: Order, attempt: int) -> Iterator[Point]:
    """A point each tenth; the first attempt dies before its end."""
    curve = simulate(order.run)
    steps = len(curve.loss)
    ends = sorted({max(1, steps * tenth // 10) for tenth in range(1, 11)})
    for first, end in zip([0, *ends], ends, strict=False):
        if end == steps and attempt == 1:
            raise ProgramDied("out of luck")
        yield Point(end, curve.lr[first:end], curve.loss[first:end], None, curve.diverged and end == steps)


def test_max_steps_counts_what_is_trained_anew_and_ends_the_session_in_mid_run(tmp_path: Path) -> None:
    limit = 3000
    limited = carry_out(session(limit), train, save=tmp_path / "saved.db")
    assert limited.reached == f"limits.max_steps = {limit}"
    assert limited.under_way == []
    assert limit < limited.steps_so_far <= limit + 100, "it passes by a point of a run at most"
    found = limited.recommendation
    assert found is not None
    assert f"limits.max_steps = {limit} was reached" in " ".join(found.warnings + found.reasons)


def test_a_run_that_a_limit_broke_off_is_trained_anew_under_a_wider_one(tmp_path: Path) -> None:
    save, whole = tmp_path / "saved.db", carry_out(session(None), train)
    carry_out(session(3000), train, save=save)
    again = carry_out(session(None), train, save=save)
    expected, found = whole.recommendation, again.recommendation
    assert expected is not None
    assert found is not None
    assert (found.max_lr, found.reasons) == (expected.max_lr, expected.reasons)


@pytest.mark.parametrize("broken_by", [KeyboardInterrupt, ProgramDied])
def test_what_attempts_took_that_were_lost_counts_when_a_session_goes_on(
    tmp_path: Path, broken_by: type[BaseException]
) -> None:
    save, whole = tmp_path / "saved.db", carry_out(session(None), train)
    runs = 0

    def interrupted(order: Order, attempt: int) -> Iterator[Point]:
        nonlocal runs
        runs += attempt == 1
        for number, point in enumerate(train(order, attempt)):
            if runs == 3 and number == 5 and (attempt == 2 or broken_by is ProgramDied):
                raise broken_by("out of luck")
            yield point

    with pytest.raises(broken_by):
        carry_out(first := session(None), interrupted, save=save)
    again = session(None)
    again.restore(SavedRuns(save, again).read())
    again.next()
    assert again.steps_so_far == first.steps_so_far
    finished = carry_out(session(None), train, save=save)
    spent = whole.steps_so_far + (first.broken_off[0].repeated + first.broken_off[0].steps)
    assert finished.steps_so_far > whole.steps_so_far
    assert finished.recommendation is not None
    assert whole.recommendation is not None
    assert finished.recommendation.max_lr == whole.recommendation.max_lr
    assert finished.steps_so_far <= spent
