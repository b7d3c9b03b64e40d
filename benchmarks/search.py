"""What a search is worth per training step: range test and search beside plain Optuna, at equal steps.

    python -m benchmarks.search                               # the four short tasks

Four methods, each on three search seeds:

- ``clr_search``: one range test, then the search's own trials.
- ``clr_recommended``: what the product recommends at a total cost of 6 trainings.
- ``optuna_fixed``: Optuna's TPE over one fixed rate, log-uniform from 1e-5 to 1; 12 whole trainings.
- ``optuna_clr``: TPE over base_lr, max_lr (both log-uniform from 1e-5 to 1) and step_size (from a twentieth of the
  training to half of it) of CyclicLR, MedianPruner on ten metrics a trial; as many trials as 12 trainings pay for.

What a method would recommend after so many trainings is trained on three fresh seeds. Its gap is in per cent of
(reference - constant predictor), the reference being the best of benchmarks.quality's grid; the standard error is that
of the difference of the two means.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, stdev
from typing import Any

from benchmarks.cases import CASES, Case, Place
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.quality import TRAINING_SEEDS, reference
from benchmarks.table import markdown
from clr.run import Run, fresh_seeds
from clr.training.task import Task

SEEDS = (101, 102, 103)

COSTS = (1, 2, 4, 6, 12)
"""Trainings after which a method is asked what it recommends; the range test's are counted."""

LOWEST, HIGHEST = 1e-5, 1.0

POINTS = 10
"""Metrics that the naive search's pruner sees of a trial."""

Step = dict[str, Any]
"""Cost so far in trainings, and the schedule recommended by then: arguments of ``scored``."""


def clr_search(place: Place, name: str, seed: int) -> list[Step]:
    """Range test, then trial after trial."""
    import clr

    case, task = CASES[name], CASES[name].load(place)
    epochs = case.length.epochs
    tested = clr.range_test(task, epochs=epochs, seed=seed)
    first = tested.bounds.candidate(case.length)
    if first is None:
        return []
    steps = [_step(tested.cost_steps / case.length.steps, first)]
    found = clr.search(task, tested.bounds, epochs=epochs, trials=max(COSTS) - 1, seed=seed)
    sign = 1 if task.score[1] == "maximize" else -1
    for number in range(1, len(found.trials) + 1):
        known = [(value, candidate) for candidate, value in found.trials[:number] if value is not None]
        best = max(known, key=lambda one: sign * one[0])[1] if known else first
        steps.append(_step(steps[0]["cost"] + number, best))
    return steps


def clr_recommended(place: Place, name: str, seed: int) -> list[Step]:
    """The product as it is called: range test, and a race of its answer within six trainings."""
    import clr

    case, task = CASES[name], CASES[name].load(place)
    found = clr.recommend(task, epochs=case.length.epochs, budget=6, seed=seed, progress=False)
    if found.max_lr is None or found.cost is None:
        return []
    return [_step(found.cost.relative_to_one_training, found)]


def _step(cost: float, candidate: Any) -> Step:
    halves = [candidate.step_size_up, candidate.step_size_down]
    return {"cost": cost, "run": [candidate.policy, candidate.base_lr, candidate.max_lr, *halves]}


def optuna_fixed(place: Place, name: str, seed: int) -> list[Step]:
    """TPE over a fixed rate."""

    def suggest(trial: Any) -> list[Any]:
        lr = trial.suggest_float("lr", LOWEST, HIGHEST, log=True)
        return ["fixed", lr, lr, CASES[name].length.steps, None]

    return _plain(CASES[name], CASES[name].load(place), seed, suggest, pruned=False)


def optuna_clr(place: Place, name: str, seed: int) -> list[Step]:
    """TPE over CyclicLR's arguments, with the pruner that everyone uses."""
    steps = CASES[name].length.steps

    def suggest(trial: Any) -> list[Any]:
        low = trial.suggest_float("base_lr", LOWEST, HIGHEST, log=True)
        high = trial.suggest_float("max_lr", LOWEST, HIGHEST, log=True)
        stepsize = trial.suggest_int("step_size", max(1, steps // 20), steps // 2, log=True)
        return ["triangular", min(low, high), max(low, high), stepsize, None]

    return _plain(CASES[name], CASES[name].load(place), seed, suggest, pruned=True)


def _plain(case: Case, task: Task, seed: int, suggest: Callable[[Any], list[Any]], pruned: bool) -> list[Step]:
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


def _train(case: Case, task: Task, schedule: list[Any], seed: int, trial: Any) -> tuple[float | None, int]:
    """Last metric and steps taken; None where the trial was pruned."""
    from clr.training.loop import train

    taken, value = 0, case.floor
    for point in train(task, _run(case, schedule, seed, points=1 if trial is None else POINTS)):
        taken = point.step
        value = case.floor if point.metric is None else max(case.floor, point.metric)
        if trial is not None:
            trial.report(value, point.step)
            if point.step < case.length.steps and trial.should_prune():
                return None, taken
    return value, taken


def _run(case: Case, schedule: list[Any], seed: int, points: int = 1) -> Run:
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
    return _train(case, case.load(place), [policy, base_lr, max_lr, up, down], seed, None)[0] or case.floor


METHODS = {method.__name__: method for method in (clr_search, clr_recommended, optuna_fixed, optuna_clr)}


def at(steps: Sequence[Step], cost: float) -> Step | None:
    """What was recommended last within a cost; a test that took a step too many still counts as one training."""
    within = [step for step in steps if step["cost"] <= cost + 0.05]
    return within[-1] if within else None


def evaluated(farm: Farm, case: Case, method: str, best: Sequence[float]) -> list[dict[str, Any] | None]:
    """For each of ``COSTS``: the gap to the reference in per cent, its standard error, and the worst search seed."""
    searches = [farm.start(METHODS[method], case.name, seed) for seed in SEEDS]
    paths = [search.result() for search in searches]
    chosen = [[at(path, cost) for path in paths] for cost in COSTS]
    started = {
        tuple(step["run"]): [farm.start(scored, case.name, *step["run"], seed) for seed in TRAINING_SEEDS]
        for row in chosen
        for step in row
        if step is not None
    }
    scores = {run: [future.result() for future in futures] for run, futures in started.items()}
    return [
        None if None in row else gap(case, best, [scores[tuple(step["run"])] for step in row if step is not None])
        for row in chosen
    ]


def gap(case: Case, best: Sequence[float], rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """By how much trainings, one row per search, end below the reference."""
    scale = 100 / (fmean(best) - case.floor)
    each = [scale * (fmean(best) - fmean(row)) for row in rows]
    runs = [score for row in rows for score in row]
    error = scale * math.hypot(stdev(best) / len(best) ** 0.5, stdev(runs) / len(runs) ** 0.5)
    return {"mean": fmean(each), "error": error, "worst": max(each)}


def cell(one: dict[str, Any] | None) -> str:
    """Mean, standard error and worst search."""
    return "" if one is None else f"{one['mean']:.1f} ± {one['error']:.1f} ({one['worst']:.1f})"


def measure(farm: Farm, names: Sequence[str]) -> str:
    """Every task with every method; the table."""
    with ThreadPoolExecutor(len(names) * (1 + len(METHODS))) as threads:
        best = {name: threads.submit(reference, farm, CASES[name]) for name in names}
        # the searches need not wait for the reference: they are started, and found again, by name
        for name in names:
            for search in METHODS.values():
                for seed in SEEDS:
                    farm.start(search, name, seed)
        try:
            references = {name: future.result()["scores"] for name, future in best.items()}
            found = {
                (name, method): threads.submit(evaluated, farm, CASES[name], method, references[name])
                for name in names
                for method in METHODS
            }
            rows = {key: future.result() for key, future in found.items()}
        except BaseException:
            farm.stop()
            raise
    for (name, method), row in rows.items():
        farm.note(f"search of {name} by {method}", dict(zip(map(str, COSTS), row, strict=True)))
    head = ["task", "method", *(f"gap % at cost {cost}" for cost in COSTS)]
    return markdown(head, [[name, method, *map(cell, row)] for (name, method), row in rows.items()])


def main() -> None:
    """Measure the tasks named on the command line."""
    parser = Command(__doc__)
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        print(measure(farm, chosen.tasks))


if __name__ == "__main__":
    main()
