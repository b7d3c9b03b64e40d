"""What the engine does on its own machine, apart from any job."""

from pathlib import Path

import pytest

from worker.cluster import Node, Resources, session_folder
from worker.engine import Engine, last_lines

SOCKET = "/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"


@pytest.mark.parametrize("depth", [1, 3, 20, 100])
def test_a_sockets_path_fits_however_long_the_home_is(depth: int, tmp_path: Path) -> None:
    home = tmp_path / ("x" * depth)
    home.mkdir()
    folder = session_folder(home)
    assert folder.is_dir()
    assert len(bytes(folder.parent)) + len("/4194304-abcdefgh") + len(SOCKET) <= 107


def test_the_folders_of_processes_that_are_gone_are_removed_and_no_other(tmp_path: Path) -> None:
    own = session_folder(tmp_path)
    gone = own.parent / "4194305-abcdefgh"  # above the largest id there is
    gone.mkdir()
    (gone / "session").touch()
    assert session_folder(tmp_path) != own
    assert own.is_dir()
    assert not gone.exists()


@pytest.mark.parametrize(
    ("asked", "labels", "nodes", "gpus"),
    [
        (None, {}, [{"CPU": 8.0}], 0.0),
        (None, {}, [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}], 1.0),
        (None, {"kind": "other"}, [{"CPU": 4.0, "GPU": 2.0}], None),
        (0, {}, [{"CPU": 4.0, "GPU": 2.0}], 0.0),
        (0.5, {}, [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}], 0.5),
        (0.5, {}, [{"CPU": 8.0}], None),
    ],
)
def test_a_run_takes_one_gpu_where_a_node_it_may_run_on_has_any_unless_told(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    asked: float | None,
    labels: dict[str, str],
    nodes: list[dict[str, float]],
    gpus: float | None,
) -> None:
    monkeypatch.setattr(engine.cluster, "nodes", [Node(str(number), has, {}) for number, has in enumerate(nodes)])
    room = engine.cluster.room(cpus=1, gpus=asked, labels=labels)
    assert room == (None if gpus is None else Resources(1, gpus, labels))


def test_of_an_error_the_last_lines_are_kept_without_colours() -> None:
    text = "\n".join(f"\x1b[36mline {number}\x1b[39m" for number in range(100))
    assert last_lines(text).splitlines() == [f"line {number}" for number in range(80, 100)]
