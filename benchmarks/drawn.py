"""Tasks that nobody chose, drawn at random: what the range test's answer loses beside rates up to sixteen times off it.

    python -m benchmarks.drawn --count 60

Data, network, loss, optimizer, batch size and length are drawn by the task's number. The best rate is that of three
seeds, and what it gains is measured on three others: the luckiest of nine would always be ahead. Regret is in per cent
of (best - constant output).
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn

import clr
from benchmarks import kinds
from benchmarks.cases import Place
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from clr.schedules.cycles import TrainingLength
from clr.training.constant import best_constant
from clr.training.loop import curve_of
from clr.training.task import Task, optimizer

OCTAVES = range(-4, 5)
CHOOSING, COMPARING = (1, 2, 3), (4, 5, 6)
RANGE_TEST_SEED = 101
FEWEST = 10
"""Batches of an epoch."""

EVEN = ("digits", "breast_cancer")
SHOWN = 10
"""Of the tasks that lose most."""

ACTIVATIONS = (nn.ReLU, nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid)
NORMS = (None, None, None, nn.BatchNorm1d, nn.LayerNorm)
OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "weight_decay": 1e-3}),
    ("SGD", {"momentum": 0.0}),
    ("SGD", {"momentum": 0.95, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.9, 0.95)}),
    ("AdamW", {"weight_decay": 0.1}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Adamax", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("Adagrad", {}),
    ("Adadelta", {}),
)
CLASSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross entropy": F.cross_entropy,
    "smoothed": partial(F.cross_entropy, label_smoothing=0.1),
    "margin": F.multi_margin_loss,
    "one hot": lambda told, target: F.mse_loss(told, F.one_hot(target, told.shape[1]).float()),
}
NUMBERS = {"squared": F.mse_loss, "Huber": F.huber_loss, "absolute": F.l1_loss}


@dataclass(frozen=True)
class Drawn:
    """A task, how long it is trained, and what it is in words."""

    task: Task
    length: TrainingLength
    words: str


def _scikit(draw: random.Random) -> tuple[str, Tensor, Tensor]:
    name = draw.choice(["digits", "breast_cancer", "wine", "diabetes"])
    rows, target = (torch.tensor(part) for part in getattr(datasets, f"load_{name}")(return_X_y=True))
    order = torch.randperm(len(rows), generator=kinds.random(1))
    rows, target = rows[order].float(), target[order]
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    return name, rows, target.float() if name == "diabetes" else target


def _made(draw: random.Random) -> tuple[str, Tensor, Tensor]:
    made = kinds.random(draw.randrange(1000))
    columns, noise, scale = draw.choice([4, 10, 30]), draw.choice([0.1, 0.5, 1.5]), draw.choice([0.01, 1.0, 100.0])
    rows = torch.randn(draw.choice([2000, 5000, 9000]), columns, generator=made)
    target = rows @ torch.randn(columns, generator=made) / columns**0.5 + torch.sin(2 * rows[:, 0])
    target = target + 0.5 * rows[:, 1] * rows[:, 2] + noise * torch.randn(len(rows), generator=made)
    mean = draw.choice([0.0, 0.0, 5.0])
    classes = draw.choice([None, torch.tensor([0.0]), torch.tensor([1.5]), torch.linspace(-1.5, 1.5, 6)])
    if classes is None:
        return f"made, noise {noise}, times {scale}, mean {mean}", rows, scale * (target + mean)
    return f"made, noise {noise}, {len(classes) + 1} classes", rows, torch.bucketize(target, classes)


def drawn(number: int) -> Drawn:
    """The task of that number."""
    draw = random.Random(number)
    words, rows, target = draw.choice([_scikit, _made, _made])(draw)
    known = len(rows) * 3 // 4
    numbers = target.is_floating_point()
    loss_name, loss = draw.choice(list((NUMBERS if numbers else CLASSES).items()))
    outputs = 1 if numbers else int(target.max()) + 1
    depth, width = draw.choice([0, 1, 2, 2, 3, 5]), draw.choice([16, 32, 64, 128])
    activation, norm, dropout = draw.choice(ACTIVATIONS), draw.choice(NORMS), draw.choice([0.0, 0.0, 0.0, 0.2])

    def network() -> nn.Module:
        inner: list[nn.Module] = []
        for at in range(depth):
            inner.append(nn.Linear(width if at else rows.shape[1], width))
            inner += [norm(width)] if norm else []
            inner += [activation(), nn.Dropout(dropout)]
        last = nn.Linear(width if depth else rows.shape[1], outputs)
        return nn.Sequential(*inner, last, *([nn.Flatten(0)] if numbers else []))

    name, args = draw.choice(OPTIMIZERS)
    batch_size = draw.choice([size for size in (8, 16, 32, 64, 128) if known // size >= FEWEST])
    an_epoch = known // batch_size
    steps = min(draw.choice([300, 600, 1200]), 20 * an_epoch)  # more epochs are what overfits: ``SCARCE``
    metric = "accuracy" if words in EVEN and draw.random() < 0.6 else None  # of classes of one size
    task = Task(
        model=network,
        train=(rows[:known], target[:known]),
        val=(rows[known:], target[known:]),
        loss=loss,
        metric=metric,  # type: ignore[arg-type]
        optimizer=optimizer(name, **args),
        batch_size=batch_size,
    )
    layers = f"{depth} x {width} {activation.__name__}{f' {norm.__name__}' if norm else ''}"
    told = f"{words}; {layers}; {loss_name}, {metric or 'loss'}; {name} {args or ''}; batch {batch_size}, {steps} steps"
    return Drawn(task, TrainingLength(steps / an_epoch, an_epoch), told)


def measure(place: Place, number: int) -> dict[str, Any]:
    """The range test's answer, and the scores at it and at rates around it, octaves off."""
    of = drawn(number)
    tested = clr.range_test(of.task, epochs=of.length.epochs, seed=RANGE_TEST_SEED, progress=False)
    found = {"words": of.words, "confidence": tested.bounds.confidence, "max_lr": tested.bounds.max_lr}
    constant = best_constant(of.task)
    if tested.bounds.max_lr is None or constant is None or constant.score is None:
        return found
    sign = 1 if of.task.score[1] == "maximize" else -1
    floor = sign * constant.score

    def scores(octaves: int, seeds: Iterable[int]) -> float:
        assert tested.bounds.max_lr is not None
        run = of.length.propose(tested.bounds.max_lr * 2.0**octaves, 10.0, 1).run
        values = [curve_of(of.task, run(seed)).value for seed in seeds]
        return fmean(floor if value is None else max(floor, sign * value) for value in values)

    best = max(OCTAVES, key=lambda octaves: scores(octaves, CHOOSING))
    most, reached = scores(best, COMPARING), scores(0, COMPARING)
    low, high = tested.bounds.interval["max_lr"] if tested.bounds.interval else (0.0, 0.0)
    return found | {
        "best": best,
        "regret": 100 * (most - reached) / (most - floor) if most > floor else None,
        "held": low <= tested.bounds.max_lr * 2.0**best <= high,
    }


def report(results: dict[int, dict[str, Any]]) -> str:
    """Regret by confidence, and the tasks that lose most."""
    rows = []
    for grade in ("high", "medium", "low"):
        of = [one for one in results.values() if one["confidence"] == grade and one.get("regret") is not None]
        regrets = [one["regret"] for one in of]
        if of:
            within = f"{sum(regret <= 2 for regret in regrets)}"
            held = f"{fmean(one['held'] for one in of):.2f}"
            rows.append([grade, f"{len(of)}", f"{fmean(regrets):.1f}", f"{max(regrets):.1f}", within, held])
    unknown = sum(one["max_lr"] is None for one in results.values())
    head = ["confidence", "tasks", "regret", "worst", "of at most 2 %", "held"]
    worst = sorted((item for item in results.items() if item[1].get("regret") is not None), key=_regret, reverse=True)
    lines = [
        f"{number}: {one['regret']:.1f} %, {one['confidence']}, best {one['best']} octaves off; {one['words']}"
        for number, one in worst[:SHOWN]
    ]
    return "\n".join([markdown(head, rows), f"inconclusive: {unknown} of {len(results)}", *lines])


def _regret(item: tuple[int, dict[str, Any]]) -> float:
    return float(item[1]["regret"])


def main() -> None:
    """Measure the tasks of the numbers asked for."""
    parser = Command(__doc__, tasks=False)
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--count", type=int, default=60, help="tasks")
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        started = {number: farm.start(measure, number) for number in range(chosen.first, chosen.first + chosen.count)}
        print(report({number: future.result() for number, future in started.items()}))


if __name__ == "__main__":
    main()
