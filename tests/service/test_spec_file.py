from itertools import pairwise
from pathlib import Path

import pytest

from clr.errors import InvalidArgument
from service.spec_file import MOST, read

NAMES = "abcdefghij"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(NAMES))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (BOMB, "must hold no aliases"),
        ("a: &a {b: *a}", "must hold no aliases"),
        ("[" * 100_000, "JSON or YAML"),
        ("{a: " * 5000, "JSON or YAML"),
        ("a: " + "9" * 5000, "JSON or YAML"),
        ("a" * (MOST + 1), "at most 1,048,576 characters"),
    ],
)
def test_a_file_made_to_take_all_time_or_memory_is_refused(text: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(InvalidArgument, match=rule):
        read(str(tmp_path / "job.yaml"))


@pytest.mark.parametrize(
    "text", ['{"task": "digits", "epochs": 4, "epochs": 9}', "task: digits\nepochs: 4\nepochs: 9\n"]
)
def test_a_field_that_is_given_twice_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "job").write_text(text)
    with pytest.raises(InvalidArgument, match=r"^epochs: must be given once$"):
        read(str(tmp_path / "job"))


def test_an_anchor_that_nothing_refers_to_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("task: &name digits\nepochs: 1e1\n")
    assert read(str(tmp_path / "job.yaml")) == {"task": "digits", "epochs": 10.0}
