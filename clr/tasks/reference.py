"""What a job trains, told in plain values: a task's name and arguments, its optimizer, its batch size."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from clr.errors import InvalidArgument
from clr.run import Run
from clr.tasks.reach import Reach
from clr.tasks.registry import make
from clr.training.checkpoint import Checkpoint
from clr.training.constant import best_constant
from clr.training.data import examples
from clr.training.loop import TELL_EVERY_S, train
from clr.training.optimizers import described
from clr.training.random_states import OwnRandomStates
from clr.training.task import Task, optimizer

Trainee = dict[str, Any]
"""``task``, ``args``, ``optimizer`` (its name and args) and ``batch_size``, as in a job spec; and ``reach``: the
``folders`` and ``modules`` that whose job it is may name, None: any."""


def load(trainee: Trainee) -> Task:
    """The task; the process keeps the last two."""
    return _load(json.dumps(trainee, sort_keys=True))


@lru_cache(maxsize=2)  # of the job at hand, and of the one that takes turns with it
def _load(key: str) -> Task:
    trainee = json.loads(key)
    reach = trainee["reach"] and Reach(*(tuple(trainee["reach"][name]) for name in ("folders", "modules")))
    task = make(trainee["task"], trainee["args"], reach)
    chosen = trainee["optimizer"]
    changes: dict[str, Any] = {}
    if chosen is not None:
        changes["optimizer"] = optimizer(chosen["name"], **chosen["args"])
    if trainee["batch_size"] is not None:
        if examples(task.train) is None:
            rule = "must be null for a task whose data are batches already"
            raise InvalidArgument("batch_size", rule, trainee["batch_size"])
        changes["batch_size"] = trainee["batch_size"]
    return task.changed(**changes)


def inspect_task(task: Task) -> dict[str, Any]:
    """``iterations_per_epoch``, ``metric`` and ``direction`` of a task, and what it is ``trained_with``.

    That is its optimizer and batch size, what its best constant output loses, and what there is to remark.
    """
    metric, direction, _ = task.score
    batch_size = getattr(task.train, "batch_size", None) if examples(task.train) is None else task.batch_size
    used = {"optimizer": _optimizer(task), "batch_size": batch_size}
    used |= {"constant": constant._asdict()} if (constant := best_constant(task)) else {}
    used |= {"remarks": task.remarks} if task.remarks else {}
    about = {"iterations_per_epoch": task.iterations_per_epoch, "metric": metric, "direction": direction}
    return about | {"trained_with": used}


def _optimizer(task: Task) -> dict[str, Any]:
    """What the task makes, described: of a parameter like any other, where that can tell."""
    if task.trains_all_alike:
        with suppress(Exception):  # of one that looks at what it is given
            return described(task.optimizer([nn.Parameter(torch.zeros(1, 1))]))
    cpu = torch.device("cpu")
    with OwnRandomStates(0, cpu):
        network, made = task.make(cpu)
    return described(made, network)


def points(
    task: Task, run: dict[str, Any], threads: int, checkpoint: Checkpoint | None
) -> Iterator[tuple[bool, dict[str, Any]]]:
    """The points of one run as they are recorded, JSON values all, each with whether it is from the checkpoint."""
    torch.set_num_threads(threads)
    for number, point in enumerate(train(task, Run(**run), checkpoint, TELL_EVERY_S)):
        yield checkpoint is not None and number < checkpoint.restored, point.to_dict()
