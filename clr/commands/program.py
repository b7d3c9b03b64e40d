"""One run of a program of the user's own: started, followed by what it reports, and ended with all that it started."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

from clr.commands import DECIDES, RANKS, starter
from clr.commands.reports import LONGEST_LINE, Reports
from clr.errors import BrokenProgram, ProgramDied
from clr.run import Direction, Point, Run

LOOK_EVERY_S = 0.02
"""Between two looks at what was reported."""

TELL_EVERY_S = 1.0
"""A run that goes on has a point at least this often."""

RUN_SECONDS = 600.0
"""Without a report for so long, a program is taken for stuck, unless told otherwise."""

OUTPUT_BYTES, OUTPUT_LINES, LINE_CHARACTERS = 65_536, 20, 500
"""Of a program's output its last part is kept, and shown where it fails."""

REPORT_BYTES = 1000
"""A step's reports may have so many bytes on average, and a megabyte more: they lie on a disk until the run ends."""

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is started for every run, and where.

    Args:
        command: program and arguments.
        environment: its environment, but for the variables that tell it its run. Outside of an activated one, the
            programs beside this Python come first in the ``PATH``: ``python`` is then this one.
        folder: its working directory.
        direction: whether larger metrics are better. "maximize" needs a metric; without one the loss counts. None: it
            is not known yet.
        run_seconds: it is ended after so many without a report, > 0.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    direction: Direction | None
    run_seconds: float = RUN_SECONDS

    def points(self, run: Run, about: Mapping[str, Any]) -> Iterator[Point]:
        """Start the program for a run and yield its points as they come; stop pulling to end it.

        Args:
            run: to be carried out.
            about: what else the program is told of it: ``stage``, ``number``, ``attempt``.

        Raises:
            BrokenProgram: there is no such program, or it reported what is none.
            ProgramDied: it ended early or with an error, with its last lines, or did not report for too long.
        """
        if run.optimizer is not None or run.patience is not None:
            raise BrokenProgram(f"run: must leave optimizer and patience to the program, but has {run!r}")
        told = {name: getattr(run, name) for name in DECIDES} | dict(about)
        if run.is_ramp:  # the metric along a ramp is for the picture, and would cost more than the ramp
            told["evaluate_every"] = run.steps
        with _run_folder(told) as place, _started(self, place) as (process, output):
            yield from _Following(self, run, place, process, output).points()


@contextmanager
def _run_folder(told: Mapping[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="clr-run-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        (place / "run.json").write_text(json.dumps(told), encoding="utf-8")
        (place / "points.jsonl").touch()
        yield place


@contextmanager
def _started(program: Program, place: Path) -> Iterator[tuple["subprocess.Popen[bytes]", "_Output"]]:
    """The program with its files at ``place``; afterwards nothing is left of it."""
    environment = _environment(program.environment, place)
    _check(program.command[0], program.folder, environment["PATH"])
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", starter.__file__, *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=program.folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise BrokenProgram(f"command: could not be started: {error}") from None
    output = _Output(process.stdout)
    try:
        yield process, output
    finally:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(starter.GRACE_S + starter.STUCK_S)
        if process.returncode is None or process.returncode < 0:
            _sweep(process, environment["CLR_POINTS"])
        output.close()


def _environment(given: Mapping[str, str], place: Path) -> dict[str, str]:
    """The program's environment. Ranks are dropped: its own launcher tells them, and not one that started this."""
    environment = {name: value for name, value in given.items() if name not in RANKS}
    environment |= {"CLR_RUN": str(place / "run.json"), "CLR_POINTS": str(place / "points.jsonl")}
    environment.setdefault("PATH", os.defpath)
    if not (environment.get("VIRTUAL_ENV") or environment.get("CONDA_PREFIX")):
        environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
    return environment


def _check(name: str, folder: Path, path: str) -> None:
    where = str(folder / name) if os.path.dirname(name) else name
    if shutil.which(where, path=path) is None:
        raise BrokenProgram(
            f"command: must begin with a program that is in its folder, {folder}, or on the PATH, but {name!r} is not"
        )


def _sweep(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """End what is left where the starter itself was ended by force: known by its environment."""
    if process.returncode is None:
        process.kill()
        process.wait()
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if one.environ().get("CLR_POINTS") == mark:
                one.kill()


class _Output:
    """Drains a program's output, however much it is, and keeps the end of it."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream, self._kept = stream, b""
        self._thread = Thread(target=self._drain, name="program output", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with suppress(OSError, ValueError):  # closed under way
            while piece := os.read(self._stream.fileno(), OUTPUT_BYTES):
                self._kept = (self._kept + piece)[-OUTPUT_BYTES:]

    def join(self) -> None:
        """Return once all of it is read: its writers are gone."""
        self._thread.join(starter.GRACE_S)

    def close(self) -> None:
        self.join()
        if not self._thread.is_alive():
            self._stream.close()

    def last_lines(self) -> str:
        """The end of what was printed so far, for people; of a progress bar its last state."""
        text = _ESCAPES.sub("", re.sub(r"[^\n]*\r(?!\n)", "", self._kept.decode(errors="replace")))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(line[:LINE_CHARACTERS] for line in lines[-OUTPUT_LINES:])


class _Following:
    """A program under way, as the reports of its run."""

    def __init__(
        self, program: Program, run: Run, place: Path, process: "subprocess.Popen[bytes]", output: _Output
    ) -> None:
        self.program, self.run, self.process, self.output = program, run, process, output
        self.reports = Reports(run)
        self.file = (place / "points.jsonl").open("rb")
        self._rest, self._read = b"", 0
        self._heard = self._told = time.monotonic()

    def points(self) -> Iterator[Point]:
        with closing(self.file):
            ending = None
            while ending is None and not self.reports.diverged:
                ending = self.process.poll()  # first, so that what it reported last is read below
                yield from self._news(at_end=ending is not None)
                if ending is None:
                    self._check_silence()
                    time.sleep(LOOK_EVERY_S)
        yield from self.reports.due()
        if not self.reports.diverged:
            self._check_ending(ending)

    def _news(self, *, at_end: bool) -> Iterator[Point]:
        for line in self._lines(at_end):
            yield from self.reports.take(line)
        now = time.monotonic()
        if now - self._told > TELL_EVERY_S and not at_end:
            self._told = now
            yield from self.reports.due()

    def _lines(self, at_end: bool) -> Iterator[bytes]:
        """Whole lines that are new; of a program that has ended also the last, should it lack its end."""
        while piece := self.file.read(2**20):
            self._heard = time.monotonic()
            self._read += len(piece)
            *whole, self._rest = (self._rest + piece).split(b"\n")
            self._check_size()
            yield from (line for line in whole if line.strip())
        if at_end and self._rest.strip():
            yield self._rest

    def _check_size(self) -> None:
        if len(self._rest) > LONGEST_LINE:
            raise BrokenProgram(f"CLR_POINTS: a line must have at most {LONGEST_LINE} bytes, but one has more")
        if self._read > (most := 2**20 + REPORT_BYTES * self.run.steps):
            raise BrokenProgram(f"CLR_POINTS: must have at most {most} bytes in {self.run.steps} steps, but has more")

    def _check_silence(self) -> None:
        if time.monotonic() - self._heard > self.program.run_seconds:
            where = f"after {self.reports.step} of {self.run.steps} steps" if self.reports.step else "at all"
            raise self._died(f"reported nothing for {self.program.run_seconds:g} s (limits.run_seconds), {where}")

    def _check_ending(self, ending: int | None) -> None:
        self.output.join()
        steps, whole = self.reports.step, self.run.steps
        if ending:
            how = f"with code {ending}" if ending > 0 else f"by {_signal_name(-ending)}"
            raise self._died(f"ended {how} after {steps} of {whole} steps")
        if steps == 0:
            raise self._died("ended without a report: call run.log, or append to the file that CLR_POINTS names")
        if steps < whole:
            raise self._died(f"ended after {steps} of {whole} steps; it must train for the steps that CLR_RUN says")
        if self.reports.measured < steps and (self.program.direction == "maximize" or self.reports.measured):
            raise BrokenProgram(
                f"metric: must be reported after a run's last step, {steps}, but was last after step "
                f"{self.reports.measured}; without any metric the loss counts, and direction must be minimize"
            )

    def _died(self, what: str) -> ProgramDied:
        output = self.output.last_lines()
        printed = f"; the last that it printed:\n{output}" if output else "; it printed nothing"
        return ProgramDied(f"the program {what}{printed}")


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        name = signal.Signals(number).name
        return f"{name}, as when memory runs out" if name == "SIGKILL" else name
    return f"signal {number}"
