"""What an archive must obey before a byte of it is written. Every harmful one is a real zip, made here."""

import io
import stat
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clr.bundles import archive
from clr.bundles.archive import InvalidBundle, check, digest_of, unpack

Content = dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]]


def zipped(content: Content, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as made:
        for name, body in content.items() if isinstance(content, dict) else content:
            made.writestr(name, body)
    return data.getvalue()


def special(name: str, kind: int, target: str = "/etc/passwd") -> bytes:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o777) << 16
    return zipped([(entry, target.encode())])


def renamed(name: bytes) -> bytes:
    """A zip with the entry ``name``, which zipfile itself would not write."""
    return zipped({"x" * len(name): b"1"}).replace(b"x" * len(name), name)


def changed(data: bytes, signature: bytes, offset: int, value: int) -> bytes:
    """The two bytes at ``offset`` of each record with ``signature`` replaced."""
    made, at = bytearray(data), data.find(signature)
    while at >= 0:
        made[at + offset : at + offset + 2] = struct.pack("<H", value)
        at = data.find(signature, at + 1)
    return bytes(made)


def encrypted() -> bytes:
    data = zipped({"task.py": b"secret"})
    return changed(changed(data, b"PK\x03\x04", 6, 1), b"PK\x01\x02", 8, 1)


HARMFUL: dict[str, tuple[Callable[[], bytes], str]] = {
    "not a zip": (lambda: b"PK no", "must be a zip file"),
    "nothing": (lambda: b"", "must be a zip file"),
    "cut off": (lambda: zipped({"task.py": b"x" * 1000})[:-30], "must be a zip file"),
    "parent": (lambda: zipped({"../task.py": b"1"}), "within the bundle.*'../task.py'"),
    "inner parent": (lambda: zipped({"a/../../task.py": b"1"}), "within the bundle"),
    "here": (lambda: zipped({"./task.py": b"1"}), "within the bundle"),
    "empty part": (lambda: zipped({"a//task.py": b"1"}), "within the bundle"),
    "absolute": (lambda: zipped({"/etc/cron.d/task": b"1"}), "must be relative"),
    "drive": (lambda: zipped({"C:/task.py": b"1"}), "must be relative"),
    "backslash": (lambda: renamed(b"..\\task.py"), "backslashes"),
    "nul": (lambda: renamed(b"task.py\0.png"), "control characters"),
    "newline": (lambda: zipped({"a\nb.py": b"1"}), "control characters"),
    "long name": (lambda: zipped({"n" * 201: b"1"}), "200"),
    "long path": (lambda: zipped({"/".join(["n" * 100] * 5): b"1"}), "400"),
    "link": (lambda: special("data", stat.S_IFLNK), "not a link or a device"),
    "link to a folder": (lambda: special("data/", stat.S_IFLNK), "not a link or a device"),
    "device": (lambda: special("null", stat.S_IFCHR), "not a link or a device"),
    "pipe": (lambda: special("pipe", stat.S_IFIFO), "not a link or a device"),
    "twice": (lambda: zipped([("a.py", b"1"), ("b.py", b"1")]).replace(b"b.py", b"a.py"), "the same name.*'a.py'"),
    "case": (lambda: zipped({"task.py": b"1", "Task.py": b"2"}), "case"),
    "case of a folder": (lambda: zipped({"net/a.py": b"1", "Net/b.py": b"2"}), "case"),
    "two spellings": (lambda: zipped({"\u00e9.py": b"1", "e\u0301.py": b"2"}), "case"),
    "file as folder": (lambda: zipped({"net": b"1", "net/a.py": b"2"}), "a file's and a folder's"),
    "encrypted": (encrypted, "encrypted"),
    "another method": (lambda: zipped({"task.py": b"1"}, zipfile.ZIP_LZMA), "stored or deflated"),
    "bomb": (lambda: zipped({"zeros": bytes(10 * 2**20)}), "100 times"),
    "large": (lambda: zipped({f"{i}": bytes(2**20) for i in range(65)}, zipfile.ZIP_STORED), "at most 67108864 bytes"),
    "many": (lambda: zipped({f"{i}": b"" for i in range(2001)}), "at most 2000 files"),
    "damaged": (lambda: zipped({"a": b"12345"}, zipfile.ZIP_STORED).replace(b"12345", b"12346"), "readable.*CRC"),
    "longer than told": (
        lambda: changed(zipped({"a": b"12345" * 9}, zipfile.ZIP_STORED), b"PK\x01\x02", 24, 5),
        "readable",
    ),
}


@pytest.mark.parametrize(("make", "rule"), HARMFUL.values(), ids=HARMFUL)
def test_a_harmful_archive_is_refused_and_nothing_of_it_is_written(
    make: Callable[[], bytes], rule: str, tmp_path: Path
) -> None:
    data = make()
    with pytest.raises(InvalidBundle, match=rule):
        check(data, digest_of(data))
    with pytest.raises(InvalidBundle, match=rule):
        unpack(data, digest_of(data), tmp_path / "home" / "bundle")
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


def test_bytes_under_another_digest_are_refused(tmp_path: Path) -> None:
    data = zipped({"task.py": b"1"})
    with pytest.raises(InvalidBundle, match=digest_of(data)):
        check(data, "0" * 64)
    with pytest.raises(InvalidBundle, match=digest_of(data)):
        unpack(data, "0" * 64, tmp_path / "bundle")


def test_a_good_archive_is_unpacked_as_it_was_and_nothing_may_be_executed(tmp_path: Path) -> None:
    script = zipfile.ZipInfo("net/run.sh")
    script.external_attr = (stat.S_IFREG | 0o4777) << 16
    data = zipped([("task.py", b"1"), ("net/", b""), (script, b"2" * 100_000), ("net/\u00e9/a.txt", b"")])
    assert check(data, digest_of(data)) == ["task.py", "net/run.sh", "net/\u00e9/a.txt"]
    unpack(data, digest_of(data), tmp_path / "code" / "bundle")
    root = tmp_path / "code" / "bundle"
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == {
        "task.py": b"1",
        "net/run.sh": b"2" * 100_000,
        "net/\u00e9/a.txt": b"",
    }
    assert stat.S_IMODE((root / "net/run.sh").stat().st_mode) & 0o6111 == 0
    assert stat.S_IMODE(root.parent.stat().st_mode) == 0o700


def test_processes_that_unpack_the_same_at_once_all_end_with_the_whole_of_it(tmp_path: Path) -> None:
    data = zipped({f"{i}.py": b"x" * i for i in range(100)})
    folder, errors, start = tmp_path / "bundle", list[Exception](), threading.Barrier(4)

    def work() -> None:
        start.wait(10)
        try:
            unpack(data, digest_of(data), folder)
            assert len(list(folder.iterdir())) == 100
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_archive_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({"a.py": b"1", "b.py": b"2"})
    monkeypatch.setattr(archive, "take_place", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        unpack(data, digest_of(data), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
