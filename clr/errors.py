"""The errors of the method. Divergence of a training run is a result, not an error."""

from typing import Any

SHOWN = 80
"""Characters of a value that a message shows."""

_NOTHING = object()


class ClrError(Exception):
    """Root of every error raised by ``clr`` on purpose."""


class InvalidArgument(ClrError, ValueError):
    """An argument breaks its rule: ``field``, ``rule`` and ``value`` say which, what holds, and what was given.

    Args:
        field: the argument's name, dotted within a structure, such as ``search.trials``.
        rule: what must hold, beginning with a verb: "must be at least 1".
        value: what was given; left out where nothing was.
    """

    def __init__(self, field: str, rule: str = "", value: Any = _NOTHING):
        self.field, self.rule, self.value = field, rule, None if value is _NOTHING else value
        got = "" if value is _NOTHING else f", but got {shown(value)}"
        super().__init__(f"{field}: {rule}{got}" if rule else field)


def shown(value: Any) -> str:
    """A value as messages show it: short, and of objects with much inside only what they are."""
    if isinstance(value, bool | int | float | str | bytes | list | tuple | dict | set | frozenset) or value is None:
        text = repr(value)
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
