"""What a job may name, and that no message tells what is in a file."""

import gzip
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import BaseModel, Field

from clr.errors import ClrError, InvalidArgument, UnknownTask
from clr.tasks import check_args, describe_task, registered
from clr.tasks.reach import Reach
from clr.tasks.registry import make
from clr.training.task import Task

SECRET = "hunter2correcthorse"


class Split(BaseModel):
    train: Path
    size: int = 1


@dataclass
class Place:
    file: Path


def deep(
    data: Path,
    default: Path = Path("/usr/share/ours"),
    more: tuple[Path, ...] = (),
    named: dict[str, Path] = {},  # noqa: B006
    split: Split | None = None,
    place: Place | None = None,
    maybe: Annotated[Path | int, Field()] = 0,
) -> Task:
    """Takes paths in every way that JSON can write them."""
    x = torch.zeros(2, 1)
    return Task(model=lambda: torch.nn.Linear(1, 1), train=(x, x), loss=torch.nn.functional.mse_loss)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "file").touch()
    return tmp_path / "data"


OUTSIDE = [
    *("/etc/shadow", "/proc/self/environ", "../secret", "link", "{}/../secret", "{}/link", "/", "", "~/x", "{}x/file"),
    *("/proc/self/root{}/../secret", "file/../../secret"),
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(
    "put",
    [
        lambda path: {"data": path},
        lambda path: {"data": "file", "default": path},
        lambda path: {"data": "file", "more": ["file", path]},
        lambda path: {"data": "file", "named": {"a": path}},
        lambda path: {"data": "file", "split": {"train": path}},
        lambda path: {"data": "file", "place": {"file": path}},
        lambda path: {"data": "file", "maybe": path},
    ],
)
def test_a_path_out_of_reach_is_refused_wherever_it_stands(put: Any, path: str, folder: Path) -> None:
    path = path.format(folder)
    if path in ("", "~/x"):  # the folder itself, and a name in it
        check_args(deep, put(path), Reach((str(folder),)))
        return
    with pytest.raises(InvalidArgument, match="must be a path in a folder that jobs may read here") as caught:
        check_args(deep, put(path), Reach((str(folder),)))
    assert str(caught.value).startswith("args.")
    assert SECRET not in str(caught.value)


def test_a_path_within_reach_is_made_absolute_and_looked_for_in_each_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "here").touch()
    (tmp_path / "other" / "nearby").symlink_to(folder / "file")
    reach = Reach((str(folder), str(tmp_path / "other")))
    found = check_args(deep, {"data": "file", "more": ["here", "nearby", "missing", str(folder / "file")]}, reach)
    assert found["data"] == folder / "file"
    assert found["more"] == (tmp_path / "other/here", folder / "file", folder / "missing", folder / "file")


def test_the_place_that_a_task_itself_names_is_within_reach(folder: Path) -> None:
    reach = Reach((str(folder),))
    assert check_args(deep, {"data": "file"}, reach)["default"] == Path("/usr/share/ours")
    assert check_args(deep, {"data": "file", "default": "/usr/share/ours/x"}, reach)["default"].name == "x"
    with pytest.raises(InvalidArgument, match=r"args\.data"):
        check_args(deep, {"data": "/usr/share/ours/x"}, reach)


def test_in_ones_own_script_any_path_will_do(folder: Path) -> None:
    assert check_args(deep, {"data": "/etc/shadow", "more": ["../x"]})["more"] == (Path("../x"),)


@pytest.mark.parametrize(
    "name",
    [
        "clr.bundles.process:load_from",
        "clr.tasks.registry:make",
        "clr.tasks.digits:digits",
        "venv.__main__:x",
        "this:x",
        "antigravity:x",
        "tests.clr.tasks.test_reach:deep",
        "tests.clr.tasks.test_reach_more:deep",
        "os:system",
    ],
)
def test_no_module_out_of_reach_is_imported(name: str) -> None:
    module = name.partition(":")[0]
    before = set(sys.modules)
    for modules in ((), ("mine",), ("tests.clr.tasks.test_reac",)):
        with pytest.raises(UnknownTask, match="must be a registered task, or a function of a module that jobs may use"):
            make(name, {"data": "x"}, Reach((), modules))
    assert (module in sys.modules) == (module in before)


def test_what_an_allowed_module_took_from_elsewhere_is_out_of_reach(folder: Path, tmp_path: Path) -> None:
    """``from clr.bundles.process import load_from`` in it opens no door."""
    source = "from tests.clr.tasks.test_reach import deep\n"
    (tmp_path / "lender.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(UnknownTask, match=f"but got 'lender:deep' of {re.escape(__name__)}"):
            make("lender:deep", {"data": "file"}, Reach((str(folder),), ("lender",)))
        assert make("lender:deep", {"data": "file"}, Reach((str(folder),), ("lender", __name__)))
    sys.modules.pop("lender")


def test_every_argument_of_a_built_in_task_that_is_a_place_is_a_path() -> None:
    for name in registered():
        for argument, schema in describe_task(name)["schema"].get("properties", {}).items():
            is_place = re.search(r"\b(path|folder|file|directory)\b", schema.get("description", ""))
            assert bool(is_place) == (schema.get("format") == "path"), (name, argument)


CONTENTS = {
    "a line": SECRET.encode(),
    "an environment": f"A=1\0AWS_SECRET_ACCESS_KEY={SECRET}\0B=2".encode(),
    "shadow": f"root:$6${SECRET}:19000:0:99999:7:::\nx:{SECRET}\n".encode(),
    "a table": f"a,{SECRET}\n1,{SECRET}\n2,{SECRET}x\n".encode(),
    "a ragged table": f"{SECRET},b\n1,2,3\n".encode(),
    "twice": f"{SECRET},{SECRET}\n1,2\n".encode(),
    "a quote": f'a,b\n"{SECRET}'.encode() + b"\0",
    "a long cell": f"a,b\n{SECRET * 10_000},1\n".encode(),
    "many values": b"a,b\n" + b"".join(f"{SECRET}{i},{i}\n".encode() for i in range(2000)),
    "binary": b"\xff\xfe" + SECRET.encode() + bytes(range(256)),
    "a pickle": b"c" + SECRET.encode() + b"\n" + SECRET.encode() + b"\n.",
    "a pickled text": b"\x80\x04\x8c" + bytes([len(SECRET)]) + SECRET.encode() + b".",
    "gzip": gzip.compress(SECRET.encode()),
    "an idx": bytes([0, 0, 8, 60]) + SECRET.encode(),
    "a picture": b"P6 " + SECRET.encode(),
    "a tiff": b"II*\0" + SECRET.encode() * 3,
}
PLACES = {
    "tabular": [""],
    "text-lm": [""],
    "image-folder": ["a/1.png", "b/2.tif"],
    "cifar10": ["data_batch_1", "data_batch_1.bin", "test_batch"],
    "fashion-mnist": ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
}
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "tabular": [
        {"target": "a"},
        {"target": "b"},
        {"target": "b", "kind": "regression"},
        {"target": "a", "kind": "regression"},
    ],
    "text-lm": [{"tokens": "characters"}, {"context": 4096}],
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", PLACES)
def test_no_message_quotes_a_file(name: str, content: str, tmp_path: Path) -> None:
    """Nor does what Ray shows of the error behind it."""
    data = tmp_path / "data"
    for place in PLACES[name]:
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (data / place).write_bytes(CONTENTS[content])
    for args in ARGUMENTS.get(name, [{}]):
        try:
            make(name, {"data": str(data), **args}, Reach((str(tmp_path),)))
        except ClrError as error:
            shown = f"{error} {error.__cause__}"
            assert SECRET not in shown
            assert not any(f"{byte!r}" in shown for byte in (CONTENTS[content][:2], CONTENTS[content][:1])), shown
