import json
import math
import struct
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from clr.charts import importance_chart, look, parallel_chart, png, range_test_chart, schedule_chart, svg
from clr.charts.look import BOLD_CHARACTER, Size
from clr.charts.range_test import SHOWN
from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest
from clr.run import Curve, Run

Document = dict[str, Any]


def range_test_svg(document: Document) -> str:
    return svg(range_test_chart(document))


def range_test_png(document: Document) -> bytes:
    return png(range_test_chart(document))


def ramp(steps: int = 100, policy: str = "exponential_ramp", metric: bool = True) -> Document:
    """A loss that falls to its least at 0.03 and explodes beyond 0.3."""
    points = []
    for step in range(steps):
        lr = 10 ** (-4 + 5 * step / steps)
        loss = 2 - 1.5 * math.exp(-((math.log10(lr / 0.03)) ** 2))
        exploded = None if lr > 3 else 1e9 if lr > 0.3 else loss
        points.append({"lr": lr, "loss": exploded, "metric": 0.5 if metric and step % 10 == 9 else None})
    return {"params": {"policy": policy}, "points": points}


BOUNDS: Document = {
    "base_lr": 0.0034,
    "max_lr": 0.056,
    "interval": {"base_lr": [0.002, 0.005], "max_lr": [0.04, 0.07]},
    "confidence": "high",
    "reasons": ["the seeds agree"],
}
SMOOTHED = {"lr": [0.001, 0.01, 0.1, 1.0], "loss": [2.0, 0.8, 0.9, None]}
WHOLE: Document = {"curves": [ramp(), ramp()], "smoothed": SMOOTHED, "bounds": BOUNDS, "metric": "accuracy"}


def flat(lr: float, loss: float | None, steps: int = 1) -> Document:
    return {"params": {"policy": "linear_ramp"}, "points": [{"lr": lr, "loss": loss, "metric": None}] * steps}


POINTLIKE = {"base_lr": [0.0034, 0.0034], "max_lr": [0.056, 0.056]}
ODD: dict[str, Document] = {
    "nothing at all": {"curves": []},
    "a curve without points": {"curves": [flat(0.1, 1.0, steps=0)]},
    "a single point": {"curves": [ramp(1)], "bounds": BOUNDS},
    "null losses alone": {"curves": [flat(0.1, None)]},
    "a ramp from zero": {"curves": [flat(0.0, 1.0)]},
    "a constant loss": {"curves": [flat(0.1, 0.0, steps=2)]},
    "bounds alone": {"curves": [], "bounds": BOUNDS},
    "nulls for what is not there yet": {"curves": [ramp(20)], "bounds": None, "smoothed": None, "metric": None},
    "a proof beside the ramps": {"curves": [ramp(20), ramp(20, policy="triangular")], "bounds": BOUNDS},
    "equal ends of an interval": {"curves": [ramp(20)], "bounds": BOUNDS | {"interval": POINTLIKE}},
    "inconclusive": {"curves": [ramp(20)], "bounds": Bounds.inconclusive("all <noise> & no fall").to_dict()},
}


def texts(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_the_svg_names_the_bounds_and_what_is_drawn() -> None:
    drawn = texts(range_test_svg(WHOLE))
    for text in ("base_lr 0.0034", "max_lr 0.056", "(high)", "learning rate", "training loss", "validation accuracy"):
        assert text in drawn


def test_the_png_is_a_picture_of_twice_the_nominal_width() -> None:
    width, height = size(range_test_png(WHOLE))
    assert 2 * look().width < width < 3 * look().width
    assert 800 < height < 1600


@pytest.mark.parametrize("document", ODD.values(), ids=ODD.keys())
def test_whatever_there_is_can_be_drawn(document: Document) -> None:
    assert "LR range test" in texts(range_test_svg(document))
    assert min(size(range_test_png(document))) > 100


def test_an_inconclusive_test_says_so_and_marks_no_bounds() -> None:
    drawn = texts(range_test_svg(ODD["inconclusive"]))
    assert "inconclusive, all <noise> & no fall" in drawn
    assert "base_lr" not in drawn


def test_there_is_no_panel_for_a_metric_that_was_never_taken() -> None:
    bare = {"curves": [ramp(metric=False)]}
    assert "validation" not in texts(range_test_svg(bare))
    assert size(range_test_png(bare))[1] < size(range_test_png(WHOLE))[1]


def test_a_chart_holds_its_data_and_fetches_nothing() -> None:
    text = range_test_chart(WHOLE).to_json()
    assert '"url"' not in text
    assert "href" not in range_test_svg(WHOLE).replace('xlink:href="#', "")


def domains(document: Document, axis: str = "y") -> list[list[float]]:
    """The range of each panel's axis."""
    panels = json.loads(range_test_chart(document).to_json())["vconcat"]
    return [panel["layer"][-1]["encoding"][axis]["scale"]["domain"] for panel in panels]


def test_bounds_below_the_ramps_are_within_the_picture() -> None:
    interval = {"base_lr": [1e-9, 1e-8], "max_lr": [1e-8, 1e2]}
    bounds = WHOLE["bounds"] | {"base_lr": 1e-9, "max_lr": 1e-8, "interval": interval}
    for low, high in domains(WHOLE | {"bounds": bounds}, "x"):
        assert low < 1e-9
        assert high > 1e2


def test_a_divergence_does_not_squeeze_the_rest_of_the_curve() -> None:
    loss, metric = domains(WHOLE)
    assert 0 < loss[0] < 0.5
    assert 2 < loss[1] < 3
    assert metric[0] < 0.5 < metric[1]


def test_a_metric_that_rises_is_shown_to_its_top() -> None:
    curve = ramp()
    for step, point in enumerate(curve["points"]):
        point["metric"] = step / 100
    smoothed = SMOOTHED | {"metric": [0.1, 0.5, 0.9, 0.9]}
    _, metric = domains({"curves": [curve], "smoothed": smoothed})
    assert metric[1] > 0.99


def test_both_panels_share_their_rates() -> None:
    assert json.loads(range_test_chart(WHOLE).to_json())["resolve"] == {"scale": {"x": "shared"}}


def samples(chart: Any) -> Iterator[Document]:
    """Every sample of a seed's curve, wherever in the specification Altair has put it."""
    if isinstance(chart, dict) and "seed" in chart:
        yield chart
    elif isinstance(chart, dict | list):
        for part in chart.values() if isinstance(chart, dict) else chart:
            yield from samples(part)


def test_a_long_curve_is_thinned_and_runs_that_are_no_ramps_are_left_out() -> None:
    document = {"curves": [ramp(20_000, metric=False), ramp(50, policy="triangular")]}
    drawn = list(samples(json.loads(range_test_chart(document).to_json())))
    assert SHOWN <= len(drawn) < 2 * SHOWN
    assert {row["seed"] for row in drawn} == {"0"}


def test_a_range_test_draws_itself() -> None:
    run = Run(policy="exponential_ramp", base_lr=0.01, max_lr=1, step_size_up=3, steps=3, seed=0, evaluate_every=3)
    curve = Curve([0.01, 0.1, 1.0], [2.0, 1.0, math.inf], [3], [0.4], diverged=True)
    bounds = Bounds(0.01, 0.1, {"base_lr": (0.01, 0.02), "max_lr": (0.1, 0.2)}, "low")
    chart = RangeTest(bounds, [(run, curve)], {"lr": [0.01, 0.1], "loss": [2.0, 1.0]}).chart()
    assert "max_lr 0.1 (low)" in chart.to_json()


TRIALS: list[Document] = [
    {"number": 0, "max_lr": 0.1, "ratio": 4.0, "rise": 0.3, "stepsize_multiplier": 5.0, "value": 0.91},
    {"number": 1, "max_lr": 0.3, "ratio": 9.0, "rise": 0.3, "stepsize_multiplier": 2.5, "value": 0.95},
    {"number": 2, "max_lr": 0.2, "policy": "fixed", "baseline": "fixed", "value": 0.93},
    {"number": 3, "max_lr": 0.9, "ratio": 2.0, "rise": 0.3, "stepsize_multiplier": 5.0, "value": None},
]


def test_each_trial_is_a_line_through_the_parameters_that_differ() -> None:
    drawn = svg(parallel_chart(TRIALS, "accuracy", "maximize"))
    words = {text.text for text in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}
    assert {"max_lr", "ratio", "stepsize, epochs", "accuracy", "0.3", "9", "0.95"} <= words
    assert "rise" not in words, "all had the same"


@pytest.mark.parametrize("trials", [[], TRIALS[:1], TRIALS[3:], [TRIALS[2] | {"value": -3.0}] * 2])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_few_or_equal_trials_are_drawn_too(trials: list[Document], direction: str) -> None:
    assert svg(parallel_chart(trials, "loss", direction)).startswith("<svg")


def test_shares_are_bars_in_their_order_with_their_numbers() -> None:
    drawn = svg(importance_chart({"policy": 0.74, "max_lr": 0.26}, "accuracy"))
    words = [text.text for text in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert words.index("policy") < words.index("max_lr")
    assert {"74 %", "26 %"} <= set(words)


def test_the_rate_of_a_schedule_is_on_a_logarithmic_axis() -> None:
    bounds = {"base_lr": 0.001, "max_lr": 0.1, "policy": "triangular", "stepsize": 50, "iterations_per_epoch": 10}
    drawn = json.loads(schedule_chart({"recommended": bounds}, 10).to_json())
    assert drawn["encoding"]["y"]["scale"]["type"] == "log"


@pytest.mark.parametrize("wide", ["wide", "half", "narrow"])
def test_no_part_of_a_title_is_cut_off(wide: Size) -> None:
    paper = look("light", wide)
    document = WHOLE | {"bounds": WHOLE["bounds"] | {"base_lr": 0.000012345, "max_lr": 0.00012345}}
    title = range_test_chart(document, paper).to_dict()["title"]
    assert " ".join(title["text"]) == "LR range test: base_lr 1.23e-05, max_lr 0.000123 (high)"
    assert all(len(line) * BOLD_CHARACTER <= paper.width for line in title["text"])
