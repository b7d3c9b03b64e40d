"""The run that a training program is in: handed to it by what started it, or given by hand."""

import atexit
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from clr.commands import DECIDES, RANKS
from clr.errors import ClrError, InvalidArgument
from clr.run import Run
from clr.schedules.cycles import rate_of
from clr.schedules.policies import CYCLIC, is_number

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from clr.schedules.torch_scheduler import CyclicPolicyLR


class ScheduleNotFollowed(ClrError):
    """A program reports a training whose rates were not those of its run."""


def current_run(
    *,
    base_lr: float | None = None,
    max_lr: float | None = None,
    step_size_up: int | None = None,
    steps: int | None = None,
    step_size_down: int | None = None,
    policy: str = "triangular",
    gamma: float | None = None,
    seed: int = 0,
    evaluate_every: int | None = None,
    curve: str | Path | None = "clr-curve.csv",
) -> "CurrentRun":
    """The run to carry out: what ``clr tune`` or a service started this program for, else what is given here.

    This function reads the environment, which is what it is for: ``CLR_RUN`` names the run's file, ``CLR_POINTS`` the
    one to report to, and ``RANK`` or the like (see ``RANKS``) tells whether this is the process that reports.

    Args:
        base_lr, max_lr: by hand: the bounds, per step.
        step_size_up, step_size_down: by hand: steps of a cycle's rising and falling half, >= 1; None: as many down as
            up. Of a ramp or a policy without cycles as in ``clr.run.Run``.
        steps: by hand: optimizer steps to take, >= 1.
        policy: by hand: a name in ``clr.POLICIES``, or a ramp.
        gamma: by hand: factor per step, for the policies that decay.
        seed: by hand: what to seed with, >= 0.
        evaluate_every: by hand: steps between metrics, >= 1; None: a cycle, or without cycles the whole training.
        curve: by hand: CSV file for the curve, replaced; None: none. With ``policy="exponential_ramp"`` it is a range
            test that ``clr analyze`` reads.

    Returns:
        A ``CurrentRun``, the same in every process of a distributed training.

    Raises:
        InvalidArgument: by hand, a rule above is broken; or a variable names no file of a run.

    >>> run = current_run(base_lr=0.001, max_lr=0.006, step_size_up=2, steps=8, curve=None)
    >>> [round(run.lr(step), 4) for step in range(run.steps)]
    [0.001, 0.0035, 0.006, 0.0035, 0.001, 0.0035, 0.006, 0.0035]
    """
    if (handed := handed_run()) is not None:
        return handed
    given: dict[str, Any] = {"base_lr": base_lr, "max_lr": max_lr, "step_size_up": step_size_up, "steps": steps}
    for name, value in given.items():
        if value is None:
            raise InvalidArgument(name, "is required where the program is started by hand, and not by clr")
    for name, count, least in (("steps", steps, 1), ("evaluate_every", evaluate_every or 1, 1), ("seed", seed, 0)):
        if not is_number(count) or count != int(count or 0) or count < least:
            raise InvalidArgument(name, f"must be a whole number, at least {least}", count)
    given |= {"policy": policy, "step_size_down": step_size_down, "gamma": gamma, "seed": seed}
    run = Run(**given, evaluate_every=evaluate_every or 1)
    rate = rate_of(run)
    if evaluate_every is None:
        run = replace(run, evaluate_every=_cycle(run))
    report = _CurveFile(curve, rate) if curve is not None and _leads(os.environ) else None
    return CurrentRun(run, report)


def handed_run() -> "CurrentRun | None":
    """The run that this program was started for; None where it was started by hand."""
    path = os.environ.get("CLR_RUN")
    return _handed(path, os.environ.get("CLR_POINTS"), _leads(os.environ)) if path else None


@cache
def _handed(path: str, points: str | None, leads: bool) -> "CurrentRun":
    """One object in a process, whoever in it asks."""
    if not points:
        raise InvalidArgument("CLR_POINTS", "must name the file to report to, as CLR_RUN is set", points)
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        run = Run(**{name: document[name] for name in DECIDES})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidArgument("CLR_RUN", f"must name a run's JSON file ({error!r})", path) from None
    return CurrentRun(run, _Points(points) if leads else None, ends_program=True)


def _cycle(run: Run) -> int:
    """Steps between the ends of cycles; all of them where there are none."""
    cycle = run.step_size_up + (run.step_size_down or run.step_size_up)
    return min(cycle, run.steps) if run.policy in CYCLIC else run.steps


def _leads(environment: Mapping[str, str]) -> bool:
    """Whether this is the one process of a training that reports."""
    name = next((name for name in RANKS if environment.get(name)), None)
    if name is None:
        return True
    try:
        return int(environment[name]) == 0
    except ValueError:
        raise InvalidArgument(name, "must be the whole number of this process's rank", environment[name]) from None


class _Report(Protocol):
    """Where a training is reported to."""

    def __call__(self, step: int, loss: float | None, metric: float | None) -> None:
        """Take what was seen after ``step`` steps."""


class CurrentRun:
    """A run as its program sees it: how long, under which rates and seed, and where to report.

    Args:
        run: what to carry out.
        report: told of every step; None: nobody is.
        ends_program: whether the program ends, well, when it has carried out the run and goes on all the same.
    """

    def __init__(self, run: Run, report: _Report | None, *, ends_program: bool = False) -> None:
        self.policy, self.base_lr, self.max_lr, self.gamma = run.policy, run.base_lr, run.max_lr, run.gamma
        self.step_size_up, self.step_size_down = run.step_size_up, run.step_size_down
        self.steps, self.seed, self.evaluate_every = run.steps, run.seed, run.evaluate_every
        self._rate, self._report = rate_of(run), report
        self.logged = 0
        """Steps taken when it last logged."""
        self._asked, self._ends_program = -1, ends_program
        self._scheduler: CyclicPolicyLR | None = None

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in DECIDES)
        return f"{type(self).__name__}({told})"

    def lr(self, step: Any) -> Any:
        """The rate of a step, counted from 0: a plain function for whatever trains.

        Of an array of steps, also one that JAX traces (``optax.sgd(run.lr)`` within ``jax.jit``), the array of rates.
        """
        if isinstance(step, Integral) or not hasattr(step, "__array_namespace__"):
            self._asked = max(self._asked, int(step))
            return self._rate(step)
        self._asked = max(self._asked, 0)
        return step.__array_namespace__().asarray(self._rates)[step]

    @cached_property
    def _rates(self) -> list[float]:
        return [self._rate(step) for step in range(self.steps)]

    def scheduler(self, optimizer: "Optimizer") -> "CyclicPolicyLR":
        """The rates as a torch scheduler for ``optimizer``; call its ``step()`` after every ``optimizer.step()``."""
        # By its name: a client knows runs without torch.
        scheduler = import_module("clr.schedules.torch_scheduler").scheduler
        cyclic = self.policy in CYCLIC
        up, down = self.step_size_up, self.step_size_down
        self._scheduler = scheduler(
            optimizer,
            self.policy,
            base_lr=self.base_lr,
            max_lr=self.max_lr,
            stepsize=up if cyclic or down is None else (up + down) // 2,
            stepsize_down=down if cyclic else None,
            gamma=self.gamma,
        )
        self._asked = max(self._asked, 0)
        return self._scheduler

    def evaluates(self, step: int) -> bool:
        """Whether a metric is wanted after this step, counted from 0: at ends of cycles, and at the end."""
        return (step + 1) % self.evaluate_every == 0 or step + 1 == self.steps

    def log(self, *, loss: Any = None, metric: Any = None, step: int | None = None) -> None:
        """Report a step that was taken. In all processes of a distributed training; the first one tells.

        Args:
            loss: the training loss of the step: a number, or a tensor or array of one; NaN where it diverged.
            metric: of the validation data after the step, where it was taken. Without a loss, it belongs to the step
                that was logged last.
            step: optimizer steps taken so far, from 1; None: one more than at the last call. Logging only some steps
                needs it; each then stands for those since the one before.

        Raises:
            SystemExit: of a run that the program was started for, all steps were logged before: a loop over epochs
                needs no end of its own.
            InvalidArgument: a rule above is broken.
            ScheduleNotFollowed: the program never asked for its rates, or does not step its scheduler.
        """
        if loss is None and metric is None:
            raise InvalidArgument("loss", "must be given, or else a metric")
        if loss is not None and self._is_carried_out():
            raise SystemExit(0)
        at = self._step(step, alone=loss is None)
        self._check_rates(at)
        told = [None if value is None else _number(name, value) for name, value in (("loss", loss), ("metric", metric))]
        self.logged = at
        if self._report is not None:
            self._report(at, *told)

    def _is_carried_out(self) -> bool:
        """Whether all steps were logged, and the program is at the rate of a later one: not if it counts otherwise."""
        at = self._asked if self._scheduler is None else self._scheduler.last_epoch
        return self._ends_program and self.logged == self.steps <= at

    def _step(self, step: Any, *, alone: bool) -> int:
        lowest = max(1, self.logged + (not alone))
        if step is None:
            step = lowest
        if not is_number(step) or step != int(step) or not lowest <= step <= self.steps:
            rule = f"must be a whole number from {lowest}, the next, to {self.steps}, the run's last"
            raise InvalidArgument("step", rule, step)
        return int(step)

    def _check_rates(self, step: int) -> None:
        """Find out what would make the whole search meaningless: rates that are not the run's."""
        if self._asked < 0:
            raise ScheduleNotFollowed("train at the rates of the run: call run.lr(step), or run.scheduler(optimizer)")
        if self._scheduler is None:
            return
        stepped = self._scheduler.last_epoch
        if stepped not in (step - 1, step):
            raise ScheduleNotFollowed(
                f"the scheduler was stepped {stepped} times in {step} steps: call its step() once after every "
                "optimizer.step(), and give log the step where it is not called after each"
            )
        groups = self._scheduler.optimizer.param_groups
        for lr, group in zip(self._scheduler.get_last_lr(), groups, strict=True):
            if abs(float(group["lr"]) - float(lr)) > 1e-6 * abs(float(lr)):
                raise ScheduleNotFollowed(
                    f"the optimizer's rate is {float(group['lr']):g} where the run's is {float(lr):g}: "
                    "something else sets it too, such as another scheduler"
                )


def _number(name: str, value: Any) -> float:
    plain = value.detach() if hasattr(value, "detach") else value
    try:
        return float(plain)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgument(name, "must be one number", value) from None


class _Points:
    """Appends what is reported to the file that is followed, a JSON object a line."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # as long as the program runs
        except OSError as error:
            raise InvalidArgument("CLR_POINTS", f"must name a file to append to ({error.strerror})", path) from None
        atexit.register(self._file.close)

    def __call__(self, step: int, loss: float | None, metric: float | None) -> None:
        told = {"step": step} | {name: x for name, x in (("loss", loss), ("metric", metric)) if x is not None}
        self._file.write(json.dumps(told) + "\n")


class _CurveFile:
    """Writes what is reported by hand as a curve: ``lr,loss,metric``, a row a step. Says once where it is.

    Nothing is written before the first report: a process that imports the script alone must not replace its curve.
    """

    def __init__(self, path: str | Path, rate: Callable[[int], float]) -> None:
        self._path, self._rate = Path(path).absolute(), rate
        self._step = 0
        self._row: list[float | None] = [None, None]

    def __call__(self, step: int, loss: float | None, metric: float | None) -> None:
        if step != self._step:
            self._write()
        self._step = step
        self._row = [new if new is not None else old for new, old in zip((loss, metric), self._row, strict=True)]

    @cached_property
    def _file(self) -> TextIO:
        file = self._path.open("w", encoding="utf-8", buffering=1)
        file.write("lr,loss,metric\n")
        atexit.register(self._close)
        print(f"clr: started by hand; the curve is written to {self._path}", file=sys.stderr)
        return file

    def _write(self) -> None:
        file = self._file
        if self._step:
            cells = ["" if value is None else repr(value) for value in self._row]
            file.write(f"{self._rate(self._step - 1)!r},{','.join(cells)}\n")
        self._row = [None, None]

    def _close(self) -> None:
        self._write()
        self._file.close()
