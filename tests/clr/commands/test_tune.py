"""The whole method on a program of the user's own, with no service."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clr.commands.program import Program
from clr.commands.tune import tune
from clr.errors import BrokenProgram, InvalidArgument, ProgramDied
from clr.extras import EXTRAS
from clr.tuning.orders import Order
from clr.tuning.session import Session
from tests.clr.test_extras import ALSO_OF_THE_LIBRARY, python
from tests.conftest import started

AWK = Path(__file__).parents[3] / "examples" / "commands" / "least_squares.awk"
LENGTH: dict[str, Any] = {"epochs": 20, "iterations_per_epoch": 30, "progress": False}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    shutil.copy(AWK, tmp_path / "train.awk")
    command = ["sh", "-c", "echo started >> starts; exec awk -f train.awk"]
    return Program(command=command, environment=os.environ, folder=tmp_path, direction="minimize")


def starts(program: Program) -> int:
    file = program.folder / "starts"
    return len(file.read_text().split()) if file.exists() else 0


def changed(program: Program, **fields: Any) -> Program:
    kept = {name: getattr(program, name) for name in ("command", "environment", "folder", "direction", "run_seconds")}
    return Program(**kept | fields)


def test_bounds_are_found_within_the_budget(program: Program) -> None:
    seen: list[tuple[int, float | None]] = []

    def show(session: Session, order: Order | None) -> None:
        seen.append((session.steps_so_far, session.recommendation and session.recommendation.max_lr))

    found = tune(program, **LENGTH | {"progress": show}, budget=3)
    assert found.max_lr is not None
    assert 0.02 < found.max_lr < 1
    assert found.evidence is not None
    assert found.cost is not None
    assert found.cost.relative_to_one_training <= 3
    assert starts(program) >= 8
    first = next(steps for steps, max_lr in seen if max_lr is not None)
    assert first <= 600 < seen[-1][0], "the first bounds are told before anything is compared"


def test_what_was_interrupted_goes_on(program: Program) -> None:
    def interrupt(session: Session, order: Order | None) -> None:
        if starts(program) == 4:
            raise KeyboardInterrupt

    save = program.folder / "saved.db"
    with pytest.raises(KeyboardInterrupt):
        tune(program, **LENGTH | {"progress": interrupt}, budget=1, save=save)
    found = tune(program, **LENGTH, budget=1, save=save)
    resumed = starts(program)
    (program.folder / "starts").unlink()
    assert tune(program, **LENGTH, budget=1).max_lr == found.max_lr
    assert resumed == starts(program) + 1, "the run that was interrupted alone is trained again"
    (program.folder / "starts").unlink()
    assert tune(program, **LENGTH, budget=1, save=save).max_lr == found.max_lr
    assert starts(program) == 0


def test_a_script_that_was_changed_begins_anew(program: Program) -> None:
    program, save = changed(program, command=["sh", "train.sh"]), program.folder / "saved.db"
    (program.folder / "train.sh").write_text("echo started >> starts; exec awk -f train.awk")
    tune(program, **LENGTH, budget=1, save=save)
    before = starts(program)
    (program.folder / "train.sh").write_text("echo started >> starts; exec awk -f train.awk # better")
    tune(program, **LENGTH, budget=1, save=save)
    assert starts(program) == 2 * before


def test_without_a_direction_the_program_is_tried_first(program: Program) -> None:
    said: list[str] = []
    found = tune(changed(program, direction=None), **LENGTH, budget=1, say=said.append)
    assert found.max_lr is not None
    assert said == ["the program reports no metric: its loss counts, and smaller is better"]


def test_one_that_never_reported_is_broken_and_not_unlucky(program: Program) -> None:
    said: list[str] = []
    with pytest.raises(ProgramDied, match="ended with code 1 after 0 of"):
        tune(changed(program, command=["sh", "-c", "echo started >> starts; exit 1"]), **LENGTH, say=said.append)
    assert starts(program) == 1
    assert said[0].startswith("range test run 0, attempt 1 of 3: the program ended")


def test_a_crash_costs_an_attempt(program: Program) -> None:
    said: list[str] = []
    script = 'echo started >> starts; [ "$(wc -l < starts)" = 3 ] && exit 1; exec awk -f train.awk'
    found = tune(changed(program, command=["sh", "-c", script]), **LENGTH, budget=1, say=said.append)
    assert found.max_lr is not None
    assert len(said) == 1
    assert "attempt 1 of 3" in said[0]


def test_what_breaks_a_rule_is_refused_before_anything_starts(program: Program) -> None:
    with pytest.raises(InvalidArgument, match="epochs"):
        tune(program, **LENGTH | {"epochs": -1})
    with pytest.raises(InvalidArgument, match="iterations_per_epoch"):
        tune(program, **LENGTH | {"iterations_per_epoch": 0})
    with pytest.raises(BrokenProgram, match="'nowhere' is not"):
        tune(changed(program, command=["nowhere"]), **LENGTH)
    assert starts(program) == 0


def test_the_command_line_tunes_and_goes_on(program: Program) -> None:
    command = [sys.executable, "-m", "service.cli", "tune", "--epochs", "20", "--iterations-per-epoch", "30"]
    command += ["--direction", "minimize", "--budget", "1", "--", *program.command]
    temporary = program.folder / "temporary"
    temporary.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(temporary)}
    more: dict[str, Any] = {"cwd": program.folder, "env": environment, "text": True}
    with started(command, stderr=subprocess.PIPE, **more) as process:
        deadline = time.monotonic() + 60
        while starts(program) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.terminate()
        assert process.wait(60) == 143
    assert list(temporary.iterdir()) == []
    done = subprocess.run(command, capture_output=True, check=True, **more)
    assert "torch.optim.lr_scheduler.CyclicLR(" in done.stdout
    told = done.stderr.splitlines()
    assert re.fullmatch(r"range test, run \d+: [\d,]+ of at most 600 steps", told[0])
    assert re.fullmatch(r"base_lr \S+, max_lr \S+ \(\w+ confidence\)", told[-1])
    assert (program.folder / "clr-tune.db").exists()
    starts_in_all = starts(program)
    subprocess.run(command, capture_output=True, check=True, **more)
    assert starts(program) == starts_in_all


def test_it_needs_the_command_line_alone_of_what_clr_can_be_installed_with(program: Program) -> None:
    absent = tuple(
        {name for extra in EXTRAS if extra != "cli" for name in EXTRAS[extra]} - ALSO_OF_THE_LIBRARY - {"typer"}
    )
    options = [
        "--epochs",
        "20",
        "--iterations-per-epoch",
        "30",
        "--budget",
        "1",
        "--save",
        str(program.folder / "kept"),
    ]
    arguments = ["clr", "tune", *options, "--", "awk", "-f", str(AWK)]
    done = python(f"import sys; sys.argv = {arguments!r}; from service.command import main; main()", absent=absent)
    assert done.returncode == 0, done.stderr
    assert "max_lr" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "sh", "-c", "echo lost; exit 7"], "error: .*ended with code 7 after 0 of .*lost"),
        (["--", "nowhere"], "error: command: must begin with a program .*"),
        ([], "error: Missing argument.*"),
    ],
)
def test_the_command_line_fails_with_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    options = ["--epochs", "2", "--iterations-per-epoch", "100", "--direction", "minimize"]
    command = [sys.executable, "-m", "service.cli", "tune", *options, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(message, done.stderr.splitlines()[-1])
