"""The whole method on a program of the user's own, on this machine: what ``clr tune`` does."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from clr.commands.program import Program
from clr.errors import ProgramDied
from clr.run import Direction, Point, Run
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec, checked
from clr.tuning.orders import Order, Training
from clr.tuning.progress import Progress
from clr.tuning.recommendation import Recommendation
from clr.tuning.sequential import ATTEMPTS, carry_out
from clr.tuning.session import Session

LARGEST_SCRIPT = 2**20
"""Bytes of a file named in the command up to which its content is part of what is tuned; a larger one is data."""


def tune(
    program: Program,
    *,
    epochs: float,
    iterations_per_epoch: int,
    budget: float | None = None,
    seed: int = 0,
    save: str | Path | None = None,
    progress: Progress | bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Recommendation:
    """Range test, and a race of its answer against other schedules, each run a start of ``program``.

    Args:
        program: what trains. Without a direction, it is tried first: if it reports a metric, larger is better.
        epochs: length of the training to be recommended for, > 0.
        iterations_per_epoch: optimizer steps in one of them, >= 1.
        budget: trainings that all of it may cost, > 0; None: 6.
        seed: everything random is made from it.
        save: an SQLite file: runs that are in it are not trained again, as long as command, arguments and the files
            that the command names are the same.
        progress: called with the session as it goes on; True: a bar, or lines where there is no terminal; None: a bar
            where there is one; False: none.
        say: told what people should know on the way.

    Raises:
        InvalidArgument: an argument breaks its rule.
        BrokenProgram: the program cannot be started, or breaks the rules by which it reports.
        ProgramDied: it failed three times in one run, or before it ever reported.
    """
    program = replace(program, direction=program.direction or _judged_by(program, say))
    spec = checked(
        JobSpec,
        mode="command",
        command=list(program.command),
        task=_label(program),
        epochs=epochs,
        iterations_per_epoch=iterations_per_epoch,
        direction=program.direction,
        budget=budget,
        seed=seed,
    )
    assert spec.direction is not None
    session = Session(spec, Training(TrainingLength(spec.epochs, iterations_per_epoch), "metric", spec.direction))

    def train(order: Order, attempt: int) -> Iterator[Point]:
        about = {"stage": order.stage, "number": order.number, "attempt": attempt}
        try:
            yield from program.points(order.run, about)
        except ProgramDied as error:
            say(f"{order.stage.replace('_', ' ')} run {order.number}, attempt {attempt} of {ATTEMPTS}: {error}")
            raise

    carry_out(session, train, save=save, progress=progress)
    found = session.recommendation
    assert found is not None
    return found


def _judged_by(program: Program, say: Callable[[str], None]) -> Direction:
    """Larger is better where it reports a metric, smaller where it has a loss alone.

    It is started for a run of two steps, at a rate that moves nothing.
    """
    run = Run(policy="fixed", base_lr=1e-9, max_lr=1e-9, step_size_up=1, steps=2, seed=0, evaluate_every=2)
    points = list(program.points(run, {"stage": "try", "number": 0, "attempt": 1}))
    if any(point.metric is not None for point in points):
        say("the program reports a metric, of which larger counts as better; else give --direction minimize")
        return "maximize"
    say("the program reports no metric: its loss counts, and smaller is better")
    return "minimize"


def _label(program: Program) -> str:
    """The script's name, and a digest of the files that the command names: when one is changed, all begins anew."""
    files = [path for word in program.command if (path := program.folder / word).is_file()]
    scripts = [path for path in files if path.stat().st_size <= LARGEST_SCRIPT]
    content = hashlib.sha256(b"\0".join(path.read_bytes() for path in scripts)).hexdigest()
    return f"{(scripts or [Path(program.command[0])])[-1].name} {content[:8]}"
