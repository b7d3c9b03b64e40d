"""What becomes of a requirements.txt. Nothing here needs a network: what is installed lies in the bundle."""

import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from clr.bundles.requirements import satisfy
from clr.errors import BrokenTask

WHEEL = "tiny-1.0-py3-none-any.whl"


def wheel(folder: Path, value: str) -> bytes:
    """A package of one module, which holds a value."""
    name = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("tiny.py", f"NAME = {value!r}")
        archive.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}/RECORD", "")
    return (folder / WHEEL).read_bytes()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bundle that requires the package tiny, which lies in it, and numpy, which is there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = tmp_path / "bundle"
    root.mkdir()
    wheel(root, "tiny")
    (root / "requirements.txt").write_text(f"--no-index\n./{WHEEL}\nnumpy\n")
    yield root
    sys.modules.pop("tiny", None)


def test_what_is_missing_is_installed_once_beside_the_bundle_and_what_is_there_stays(root: Path) -> None:
    packages = root.with_suffix(".packages")
    installed = satisfy(root, packages, "install")
    assert installed is not None
    sys.path.append(installed)
    assert import_module("tiny").NAME == "tiny"
    assert Path(import_module("tiny").__file__ or "").is_relative_to(packages)
    assert not list(packages.rglob("numpy"))
    (root / WHEEL).unlink()
    assert satisfy(root, packages, "install") == installed


def test_a_version_other_than_the_services_is_refused_in_one_line(root: Path) -> None:
    (root / "requirements.txt").write_text("--no-index\nnumpy==1.0\n")
    with pytest.raises(BrokenTask, match=r"requirements.txt: pip could not install it: .*numpy==1\.0") as caught:
        satisfy(root, root.with_suffix(".packages"), "install")
    assert "\n" not in str(caught.value)
    assert [path.name for path in root.parent.iterdir()] == ["bundle"]
    assert np.__version__ != "1.0"


def test_they_are_refused_or_ignored_as_the_admin_chose(root: Path) -> None:
    packages = root.with_suffix(".packages")
    with pytest.raises(BrokenTask, match="CLR_CODE_REQUIREMENTS"):
        satisfy(root, packages, "refuse")
    satisfy(root, packages, "ignore")
    (root / "requirements.txt").unlink()
    satisfy(root, packages, "refuse")
    assert not packages.exists()
