import json
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field

from clr.errors import InvalidArgument, UnknownTask
from clr.tasks import check_args, describe_task, load_task, registered, registry, task
from clr.training.task import Task


def anything(
    size: Annotated[int, Field(ge=1, le=9)],
    rate: float = 0.5,
    kind: Literal["a", "b"] = "a",
    data: Path = Path("data"),
    widths: tuple[int, int] = (1, 2),
    schema: bool = False,
) -> Task:
    """A task for its arguments.

    Its second paragraph.
    """
    x = torch.zeros(size, 1)
    return Task(model=lambda: torch.nn.Linear(1, 1), train=(x, x), loss=torch.nn.functional.mse_loss)


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


# Names


def test_the_built_in_tasks_are_registered() -> None:
    assert {"digits", "fashion-mnist", "cifar10"} <= set(registered())


@pytest.mark.usefixtures("empty_registry")
def test_a_decorated_function_is_loaded_by_its_name() -> None:
    assert task("any.thing-1")(anything) is anything
    assert registered()["any.thing-1"] is anything
    assert len(load_task("any.thing-1", size=3).train[0]) == 3


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownTask, match=r"cifar10, digits, fashion-mnist.*but got 'mnist'"):
        load_task("mnist")


@pytest.mark.usefixtures("empty_registry")
def test_a_name_is_given_once() -> None:
    def other() -> Task:
        raise AssertionError("is never called")

    task("taken")(anything)
    task("taken")(anything)
    with pytest.raises(InvalidArgument, match=r"task: must be a name that .* has not taken, but got 'taken'"):
        task("taken")(other)


@pytest.mark.parametrize("name", ["", "a b", "module:function", "ä"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="task: must be letters"):
        task(name)


def test_a_function_that_returns_something_else_is_refused() -> None:
    def wrong() -> int:
        return 1

    with pytest.raises(InvalidArgument, match=r"annotated `-> clr\.Task`"):
        task("wrong")(wrong)  # type: ignore[type-var]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module that can be imported during the test; its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        (tmp_path / "task_of_mine.py").write_text(textwrap.dedent(source))
        return "task_of_mine"

    yield write
    sys.modules.pop("task_of_mine", None)


MINE = """
    {imports}
    def mine(size: int = 5) -> {annotation}:
        import clr, torch
        x = torch.zeros(size, 1)
        return clr.Task(model=lambda: torch.nn.Linear(1, 1), train=(x, x), loss=torch.nn.functional.mse_loss)
"""

PLUGIN = """
    answer = 42

    def untold(size) -> clr.Task:
        raise AssertionError
"""


@pytest.mark.parametrize(
    ("imports", "annotation"),
    [
        ("import clr", "clr.Task"),
        ("from clr.training.task import Task as T", "T"),
        ("from __future__ import annotations", "clr.Task"),
        ("", '"clr.Task"'),
        ("", '"Task"'),
    ],
)
def test_a_function_of_ones_own_module_is_loaded(module: Callable[[str], str], imports: str, annotation: str) -> None:
    name = module(MINE.format(imports=imports, annotation=annotation))
    assert len(load_task(f"{name}:mine", size=7).train[0]) == 7


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os:environ",
        "subprocess:run",
        "builtins:exec",
        "clr.training.task:Task",
        "clr.training.task:accuracy",
        "clr.spec:JobSpec",
        "pathlib:Path",
    ],
)
def test_nothing_but_a_maker_of_tasks_is_called(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"annotated `-> clr\.Task`"):
        load_task(name, command="true")


def test_a_maker_that_takes_anything_is_not_called() -> None:
    with pytest.raises(InvalidArgument, match=r"must name and annotate each argument of .*, but got 'name: str'"):
        load_task("clr.tasks:load_task", name="digits")


def test_a_maker_whose_arguments_are_not_annotated_is_not_called(module: Callable[[str], str]) -> None:
    name = module("import clr\ndef mine(size=5) -> clr.Task: raise AssertionError")
    with pytest.raises(InvalidArgument, match=r"must name and annotate each argument of .*, but got 'size=5'"):
        load_task(f"{name}:mine")


def test_a_maker_whose_annotations_do_not_resolve_is_not_called(module: Callable[[str], str]) -> None:
    name = module("import clr\ndef mine(size: 'Sise' = 5) -> clr.Task: raise AssertionError")
    with pytest.raises(InvalidArgument, match=r"must have annotations that resolve .*Sise"):
        load_task(f"{name}:mine")


@pytest.mark.parametrize("name", ["no_such_module:f", "clr.training.task:no_such_function", ":f", "digits:", "a:b:c"])
def test_a_module_or_function_that_is_not_there_is_unknown(name: str) -> None:
    with pytest.raises(UnknownTask, match="must be importable as module:function"):
        load_task(name)


# Plugins


@pytest.mark.usefixtures("empty_registry")
def test_an_installed_packages_task_is_found_and_a_broken_one_warned_of(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    name = module(MINE.format(imports="import clr", annotation="clr.Task") + PLUGIN)
    installed = tmp_path / "mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    points = ["good=mine", "number=answer", "untold=untold", "digits=mine"]
    lines = [f"{point} = {name}:{function}" for point, _, function in (line.partition("=") for line in points)]
    text = "\n".join(["[clr.tasks]", "gone = no_such_module:f", *lines])
    (installed / "entry_points.txt").write_text(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tasks = registered()
    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 3
    assert "'gone' of no_such_module:f is left out: ModuleNotFoundError" in told[0]
    assert "'number' of task_of_mine:answer is left out: InvalidArgument" in told[1]
    assert "'untold' of task_of_mine:untold is left out: InvalidArgument" in told[2]
    assert len(load_task("good", size=4).train[0]) == 4
    assert describe_task("good")["schema"]["properties"]["size"]["default"] == 5
    assert tasks["digits"].__module__ == "clr.tasks.digits"


# Arguments


def test_a_description_has_the_docstring_and_a_schema_of_the_arguments() -> None:
    described = describe_task("digits")
    schema = described["schema"]
    assert described["name"] == "digits"
    assert described["doc"].startswith("Handwritten digits")
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    hidden = schema["properties"]["hidden"]
    assert (hidden["type"], hidden["default"], hidden["minimum"]) == ("integer", 64, 1)
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    ("name", "default", "most"),
    [("digits", 1197, 1197), ("fashion-mnist", 10_000, 60_000), ("cifar10", 50_000, 50_000)],
)
def test_a_built_in_tasks_schema_tells_its_number_of_training_examples(name: str, default: int, most: int) -> None:
    size = describe_task(name)["schema"]["properties"]["train_size"]
    assert (size["default"], size["minimum"], size["maximum"]) == (default, 1, most)


def test_the_schema_says_what_is_required_and_what_may_be_chosen() -> None:
    schema = registry._model(anything).model_json_schema()
    assert schema["required"] == ["size"]
    assert list(schema["properties"]) == ["size", "rate", "kind", "data", "widths", "schema"]
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]


def explained(
    size: int,
    widths: list[int] | None = None,
    depth: Annotated[int, Field(description="layers")] = 2,
    rate: float = 0.1,
) -> Task:
    """A task that explains itself.

    Args:
        size: how many examples,
            at least one: or none.
        widths (list): of each layer.
        depth: is told by its annotation.

    Returns:
        A task: the one.
    """
    raise AssertionError


def test_an_argument_is_described_by_its_annotation_or_by_the_docstring() -> None:
    schema = registry._model(explained).model_json_schema()
    told = {name: about.get("description") for name, about in schema["properties"].items()}
    assert told == {
        "size": "how many examples, at least one: or none.",
        "widths": "of each layer.",
        "depth": "layers",
        "rate": None,
    }
    assert schema["properties"]["widths"]["default"] is None
    checked = check_args(explained, {"size": 1, "widths": [1, 2]})
    assert checked == {"size": 1, "widths": [1, 2], "depth": 2, "rate": 0.1}
    with pytest.raises(InvalidArgument, match=r"args\.widths.*valid array, but got 'x'"):
        check_args(explained, {"size": 1, "widths": "x"})


def test_checked_arguments_have_their_types_and_defaults() -> None:
    assert check_args(anything, {"size": 3, "rate": 1, "data": "x", "widths": [3, 4]}) == {
        "size": 3,
        "rate": 1.0,
        "kind": "a",
        "data": Path("x"),
        "widths": (3, 4),
        "schema": False,
    }
    assert check_args(anything, {"size": 3, "data": Path("y"), "widths": (3, 4)})["data"] == Path("y")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "^args.size: is required$"),
        ({"size": 0}, "^args.size: input should be greater than or equal to 1, but got 0$"),
        ({"size": 10}, "args.size: .* less than or equal to 9, but got 10"),
        ({"size": "3"}, "args.size: .* valid integer, but got '3'"),
        ({"size": 3.0}, "args.size: .* valid integer, but got 3.0"),
        ({"size": True}, "args.size: .* valid integer, but got True"),
        ({"size": None}, "args.size: .* valid integer, but got None"),
        ({"size": 3, "rate": float("nan")}, "args.rate: .* finite number, but got nan"),
        ({"size": 3, "kind": "c"}, "args.kind: .*'a' or 'b', but got 'c'"),
        ({"size": 3, "widths": [1, "2"]}, "args.widths.1: .* valid integer, but got '2'"),
        ({"size": 3, "hiden": 5}, "args.hiden: must be one of size, rate, .*schema, but got 5"),
        ({"size": 3, "schema": 1}, "args.schema: .* valid boolean, but got 1"),
        ({"size": 0, "rate": "x"}, "args.size: .*; args.rate: .* valid number, but got 'x'"),
    ],
)
def test_a_broken_argument_is_named_with_its_rule_and_value(args: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check_args(anything, args)
