"""A folder as a bundle: the same files give the same bytes, on every machine and at any time."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from clr.bundles.archive import FILES, UNPACKED_BYTES, InvalidBundle
from clr.errors import InvalidArgument

ALWAYS_IGNORED = GitIgnoreSpec.from_lines([".git", "__pycache__/", "*.pyc"])

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can tell."""

Rules = list[tuple[Path, GitIgnoreSpec]]
"""Folders from the outermost in, with the ``.gitignore`` of each."""


def pack(folder: str | Path) -> bytes:
    """Zip the files below ``folder`` but for those that git would ignore.

    The files are stored, in the order of their names, with neither times nor rights: what a compressor makes of the
    same bytes differs from version to version, and then so would the digest.

    Args:
        folder: a folder; the ``.gitignore`` files of its repository count, and those in it.

    Raises:
        InvalidArgument: it is not a folder, or there is nothing in it.
        InvalidBundle: a file is a link, a device or the like, or there is too much.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InvalidArgument("code", "must be a folder", str(folder))
    paths = sorted(_files(root, _outer_rules(root)), key=lambda path: path.relative_to(root).as_posix())
    if not paths:
        raise InvalidArgument("code", "must hold files that git does not ignore", str(folder))
    if len(paths) > FILES:
        raise InvalidBundle(f"must hold at most {FILES} files; ignore the others in .gitignore", len(paths))
    if (size := sum(path.stat().st_size for path in paths)) > UNPACKED_BYTES:
        raise InvalidBundle(f"its files must have at most {UNPACKED_BYTES} bytes; keep data elsewhere", size)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(_entry(path.relative_to(root).as_posix()), path.read_bytes())
    return data.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix: what the rights are written for
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _outer_rules(root: Path) -> Rules:
    """The rules of the folders around ``root``, out to its repository's."""
    outer = [root, *root.parents]
    top = next((index for index, folder in enumerate(outer) if (folder / ".git").exists()), 0)
    return [rule for folder in reversed(outer[1 : top + 1]) for rule in _rules_of(folder)]


def _rules_of(folder: Path) -> Rules:
    file = folder / ".gitignore"
    return [(folder, GitIgnoreSpec.from_lines(file.read_text().splitlines()))] if file.is_file() else []


def _files(folder: Path, rules: Rules) -> Iterator[Path]:
    """The files below ``folder`` that are not ignored; a folder that is takes all below it along."""
    rules = rules + _rules_of(folder)
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        if _ignored(path, is_folder, rules):
            continue
        if is_folder:
            yield from _files(path, rules)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise InvalidBundle("must hold plain files alone; put a copy there, or ignore it in .gitignore", str(path))


def _ignored(path: Path, is_folder: bool, rules: Rules) -> bool:
    """As git decides: the last rule that matches, of the innermost file that has one."""
    slash = "/" if is_folder else ""
    if ALWAYS_IGNORED.match_file(path.name + slash):
        return True
    for folder, spec in reversed(rules):
        ignored = spec.check_file(path.relative_to(folder).as_posix() + slash).include
        if ignored is not None:
            return ignored
    return False
