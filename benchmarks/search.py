"""What a job's recommendation is worth by what the job costs, beside the job that it was before, and plain Optuna.

    python -m benchmarks.search                               # the four short tasks
    python -m benchmarks.search digits_mlp_sgdm letters_adamw # others

Each method on three search seeds:

- ``clr``: what ``clr.recommend`` says at the end of a job of so many trainings; a job of its own for each budget.
- ``clr_former``: a job that is given the numbers that were the defaults once: 20 trials, and three seeds for the best,
  the range test's own, and three baselines.
- ``optuna_fixed``: Optuna's TPE over one fixed rate, log-uniform from 1e-5 to 1; 12 whole trainings.
- ``optuna_clr``: TPE over base_lr, max_lr (both log-uniform from 1e-5 to 1) and step_size (from a twentieth of the
  training to half of it) of CyclicLR, MedianPruner on ten metrics a trial; as many trials as 12 trainings pay for.

What a method recommends is trained on five fresh seeds that neither the search nor the grid has seen, and so is the
best schedule of benchmarks.quality's grid, the reference. The gap is in per cent of (reference - constant predictor),
its standard error that of the difference of the two means; no answer counts as the constant predictor. Fragile is the
recommendation whose worst seed lies furthest below its mean, in the same per cent.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, stdev
from typing import Any

from benchmarks.cases import CASES, Case, Place
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.quality import reference
from benchmarks.table import markdown
from clr.run import Run, fresh_seeds
from clr.training.task import Task

SEEDS = (101, 102, 103)

FRESH_SEEDS = (11, 12, 13, 14, 15)

COSTS = (1, 2, 4, 6, 12)
"""Trainings after which a method is asked what it recommends; the range test's are counted."""

FORMER = {"trials": 20, "seeds": 3, "baselines": ["fixed", "one_cycle", "cosine"]}

LOWEST, HIGHEST = 1e-5, 1.0

POINTS = 10
"""Metrics that the naive search's pruner sees of a trial."""

Schedule = list[Any]
"""Policy, base_lr, max_lr, and the steps of both halves."""

Step = dict[str, Any]
"""``cost`` so far in trainings, and the schedule recommended by then as ``run``; None where there is none."""


def clr_job(place: Place, name: str, budget: int, seed: int) -> Step:
    """A whole job of so many trainings; 0: the former defaults."""
    import clr

    case, task = CASES[name], CASES[name].load(place)
    asked: dict[str, Any] = {"budget": budget} if budget else FORMER
    found = clr.recommend(task, epochs=case.length.epochs, seed=seed, progress=False, **asked)
    assert found.cost is not None
    halves = [found.step_size_up, found.step_size_down]
    run = None if found.max_lr is None else [found.policy, found.base_lr, found.max_lr, *halves]
    return {"cost": found.cost.relative_to_one_training, "run": run, "reasons": found.reasons}


def optuna_fixed(place: Place, name: str, seed: int) -> list[Step]:
    """TPE over a fixed rate."""

    def suggest(trial: Any) -> Schedule:
        lr = trial.suggest_float("lr", LOWEST, HIGHEST, log=True)
        return ["fixed", lr, lr, CASES[name].length.steps, None]

    return _plain(CASES[name], CASES[name].load(place), seed, suggest, pruned=False)


def optuna_clr(place: Place, name: str, seed: int) -> list[Step]:
    """TPE over CyclicLR's arguments, with the pruner that everyone uses."""
    steps = CASES[name].length.steps

    def suggest(trial: Any) -> Schedule:
        low = trial.suggest_float("base_lr", LOWEST, HIGHEST, log=True)
        high = trial.suggest_float("max_lr", LOWEST, HIGHEST, log=True)
        stepsize = trial.suggest_int("step_size", max(1, steps // 20), steps // 2, log=True)
        return ["triangular", min(low, high), max(low, high), stepsize, None]

    return _plain(CASES[name], CASES[name].load(place), seed, suggest, pruned=True)


def _plain(case: Case, task: Task, seed: int, suggest: Callable[[Any], Schedule], pruned: bool) -> list[Step]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner() if pruned else optuna.pruners.NopPruner()
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    (trial_seed,) = fresh_seeds(seed, "search", 1)
    spent, steps, schedules = 0, [], {}
    while spent < max(COSTS) * case.length.steps:
        trial = study.ask()
        schedules[trial.number] = suggest(trial)
        value, taken = _train(case, task, schedules[trial.number], trial_seed, trial if pruned else None)
        study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.PRUNED)
        spent += taken
        if any(one.value is not None for one in study.trials):
            steps.append({"cost": spent / case.length.steps, "run": schedules[study.best_trial.number]})
    return steps


def _train(case: Case, task: Task, schedule: Schedule, seed: int, trial: Any) -> tuple[float | None, int]:
    """Last metric and steps taken; None where the trial was pruned."""
    from clr.training.loop import train

    sign = 1 if task.score[1] == "maximize" else -1
    taken, value = 0, case.floor
    for point in train(task, _run(case, schedule, seed, points=1 if trial is None else POINTS)):
        taken = point.step
        value = case.floor if point.metric is None else max(case.floor, sign * point.metric)
        if trial is not None:
            trial.report(value, point.step)
            if point.step < case.length.steps and trial.should_prune():
                return None, taken
    return value, taken


def _run(case: Case, schedule: Schedule, seed: int, points: int = 1) -> Run:
    policy, base_lr, max_lr, up, down = schedule
    steps = case.length.steps
    every = max(1, steps // points)
    return Run(
        policy=policy,
        base_lr=base_lr,
        max_lr=max_lr,
        step_size_up=up,
        step_size_down=down,
        steps=steps,
        seed=seed,
        evaluate_every=every,
    )


def scored(
    place: Place, name: str, policy: str, base_lr: float, max_lr: float, up: int, down: int | None, seed: int
) -> float:
    """Final metric of a training with that schedule; the constant predictor's when it diverged."""
    case = CASES[name]
    value, _ = _train(case, case.load(place), [policy, base_lr, max_lr, up, down], seed, None)
    return case.floor if value is None else value


Recommended = dict[tuple[str, int], list[Step | None]]
"""By method and cost (0: the former job): what each search recommended."""


def recommended(farm: Farm, name: str) -> Recommended:
    """What every method recommends, by what was paid; all started, then awaited."""
    jobs = {cost: [farm.start(clr_job, name, cost, seed) for seed in SEEDS] for cost in (*COSTS, 0)}
    plain = {one: [farm.start(one, name, seed) for seed in SEEDS] for one in (optuna_fixed, optuna_clr)}
    found: Recommended = {
        ("clr" if cost else "clr_former", cost): [job.result() for job in started] for cost, started in jobs.items()
    }
    for one, started in plain.items():
        paths = [search.result() for search in started]
        found |= {(one.__name__, cost): [at(path, cost) for path in paths] for cost in COSTS}
    return found


def at(steps: Sequence[Step], cost: float) -> Step | None:
    """What was recommended last within a cost; a test that took a step too many still counts as one training."""
    within = [step for step in steps if step["cost"] <= cost + 0.05]
    return within[-1] if within else None


def fresh_scores(farm: Farm, case: Case, schedules: Sequence[Schedule | None]) -> list[list[float]]:
    """Of each schedule, on the fresh seeds; the constant predictor's without a schedule."""
    started = [
        None if one is None else [farm.start(scored, case.name, *one, seed) for seed in FRESH_SEEDS]
        for one in schedules
    ]
    return [
        [case.floor] * len(FRESH_SEEDS) if futures is None else [future.result() for future in futures]
        for futures in started
    ]


def measured(farm: Farm, name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """One task: by method and cost, how far what it recommends ends below the grid's best, and how fragile it is."""
    case, found = CASES[name], recommended(farm, name)
    max_lr, ratio, cycles = reference(farm, case)["setting"]
    best = case.length.propose(max_lr, ratio, cycles)
    (top,) = fresh_scores(
        farm, case, [[best.policy, best.base_lr, best.max_lr, best.step_size_up, best.step_size_down]]
    )
    rows = {
        key: fresh_scores(farm, case, [None if step is None else step["run"] for step in steps])
        for key, steps in found.items()
    }
    figures = {key: gap(case, top, row) for key, row in rows.items()}
    figures["grid", 0] = gap(case, top, [top])
    for key, steps in found.items():
        spent = [step["cost"] for step in steps if step is not None]
        figures[key]["cost"] = fmean(spent) if spent else 0.0
    farm.note(f"search of {name}", {f"{method} {cost}": one for (method, cost), one in figures.items()})
    return figures


def gap(case: Case, best: Sequence[float], rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """By how much trainings, one row per search, end below the reference; and the worst seed below its row's mean."""
    scale = 100 / (fmean(best) - case.floor)
    each = [scale * (fmean(best) - fmean(row)) for row in rows]
    runs = [score for row in rows for score in row]
    error = scale * math.hypot(stdev(best) / len(best) ** 0.5, stdev(runs) / len(runs) ** 0.5)
    fragile = max(scale * (fmean(row) - min(row)) for row in rows)
    return {"mean": fmean(each), "error": error, "worst": max(each), "fragile": fragile}


def cell(one: dict[str, Any]) -> str:
    """Mean, standard error and worst search; then how fragile."""
    return f"{one['mean']:.1f} ± {one['error']:.1f} ({one['worst']:.1f}) {one['fragile']:.1f}"


def table(figures: dict[str, dict[tuple[str, int], dict[str, Any]]]) -> str:
    """All tasks, and the mean over them, by method and cost."""
    rows = []
    for method, cost in next(iter(figures.values())):
        of = [one[method, cost] for one in figures.values()]
        paid = cost or fmean(one.get("cost", 0.0) for one in of)
        mean, worst = fmean(one["mean"] for one in of), max(one["fragile"] for one in of)
        rows.append([method, f"{paid:.2g}", *map(cell, of), f"{mean:.2f}", f"{worst:.1f}"])
    return markdown(["method", "cost", *figures, "mean", "most fragile"], rows)


def measure(farm: Farm, names: Sequence[str]) -> str:
    """Every task with every method; the table."""
    with ThreadPoolExecutor(len(names)) as threads:
        started = {name: threads.submit(measured, farm, name) for name in names}
        try:
            return table({name: future.result() for name, future in started.items()})
        except BaseException:
            farm.stop()
            raise


def main() -> None:
    """Measure the tasks named on the command line."""
    parser = Command(__doc__)
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        print(measure(farm, chosen.tasks))


if __name__ == "__main__":
    main()
