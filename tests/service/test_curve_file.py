import math

import pytest

from clr.errors import InvalidArgument
from service import curve_file


def test_rows_of_one_seed_are_one_curve_in_their_order() -> None:
    (curve,) = curve_file.parse(["lr,loss\n", "0.1,2.5\n", "0.2,1e3\n"])
    assert (curve.lr, curve.loss) == ([0.1, 0.2], [2.5, 1000.0])
    assert all(map(math.isnan, curve.metric))


def test_rows_are_sorted_to_their_seeds_whatever_the_order_of_columns() -> None:
    first, second = curve_file.parse(["seed,loss,lr,metric", "7,1,.1,", "3,2,.2,.5", "7,nan,.3,.6"])
    assert (first.lr, second.lr) == ([0.1, 0.3], [0.2])
    assert math.isnan(first.loss[1])
    assert math.isnan(first.metric[0])
    assert (first.metric[1], second.metric) == (0.6, [0.5])


def test_a_metric_that_was_never_measured_is_left_out() -> None:
    rows = ["lr,loss,metric", "0.1,2,", "0.2,1,"]
    assert curve_file.arguments(curve_file.parse(rows)) == {"lr": [0.1, 0.2], "loss": [2.0, 1.0]}


def test_several_seeds_are_given_as_lists_of_one_each() -> None:
    rows = ["lr,loss,metric,seed", "0.1,2,.5,0", "0.1,3,.6,1"]
    assert curve_file.arguments(curve_file.parse(rows)) == {
        "lr": [[0.1], [0.1]],
        "loss": [[2.0], [3.0]],
        "metric": [[0.5], [0.6]],
    }


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "as its first line"),
        (["0.1,2"], "'0.1,2'"),
        (["lr,accuracy", "1,2"], "'lr,accuracy'"),
        (["lr,loss"], "at least one row"),
        (["lr,loss", "0.1,2", "low,2"], "also in line 3, but got 'low'"),
        (["lr,loss", "-1,2"], "also in line 2, but got '-1'"),
        (["lr,loss", ",2"], "also in line 2, but got ''"),
        (["lr,loss", "0.1,2,3"], "line 2"),
    ],
)
def test_a_file_that_is_no_curve_is_an_error_that_says_where(rows: list[str], told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        curve_file.parse(rows)
    assert told in str(caught.value)
