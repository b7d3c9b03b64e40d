import io
import os
import zipfile
from pathlib import Path

import pytest

from clr.bundles.archive import InvalidBundle, check, digest_of
from clr.bundles.packing import pack
from clr.errors import InvalidArgument

IGNORED = """\
# comments and blank lines do not count

*.log
!keep.log
/build
data/
secret*
"""


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def test_the_same_files_give_the_same_bytes_whenever_and_wherever(tmp_path: Path) -> None:
    files = {"task.py": "1", "net/model.py": "2", "Z.txt": "3"}
    first = pack(write(tmp_path / "a", **files))
    second = write(tmp_path / "b", **dict(reversed(files.items())))
    (second / "task.py").chmod(0o755)
    os.utime(second / "task.py", (0, 0))
    assert pack(second) == first
    assert check(first, digest_of(first)) == ["Z.txt", "net/model.py", "task.py"]
    # Written down: another machine's Python must make of these files what an earlier one made of them.
    assert digest_of(first) == "84a2f9771fc0d9612c61054aa707bcd95a6290f5c3734d9c8face69b8f974eed"
    (second / "task.py").write_text("2")
    assert pack(second) != first


def test_what_git_ignores_is_left_out_as_git_leaves_it_out(tmp_path: Path) -> None:
    root = write(
        tmp_path / "repository",
        **{
            ".gitignore": IGNORED,
            "src/task.py": "1",
            "src/a.log": "1",
            "src/keep.log": "1",
            "src/build/x.py": "1",
            "src/data/x.csv": "1",
            "src/secrets.txt": "1",
            "src/net/.gitignore": "!a.log\nweights.bin\n/local/\n",
            "src/net/a.log": "1",
            "src/net/weights.bin": "1",
            "src/net/local/x.py": "1",
            "src/net/deep/local/x.py": "1",
            "src/__pycache__/task.cpython-311.pyc": "1",
        },
    )
    (root / ".git").mkdir()
    # What `git ls-files --others --exclude-standard` lists there.
    expected = ["build/x.py", "keep.log", "net/.gitignore", "net/a.log", "net/deep/local/x.py", "task.py"]
    assert names(pack(root / "src")) == expected


def test_the_rules_of_folders_outside_a_repository_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, **{".gitignore": "*", "src/task.py": "1"})
    assert names(pack(tmp_path / "src")) == ["task.py"]


@pytest.mark.parametrize("target", ["elsewhere.py", "missing"])
def test_a_link_is_refused_by_name(tmp_path: Path, target: str) -> None:
    write(tmp_path, **{"elsewhere.py": "1", "src/task.py": "1"})
    (tmp_path / "src" / "linked.py").symlink_to(tmp_path / target)
    with pytest.raises(InvalidBundle, match=r"plain files.*linked\.py"):
        pack(tmp_path / "src")
    write(tmp_path / "src", **{".gitignore": "linked.py"})
    assert names(pack(tmp_path / "src")) == [".gitignore", "task.py"]


def test_a_folder_that_is_none_empty_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"code: must be a folder, but got .*nowhere"):
        pack(tmp_path / "nowhere")
    with pytest.raises(InvalidArgument, match="code: must hold files"):
        pack(tmp_path)
    with open(tmp_path / "weights.bin", "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InvalidBundle, match="at most 67108864 bytes"):
        pack(tmp_path)
