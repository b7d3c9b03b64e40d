"""benchmarks.tables, on a small table that is made here."""

import math
from pathlib import Path

import pytest

from benchmarks.tables import Columns, best_rate, exponent, read, regret, report


def table(folder: Path, exponent: float, batch_exponent: float = 0.0, batches: tuple[int, ...] = (64,)) -> Path:
    """Trainings whose best rate is known: 0.01 at 1,000 steps and batch 64, times length ** -exponent."""
    lines = ["model,lr,steps,batch,loss"]
    for steps in (500, 1000, 4000):
        for batch in batches:
            best = 0.01 * (steps / 1000) ** -exponent * (batch / 64) ** batch_exponent
            for k in range(-6, 7):
                lr = 0.01 * 2**k
                lines.append(f"small,{lr},{steps},{batch},{2 + 0.1 * math.log(lr / best) ** 2}")
    lines.append("small,9,4000,64,nan")
    path = folder / "made.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_exponents_of_length_and_batch_are_found(tmp_path: Path) -> None:
    settings = read(table(tmp_path, 0.3, 0.5, (64, 256)), Columns(by=("model",)))
    assert len(settings) == 6
    lengths = {one.length: best_rate(scores) or 0 for one, scores in settings.items() if one.batch == 64}
    assert exponent(lengths)[0] == pytest.approx(-0.3)
    text = report(tmp_path, Columns(by=("model",)))
    assert "| small 64 | 3 of 3 | +0.30 ± 0.00 |" in text
    assert "| small 500 | 2 | +0.50 |" in text


def test_our_rule_is_right_where_the_exponent_is_as_believed_and_two_lengths_correct_it_where_not(
    tmp_path: Path,
) -> None:
    def regrets(exponent: float) -> list[float]:
        table(tmp_path, exponent)
        cells = report(tmp_path, Columns()).splitlines()[-1].split("|")[4:7]
        return [float(cell.split()[0]) for cell in cells]

    no_shift, one, _ = regrets(0.2)
    assert no_shift > one < 0.25, "of a grid, whose rates are a factor of two apart"
    no_shift, one, two = regrets(0.8)
    assert no_shift > one > two


def test_a_best_rate_on_the_grids_edge_tells_nothing() -> None:
    assert best_rate({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}) is None
    assert best_rate({0.1: 1.0, 0.2: 2.0, 0.4: 1.0}) == pytest.approx(math.log(0.2))


def test_a_regret_is_of_the_range_above_a_constant_predictor_where_that_is_given() -> None:
    scores = {0.1: -3.0, 0.4: -2.0}
    assert regret(scores, math.log(0.2), None) == pytest.approx(25)
    assert regret(scores, math.log(0.2), -4.0) == pytest.approx(25)
    assert regret(scores, math.log(0.2), -2.5) == pytest.approx(100)
    assert regret(scores, math.log(8), None) == 0, "beyond the grid as at its edge"


def test_what_a_table_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold CSV files"):
        report(tmp_path, Columns())
    path = table(tmp_path, 0.2)
    with pytest.raises(ValueError, match=r"made.csv must have the columns D, but has model, lr, steps, batch, loss"):
        read(path, Columns(length="D"))
    path.write_text("lr,steps,loss\n0.1,many,1\n")
    with pytest.raises(ValueError, match="line 2: could not convert string to float: 'many'"):
        read(path, Columns())
