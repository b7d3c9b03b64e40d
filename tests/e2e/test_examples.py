"""The examples as a reader runs them: each a process of its own, and what it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def output(name: str) -> str:
    """What an example prints; it must end well."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"no {pattern} in: {text}"
    return float(found[1])


def test_plain_pytorch_finds_bounds_and_trains_well_with_them() -> None:
    printed = output("pytorch.py")
    assert 0 < number(r"base_lr (\S+)", printed) < number(r"max_lr (\S+)", printed)
    assert number(r"accuracy on .*: (\S+)", printed) > 0.88


@pytest.mark.parametrize(
    ("package", "result", "least", "most"),
    [("lightning", r"accuracy after 240 steps: (\S+)", 0.88, 1.0), ("transformers", r"loss (\S+) nats", 0.0, 3.0)],
)
def test_a_frameworks_own_model_is_tuned_and_trained(package: str, result: str, least: float, most: float) -> None:
    pytest.importorskip(package)
    printed = output(f"with_{package}.py")
    assert 0 < number(r"base_lr=(\S+),", printed) < number(r"max_lr=(\S+),", printed)
    assert least <= number(result, printed) <= most
