"""Programs of all kinds as trainers: what comes of a run, and that nothing is left of it."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clr.commands.program import Program
from clr.errors import BrokenProgram, ProgramDied
from clr.run import Curve, Point, Run
from tests.conftest import started

STEPS = 10
RUN = Run(policy="triangular", base_lr=0.01, max_lr=0.1, step_size_up=5, steps=STEPS, seed=3, evaluate_every=10)
ABOUT = {"stage": "search", "number": 0, "attempt": 1}
ALL_STEPS = 'for i in 1 2 3 4 5 6 7 8 9 10; do echo "{\\"step\\": $i, \\"loss\\": $i}" >> $CLR_POINTS; done'


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test no file of a run is left, and no process that has seen one."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []
    assert started_below(folder) == []


def started_below(folder: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter() if str(folder) in environment_of(one).get("CLR_POINTS", "")]


def environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def program(*command: str, **more: Any) -> Program:
    fields: dict[str, Any] = {"environment": os.environ, "folder": Path.cwd(), "direction": "minimize"}
    return Program(command=command, **fields | {"run_seconds": 60} | more)


def shell(script: str, **more: Any) -> Iterator[Point]:
    return program("sh", "-c", script, **more).points(RUN, ABOUT)


def python(script: str, run: Run = RUN, **more: Any) -> Iterator[Point]:
    return program(sys.executable, "-c", textwrap.dedent(script), **more).points(run, ABOUT)


def test_a_programs_reports_are_the_points_of_its_run() -> None:
    curve = Curve.of(shell(ALL_STEPS))
    assert curve.loss == [float(step) for step in range(1, STEPS + 1)]
    assert curve.lr[0] == 0.01
    assert curve.lr[5] == 0.1
    assert curve.value == STEPS


def test_the_program_finds_its_run_in_a_file() -> None:
    script = """
        import json, os
        run = json.load(open(os.environ["CLR_RUN"]))
        assert run == {"stage": "search", "number": 0, "attempt": 1, "policy": "triangular", "base_lr": 0.01,
                       "max_lr": 0.1, "step_size_up": 5, "step_size_down": None, "gamma": None, "steps": 10,
                       "seed": 3, "evaluate_every": 10}, run
        print(json.dumps({"step": 10, "loss": 1.5}), file=open(os.environ["CLR_POINTS"], "a"))
    """
    assert Curve.of(python(script)).loss == [1.5] * STEPS


def test_current_run_carries_loss_and_metric() -> None:
    script = """
        import clr
        run = clr.current_run()
        for step in range(run.steps):
            run.log(loss=run.lr(step), metric=0.5 if run.evaluates(step) else None)
    """
    curve = Curve.of(python(script, direction="maximize"))
    assert curve.loss == pytest.approx(curve.lr)
    assert (curve.steps, curve.metric) == ([STEPS], [0.5])


@pytest.mark.parametrize("told", ["NaN", "nan", "-nan", "Infinity", "inf", "null"])
def test_a_loss_that_is_not_finite_ends_the_program_as_diverged(told: str) -> None:
    started = time.monotonic()
    curve = Curve.of(shell(f'echo "{{\\"step\\": 1, \\"loss\\": {told}}}" >> $CLR_POINTS; sleep 1000'))
    assert curve.diverged
    assert curve.value is None
    assert time.monotonic() - started < 60


def test_a_ramp_that_explodes_is_ended() -> None:
    ramp = Run(
        policy="exponential_ramp",
        base_lr=1e-4,
        max_lr=1.0,
        step_size_up=1000,
        steps=1000,
        seed=0,
        evaluate_every=100,
        explode=3.0,
    )
    script = """
        import time, clr
        run = clr.current_run()
        for step in range(run.steps):
            run.lr(step), time.sleep(0.01)
            run.log(loss=1 - step / 100 if step < 50 else 100)
    """
    curve = Curve.of(python(script, ramp))
    assert curve.diverged
    assert len(curve.loss) < 1000


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"garbage", "must be a JSON object"),
        (b"\xff\xfe", "must be a JSON object"),
        (b"[1, 2]", "must be a JSON object"),
        (b"[" * 5000, "must be a JSON object"),
        (b'{"loss": 1}', "step must be a whole number"),
        (b'{"step": 1.5, "loss": 1}', "step must be a whole number"),
        (b'{"step": 1}', "must have its loss"),
        (b'{"step": 1, "loss": "low"}', "loss must be a number"),
        (b'{"step": 11, "loss": 1}', "the run has 10 steps"),
        (b'{"step": -1, "loss": 1}', "steps must rise"),
        (b'{"step": 3, "loss": 1}\n{"step": 2, "loss": 1}', "steps must rise"),
        (b'{"step": 3, "loss": 1}\n{"step": 3, "loss": 1}', "steps must rise"),
        (b'{"step": 1, "loss": 1, "lr": 0.5}', "lr must be the run's, 0.01"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named_and_ends_the_program(tmp_path: Path, line: bytes, rule: str) -> None:
    (tmp_path / "lines").write_bytes(line + b"\n")
    with pytest.raises(BrokenProgram, match=rule):
        list(shell(f"cat {tmp_path}/lines >> $CLR_POINTS; sleep 1000"))


def test_a_line_without_an_end_is_not_waited_for() -> None:
    with pytest.raises(BrokenProgram, match="at most 10000 bytes"):
        list(shell("head -c 20000 /dev/zero >> $CLR_POINTS; sleep 1000"))


def test_too_many_reports_are_not_kept() -> None:
    with pytest.raises(BrokenProgram, match="at most 1058576 bytes in 10 steps"):
        list(shell('while echo "                                " >> $CLR_POINTS; do :; done'))


def test_an_unknown_command_is_told_apart_from_a_crash() -> None:
    with pytest.raises(BrokenProgram, match="'no-such-program' is not"):
        list(program("no-such-program").points(RUN, ABOUT))


def test_a_crash_tells_the_last_lines_and_how_it_ended() -> None:
    with pytest.raises(ProgramDied, match=r"(?s)code 3 after 0 of 10 steps; .*printed:\nloading\nout of luck$"):
        list(shell("echo loading; echo out of luck >&2; exit 3"))
    with pytest.raises(ProgramDied, match=r"SIGKILL, as when memory runs out after 0 of 10 steps; it printed nothing"):
        list(shell("kill -9 $$"))


def test_a_crash_after_the_last_report_is_a_crash() -> None:
    with pytest.raises(ProgramDied, match="code 1 after 10 of 10 steps"):
        list(shell(f"{ALL_STEPS}; exit 1"))


@pytest.mark.parametrize(
    ("script", "message"),
    [("true", "without a report"), ('echo "{\\"step\\": 4, \\"loss\\": 1}" >> $CLR_POINTS', "after 4 of 10 steps")],
)
def test_a_program_that_ends_early_has_not_trained(script: str, message: str) -> None:
    with pytest.raises(ProgramDied, match=message):
        list(shell(script))


def test_a_larger_metric_cannot_be_better_where_there_is_none() -> None:
    with pytest.raises(BrokenProgram, match="metric: must be reported after a run's last step, 10"):
        list(shell(ALL_STEPS, direction="maximize"))


def test_a_silent_program_is_ended() -> None:
    with pytest.raises(ProgramDied, match=r"nothing for 0\.5 s \(limits\.run_seconds\), at all"):
        list(shell("sleep 1000", run_seconds=0.5))


def test_endless_output_fills_neither_memory_nor_disk() -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(ProgramDied, match=r"(?s)code 1 .*\ny\ny$"):
        list(shell("yes | head -c 1000000000; exit 1"))
    assert psutil.Process().memory_info().rss - before < 50e6


def test_the_end_of_a_progress_bar_is_shown_and_its_past_is_not() -> None:
    with pytest.raises(ProgramDied, match=r"printed:\n100 %\nbroken$"):
        list(shell("printf '10 %%\\r50 %%\\r\\033[31m100 %%\\033[0m\\nbroken\\n'; exit 1"))


def test_forks_that_left_their_group_parent_and_environment_end_with_the_program(tmp_path: Path) -> None:
    survivors = f"""
        (setsid sleep 1000 & echo $! >> {tmp_path}/pids)
        (trap "" TERM; setsid sleep 1000 & echo $! >> {tmp_path}/pids)
        setsid env -i sleep 1000 & echo $! >> {tmp_path}/pids
    """
    assert len(Curve.of(shell(survivors + ALL_STEPS)).loss) == STEPS
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    assert not any(map(psutil.pid_exists, pids))


def test_a_run_that_is_wanted_no_more_is_ended_at_once(tmp_path: Path) -> None:
    points = shell(f"""echo $$ > {tmp_path}/pid; echo '{{"step": 1, "loss": 1}}' >> $CLR_POINTS; sleep 1000""")
    assert next(points).step == 1
    points.close()  # type: ignore[attr-defined]
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


DRIVER = """
import os, sys
from pathlib import Path
from clr.commands.program import Program
from clr.run import Run
run = Run(policy="fixed", base_lr=0.1, max_lr=0.1, step_size_up=5, steps=10, seed=3, evaluate_every=10)
program = Program(command=sys.argv[1:], environment=os.environ, folder=Path.cwd(), direction="minimize")
for point in program.points(run, {}):
    print(point, flush=True)
"""


def test_nothing_is_left_when_what_drives_the_program_is_killed(tmp_path: Path) -> None:
    script = """echo '{"step": 1, "loss": 1}' >> $CLR_POINTS; setsid sleep 1000"""
    command = [sys.executable, "-c", DRIVER, "sh", "-c", script]
    temporary = Path(tempfile.gettempdir())
    environment = os.environ | {"TMPDIR": str(temporary)}
    with started(command, stdout=subprocess.PIPE, env=environment) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline()
        assert started_below(temporary)
        driver.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while started_below(temporary) or list(temporary.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_left_when_the_starter_itself_is_killed() -> None:
    points = shell("""echo '{"step": 1, "loss": 1}' >> $CLR_POINTS; setsid sleep 1000""")
    next(points)
    (starter,) = (one for one in psutil.Process().children() if "starter.py" in " ".join(one.cmdline()))
    starter.kill()
    with pytest.raises(ProgramDied, match="SIGKILL"):
        list(points)


def test_a_rank_that_is_not_the_programs_own_is_not_handed_on() -> None:
    script = 'test -z "$RANK$SLURM_PROCID" && ' + ALL_STEPS
    assert Curve.of(shell(script, environment=os.environ | {"RANK": "3", "SLURM_PROCID": "3"})).value == STEPS


def test_what_clr_is_installed_with_comes_first_outside_of_an_activated_environment() -> None:
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    script = "import clr; run = clr.current_run(); run.lr(0); run.log(loss=1.0, step=run.steps)"
    more = {"environment": bare, "folder": Path.cwd()}
    assert Curve.of(program("python", "-c", script, **more).points(RUN, ABOUT)).value == 1.0
