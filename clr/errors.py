"""The errors of the method. Divergence of a training run is a result, not an error."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

SHOWN = 160
"""Characters of a value that a message shows."""


class ClrError(Exception):
    """Root of every error raised by ``clr`` on purpose."""


class NotGiven:
    """In the place of a value where none was given."""


class InvalidArgument(ClrError, ValueError):
    """An argument breaks its rule: ``field``, ``rule`` and ``value`` say which, what holds, and what was given.

    Args:
        field: the argument's name, dotted within a structure, such as ``search.trials``.
        rule: what must hold, beginning with a verb: "must be at least 1".
        value: what was given, as it was given; left out where nothing was.
    """

    def __init__(self, field: str, rule: str, value: Any = NotGiven):
        super().__init__(field, rule, value)
        self.field, self.rule, self.given = field, rule, value

    @property
    def value(self) -> Any:
        """What was given; None also where nothing was."""
        return None if self.given is NotGiven else self.given

    @property
    def errors(self) -> "Sequence[InvalidArgument]":
        """Each argument in error."""
        return [self]

    def __str__(self) -> str:
        got = "" if self.given is NotGiven else f", but got {shown(self.given)}"
        return f"{self.field}: {self.rule}{got}" if self.field else f"{self.rule}{got}"


class InvalidArguments(InvalidArgument):
    """Several arguments that break their rules; ``field``, ``rule`` and ``value`` are the first one's.

    Args:
        errors: each of them, at least one.
    """

    def __init__(self, errors: Iterable[InvalidArgument]):
        self._errors = list(errors)
        first = self._errors[0]
        super().__init__(first.field, first.rule, first.given)
        self.args = (self._errors,)

    @property
    def errors(self) -> Sequence[InvalidArgument]:
        """Each argument in error."""
        return self._errors

    def __str__(self) -> str:
        return "; ".join(map(str, self._errors))


def broken_rules(found: Iterable[Mapping[str, Any]], document: Any) -> InvalidArguments:
    """What pydantic found in a document, each field as its writer knows it: without the tags of unions.

    Args:
        found: the errors of a ``pydantic.ValidationError``, at least one.
        document: what was validated; None where that is no structure, and every field goes by its whole place.
    """
    return InvalidArguments(_broken_rule(error, document) for error in found)


def _broken_rule(error: Mapping[str, Any], document: Any) -> InvalidArgument:
    context = error.get("ctx", {})
    rule = str(context["error"]) if "error" in context else f"{error['msg'][:1].lower()}{error['msg'][1:]}"
    if "field" in context:  # a rule of several fields says which is at fault
        return InvalidArgument(context["field"], rule, _at(document, context["field"].split(".")))
    path = [str(key) for key in _known(error["loc"], document, error["type"] == "missing")]
    if error["type"] == "missing":
        return InvalidArgument(".".join(path), "is required")
    if "discriminator" in context:
        return InvalidArgument(".".join([*path, context["discriminator"].strip("'")]), rule, context.get("tag"))
    return InvalidArgument(".".join(path), rule, error["input"])


def _known(path: Sequence[Any], document: Any, keep_last: bool) -> Iterator[Any]:
    if document is None:
        yield from path
        return
    for index, key in enumerate(path):
        keys = document if isinstance(document, Mapping) else range(len(document) if isinstance(document, list) else 0)
        if key in keys:
            document = document[key]
            yield key
        elif keep_last and index == len(path) - 1:
            yield key


def _at(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        document = document.get(key, NotGiven) if isinstance(document, Mapping) else NotGiven
    return document


def shown(value: Any) -> str:
    """A value as messages show it: short, on one line, and of objects with much inside only what they are."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key!r}: {shown(one)}' for key, one in islice(value.items(), SHOWN))}}}"
    elif isinstance(value, list | tuple | set | frozenset):
        opening, closing = {list: ("[", "]"), tuple: ("(", ")")}.get(type(value), ("{", "}"))
        text = f"{opening}{', '.join(map(shown, islice(value, SHOWN)))}{closing}"
    elif hasattr(value, "shape"):
        text = f"a {type(value).__name__} of shape {list(value.shape)}"
    elif isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        text = f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    else:
        text = f"a {type(value).__module__}.{type(value).__qualname__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class UnknownTask(ClrError, LookupError):
    """No task of that name is registered."""


class DataMissing(ClrError, FileNotFoundError):
    """A data set is not where it was looked for; the message says how to get it."""


class BrokenTask(ClrError):
    """A task of a user's own code cannot be made; the message says what is wrong, on one line, and where."""


class BrokenProgram(ClrError):
    """A program cannot be started as a trainer, or breaks the rules by which it reports: it would again."""


class ProgramDied(ClrError):
    """A program that trains ended, or fell silent, before its run was done: it may do better another time."""
