"""The session in this process: ``clr.range_test``, ``clr.search``, ``clr.recommend``."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.range_tests.plan import RangeTest
from clr.run import Curve, Direction, Point, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.spec import CyclicPolicy, JobSpec, RangeTestSpec, SearchSpec, checked
from clr.trials.space import SearchSpace
from clr.trials.study import Study
from clr.tuning.orders import Order, Training
from clr.tuning.recommendation import Recommendation
from clr.tuning.sequential import carry_out
from clr.tuning.session import Session

if TYPE_CHECKING:
    import optuna
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from clr.training.data import Batch, Data
    from clr.training.task import Precision, Task
    from clr.tuning.progress import Progress

log = logging.getLogger(__name__)

OWN = {"model", "optimizer", "train"}
"""What the caller's own task must be made of; a model may compute its loss itself."""

FIELDS = (
    *("model", "optimizer", "train", "val", "loss", "metric", "direction", "groups", "forward", "batch_size"),
    *("accumulate", "clip_norm", "clip_value", "precision", "compile", "collate", "workers", "iterations_per_epoch"),
)
"""What it may be made of."""

Pair = tuple[float, float]


def range_test(
    task: "Task | None" = None,
    *,
    epochs: float = 20,
    seeds: int = 3,
    seed: int = 0,
    test: RangeTestSpec | None = None,
    progress: "Progress | bool | None" = None,
    model: "nn.Module | None" = None,
    optimizer: "Optimizer | None" = None,
    train: "Data | None" = None,
    val: "Data | None" = None,
    loss: Callable[[Any, Any], "Tensor"] | None = None,
    metric: Literal["accuracy", "loss"] | Callable[[Any, Any], Any] | None = None,
    direction: Direction | None = None,
    groups: Callable[["nn.Module"], Iterable[Any]] | None = None,
    forward: Callable[["nn.Module", "Batch"], tuple[Any, Any]] | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    precision: "Precision | None" = None,
    compile: bool | str | None = None,
    collate: Callable[[list[Any]], "Batch"] | None = None,
    workers: int | None = None,
    iterations_per_epoch: int | None = None,
) -> RangeTest:
    """Run the LR range test on a task, or on a model, optimizer and loader of the caller's own.

    Args:
        task: what to train. None: made of the ``model``, ``optimizer`` and ``train`` given, which are left bit for bit
            as they were, also by an exception (but for random generators and counters that a sampler, a dataset or a
            ``torch.Generator`` in the model keeps).
        epochs: length of the training to find bounds for, > 0; the whole test costs no more than that.
        seeds: most repetitions, >= 1.
        seed: what their seeds are made from.
        test: ends of the ramp and budget of the test itself; ``seeds`` of it count.
        progress: called with the session as it goes on; None: a bar where there is a terminal or a notebook; False:
            none.
        model, optimizer, train: the caller's own, instead of a task; the device is the model's.
        val, loss, metric, direction, groups, forward, batch_size, accumulate, clip_norm, clip_value, precision,
            compile, collate, workers, iterations_per_epoch: with them, as in ``clr.Task``; None: as there. A model may
            compute its loss itself.

    Returns:
        ``RangeTest``: ``.curves``, ``.bounds``, ``.cost_steps``, ``.chart()``, ``.to_csv(path)``.

    Raises:
        InvalidArgument: neither a task nor a model with optimizer and data was given, or both.

    >>> import clr, torch
    >>> x = torch.randn(640, 4)
    >>> network = torch.nn.Linear(4, 2)
    >>> tested = clr.range_test(
    ...     model=network, optimizer=torch.optim.SGD(network.parameters(), lr=1.0), train=(x, (x.sum(1) > 0).long()),
    ...     loss=torch.nn.functional.cross_entropy, epochs=20, seeds=1, progress=False,
    ... )
    >>> tested.cost_steps <= 200 and tested.bounds.confidence in ("low", "medium", "high", "inconclusive")
    True
    """
    given = dict(locals())
    spec = checked(RangeTestSpec, seeds=seeds) if test is None else test
    with _taken(task, given) as task:
        wanted = checked(JobSpec, task="own", epochs=epochs, seed=seed, search=None, range_test=spec.model_dump())
        session = drive(task, Session(wanted, training_of(task, epochs)), progress=progress)
        tested = session.range_test
        assert tested is not None
        reasons = [*tested.bounds.reasons, *session.remarks]
        return replace(tested, bounds=replace(tested.bounds, reasons=reasons))


@contextmanager
def _taken(task: Any, given: Mapping[str, Any]) -> "Iterator[Task]":
    """The task given, or one of the caller's own objects, which are as they were when the block ends."""
    own = {name: given[name] for name in FIELDS if given[name] is not None}
    if not (own.keys() >= OWN if task is None else not own):
        rule = (
            "must be given, such as clr.Task(model=..., train=..., loss=...) or clr.load_task makes, or else model=, "
            "optimizer= and train= of your own"
        )
        raise InvalidArgument("task", rule, ["task"] * (task is not None) + sorted(own))
    if task is not None:
        yield _checked_task(task)
        return
    if own.get("metric", "loss") != "loss" and "val" not in own:
        raise InvalidArgument("metric", "must be left out, or val given, whose examples it scores", own["metric"])
    from clr.training.borrowing import borrowed

    with borrowed(**own) as made:
        yield made


def _named_by(task: "Task", spec: JobSpec) -> JobSpec:
    """The spec with what is trained in the task's name, so that a changed task has runs of its own."""
    from clr.training.identity import digest_of

    return spec.model_copy(update={"task": f"{spec.task}-{digest_of(task)[:8]}"})


def _check_alone(model: "nn.Module", save: str | Path) -> None:
    from clr.training.processes import training_group

    if training_group(model) is not None:
        rule = "must be None where several processes train together, as each would go on from another's runs"
        raise InvalidArgument("save", rule, str(save))


def _checked_task(task: Any) -> "Task":
    from clr.training.task import Task

    if not isinstance(task, Task):
        rule = "must be a clr.Task, such as clr.Task(model=..., train=..., loss=...) or clr.load_task makes"
        raise InvalidArgument("task", rule, task)
    return task


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best: the schedule with the best value; None when every trial diverged.
        trials: each as (schedule, value); the value is None where it diverged or was pruned.
        steps: optimizer steps of all of them.
        study: Optuna's, with the names and attributes that a service's has.
    """

    best: Candidate | None
    trials: list[tuple[Candidate, float | None]]
    steps: int
    study: "optuna.Study"


def search(
    task: "Task",
    bounds: Bounds,
    *,
    epochs: float = 20,
    trials: int = 20,
    seed: int = 0,
    ratio: Pair = (1.5, 20.0),
    stepsize_multiplier: Pair | None = None,
    rise: Pair = (0.05, 0.5),
    policies: Sequence[CyclicPolicy] = ("triangular",),
) -> SearchResult:
    """Search the schedules around ``bounds`` that fill ``epochs``.

    Args:
        task: what to train.
        bounds: conclusive bounds of its range test.
        epochs: length of a trial, > 0.
        trials: how many, >= 1.
        seed: of the sampler; every trial trains on one and the same seed made from it.
        ratio, stepsize_multiplier, rise, policies: what is searched, as in a job spec.

    Raises:
        InvalidArgument: the bounds are inconclusive, or a range breaks its rule.
    """
    from clr.training.loop import train

    if not isinstance(bounds, Bounds):
        raise InvalidArgument("bounds", "must be those of a range test, such as clr.range_test(task).bounds", bounds)
    ranges = {
        "ratio": ratio,
        "stepsize_multiplier": stepsize_multiplier,
        "rise": rise,
        "policies": _names("policies", policies),
    }
    spec = checked(SearchSpec, trials=trials, **ranges)
    training = training_of(_checked_task(task), epochs)
    study = Study(SearchSpace.of(spec, training.length), bounds, training.direction, seed)
    study.begin(trials)
    (trial_seed,) = fresh_seeds(seed, "search", 1)
    done: list[tuple[Candidate, float | None]] = []
    steps = 0
    for _ in range(trials):
        number, candidate = study.ask()
        points = list(_until_pruned(train(task, candidate.run(trial_seed)), study, number, candidate.steps))
        whole = points[-1].step == candidate.steps
        value = Curve.of(points).value if whole else None
        study.tell(number, value)
        done.append((candidate, value))
        steps += points[-1].step
    sign = 1 if training.direction == "maximize" else -1
    scored = [(sign * value, candidate) for candidate, value in done if value is not None]
    best = max(scored, key=lambda pair: pair[0])[1] if scored else None
    return SearchResult(best, done, steps, study.optuna)


def _until_pruned(points: Iterator[Point], study: Study, number: int, steps: int) -> Iterator[Point]:
    ends: list[tuple[int, float]] = []
    for point in points:
        yield point
        if point.metric is not None:
            ends.append((point.step, point.metric))
            if point.step < steps and study.should_prune(number, ends):
                return


def recommend(
    task: "Task | None" = None,
    *,
    epochs: float = 20,
    budget: float | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    baselines: Sequence[str] | None = None,
    seed: int = 0,
    ratio: Pair = (1.5, 20.0),
    stepsize_multiplier: Pair | None = None,
    rise: Pair = (0.05, 0.5),
    policies: Sequence[CyclicPolicy] = ("triangular",),
    save: str | Path | None = None,
    track: str | None = None,
    progress: "Progress | bool | None" = None,
    model: "nn.Module | None" = None,
    optimizer: "Optimizer | None" = None,
    train: "Data | None" = None,
    val: "Data | None" = None,
    loss: Callable[[Any, Any], "Tensor"] | None = None,
    metric: Literal["accuracy", "loss"] | Callable[[Any, Any], Any] | None = None,
    direction: Direction | None = None,
    groups: Callable[["nn.Module"], Iterable[Any]] | None = None,
    forward: Callable[["nn.Module", "Batch"], tuple[Any, Any]] | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    precision: "Precision | None" = None,
    compile: bool | str | None = None,
    collate: Callable[[list[Any]], "Batch"] | None = None,
    workers: int | None = None,
    iterations_per_epoch: int | None = None,
) -> Recommendation:
    """Range test, and a race of its answer against other schedules, in this process.

    Args:
        task: what to train. None: the ``model``, ``optimizer`` and ``train`` given, as in ``clr.range_test``; every run
            begins at the weights that the model has.
        epochs: length of the training to be recommended for, > 0.
        budget: trainings that all of it may cost, > 0; None: 6, or what ``trials`` and ``seeds`` take.
        trials: schedules to train once each, >= 1; None: as the budget allows.
        seeds: fresh seeds to train the best and the baselines on, >= 1; None: as the budget allows.
        baselines: names of schedules to compare with; None: as the budget allows.
        seed: everything random is made from it.
        ratio, stepsize_multiplier, rise, policies: what is searched, as in a job spec.
        save: an SQLite file: runs that are in it are not trained again, so that a call that was broken off goes on.
            Another network, optimizer, setting or loss, or other tensors, have runs of their own; of a ``Dataset`` or a
            loader only the length is compared.
        track: a tracker that is to have what was found, ``mlflow:URI``, ``wandb:FOLDER`` or ``tensorboard:FOLDER``; one
            that cannot be written to at the end costs a logged warning and nothing else.
        progress: called with the session as it goes on; None: a bar where there is a terminal or a notebook; False:
            none.
        model, optimizer, train, val, loss, metric, direction, groups, forward, batch_size, accumulate, clip_norm,
            clip_value, precision, compile, collate, workers, iterations_per_epoch: as in ``clr.range_test``.

    Raises:
        InvalidArgument: an argument breaks its rule, or neither a task nor a model with optimizer and data was given.

    >>> import clr
    >>> found = clr.recommend(clr.load_task("digits"), epochs=2, budget=1, progress=False)
    >>> found.confidence == "inconclusive" or found.base_lr < found.max_lr
    True
    """
    given = dict(locals())
    searched = {
        "trials": trials,
        "ratio": ratio,
        "stepsize_multiplier": stepsize_multiplier,
        "rise": rise,
        "policies": _names("policies", policies),
    }
    compared = {"seeds": seeds, "baselines": _names("baselines", baselines)}
    spec = checked(JobSpec, task="own", epochs=epochs, budget=budget, seed=seed, search=searched, confirm=compared)
    write = _writer(track)
    with _taken(task, given) as task:
        if save is not None:
            spec = _named_by(task, spec)
            if model is not None:
                _check_alone(model, save)
        session = drive(task, Session(spec, training_of(task, epochs)), save=save, progress=progress)
    found = session.recommendation
    assert found is not None
    write(found)
    return found


def _names(field: str, given: Sequence[str] | None) -> list[str] | None:
    if isinstance(given, str):  # whose letters are no names
        raise InvalidArgument(field, "must be a list of names", given)
    return None if given is None else list(given)


def _writer(track: str | None) -> Callable[[Recommendation], None]:
    """What writes a recommendation to a tracker, which is looked for at once; nothing does where none is named."""
    if track is None:
        return lambda _: None
    tracking = import_module("clr.integrations.tracking")  # by its name: it is built upon recommendations
    tracking.check(track, "track")

    def write(found: Recommendation) -> None:
        try:
            tracking.track(found, track)
        except Exception as error:  # whatever a tracker raises, the trainings are worth more
            log.warning("not written to %s: %s", track, error)

    return write


def training_of(task: "Task", epochs: float) -> Training:
    """What a session must know of a task."""
    from clr.tasks.reference import inspect_task

    about = inspect_task(task)
    length = TrainingLength(epochs, about["iterations_per_epoch"])
    return Training.of(length, about["metric"], about["direction"], about["trained_with"])


def drive(
    task: "Task",
    session: Session,
    *,
    save: str | Path | None = None,
    progress: "Progress | bool | None" = None,
    packs: bool = True,
) -> Session:
    """Carry a session out on a task, from wherever its saved runs say that it stood.

    One that is too short for any run says nothing before one step was made: the task might not be trainable.

    Args:
        task, session: what is trained, and for whom.
        save, progress: as for ``recommend``.
        packs: whether runs may be trained side by side, where that is faster.
    """
    from clr.training.loop import ONE_STEP, TELL_EVERY_S, curve_of, on_device, train
    from clr.training.packing import packing
    from clr.training.processes import speaks

    task = on_device(task)

    def follow(order: Order, _attempt: int) -> Iterator[Point]:
        return train(task, order.run, tell_every_s=TELL_EVERY_S)

    progress = False if progress is None and not speaks() else progress
    pack = packing(task, TELL_EVERY_S) if packs else None
    carry_out(session, follow, pack=pack, save=save, progress=progress)
    if session.steps_so_far == 0:
        curve_of(task, ONE_STEP)
    return session
