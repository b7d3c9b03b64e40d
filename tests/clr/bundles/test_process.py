"""What is refused before a bundle's code runs. What runs is tested where it runs: in processes of its own, on Ray."""

import os
import sys
from pathlib import Path

import pytest

from clr.bundles.archive import digest_of
from clr.bundles.process import load_from
from clr.errors import BrokenTask
from tests.clr.bundles.test_archive import zipped

TRAINEE = {"task": "task:mine", "args": {}, "optimizer": {"name": "SGD", "args": {}}, "batch_size": 8}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("../task.py", "must stay within the bundle"),
        ("numpy.py", "numpy.py has the name of a module that clr itself uses; rename it"),
        ("clr/__init__.py", "clr has the name of a module that clr itself uses; rename it"),
        ("requirements.txt", "must hold no requirements.txt"),
    ],
)
def test_a_bundle_that_breaks_a_rule_is_refused_before_any_of_its_code_runs(
    tmp_path: Path, name: str, rule: str
) -> None:
    data = zipped({name: b"", "task.py": b"raise ValueError('it was run')"})
    before = list(sys.path), os.getcwd()
    with pytest.raises(BrokenTask, match=rule) as caught:
        load_from(digest_of(data), data, tmp_path / "code", "refuse", TRAINEE)
    assert "\n" not in str(caught.value)
    assert (list(sys.path), os.getcwd()) == before
    assert not (tmp_path / "task.py").exists()


def test_bytes_that_do_not_match_their_digest_are_not_run(tmp_path: Path) -> None:
    data = zipped({"task.py": b"raise ValueError('it was run')"})
    with pytest.raises(BrokenTask, match="digest"):
        load_from("0" * 64, data, tmp_path, "refuse", TRAINEE)
    assert list(tmp_path.iterdir()) == []
