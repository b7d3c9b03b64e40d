"""``clr.current_run``: the run of a program, handed to it or by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clr
from clr.commands import RANKS
from clr.commands.current_run import CurrentRun, ScheduleNotFollowed
from clr.errors import InvalidArgument

HANDED = {
    "stage": "search",
    "number": 4,
    "attempt": 1,
    "policy": "triangular",
    "base_lr": 0.001,
    "max_lr": 0.006,
    "step_size_up": 3,
    "step_size_down": 7,
    "gamma": None,
    "steps": 20,
    "seed": 11,
    "evaluate_every": 10,
}
BY_HAND: dict[str, Any] = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "steps": 8}


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CLR_RUN", "CLR_POINTS", *RANKS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run was handed over; the file to report to."""
    (tmp_path / "run.json").write_text(json.dumps(HANDED))
    monkeypatch.setenv("CLR_RUN", str(tmp_path / "run.json"))
    monkeypatch.setenv("CLR_POINTS", str(tmp_path / "points"))
    return tmp_path / "points"


def reported(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_was_handed_over_counts_before_what_is_given(handed: Path) -> None:
    run = clr.current_run(**BY_HAND)
    assert (run.steps, run.seed, run.max_lr, run.evaluate_every) == (20, 11, 0.006, 10)
    rates = [run.lr(step) for step in range(run.steps)]
    assert rates[0] == 0.001
    assert rates[3] == 0.006
    assert rates[10] == 0.001
    assert clr.current_run() is run


def test_reports_are_lines_of_json(handed: Path) -> None:
    run = clr.current_run()
    run.lr(0)
    run.log(loss=torch.tensor(0.5, requires_grad=True))
    run.log(loss=np.float32(0.25), step=5)
    run.log(metric=0.75)
    run.log(loss=float("nan"), metric=None)
    first, second, third, fourth = reported(handed)
    assert (first, second) == ({"step": 1, "loss": 0.5}, {"step": 5, "loss": 0.25})
    assert third == {"step": 5, "metric": 0.75}
    assert fourth["step"] == 6
    assert fourth["loss"] != fourth["loss"]


@pytest.mark.parametrize("variable", RANKS)
def test_every_rank_sees_the_same_run_and_the_first_alone_reports(
    handed: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    runs = []
    for rank in "01":
        monkeypatch.setenv(variable, rank)
        run = clr.current_run()
        runs.append([run.lr(step) for step in range(run.steps)])
        run.log(loss=float(rank))
    assert runs[0] == runs[1]
    assert reported(handed) == [{"step": 1, "loss": 0.0}]


def test_a_scheduler_has_the_rates_of_the_run(handed: Path) -> None:
    run = clr.current_run()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], momentum=0.9)
    scheduler = run.scheduler(optimizer)
    for step in range(run.steps):
        assert optimizer.param_groups[0]["lr"] == run.lr(step)
        optimizer.step()
        scheduler.step()
        run.log(loss=1.0)
    assert [one["step"] for one in reported(handed)] == list(range(1, 21))


def test_a_schedule_that_is_not_followed_is_refused(handed: Path) -> None:
    run = clr.current_run()
    with pytest.raises(ScheduleNotFollowed, match=r"call run\.lr"):
        run.log(loss=1.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = run.scheduler(optimizer)
    optimizer.step()
    run.log(loss=1.0)  # before the scheduler's step, or after it
    scheduler.step()
    with pytest.raises(ScheduleNotFollowed, match="stepped 1 times in 3 steps"):
        run.log(loss=1.0, step=3)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(ScheduleNotFollowed, match=r"rate is 0\.5 where the run's is 0\.0026"):
        run.log(loss=1.0)


@pytest.mark.parametrize(("step", "shown"), [(0, "0"), (21, "21"), (1.5, "1.5"), ("3", "'3'"), (True, "True")])
def test_a_step_must_be_one_that_is_still_to_come(handed: Path, step: Any, shown: str) -> None:
    run = clr.current_run()
    run.lr(0)
    with pytest.raises(InvalidArgument, match=f"step: must be a whole number from 1, .* but got {shown}"):
        run.log(loss=1.0, step=step)


def test_a_loss_must_be_one_number(handed: Path) -> None:
    run = clr.current_run()
    run.lr(0)
    with pytest.raises(InvalidArgument, match="loss: must be one number"):
        run.log(loss=torch.zeros(3))
    with pytest.raises(InvalidArgument, match="loss: must be given, or else a metric"):
        run.log()


def test_a_file_that_holds_no_run_is_named(tmp_path: Path, handed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.json").write_text('{"policy": "fixed"}')
    for path in ("/no/such/file", str(tmp_path / "other.json")):
        monkeypatch.setenv("CLR_RUN", path)
        with pytest.raises(InvalidArgument, match=f"CLR_RUN: .*{path}"):
            clr.current_run()
    monkeypatch.delenv("CLR_POINTS")
    with pytest.raises(InvalidArgument, match="CLR_POINTS"):
        clr.current_run()


def test_by_hand_it_takes_what_is_given_and_writes_a_curve(tmp_path: Path) -> None:
    script = """
import clr
run = clr.current_run(base_lr=0.01, max_lr=0.1, step_size_up=4, steps=8)
for step in range(run.steps):
    run.lr(step)
    run.log(loss=1.0 / (step + 1))
    if run.evaluates(step):
        run.log(metric=0.5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == f"clr: started by hand; the curve is written to {tmp_path}/clr-curve.csv\n"
    lines = (tmp_path / "clr-curve.csv").read_text().splitlines()
    assert lines[0] == "lr,loss,metric"
    assert lines[1] == "0.01,1.0,"
    assert lines[8] == "0.0325,0.125,0.5"
    assert len(lines) == 9


def test_by_hand_a_ramp_is_a_range_test_that_clr_reads(tmp_path: Path) -> None:
    script = """
import clr
run = clr.current_run(base_lr=1e-5, max_lr=1, step_size_up=200, steps=200, policy="exponential_ramp")
for step in range(run.steps):
    lr = run.lr(step)
    run.log(loss=1 - lr / (lr + 0.01) + 30 * lr * lr + 1e-4 * (step % 3))
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    command = [sys.executable, "-m", "service.cli", "analyze", str(tmp_path / "clr-curve.csv"), "--json"]
    environment = {"PYTHONPATH": str(Path(clr.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert 0.01 < json.loads(done.stdout)["max_lr"] < 0.2


@pytest.mark.parametrize("asked", ["scheduler", "lr"])
def test_a_loop_without_an_end_of_its_own_ends_well_with_the_run(handed: Path, asked: str) -> None:
    run = clr.current_run()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = run.scheduler(optimizer) if asked == "scheduler" else None
    taken = []

    def loop() -> None:
        for step in range(1000):
            if scheduler is None:
                run.lr(step)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            taken.append(step)
            run.log(loss=1.0)
            if run.evaluates(step):
                run.log(metric=0.5)

    with pytest.raises(SystemExit) as ended:
        loop()
    assert (len(taken), ended.value.code) == (21, 0)
    lines = reported(handed)
    assert (len(lines), lines[-1]) == (22, {"step": 20, "metric": 0.5})


def test_a_loop_that_counts_other_steps_than_those_of_its_rates_is_refused(handed: Path) -> None:
    run = clr.current_run()

    def loop() -> None:
        for batch in range(1000):
            run.lr(batch // 4)  # of an update, four batches each
            run.log(loss=1.0)

    with pytest.raises(InvalidArgument, match=r"step: must be a whole number from 21, the next, to 20"):
        loop()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_lr": None}, "base_lr: is required where the program is started by hand"),
        ({"steps": 0}, "steps: must be a whole number, at least 1, but got 0"),
        ({"evaluate_every": 1.5}, "evaluate_every: must be a whole number"),
        ({"base_lr": 1.0}, "base_lr: must be at most max_lr"),
        ({"seed": -1}, "seed: must be a whole number, at least 0"),
        ({"step_size_up": "4"}, "must be a whole number of steps"),
        ({"policy": "sine"}, "policy: must be one of"),
    ],
)
def test_by_hand_what_is_given_must_hold(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        clr.current_run(**BY_HAND | given)


def test_by_hand_other_ranks_write_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run = clr.current_run(**BY_HAND)
    run.log(loss=run.lr(0))
    assert list(tmp_path.iterdir()) == []


def test_by_hand_a_process_that_logs_nothing_replaces_no_curve(tmp_path: Path) -> None:
    (tmp_path / "clr-curve.csv").write_text("that of the process that trains")
    clr.current_run(**BY_HAND)
    assert (tmp_path / "clr-curve.csv").read_text() == "that of the process that trains"


def test_a_rank_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InvalidArgument, match="RANK: must be the whole number"):
        clr.current_run(**BY_HAND)


def test_rates_of_arrays_are_arrays() -> None:
    run = clr.current_run(**BY_HAND, curve=None)
    steps = np.arange(run.steps)
    assert run.lr(steps).tolist() == [run.lr(step) for step in range(run.steps)]
    assert run.lr(np.int64(3)) == run.lr(3)


def test_rates_can_be_traced_by_jax() -> None:
    jax = pytest.importorskip("jax")
    run: CurrentRun = clr.current_run(**BY_HAND, curve=None)
    rates = jax.jit(lambda count: 2 * run.lr(count))
    assert float(rates(3)) == pytest.approx(2 * run.lr(3))


def test_it_needs_no_torch() -> None:
    script = "import sys, clr; run = clr.current_run(base_lr=1, max_lr=2, step_size_up=1, steps=2, curve=None); "
    script += "run.lr(1), run.log(loss=1); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
