"""Programs of several kinds as their users write them, started as clr starts them."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clr.commands.program import Program
from clr.run import Curve, Run
from clr.schedules.policies import schedule

ROOT = Path(__file__).parents[2]
EXAMPLES = "examples/commands"
TORCHRUN = "torchrun --standalone --nproc-per-node 2"
ACCELERATE = "accelerate launch --cpu --num_processes 2 --mixed_precision no --dynamo_backend no --main_process_port 0"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.timeout(900)  # most of it is imports, of up to three processes a run

RUN = Run(
    policy="triangular",
    base_lr=0.005,
    max_lr=0.05,
    step_size_up=20,
    step_size_down=40,
    steps=60,
    seed=3,
    evaluate_every=60,
)


def curve_of(command: str, run: Run = RUN, folder: Path = ROOT) -> Curve:
    """What a program reports of a run."""
    program = Program(command=shlex.split(command), environment=ENVIRONMENT, folder=folder, direction=None)
    return Curve.of(program.points(run, {"stage": "search", "number": 0, "attempt": 1}))


def tuned(command: str, folder: Path, direction: str, *, steps: int = 240) -> dict[str, Any]:
    """What ``clr tune`` finds for a training of ten epochs, by a range test of little over half of it."""
    options = ["--epochs", "10", "--iterations-per-epoch", f"{steps // 10}", "--direction", direction]
    options += ["--budget", "0.6"]
    tune = [sys.executable, "-m", "service.cli", "tune", *options, "--save", str(folder / "saved.db"), "--json"]
    done = subprocess.run(
        [*tune, "--", *shlex.split(command)], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("module", "command", "has_metric"),
    [
        ("torch", f"python {EXAMPLES}/pytorch.py", True),
        ("torch", f"{TORCHRUN} {EXAMPLES}/torchrun.py", True),
        ("transformers", f"python {EXAMPLES}/transformers_trainer.py", True),
        ("optax", f"python {EXAMPLES}/optax_digits.py", True),
        ("os", f"awk -f {EXAMPLES}/least_squares.awk", False),
    ],
    ids=["pytorch", "torchrun", "transformers", "optax", "awk"],
)
def test_a_program_of_each_kind_carries_out_its_run(module: str, command: str, has_metric: bool) -> None:
    pytest.importorskip(module)
    curve = curve_of(command)
    assert len(curve.loss) == 60
    assert sum(curve.loss[-10:]) < 0.9 * sum(curve.loss[:10])
    assert curve.steps == [60] * has_metric


RATES = """
import sys
import torch
import torch.distributed as dist
import clr

dist.init_process_group("gloo")
run = clr.current_run()
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
scheduler = run.scheduler(optimizer)
with open(f"rank{dist.get_rank()}", "w") as rates:
    for step in range(run.steps):
        assert optimizer.param_groups[0]["lr"] == run.lr(step)
        print(run.lr(step).hex(), run.seed, file=rates)
        optimizer.step()
        scheduler.step()
        run.log(loss=float(dist.get_rank()))
dist.destroy_process_group()
"""


def test_each_rank_has_the_same_rates_bit_for_bit_and_the_first_reports(tmp_path: Path) -> None:
    (tmp_path / "rates.py").write_text(RATES)
    curve = curve_of(f"{TORCHRUN} rates.py", folder=tmp_path)
    assert curve.loss == [0.0] * 60
    rate = schedule("triangular", base_lr=0.005, max_lr=0.05, stepsize=20, stepsize_down=40)
    expected = [f"{rate(step).hex()} 3" for step in range(60)]
    assert [(tmp_path / name).read_text().splitlines() for name in ("rank0", "rank1")] == [expected, expected]


@pytest.mark.long
@pytest.mark.parametrize(("launcher", "script"), [(TORCHRUN, "torchrun"), (ACCELERATE, "with_accelerate")])
def test_two_processes_get_the_answer_that_one_gets_within_its_interval(
    launcher: str, script: str, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    one, two = (tmp_path / name for name in ("one", "two"))
    alone = tuned(f"python {EXAMPLES}/pytorch.py", one, "maximize")
    together = tuned(f"{launcher} {EXAMPLES}/{script}.py", two, "maximize")
    low, high = alone["interval"]["max_lr"]
    assert low <= together["max_lr"] <= high


@pytest.mark.long
def test_a_program_of_accelerates_two_processes_carries_out_its_run() -> None:
    pytest.importorskip("accelerate")
    curve = curve_of(f"{ACCELERATE} {EXAMPLES}/with_accelerate.py")
    assert (len(curve.loss), curve.steps) == (60, [60])
    assert sum(curve.loss[-10:]) < 0.9 * sum(curve.loss[:10])


def test_no_python_is_needed(tmp_path: Path) -> None:
    found = tuned(f"awk -f {EXAMPLES}/least_squares.awk", tmp_path, "minimize", steps=1000)
    assert 0.02 < found["max_lr"] < 1
    assert found["torch"]["step_size_up"] + found["torch"]["step_size_down"] == 1000
