"""What store, Ray and workers take of each run while several workers share one PostgreSQL.

    python -m benchmarks.workers                           # 4 workers of 2 slots, 200 jobs of trainings of 1 s
    python -m benchmarks.workers --jobs 20 --seconds 0.2

The trainings wait instead of computing, so that a few cores can show what many slots ask of them: each run takes so
many seconds on average. All else is as in service: ``clr serve`` and further ``clr worker``s, each with a Ray of its
own. The share is that of one core which a slot keeps busy beside its training.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from benchmarks.overhead import at_once, empty, service
from benchmarks.table import markdown
from clr.client.sync import Client
from clr.training.task import Task

EXAMPLES, BATCH, EPOCHS = 1152, 64, 8
STEPS_OF_A_RUN = 18
SLOTS = 2


class Waiting(nn.Linear):
    """A linear network each of whose training steps waits."""

    pause_s = 0.0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Its output."""
        if self.training:
            time.sleep(self.pause_s)
        return super().forward(rows)


def waiting(seconds: float = 1.0) -> Task:
    """Runs of about so many seconds, in which next to nothing is computed."""
    made = torch.Generator().manual_seed(0)
    rows = torch.randn(EXAMPLES, 8, generator=made)
    target = (rows @ torch.randn(8, 2, generator=made)).argmax(1)

    def network() -> nn.Module:
        model = Waiting(8, 2)
        model.pause_s = seconds / STEPS_OF_A_RUN
        return model

    data = (rows, target)
    return Task(model=network, train=data, val=data, loss=nn.functional.cross_entropy, batch_size=BATCH)


@contextmanager
def further(number: int, home: Path, url: str, **more: str) -> Iterator[None]:
    """So many workers beside that of ``clr serve``."""
    with ExitStack() as stack:
        for at in range(number):
            own = {"CLR_HOME": str(home / f"worker-{at}"), "CLR_DATABASE_URL": url, "CLR_CPUS": str(SLOTS)}
            command = [sys.executable, "-P", "-m", "worker"]
            log = stack.enter_context((home / f"log-{at}").open("w"))
            process = stack.enter_context(subprocess.Popen(command, env=os.environ | own | more, stderr=log))
            stack.callback(process.terminate)
        yield


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a run takes on average")
    chosen = parser.parse_args()
    more = {"CLR_TASK_MODULES": "benchmarks.workers", "PYTHONPATH": str(Path(__file__).parents[1])}
    spec = {"task": "benchmarks.workers:waiting", "args": {"seconds": chosen.seconds}, "epochs": EPOCHS, "search": None}
    with empty("postgresql") as (home, url):
        assert url is not None
        with service(home, url, SLOTS, **more) as (address, _), further(chosen.workers - 1, home, url, **more):
            client = Client(address)
            at_once(client, url, spec | {"args": {"seconds": 0.1}}, 4 * chosen.workers)  # all have their torch now
            took, cpu, runs = at_once(client, url, spec, chosen.jobs)
    slots = SLOTS * chosen.workers
    rows = [
        [part, f"{seconds:.1f}", f"{1e3 * seconds / runs:.1f}", f"{100 * seconds / took / slots:.2f}"]
        for part, seconds in [*cpu.most_common(), ("all", cpu.total())]
    ]
    print(f"{chosen.jobs} jobs of {runs} runs in {took:.0f} s on {slots} slots:")
    print(f"{slots * took / runs:.2f} s of a slot for each run, of which {chosen.seconds:g} s are its training\n")
    print(markdown(["part", "CPU s", "ms a run", "% of a core a slot"], rows))
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
