"""A bundle's bytes, which nobody vouches for: checked, and unpacked only as checked."""

import hashlib
import io
import os
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from clr.errors import InvalidArgument

FILES = 2000
"""Most files and folders of a bundle."""

UNPACKED_BYTES = 64 * 2**20
"""Most bytes of its files together."""

RATIO = 100
"""Most bytes that one byte of the zip may stand for: code packs 3 to 10 times, a bomb more than 1,000 times."""

PATH_BYTES, NAME_BYTES = 400, 200
"""Longest path within a bundle, and longest name of a file: what every file system takes."""

REQUIREMENTS = "requirements.txt"

_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class InvalidBundle(InvalidArgument):
    """A bundle breaks a rule.

    Args:
        rule: what every bundle must obey.
        value: what this one has instead.
    """

    def __init__(self, rule: str, value: object):
        super().__init__("code", rule, value)
        self.args = (rule, value)  # of which it is made again in another process


def digest_of(data: bytes) -> str:
    """Name of a bundle: SHA-256 in 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def check(data: bytes, digest: str) -> list[str]:
    """Names of a bundle's files, every one of them read to its end.

    Raises:
        InvalidBundle: the digest is another, or an entry could do harm when unpacked.
    """
    with _opened(data, digest) as archive:
        for _, entry in _entries(archive, len(data)):
            for _ in _content(archive, entry):
                pass
        return [entry.filename for entry in archive.infolist() if not entry.is_dir()]


def unpack(data: bytes, digest: str, folder: Path) -> None:
    """Unpack a bundle as ``folder``, all of it or nothing, whoever else does so at the same time.

    Raises:
        InvalidBundle: as ``check``.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        with _opened(data, digest) as archive:
            for path, entry in _entries(archive, len(data)):
                _write(archive, entry, whole / path)
        take_place(whole, folder)


def take_place(made: Path, folder: Path) -> None:
    """Rename ``made`` to ``folder``, unless another process was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _opened(data: bytes, digest: str) -> zipfile.ZipFile:
    if digest_of(data) != digest:
        raise InvalidBundle("the SHA-256 digest of the bytes must be the one they are named by", digest_of(data))
    # Counted before they are read, since each takes memory; a zip within the bundle counts with its own entries.
    if (count := data.count(_ENTRY)) > FILES:
        raise InvalidBundle(f"must hold at most {FILES} files and folders", count)
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise InvalidBundle("must be a zip file", f"{len(data)} bytes: {error}") from error


def _entries(archive: zipfile.ZipFile, packed_bytes: int) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Path and entry of all that there is, once everything that can be known without reading it is known to be good."""
    entries = archive.infolist()
    found = [(_checked_path(entry), entry) for entry in entries]
    total = sum(entry.file_size for entry in entries)
    if total > UNPACKED_BYTES:
        raise InvalidBundle(f"its files must have at most {UNPACKED_BYTES} bytes together", total)
    if total > RATIO * packed_bytes:
        raise InvalidBundle(f"its files must have at most {RATIO} times the bytes of the zip", total)
    _check_collisions(found)
    return iter(found)


def _checked_path(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename  # `filename` is cut at a NUL
    path = name.removesuffix("/")
    if entry.flag_bits & _ENCRYPTED:
        raise InvalidBundle("no entry may be encrypted", name)
    if entry.compress_type not in _METHODS:
        raise InvalidBundle("every entry must be stored or deflated", name)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise InvalidBundle("every entry must be a plain file or a folder, not a link or a device", name)
    if "\\" in name or any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise InvalidBundle("a path must hold neither backslashes nor control characters", name)
    if path.startswith("/") or path[1:2] == ":":
        raise InvalidBundle("a path must be relative", name)
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidBundle("a path must stay within the bundle, with no empty part, '.' or '..'", name)
    if len(path.encode()) > PATH_BYTES or max(len(part.encode()) for part in path.split("/")) > NAME_BYTES:
        raise InvalidBundle(f"a path must have at most {PATH_BYTES} bytes, each name {NAME_BYTES}", name)
    return path


def _check_collisions(found: list[tuple[str, zipfile.ZipInfo]]) -> None:
    """Refuse what some file system takes for one and the same, and a file with the name of a folder."""
    if len({path for path, _ in found}) < len(found):
        name, _ = Counter(path for path, _ in found).most_common(1)[0]
        raise InvalidBundle("no two entries may have the same name", name)
    known: dict[str, tuple[str, bool]] = {}
    for path, entry in found:
        folders = accumulate(path.split("/")[:-1], "{}/{}".format)
        for part, is_folder in [*((folder, True) for folder in folders), (path, entry.is_dir())]:
            if known.setdefault(_plain(part), (part, is_folder)) != (part, is_folder):
                raise InvalidBundle("no two names may differ in case alone, nor be a file's and a folder's", part)


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """What is in an entry, piece by piece; zipfile gives no more than was declared and checks the sum at the end."""
    try:
        with archive.open(entry) as stream:
            yield from iter(lambda: stream.read(2**20), b"")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InvalidBundle("every entry must be readable", f"{entry.filename}: {error}") from error


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never over anything, never through a link, never executable.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(file, "wb") as target:
        for piece in _content(archive, entry):
            target.write(piece)
