"""What a spec must obey beyond its own shape: what workers published, and what a database can hold."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from sqlalchemy.orm import Session

from clr.errors import InvalidArgument, InvalidArguments
from clr.spec import JobSpec, is_within
from service.notices import FORBIDDEN, literal_may_be_told
from service.settings import Settings
from service.store import code, workers

_Validator = extend(  # to JSON schema 3.0 is an integer; to a task's annotations it is not, nor is true
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)

Schema = Mapping[str, Any]

LAG_S = 0.5
"""How long a process may go by what it last read of a task."""


class Schemas:
    """The schemas of tasks' arguments as the store had them at most ``LAG_S`` ago: a submission then costs no query."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[float, Schema]] = {}

    def of(self, session: Session, task: str) -> Schema | None:
        """As ``workers.schema``; one that is new is there at once."""
        kept = self._read.get(task)
        if kept is not None and time.monotonic() - kept[0] < LAG_S:
            return kept[1]
        read_at = time.monotonic()
        schema = workers.schema(session, task)
        if schema is not None:
            self._read[task] = read_at, schema
        return schema


def check(
    session: Session,
    settings: Settings,
    spec: JobSpec,
    schema_of: Callable[[Session, str], Schema | None] = workers.schema,
) -> Schema | None:
    """Refuse a spec that breaks a rule; the JSON schema of its task's arguments, where one is published."""
    errors = [
        error for field in ("task", "name", "args", "command") for error in _unstorable(getattr(spec, field), field)
    ]
    if errors:
        raise InvalidArguments(errors)
    if spec.notify is not None and not literal_may_be_told(spec.notify.url, settings.notify_networks):
        raise InvalidArgument("notify.url", FORBIDDEN, spec.notify.url)
    if spec.mode == "external":
        return None  # the task is a label
    if spec.code is not None and code.find(session, spec.code) is None:
        rule = f"must be the digest of uploaded code: PUT /v1/code/{spec.code} first"
        raise InvalidArgument("code", rule, spec.code)
    if spec.code is not None or spec.mode == "command":
        return None  # what it runs is found by the worker that runs it
    if ":" in spec.task and is_within(spec.task.partition(":")[0], settings.task_modules):
        return None
    schema = schema_of(session, spec.task)
    if schema is None:
        if ":" not in spec.task and not workers.alive(session):
            return None  # nobody is there yet to say what there is: as above
        raise _unknown_task(session, spec.task, settings.task_modules)
    errors = list({error.field: error for error in _argument_errors(spec, schema)}.values())
    if errors:
        raise InvalidArguments(errors)
    return schema


def digest(spec: JobSpec) -> str:
    """Tells one body from another: the fields that were given, in any order."""
    given = json.dumps(spec.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(given.encode()).hexdigest()


def _unstorable(value: Any, field: str) -> Iterator[InvalidArgument]:
    """What no database holds: NUL, halves of surrogate pairs, numbers that are not finite."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unstorable(key, field)
            yield from _unstorable(item, f"{field}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unstorable(item, f"{field}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield InvalidArgument(field, "must be a finite number", value)
    elif isinstance(value, str) and ("\0" in value or any("\ud800" <= char <= "\udfff" for char in value)):
        yield InvalidArgument(field, "must hold neither NUL characters nor lone surrogates", value)


def _unknown_task(session: Session, name: str, modules: Sequence[str]) -> InvalidArgument:
    known = ", ".join(sorted(task.name for task in workers.tasks(session))) or "none"
    rule = f"must be a published task ({known})"
    if ":" in name:
        allowed = ", ".join(modules) or "none"
        rule += f" or module:function of a module that the operator allows in CLR_TASK_MODULES ({allowed})"
    return InvalidArgument("task", rule, name)


def _argument_errors(spec: JobSpec, schema: Schema) -> Iterator[InvalidArgument]:
    for found in _Validator(schema).iter_errors(spec.args):
        error = best_match([found]) or found  # of several kinds allowed, the one that is meant
        path = ["args", *map(str, error.absolute_path)]
        if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
            yield from _unexpected(spec, error, path)
        elif error.validator == "required":
            yield from _missing(error, path)
        else:
            rule = f"must satisfy {error.validator} {json.dumps(error.validator_value)}"
            yield InvalidArgument(".".join(path), rule, error.instance)


def _unexpected(spec: JobSpec, error: ValidationError, path: list[str]) -> Iterator[InvalidArgument]:
    known = error.schema.get("properties", {})
    takes = ", ".join(known) or "none"
    for name in error.instance.keys() - known.keys():
        rule = f"is not an argument of task {spec.task!r}, which takes: {takes}"
        yield InvalidArgument(".".join([*path, name]), rule, error.instance[name])


def _missing(error: ValidationError, path: list[str]) -> Iterator[InvalidArgument]:
    """Every missing property: jsonschema finds as many errors, and says which is which only in prose."""
    for name in error.validator_value:
        if name not in error.instance:
            yield InvalidArgument(".".join([*path, name]), "is required")
