"""What each format's lines do, where they run: in a process of the framework's own."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import TrainingLength
from clr.schedules.policies import CYCLIC, schedule
from clr.tuning.formats import FORMATS, WRITERS
from clr.tuning.recommendation import Recommendation

BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.007, 0.013), "max_lr": (0.07, 0.13)}, "high", ["the seeds agree"])
LENGTH = TrainingLength(4, 10)
STEPS = 60  # three cycles

KERAS = """
import numpy as np
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.5), "mse")
rates = []
class Watch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        rates.append(float(self.model.optimizer.learning_rate))
for _ in range(2):  # a second fit goes on where the first ended
    model.fit(np.ones((120, 2)), np.ones((120, 1)), batch_size=4, verbose=0, callbacks=[CyclicLR(), Watch()])
"""

OPTAX = """
import jax
params = jnp.ones(3)
state = optimizer.init(params)
updates, _ = optimizer.update(params, state, params)
assert jnp.allclose(updates, -schedule(0)), updates
compiled = jax.jit(schedule)
rates = [float(schedule(step)) for step in range(60)]
assert jnp.allclose(jnp.array(rates), jnp.array([compiled(step) for step in range(60)])), "compiled or not"
"""

TRANSFORMERS = """
import torch
from transformers import TrainingArguments
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}
rates = []
class Watched(CyclicTrainer):
    def training_step(self, *args, **more):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return super().training_step(*args, **more)
args = TrainingArguments("out", max_steps=60, per_device_train_batch_size=2, report_to=[], use_cpu=True,
                         save_strategy="no", disable_tqdm=True, logging_strategy="no")
Watched(model=Net(), args=args, train_dataset=[{"x": torch.ones(2), "labels": torch.ones(1)}] * 120).train()
"""


def make(policy: str = "triangular") -> Recommendation:
    candidate = replace(LENGTH.propose(0.1, 10, 2, policy), step_size_up=6, step_size_down=14)
    return Recommendation.of("search", BOUNDS, candidate, LENGTH.iterations_per_epoch, warnings=["only an example"])


INCONCLUSIVE = Recommendation.of("range_test", Bounds.inconclusive("the loss never fell"), None, 10)


def expected(found: Recommendation, steps: int = STEPS) -> list[float]:
    shape = {"stepsize": 6, "stepsize_down": 14} | ({"gamma": found.gamma} if found.gamma else {})
    rate = schedule(found.policy, base_lr=0.01, max_lr=0.1, **shape)
    return [rate(step) for step in range(steps)]


def rates(lines: dict[str, str], program: str, folder: Path) -> dict[str, list[float]]:
    """By policy, the list ``rates`` that is there once its lines and the program after them have run."""
    variables = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    environment = os.environ | variables | {"PYTHONPATH": str(Path(__file__).parents[3])}
    sources = json.dumps({policy: one + program for policy, one in lines.items()})
    command = [sys.executable, "-c", EACH]  # one process for all: the frameworks' imports take seconds
    done = subprocess.run(
        command, input=sources, env=environment, cwd=folder, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


EACH = """
import json, sys
found = {}
for policy, source in json.load(sys.stdin).items():
    names = {"__name__": policy}
    exec(source, names)
    found[policy] = names["rates"]
print(json.dumps(found))
"""


def all_expected(found: dict[str, Recommendation], rel: float) -> dict[str, Any]:
    return {policy: pytest.approx(expected(one), rel=rel) for policy, one in found.items()}


def test_the_optax_schedule_is_the_recommended_one(tmp_path: Path) -> None:
    found = {policy: make(policy) for policy in CYCLIC}
    lines = {policy: one.to_optax() for policy, one in found.items()}
    assert rates(lines, OPTAX, tmp_path) == all_expected(found, 1e-5)


def test_the_keras_callback_follows_the_recommended_schedule(tmp_path: Path) -> None:
    found = {policy: make(policy) for policy in ("triangular", "exp_range_amplitude", "hann")}
    lines = {policy: one.to_keras() for policy, one in found.items()}
    assert rates(lines, KERAS, tmp_path) == all_expected(found, 1e-5)


def test_the_transformers_trainer_follows_the_recommended_schedule(tmp_path: Path) -> None:
    found = {policy: make(policy) for policy in ("triangular2", "welch")}
    lines = {policy: one.to_transformers() for policy, one in found.items()}
    assert rates(lines, TRANSFORMERS, tmp_path) == all_expected(found, 1e-6)


@pytest.mark.parametrize("policy", CYCLIC)
def test_what_deepspeed_is_to_call_makes_the_recommended_scheduler(policy: str) -> None:
    found = make(policy)
    names: dict[str, Any] = {}
    exec(found.to_deepspeed(), names)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = names["cyclic"](optimizer)
    seen = []
    for _ in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(expected(found), rel=1e-9)


def test_deepspeeds_own_one_cycle_is_the_first_cycle_by_its_published_formula() -> None:
    found = make()
    commented = found.to_deepspeed().split("not repeat:\n")[1]
    config = json.loads("{" + re.sub(r"^# ?", "", commented, flags=re.MULTILINE) + "}")["scheduler"]["params"]
    up, down = config["cycle_first_step_size"], config["cycle_second_step_size"]
    total = up + down
    low, high = config["cycle_min_lr"], config["cycle_max_lr"]
    for step, rate in enumerate(expected(found, total)):
        x = 1.0 + step / total - math.floor(1 + step / total)
        scale = x / (up / total) if x <= up / total else (x - 1) / (up / total - 1)
        assert low + (high - low) * scale == pytest.approx(rate)


@pytest.mark.parametrize("policy", CYCLIC)
def test_between_the_rows_of_the_table_the_first_cycle_is_a_line(policy: str) -> None:
    found = make(policy)
    lines = [line for line in found.to_table().splitlines() if not line.startswith("#")]
    assert lines[0] == "step\tlr"
    steps, values = zip(*(map(float, line.split("\t")) for line in lines[1:]), strict=True)
    assert np.interp(range(20), steps, values) == pytest.approx(expected(found, 20), rel=1e-8)


def test_a_long_cycle_makes_no_longer_table_and_keeps_its_turns() -> None:
    found = replace(make(), step_size_up=12_345, step_size_down=23_456)
    rows = found.to_table().splitlines()
    assert len(rows) < 210
    assert "12345\t0.1" in rows


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("json", "yaml")])
def test_without_bounds_each_format_is_comments_that_say_why(name: Any) -> None:
    lines = WRITERS[name](INCONCLUSIVE).splitlines()
    assert all(line.startswith("#") for line in lines)
    assert "never fell" in lines[-1]


@pytest.mark.parametrize("name", ["optax", "keras", "deepspeed", "transformers", "table"])
def test_warnings_are_told_before_the_lines(name: Any) -> None:
    assert "# only an example" in WRITERS[name](make()).splitlines()
