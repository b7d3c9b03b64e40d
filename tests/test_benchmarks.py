"""The pieces of the commands in benchmarks/, on a task of a second. Peers that are packages are not installed here."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clr
from benchmarks import api, paper, quality, scatter, step_cost
from benchmarks.cases import CASES, Case, of_steps
from benchmarks.farm import Farm
from benchmarks.peers import FASTAI_STEPS, fastai_record, minimum, slide, steep, valley
from benchmarks.tools import suggest, train
from service.store import jobs, recommendations
from service.store.database import Database

TINY = Case("tiny", lambda: clr.load_task("digits"), of_steps(90, 18), lowest=0.1, rates=2)
LR = np.geomspace(1e-6, 1, 85)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(CASES, "tiny", TINY)
    monkeypatch.setattr(quality, "RATES_KEPT", 1)
    monkeypatch.setattr(quality, "CYCLES", (1, 2))
    yield
    torch.set_num_threads(threads)


def test_a_case_has_the_steps_an_epoch_of_its_task() -> None:
    case = CASES["digits_mlp_sgdm"]
    assert case.load().iterations_per_epoch == case.length.iterations_per_epoch
    assert case.length.steps == 160


def test_quality_compares_tools_and_measures_nothing_again_that_its_file_holds(tmp_path: Path) -> None:
    out, tools = tmp_path / "results.json", ["clr", "fastai_minimum"]
    with Farm(out=out) as farm:
        text = quality.measure(farm, ["tiny"], tools)
        noted = farm.results["quality of tiny"]["result"]
    assert "| grid's best" in text
    for tool in tools:
        assert f"| {tool} |" in text
        assert noted["tools"][tool]["runs"] == 9
    assert noted["tools"]["clr"]["collapsed"] == 0
    assert 0.5 < noted["tools"]["clr"]["cost"] <= 1
    again = Farm(out=out)
    again.stop()
    assert quality.measure(again, ["tiny"], tools) == text
    with pytest.raises(RuntimeError, match="after shutdown"):
        again.start(train, "tiny", 0.123, 4.0, 2, 1)


def test_regret_is_the_share_of_what_the_reference_gains_over_a_constant_predictor() -> None:
    found = {"scores": [[0.9, 0.5], [0.1, 0.1]], "suggestions": [{"cost": 1.0}, {"cost": 0.5}], "errors": 1}
    summary = quality.summary(TINY, {"scores": [0.8, 1.0]}, found)
    assert summary["regret"] == pytest.approx((0 + 50 + 100 + 100) / 4)
    assert summary["worst"] == pytest.approx(100)
    assert (summary["collapsed"], summary["runs"], summary["errors"], summary["cost"]) == (2, 4, 1, 0.75)


def test_the_grid_grows_while_its_best_rate_lies_on_an_edge() -> None:
    class Peaked:
        """Scores a rate by its distance from 1.6."""

        def start(self, _call: Any, _name: str, rate: float, *_: Any) -> Any:
            return type("Done", (), {"result": lambda self: 1 - abs(rate - 1.6) / 10})()

    scores = quality.sweep(Peaked(), TINY, 4.0, 2, (0,))  # type: ignore[arg-type]
    assert sorted(rate for rate, _, _ in scores) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])


def test_trainings_in_processes_end_as_in_this_one_and_their_errors_arrive() -> None:
    arguments = ("digits_mlp_sgdm", 0.16, 10.0, 1, 1)
    with Farm(jobs=2) as farm, Farm() as here:
        assert farm.start(train, *arguments).result() == here.start(train, *arguments).result()
        with pytest.raises(KeyError, match="nothing"):
            farm.start(train, "nothing", 0.16, 10.0, 1, 1).result()


def test_a_peer_that_fails_is_recorded_as_having_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("U-shaped")

    monkeypatch.setitem(suggest.__globals__["PEERS"], "fastai_slide", broken)
    with Farm() as farm:
        assert farm.start(suggest, "tiny", "fastai_slide", 1).result() == {"error": "RuntimeError: U-shaped"}
        rows = quality.evaluated(farm, TINY, "fastai_slide")
    assert (rows["errors"], rows["suggestions"]) == (3, [])


def test_scatter_is_in_decades_of_both_bounds() -> None:
    suggestions = [{"max_lr": 0.01, "ratio": 10.0}, {"max_lr": 1.0, "ratio": 1000.0}, {"error": "none"}]
    found = scatter.scatter(suggestions)
    assert found["decades"] == {"max_lr": pytest.approx(1), "base_lr": pytest.approx(0)}
    assert (found["answers"], found["of"]) == (2, 3)


def test_the_papers_bounds_are_looked_for_in_the_recommended_intervals() -> None:
    recommendation = {
        "base_lr": 0.0008,
        "max_lr": 0.008,
        "interval": {"base_lr": [0.0006, 0.0011], "max_lr": [0.007, 0.009]},
        "confidence": "high",
    }
    cells = paper.line(0, {"recommendation": recommendation, "cost": 0.2})
    assert (cells[2], cells[4]) == ("contains 0.001", "misses 0.006")


def test_step_cost_times_every_loop_in_every_round() -> None:
    found = step_cost.times(None, "tiny", 8, 2, "bare", "clr")
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(
        ["bare", "clr", "bare, tensors", "clr, tensors", "clr, whole test, tensors"], 2
    )
    assert all(time > 0 for times in found.values() for steps in times for time in steps)
    assert "| bare | tiny |" in step_cost.table({"tiny": found})


def test_fastais_record_is_a_corrected_mean_cut_off_at_four_times_its_least() -> None:
    assert fastai_record([2.0] * FASTAI_STEPS) == pytest.approx([2.0] * FASTAI_STEPS)
    assert fastai_record([1.0, 2.0])[:2] == pytest.approx([1.0, (0.98 * 0.02 + 0.04) / (1 - 0.98**2)])
    assert len(fastai_record([1.0] * 10 + [100.0] * 90)) == 11  # the first lifts the mean to 10.9
    broken = fastai_record([1.0, float("nan")])
    assert len(broken) == FASTAI_STEPS
    assert np.isfinite(broken[0])
    assert np.isnan(broken[1:]).all()


def test_fastais_rules_read_a_drawn_curve_where_they_should() -> None:
    flat, fall, rise = np.full(20, 3.0), np.linspace(3, 1, 41)[1:], np.linspace(1, 6, 26)[1:]
    loss = np.concatenate([flat, fall, rise])
    lowest = 20 + 40 - 1
    assert minimum(LR, loss) == pytest.approx(LR[lowest] / 10)
    # the longest falling subsequence has one of the flat samples and all of the fall: 41, counted back from its end
    assert valley(LR, loss) == pytest.approx(LR[lowest - 41 + 13 + 6])
    cliff = loss.copy()
    cliff[40:] -= 1
    assert steep(LR, cliff) == pytest.approx(LR[39])
    # the gradient is even over the fall and over the rise: it differs as long as 15 samples reach across the bottom
    short = np.concatenate([flat, fall, rise[:8]])
    assert slide(LR[: len(short)], short) == pytest.approx(LR[lowest - 15])


def test_fastais_valley_of_a_rising_curve_is_its_first_rate() -> None:
    assert valley(LR, np.linspace(1, 2, len(LR))) == pytest.approx(LR[0])


@pytest.mark.parametrize("empty_database_url", ["sqlite", "postgresql"], indirect=True)
def test_the_api_is_measured_over_as_many_jobs_as_asked_for(empty_database_url: str) -> None:
    api.fill(empty_database_url, 20)
    with closing(Database(empty_database_url)) as database, database.read() as session:
        stored = [job.id for job in jobs.browse(session, state="succeeded", task="digits", limit=100)]
        assert stored == [api.job_id(number) for number in reversed(range(20))]
        assert all(recommendations.get(session, job_id) is not None for job_id in stored)
