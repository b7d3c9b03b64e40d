import pytest

from service.pages.scatter import scatter


def trial(number: int, max_lr: float | None, value: float | None, **more: object) -> dict[str, object]:
    return {"number": number, "max_lr": max_lr, "value": value, **more}


def test_dots_lie_within_the_picture_by_the_logarithm_of_the_rate() -> None:
    found = scatter([trial(0, 0.001, 0.5), trial(1, 0.01, 0.9), trial(2, 0.1, 0.7)], "maximize", "accuracy")
    assert found is not None
    by_number = {dot.told.split(":")[0]: dot for dot in found.dots}
    xs = [by_number[f"trial {number}"].x for number in range(3)]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert all(0 < dot.x < 100 and 0 <= dot.y <= 100 for dot in found.dots)
    assert (found.dots[-1].kind, found.dots[-1].told) == ("best", "trial 1: accuracy 0.9; max_lr 0.01")
    assert [label for _, label in found.rates] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]


def test_the_best_is_the_smallest_where_that_is_better() -> None:
    found = scatter([trial(0, 0.1, 0.5), trial(1, 0.2, 0.9, baseline="fixed")], "minimize", "loss")
    assert found is not None
    assert [dot.kind for dot in found.dots] == ["baseline", "best"]
    assert found.dots[1].y > found.dots[0].y


def test_one_failure_does_not_flatten_all_others() -> None:
    found = scatter(
        [trial(n, 0.1 * (n + 1), 0.9 + n / 1000) for n in range(20)] + [trial(20, 3.0, 0.0)], None, "accuracy"
    )
    assert found is not None
    assert max(dot.y for dot in found.dots[:20]) - min(dot.y for dot in found.dots[:20]) > 50


@pytest.mark.parametrize("trials", [[], [trial(0, 0.1, None)], [trial(0, None, 0.5)]])
def test_where_nothing_was_scored_there_is_nothing_to_draw(trials: list[dict[str, object]]) -> None:
    assert scatter(trials, "maximize", "accuracy") is None


@pytest.mark.parametrize("rate", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("value", [0.0, -5.0, 1e-30, 1e30])
def test_trials_that_are_all_alike_have_axes_too(rate: float, value: float) -> None:
    found = scatter([trial(0, rate, value), trial(1, rate, value)], "maximize", "accuracy")
    assert found is not None
    assert found.dots[0].x == found.dots[1].x
    assert found.values
