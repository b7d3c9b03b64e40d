"""Our range test beside the paper's reading: CIFAR-10, Caffe's network, batch 100; base_lr 0.001 and max_lr 0.006.

    python -m benchmarks.paper --device cuda --out paper.json
    python -m benchmarks.paper --out paper.json --picture paper.svg     # draws what was measured, here or elsewhere

A bound agrees when what the paper read by eye (Smith, arXiv 1506.01186, section 4.1.1) lies in its recommended
interval.
"""

from pathlib import Path
from typing import Any

import clr
from benchmarks.cases import CASES, Place, of_steps
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from clr.tuning.recommendation import Recommendation

PAPER = {"base_lr": 0.001, "max_lr": 0.006}


def test(place: Place, epochs: float, seed: int) -> dict[str, Any]:
    """The recommendation of one range test for a training of that length, and what its picture is drawn from."""
    case = CASES["cifar_long"]
    task = case.load(place)
    length = of_steps(round(epochs * case.length.iterations_per_epoch), case.length.iterations_per_epoch)
    tested = clr.range_test(task, epochs=epochs, seed=seed)
    candidate = tested.bounds.candidate(length)
    found = Recommendation.of("range_test", tested.bounds, candidate, length.iterations_per_epoch)
    curves = [{"params": {"policy": run.policy}, "points": curve.rows()} for run, curve in tested.runs]
    return {
        "recommendation": found.to_dict(),
        "cost": tested.cost_steps / length.steps,
        "document": tested.to_dict() | {"curves": curves, "metric": "accuracy"},
    }


def line(seed: int, found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    one = found["recommendation"]
    cells = [str(seed)]
    for name, read in PAPER.items():
        if one[name] is None:
            cells += ["", "no answer"]
            continue
        low, high = one["interval"][name]
        verdict = "contains" if low <= read <= high else "misses"
        cells += [f"{one[name]:.3g} ({low:.2g} to {high:.2g})", f"{verdict} {read:g}"]
    return [*cells, one["confidence"], f"{found['cost']:.2f}"]


def draw(document: dict[str, Any], path: Path) -> None:
    """The range test's picture, as the service draws it; PNG or SVG, by the file's name."""
    from clr import charts

    if path.suffix == ".png":
        path.write_bytes(charts.range_test_png(document))
    else:
        path.write_text(charts.range_test_svg(document))


def main() -> None:
    """Measure, print, draw."""
    parser = Command(__doc__, tasks=False)
    parser.add_argument("--epochs", type=float, default=20, help="of the training to find bounds for")
    parser.add_argument("--seeds", type=int, default=3, help="range tests")
    parser.add_argument("--picture", type=Path, help="where to draw the first test: a .svg or .png")
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        started = [farm.start(test, chosen.epochs, seed) for seed in range(chosen.seeds)]
        found = [future.result() for future in started]
    head = ["seed", "base_lr (interval)", "the paper's", "max_lr (interval)", "the paper's", "confidence", "cost"]
    print(markdown(head, [line(seed, one) for seed, one in enumerate(found)]))
    if chosen.picture is not None:
        draw(found[0]["document"], chosen.picture)


if __name__ == "__main__":
    main()
