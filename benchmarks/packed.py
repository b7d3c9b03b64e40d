"""How many times as fast a range test is, and a whole recommendation, with runs in packs as with one after the other.

    python -m benchmarks.packed                               # on the GPU where there is one
    python -m benchmarks.packed --device cpu --rounds 1

`fashion` is Fashion-MNIST under the small convolutional network, `cifar_quick` CIFAR-10 under Caffe's quick network;
pictures of its own making take the place of those that are not there: a step takes as long whatever they show.
Each test has default settings, for trainings of two lengths: the longer gets three repetitions, whose runs are side by
side. Both ways take turns; a first turn of each, in which kernels are loaded, does not count. Reported are medians.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from benchmarks.cases import cifar_folder, fashion
from benchmarks.table import markdown
from clr.errors import DataMissing
from clr.spec import JobSpec
from clr.tasks.cifar10 import LessMean
from clr.tasks.networks import CIFAR10, small_cnn
from clr.training.task import Task
from clr.tuning.in_process import drive, training_of
from clr.tuning.orders import Order
from clr.tuning.session import Session


class Measured(NamedTuple):
    """What is asked for, for a training of so many epochs."""

    task: str
    epochs: float
    search: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.task}, {'recommendation' if self.search else 'range test'} for {self.epochs:g} epochs"


MEASURED = (
    Measured("fashion", 20),
    Measured("cifar_quick", 20),
    Measured("fashion", 200),
    Measured("cifar_quick", 60),
    Measured("fashion", 5, search=True),
)


def made_up(count: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Ten kinds of pictures, each a picture of its own under noise, of mean 0 and standard deviation 1."""
    random = torch.Generator().manual_seed(0)
    kinds = torch.randn(10, *shape, generator=random)
    labels = torch.randint(10, (count,), generator=random)
    return 0.5 * kinds[labels] + 0.87 * torch.randn(count, *shape, generator=random), labels


def of_made_up(task: str) -> Task:
    """The task on such pictures."""
    if task == "fashion":
        images, labels = made_up(12_000, (1, 28, 28))
        model: Callable[[], nn.Module] = small_cnn
        groups, batch_size, held_out = nn.Module.parameters, 64, 2_000
    else:
        images, labels = made_up(60_000, (3, 32, 32))
        images = (64 * images + 128).clamp(0, 255).byte()
        network, groups = CIFAR10["cifar10_quick"]
        mean = images[:10_000].float().mean(0)
        model, batch_size, held_out = lambda: nn.Sequential(LessMean(mean), network()), 100, 10_000
    return Task(
        model=model,
        groups=groups,
        train=(images[held_out:], labels[held_out:]),
        val=(images[:held_out], labels[:held_out]),
        loss=F.cross_entropy,
        metric="accuracy",
        batch_size=batch_size,
    )


def load(task: str) -> Task:
    """The task on its own pictures, where they are there."""
    try:
        if task == "fashion":
            return fashion()
        if Path(cifar_folder()).exists():
            return clr.load_task("cifar10", data=cifar_folder(), network="cifar10_quick")
    except DataMissing:
        pass
    print(f"{task}: made-up pictures", file=sys.stderr)
    return of_made_up(task)


class Widths:
    """How many runs were under way at most, round by round."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.known: set[tuple[str, int]] = set()

    def __call__(self, session: Session, _order: Order | None) -> None:
        new = {(one.stage, one.number) for one in session.under_way} - self.known
        self.known |= new
        self.rounds += [len(new)] if new else []


def timed(task: Task, what: Measured, packs: bool) -> tuple[float, Session, list[int]]:
    """Seconds that it takes."""
    search = {"search": {}} if what.search else {"search": None}
    spec = JobSpec(task="own", epochs=what.epochs, **search)
    session, widths = Session(spec, training_of(task, what.epochs)), Widths()
    began = perf_counter()
    drive(task, session, progress=widths, packs=packs)
    return perf_counter() - began, session, widths.rounds


def line(task: Task, what: Measured, rounds: int) -> list[str]:
    """A row of the table."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    sessions: dict[bool, Session] = {}
    for turn in range(rounds + 1):
        for packs in (False, True):
            took, sessions[packs], widths = timed(task, what, packs)
            if turn or rounds == 0:
                seconds[packs].append(took)
    alone, packed = (median(seconds[packs]) for packs in (False, True))
    rates = [session.bounds.max_lr if session.bounds else None for session in (sessions[False], sessions[True])]
    shown = ", ".join("none" if rate is None else f"{rate:.4g}" for rate in rates)
    steps = sessions[True].steps_so_far
    return [
        what.name,
        str(steps),
        "+".join(map(str, widths)),
        f"{alone:.2f}",
        f"{packed:.2f}",
        f"{alone / packed:.1f}",
        shown,
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=2, help="turns that count")
    parser.add_argument("--only", type=int, nargs="+", choices=range(len(MEASURED)), help="which rows")
    chosen = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    logging.getLogger("clr").setLevel(logging.INFO)
    tasks = {name: load(name).changed(device=chosen.device) for name in ("fashion", "cifar_quick")}
    rows = []
    for what in [MEASURED[at] for at in chosen.only or range(len(MEASURED))]:
        rows.append(line(tasks[what.task], what, chosen.rounds))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    head = ["", "steps", "runs together", "one after the other, s", "in packs, s", "times as fast", "max_lr, both ways"]
    place = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "CPU"
    print(f"{place}, torch {torch.__version__}, {torch.get_num_threads()} threads\n\n{markdown(head, rows)}")


if __name__ == "__main__":
    main()
