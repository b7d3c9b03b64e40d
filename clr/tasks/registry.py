"""Which tasks there are, which arguments they take, and how one is made from its name."""

import inspect
import json
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

import clr
from clr.errors import InvalidArgument, InvalidArguments, UnknownTask, broken_rules
from clr.tasks.reach import Reach
from clr.training.task import Task

Factory = Callable[..., Task]
SomeFactory = TypeVar("SomeFactory", bound=Factory)

ENTRY_POINTS = "clr.tasks"
"""Entry-point group under which an installed package offers its tasks."""

_registry: dict[str, Factory] = {}


def task(name: str) -> Callable[[SomeFactory], SomeFactory]:
    """Register the decorated function as the maker of the task ``name``.

    Args:
        name: letters, digits, ``_``, ``.`` and ``-``.

    Returns:
        A decorator that leaves the function as it is. The function's annotations are the rules for the task's
        arguments, which are JSON values; an argument ``train_size`` is the number of training examples. What people
        read of an argument is its annotation's ``Field(description=...)``, else its lines under ``Args:`` in the
        docstring.

    Raises:
        InvalidArgument: the name is malformed or taken, or the function is not annotated to return ``clr.Task``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InvalidArgument("task", "must be letters, digits, '_', '.' and '-'", name)

    def register(factory: SomeFactory) -> SomeFactory:
        _require_factory(name, factory)
        taken = _registry.get(name)
        if taken is not None and _place(taken) != _place(factory):
            raise InvalidArgument("task", f"must be a name that {_place(taken)} has not taken", name)
        _registry[name] = factory
        return factory

    return register


def registered() -> dict[str, Factory]:
    """Every registered task by name: the built-in ones and those that installed packages offer."""
    return _plugins() | _registry


def load_task(name: str, /, **args: Any) -> Task:
    """Make the task ``name``.

    Args:
        name: a registered name, or ``module:function``, a function annotated to return ``clr.Task``.
        args: the task's own arguments, as JSON values.

    Raises:
        UnknownTask: there is no such task.
        InvalidArgument: an argument breaks its rule.
        DataMissing: the task's data set is not there.
    """
    return make(name, args)


def make(name: str, args: Mapping[str, Any], reach: Reach | None = None) -> Task:
    """As ``load_task``, for somebody who may ``reach`` no more than that; None: all.

    Raises:
        UnknownTask: there is no such task, or its module is out of reach; then it was not imported.
        InvalidArgument: an argument breaks its rule, or a path in it is out of reach.
        DataMissing: the task's data set is not there.
    """
    factory = find(name, reach)
    made = factory(**check_args(factory, args, reach))
    if not isinstance(made, Task):
        raise InvalidArgument("task", f"must return a clr.Task, as {name} does not", made)
    return made


def find(name: str, reach: Reach | None = None) -> Factory:
    """The function that makes the task ``name``.

    Raises:
        UnknownTask: there is no such task, or ``reach`` does not hold its module.
        InvalidArgument: ``module:function`` names something that is not annotated to return ``clr.Task``.
    """
    if ":" in name:
        return _imported(name, reach)
    known = registered()
    if name not in known:
        raise UnknownTask(f"task: must be module:function or one of {', '.join(sorted(known))}, but got {name!r}")
    return known[name]


def describe_task(name: str) -> dict[str, Any]:
    """Name, docstring and JSON schema of the arguments of the task ``name``: ``{"name", "doc", "schema"}``."""
    factory = find(name)
    schema = _model(factory).model_json_schema()
    schema.pop("title", None)
    return {"name": name, "doc": inspect.getdoc(factory) or "", "schema": schema}


def check_args(factory: Factory, args: Mapping[str, Any], reach: Reach | None = None) -> dict[str, Any]:
    """The arguments of a task, validated by the annotations of its factory, defaults filled in.

    Raises:
        InvalidArgument: an argument is missing, unknown, breaks its rule or holds a path out of ``reach``.
    """
    model = _model(factory)
    try:
        checked = model.model_validate_json(json.dumps(dict(args), default=str))
    except ValidationError as error:
        raise _broken_rules(factory, args, error) from None
    values = {field.alias or "": getattr(checked, name) for name, field in model.model_fields.items()}
    if reach is None:
        return values
    defaults = {field.alias: field.default for field in model.model_fields.values()}
    return {name: reach.confined(f"args.{name}", value, defaults[name]) for name, value in values.items()}


def _broken_rules(factory: Factory, args: Mapping[str, Any], error: ValidationError) -> InvalidArguments:
    takes = ", ".join(inspect.signature(factory).parameters) or "none"
    found = [{**one, "loc": ("args", *one["loc"])} for one in error.errors()]
    for one in found:
        if one["type"] == "extra_forbidden":
            one["msg"] = f"must be one of {takes}"
    return broken_rules(found, {"args": args})


@cache
def _model(factory: Factory) -> type[BaseModel]:
    """The arguments as a pydantic model. Fields go by aliases: an argument may be called ``schema`` or ``copy``."""
    hints, told = _hints(factory), told_of_arguments(factory)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or name not in hints:
            raise InvalidArgument("task", f"must name and annotate each argument of {_place(factory)}", str(parameter))
        default = ... if parameter.default is parameter.empty else parameter.default
        described = any(getattr(one, "description", None) for one in getattr(hints[name], "__metadata__", ()))
        description: dict[str, Any] = {} if described or name not in told else {"description": told[name]}
        fields[f"argument_{name}"] = (hints[name], Field(default, alias=name, **description))
    try:
        config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        return create_model("Arguments", __config__=config, **fields)
    except PydanticUserError as error:
        raise InvalidArgument("task", f"must take JSON values ({error})", _place(factory)) from error


def told_of_arguments(factory: Any) -> dict[str, str]:
    """What the section ``Args:`` of a docstring says of each argument, its lines joined."""
    _, _, section = (inspect.getdoc(factory) or "").partition("Args:\n")
    section = section.partition("\n\n")[0]
    told: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        begins = re.match(r" {2,4}(\w+)(?: \([^)]*\))?: (.*)", line)
        if begins:
            name = begins[1]
        if name:
            told[name] = f"{told.get(name, '')} {(begins[2] if begins else line).strip()}".strip()
    return told


def _hints(factory: Any) -> dict[str, Any]:
    """The annotations, ``Task`` and ``clr.Task`` understood also where the module imports neither."""
    names = {"clr": clr, "Task": Task} | getattr(inspect.unwrap(factory), "__globals__", {})
    try:
        return get_type_hints(factory, globalns=names, include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise InvalidArgument("task", f"must have annotations that resolve ({error})", _place(factory)) from error


def _require_factory(name: str, factory: Any) -> None:
    if not inspect.isfunction(factory) or _hints(factory).get("return") is not Task:
        raise InvalidArgument("task", f"must be a function annotated `-> clr.Task`, as {name!r} is not", factory)


def _imported(name: str, reach: Reach | None) -> Factory:
    module, _, function = name.partition(":")
    _require_reached(name, module, reach)
    try:
        factory = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownTask(f"task: must be importable as module:function, but got {name!r}: {error}") from error
    _require_factory(name, factory)
    _require_reached(name, factory.__module__, reach)  # what a module imports from another is that one's
    return factory  # type: ignore[no-any-return]


def _require_reached(name: str, module: str, reach: Reach | None) -> None:
    if reach is not None and not reach.holds(module):
        modules = ", ".join(reach.modules) or "none"
        raise UnknownTask(
            f"task: must be a registered task, or a function of a module that jobs may use here ({modules}), "
            f"but got {name!r}" + ("" if name.startswith(f"{module}:") else f" of {module}")
        )


@cache
def _plugins() -> dict[str, Factory]:
    found = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found[point.name] = _loaded(point)
        except Exception as error:  # a broken package of somebody else's must not take the others down
            warnings.warn(
                f"the task {point.name!r} of {point.value} is left out: {type(error).__name__}: {error}",
                stacklevel=3,
            )
    return found


def _loaded(point: EntryPoint) -> Factory:
    factory = point.load()
    _require_factory(point.name, factory)
    _model(factory)
    return factory  # type: ignore[no-any-return]


def _place(factory: Any) -> str:
    return f"{getattr(factory, '__module__', '?')}:{getattr(factory, '__qualname__', factory)}"
