"""The method carried out in this process, one run after the other: ``clr.range_test``, ``search``, ``recommend``."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest, range_test_plan
from clr.run import Curve, Point, Run, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import RangeTestSpec, SearchSpec, checked
from clr.trials.baselines import USUAL_BASELINES
from clr.trials.confirmation import confirm_plan, confirm_steps
from clr.trials.study import Search, SearchResult, best, create_study
from clr.tuning.recommendation import Evidence, Recommendation, Source, SpentCost

if TYPE_CHECKING:
    from clr.training.task import Task

OWN = {"model", "optimizer", "train"}
"""What the caller's own task must be made of; a model may compute its loss itself."""


def range_test(
    task: "Task | None" = None,
    *,
    epochs: float = 20,
    seeds: int = 3,
    seed: int = 0,
    test: RangeTestSpec | None = None,
    **own: Any,
) -> RangeTest:
    """Run the LR range test on a task, or on a model, optimizer and loader of the caller's own.

    Args:
        task: what to train. None: made of ``own``, which is left bit for bit as it was, also by an exception (but for
            random generators and counters that a sampler, a dataset or a ``torch.Generator`` in the model keeps).
        epochs: length of the training to find bounds for, > 0; the whole test costs no more than that.
        seeds: most repetitions, >= 1.
        seed: what their seeds are made from.
        test: ends of the ramp and budget of the test itself; ``seeds`` of it count.
        own: ``model``, ``optimizer``, ``loss``, ``train``, ``val`` and further fields of ``clr.Task``.

    Returns:
        ``RangeTest``: ``.curves``, ``.bounds``, ``.cost_steps``, ``.chart()``, ``.to_csv(path)``.

    Raises:
        InvalidArgument: neither or both were given, or ``own`` lacks the model, optimizer or data.
    """
    from clr.training.borrowing import borrowed
    from clr.training.loop import execute

    if not (own.keys() >= OWN if task is None else not own):
        given = ["task"] * (task is not None) + sorted(own)
        raise InvalidArgument("task", "must be given, or else model=, optimizer= and train= of your own", given)
    spec = checked(RangeTestSpec, seeds=seeds) if test is None else test
    with ExitStack() as stack:
        task = _checked_task(task) if task is not None else stack.enter_context(borrowed(**own))
        length = TrainingLength(epochs, task.iterations_per_epoch)
        return execute(task, range_test_plan(length, spec, seed))


def _checked_task(task: Any) -> "Task":
    from clr.training.task import Task

    if not isinstance(task, Task):
        raise InvalidArgument("task", "must be a clr.Task, such as clr.load_task makes", task)
    return task


def search(
    task: "Task", bounds: Bounds, *, epochs: float = 20, trials: int = 20, seed: int = 0, **ranges: Any
) -> SearchResult:
    """Search the schedules around ``bounds`` that fill ``epochs``.

    Args:
        task: what to train.
        bounds: conclusive bounds of its range test.
        epochs: length of a trial, > 0.
        trials: how many, >= 1.
        seed: of the sampler; every trial trains on one and the same seed made from it.
        ranges: ``ratio``, ``stepsize_multiplier``, ``policies``, as in ``clr.spec.SearchSpec``.
    """
    _, direction, _ = _checked_task(task).score
    spec = checked(SearchSpec, trials=trials, **ranges)
    length = TrainingLength(epochs, task.iterations_per_epoch)
    study = create_study(None, None, direction, seed)
    asking = Search(study, spec, bounds, length)
    (trial_seed,) = fresh_seeds(seed, "search", 1)
    done: list[tuple[Candidate, float | None]] = []
    steps = 0
    for _ in range(spec.trials or trials):
        number, candidate = asking.ask()
        value, taken = _trial(task, candidate.run(trial_seed), partial(asking.should_prune, number))
        asking.tell(number, value)
        done.append((candidate, value))
        steps += taken
    return SearchResult(best(((value, candidate) for candidate, value in done), direction), done, steps, study)


def _trial(task: "Task", run: Run, prune: Callable[[list[tuple[int, float]]], bool]) -> tuple[float | None, int]:
    """Value and steps of a trial; the value is None when it diverged or was pruned."""
    from clr.training.loop import train

    points: list[Point] = []
    for point in train(task, run):
        points.append(point)
        ends = [(p.step, p.metric) for p in points if p.metric is not None]
        if ends and point.step < run.steps and prune(ends):
            return None, point.step
    return Curve.of(points).value, points[-1].step


def recommend(
    task: "Task", *, epochs: float = 20, trials: int = 20, seeds: int = 3, seed: int = 0, **ranges: Any
) -> Recommendation:
    """Range test, search and confirmation in this process, one run after the other.

    Args:
        task: what to train.
        epochs: length of the training to be recommended for, > 0.
        trials: of the search, >= 1.
        seeds: of the range test, and of the confirmation, >= 1.
        seed: everything random is made from it.
        ranges: of the search: ``ratio``, ``stepsize_multiplier``, ``policies``.
    """
    from clr.training.loop import execute

    began = time.monotonic()
    metric, direction, _ = _checked_task(task).score
    length = TrainingLength(epochs, task.iterations_per_epoch)
    tested = range_test(task, epochs=epochs, seeds=seeds, seed=seed)
    first = tested.bounds.candidate(length)

    def result(source: Source, candidate: Candidate | None, steps: int, **more: Any) -> Recommendation:
        cost = SpentCost.of(steps, time.monotonic() - began, length.steps)
        return Recommendation.of(source, tested.bounds, candidate, length.iterations_per_epoch, cost=cost, **more)

    if first is None:
        return result("range_test", None, tested.cost_steps)
    found = search(task, tested.bounds, epochs=epochs, trials=trials, seed=seed, **ranges)
    finalists = list(dict.fromkeys([found.best or first, first]))
    confirmed = execute(task, confirm_plan(finalists, seeds, USUAL_BASELINES, length, seed, direction))
    steps = tested.cost_steps + found.steps + confirm_steps(finalists, seeds, USUAL_BASELINES, length)
    evidence = Evidence(metric, direction, epochs, seeds, confirmed.runs, confirmed.verdict)
    return result("confirm", confirmed.winner, steps, evidence=evidence, warnings=confirmed.warnings)
