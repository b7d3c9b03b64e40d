from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clr.run import Curve, Direction, Run, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import ConfirmSpec
from clr.tasks import load_task
from clr.training.loop import curve_of
from clr.trials.confirmation import Confirmation, confirm_plan, confirm_steps

BUDGET = TrainingLength(20, 100)
OURS = BUDGET.propose(0.1, 4, 2)
OTHER = BUDGET.propose(0.2, 10, 1, "welch")
SEEDS = fresh_seeds(0, "confirm", 3)


def curve(value: float | None) -> Curve:
    return Curve(diverged=True) if value is None else Curve(loss=[1.0], steps=[1], metric=[value])


def drive(
    answer: Callable[[Run], float | None],
    spec: ConfirmSpec | None = None,
    finalists: list[Candidate] | None = None,
    direction: Direction = "maximize",
) -> tuple[Confirmation, list[list[Run]]]:
    """What the plan finds when each run ends at ``answer(run)``, and the batches of runs it asked for."""
    plan = confirm_plan(finalists or [OURS], spec or ConfirmSpec(), BUDGET, 0, direction)
    batches = [next(plan)]
    while True:
        try:
            batches.append(plan.send([curve(answer(run)) for run in batches[-1]]))
        except StopIteration as stop:
            return stop.value, batches


def noise(run: Run) -> float:
    """A little, different for each seed and each policy."""
    return 0.001 * ((SEEDS.index(run.seed) if run.seed in SEEDS else 0) - 1) * len(run.policy)


def by_policy(**values: float | None) -> Callable[[Run], float | None]:
    def answer(run: Run) -> float | None:
        value = values[run.policy]
        return None if value is None else value + noise(run)

    return answer


def test_each_baseline_is_run_at_its_own_best_rate() -> None:
    favourite = {"fixed": 0.025, "one_cycle": 0.1, "cosine": 0.05}

    def answer(run: Run) -> float:
        return 0.9 - abs(run.max_lr - favourite[run.policy]) if run.policy in favourite else 0.9

    confirmed, (probes, runs) = drive(answer)
    assert [(run.policy, run.max_lr) for run in probes] == [
        (name, 0.1 * share) for name in favourite for share in (1, 0.5, 0.25)
    ]
    assert len({run.seed for run in probes}) == 1
    assert {(run.policy, run.max_lr) for run in runs if run.policy in favourite} == set(favourite.items())
    assert {run["name"]: run.get("lr") for run in confirmed.runs} == {"recommended": None} | favourite


def test_a_rate_at_which_a_baseline_diverged_is_not_its_best() -> None:
    def answer(run: Run) -> float | None:
        return None if run.policy == "fixed" and run.max_lr > 0.03 else -5.0

    _, (_, runs) = drive(answer)
    assert {run.max_lr for run in runs if run.policy == "fixed"} == {0.025}


def test_all_runs_take_the_same_number_of_steps() -> None:
    _, (probes, runs) = drive(by_policy(triangular=0.9, fixed=0.9, one_cycle=0.9, cosine=0.9))
    assert {run.steps for run in probes + runs} == {2000}


def test_baselines_are_the_textbooks() -> None:
    _, (probes, _) = drive(by_policy(triangular=0.9, fixed=0.9, one_cycle=0.9, cosine=0.9))
    by_name = {run.policy: run for run in probes if run.max_lr == 0.1}
    lows = {name: run.base_lr for name, run in by_name.items()}
    assert lows == {"fixed": 0.1, "one_cycle": 0.1 / 25, "cosine": 0.0}
    assert {2 * run.step_size_up for run in probes} == {2000}


def test_seeds_are_fresh_and_the_same_for_all() -> None:
    _, (probes, runs) = drive(
        by_policy(triangular=0.9, welch=0.9, fixed=0.9, one_cycle=0.9, cosine=0.9), None, [OURS, OTHER]
    )
    earlier = {seed for stage in ("range_test", "search") for seed in fresh_seeds(0, stage, 20)}
    names = ("triangular", "welch", "fixed", "one_cycle", "cosine")
    assert [(run.policy, run.seed) for run in runs] == [(name, seed) for name in names for seed in SEEDS]
    assert not {run.seed for run in probes + runs} & earlier
    assert not {run.seed for run in probes} & set(SEEDS)


@pytest.mark.parametrize(("better", "winner"), [("triangular", OURS), ("welch", OTHER)])
def test_the_winner_is_the_finalist_with_the_best_mean(better: str, winner: Candidate) -> None:
    values = {"triangular": 0.9, "welch": 0.9, "fixed": 0.8, "one_cycle": 0.8, "cosine": 0.8} | {better: 0.92}
    confirmed, _ = drive(by_policy(**values), None, [OURS, OTHER])
    assert confirmed.winner == winner
    assert [run["name"] for run in confirmed.runs] == ["recommended", "fixed", "one_cycle", "cosine"]
    assert confirmed.runs[0]["mean"] == pytest.approx(0.92)


def test_a_finalist_with_the_best_single_run_and_a_worse_mean_does_not_win() -> None:
    values = {"triangular": [0.9, 0.9, 0.9], "welch": [0.99, 0.8, 0.8]}

    def answer(run: Run) -> float:
        return values[run.policy][SEEDS.index(run.seed)]

    assert drive(answer, ConfirmSpec(baselines=[]), [OTHER, OURS])[0].winner == OURS


def test_a_finalist_that_diverged_on_one_seed_does_not_win() -> None:
    def answer(run: Run) -> float | None:
        return {"triangular": 0.5, "welch": None if run.seed == SEEDS[2] else 0.9}[run.policy]

    confirmed, _ = drive(answer, ConfirmSpec(baselines=[]), [OTHER, OURS])
    assert confirmed.winner == OURS


def test_a_lead_larger_than_chance_is_a_lead_with_its_standard_error() -> None:
    confirmed, _ = drive(by_policy(triangular=0.95, fixed=0.9, one_cycle=0.94, cosine=0.95))
    # Differences to fixed on the three seeds: 0.05 less 5/1000, 0 and minus 5/1000.
    assert confirmed.verdict == "CLR ahead by 0.05 +- 0.0029"
    assert confirmed.warnings == []
    ours, fixed, *_ = confirmed.runs
    assert ours["values"] == pytest.approx([0.94, 0.95, 0.96])
    assert (ours["mean"], ours["std"]) == pytest.approx((0.95, 0.01))
    assert (fixed["name"], fixed["lr"], fixed["std"]) == ("fixed", 0.1, pytest.approx(0.005))


def test_a_lead_within_chance_is_no_difference() -> None:
    confirmed, _ = drive(by_policy(triangular=0.903, fixed=0.9, one_cycle=0.9, cosine=0.9))
    assert (confirmed.verdict, confirmed.warnings) == ("no difference", [])


def test_no_difference_at_all_is_no_difference() -> None:
    confirmed, _ = drive(lambda run: 0.9)
    assert (confirmed.verdict, confirmed.warnings) == ("no difference", [])


def test_a_fixed_rate_that_did_better_is_said_so() -> None:
    confirmed, _ = drive(by_policy(triangular=0.9, fixed=0.95, one_cycle=0.9, cosine=0.9))
    assert confirmed.verdict == "a fixed rate did better"
    assert confirmed.warnings == ["fixed at 0.1 did better by 0.05 +- 0.0029"]


def test_another_baseline_that_did_better_is_a_warning() -> None:
    confirmed, _ = drive(by_policy(triangular=0.9, fixed=0.8, one_cycle=0.95, cosine=0.9))
    assert confirmed.verdict.startswith("CLR ahead by 0.1 +- ")
    assert [warning.split(" did better by")[0] for warning in confirmed.warnings] == ["one_cycle at 0.1"]


def test_without_a_fixed_rate_the_best_baseline_is_compared_with() -> None:
    spec = ConfirmSpec(baselines=["one_cycle", "cosine"])
    confirmed, _ = drive(by_policy(triangular=0.9, one_cycle=0.8, cosine=0.95), spec)
    assert confirmed.verdict == "cosine did better"


def test_a_baseline_that_diverged_leaves_us_ahead() -> None:
    confirmed, _ = drive(by_policy(triangular=0.9, fixed=None, one_cycle=0.9, cosine=None))
    assert confirmed.verdict == "CLR ahead: fixed diverged"
    assert [(run["mean"], run["std"]) for run in confirmed.runs[1::2]] == [(None, None)] * 2


def test_a_recommended_schedule_that_diverged_is_said_so() -> None:
    confirmed, _ = drive(by_policy(triangular=None, fixed=0.9, one_cycle=0.9, cosine=0.9))
    assert confirmed.verdict == "the recommended schedule diverged"
    assert confirmed.warnings == ["a confirmation run of the recommended schedule diverged"]
    assert confirmed.winner == OURS
    assert confirmed.runs[0]["values"] == [None] * 3


def test_one_seed_shows_no_difference_however_large() -> None:
    confirmed, _ = drive(by_policy(triangular=0.9, fixed=0.1, one_cycle=0.1, cosine=0.1), ConfirmSpec(seeds=1))
    assert (confirmed.verdict, confirmed.warnings) == ("no difference", [])
    assert confirmed.runs[0]["std"] == 0.0


def test_without_baselines_there_is_nothing_to_compare_with() -> None:
    confirmed, (probes, runs) = drive(by_policy(triangular=0.9), ConfirmSpec(baselines=[]))
    assert (probes, len(runs)) == ([], 3)
    assert (confirmed.verdict, confirmed.warnings) == ("no baseline was run", [])


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.1, "CLR ahead by 0.2 +- 0.0029"), (0.3, "no difference"), (0.5, "a fixed rate did better")]
)
def test_a_loss_that_is_minimised_is_better_where_it_is_lower(ours: float, verdict: str) -> None:
    answer = by_policy(triangular=ours, welch=0.9, fixed=0.3, one_cycle=0.6, cosine=0.6)
    confirmed, _ = drive(answer, None, [OTHER, OURS], "minimize")
    assert (confirmed.winner, confirmed.verdict) == (OURS, verdict)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("baselines", [[], ["fixed"], ["fixed", "one_cycle", "cosine"]])
@pytest.mark.parametrize("length", [BUDGET, TrainingLength(1, 37), TrainingLength(3, 1)])
def test_the_predicted_steps_are_the_steps_asked_for(length: TrainingLength, baselines: Any, seeds: int) -> None:
    spec = ConfirmSpec(seeds=seeds, baselines=baselines)
    finalists = [length.propose(0.1, 4, 2), length.propose(0.2, 10, 1)]
    plan = confirm_plan(finalists, spec, length, 0, "maximize")
    probes = next(plan)
    runs = plan.send([curve(0.5)] * len(probes))
    assert sum(run.steps for run in probes + runs) == confirm_steps(finalists, spec, length)


def test_digits_are_confirmed_beside_a_fixed_rate() -> None:
    digits = replace(load_task("digits"), device="cpu")
    length = TrainingLength(3, digits.iterations_per_epoch)
    spec = ConfirmSpec(seeds=2, baselines=["fixed"])
    finalists = [length.propose(0.2, 10, 1)]
    plan = confirm_plan(finalists, spec, length, 0, "maximize")
    steps = 0
    runs = next(plan)
    try:
        while True:
            curves = [curve_of(digits, run) for run in runs]
            steps += sum(len(curve.loss) for curve in curves)
            runs = plan.send(curves)
    except StopIteration as stop:
        confirmed = stop.value
    assert steps == confirm_steps(finalists, spec, length)
    ours, fixed = confirmed.runs
    assert ours["mean"] > 0.9
    assert fixed["mean"] > 0.85
    assert fixed["lr"] in (0.2, 0.1, 0.05)
    assert confirmed.verdict
