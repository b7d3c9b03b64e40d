"""What Ray's processes do when a run is cancelled."""

import importlib
import sys
import time
from pathlib import Path

import pytest

from worker import remote


def test_an_interrupt_within_an_import_waits_until_the_module_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text("import _thread; _thread.interrupt_main(); whole = True")
    monkeypatch.syspath_prepend(tmp_path)

    def imports() -> None:
        importlib.import_module("slow_module")
        while True:
            time.sleep(0.001)

    with remote.whole_imports(), pytest.raises(KeyboardInterrupt):
        imports()
    assert sys.modules.pop("slow_module").whole


def test_an_interrupt_that_waited_never_reaches_what_the_process_runs_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "last_module.py").write_text("import _thread; _thread.interrupt_main()")
    monkeypatch.syspath_prepend(tmp_path)
    with remote.whole_imports():
        importlib.import_module("last_module")
    time.sleep(4 * remote.ASK_AGAIN_S)
    del sys.modules["last_module"]


def test_points_that_follow_at_once_come_in_one_list_and_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(False, {"step": step}) for step in range(1, 4)]
    monkeypatch.setattr(remote, "GATHER_S", 3600)
    assert list(remote.gathered(iter(points))) == [points]
    assert list(remote.gathered(iter([]))) == []
    monkeypatch.setattr(remote, "GATHER_S", 0)
    assert list(remote.gathered(iter(points))) == [[point] for point in points]
