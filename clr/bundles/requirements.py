"""A bundle's ``requirements.txt``: what becomes of it is the admin's choice."""

import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from clr.bundles.archive import REQUIREMENTS, InvalidBundle, take_place, unpack
from clr.errors import BrokenTask

Policy = Literal["refuse", "ignore", "install"]

REFUSAL = f"must hold no {REQUIREMENTS} (the service's admin may set CLR_CODE_REQUIREMENTS to install or ignore it)"

INSTALL_TIMEOUT_S = 1800


def unpacked(root: Path, data: bytes | None, policy: Policy) -> str | None:
    """Unpack a bundle at ``root``, unless ``data`` is None; what its requirements add to the import path.

    Raises:
        BrokenTask: the bundle is at fault, or its requirements are refused or cannot be installed.
    """
    if data is not None:
        try:
            unpack(data, root.name, root)
        except (InvalidBundle, OSError) as error:
            raise BrokenTask(f"{error}") from error
    return satisfy(root, root.with_suffix(".packages"), policy)


def satisfy(root: Path, packages: Path, policy: Policy) -> str | None:
    """Carry out the admin's choice for the bundle unpacked at ``root``; what is installed goes to ``packages``.

    Returns:
        What to add to the import path, if anything was installed.

    Raises:
        BrokenTask: the choice is to refuse, or pip failed.
    """
    file = root / REQUIREMENTS
    if policy == "ignore" or not file.exists():
        return None
    if policy == "refuse":
        raise BrokenTask(f"code: {REFUSAL}")
    if not packages.is_dir():
        _install(file, packages)
    scheme = sysconfig.get_preferred_scheme("prefix")
    return sysconfig.get_path("purelib", scheme, {"base": str(packages), "platbase": str(packages)})


def _install(file: Path, packages: Path) -> None:
    """Install what is missing. What the service has stays as it is: its versions are constraints."""
    with tempfile.TemporaryDirectory(dir=packages.parent, ignore_cleanup_errors=True) as scratch:
        own = Path(scratch) / "constraints.txt"
        own.write_text("".join(sorted({f"{one.name}=={one.version}\n" for one in distributions()})))
        target = Path(scratch) / "packages"
        target.mkdir()
        options = ["--no-input", "--disable-pip-version-check", "--prefix", str(target), "--constraint", str(own)]
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(file)]
        done = subprocess.run(
            command,
            cwd=file.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
        )
        if done.returncode:
            raise BrokenTask(f"{REQUIREMENTS}: pip could not install it: {_reason(done.stdout)}")
        take_place(target, packages)


def _reason(output: str) -> str:
    """pip's own words: its lines of error, else its last one."""
    lines = output.strip().splitlines() or ["it said nothing"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join(errors or lines[-1:])
