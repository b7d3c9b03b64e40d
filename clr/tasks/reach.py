"""What somebody else's job may name: the folders that its paths lie in, the modules that its function comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clr.errors import InvalidArgument
from clr.spec import is_within


@dataclass(frozen=True)
class Reach:
    """The bounds of what a job may read and run.

    Args:
        folders: absolute; a relative path is looked for in each of them in turn.
        modules: names of modules, each with all below it.
    """

    folders: tuple[str, ...]
    modules: tuple[str, ...] = ()

    def holds(self, module: str) -> bool:
        """Whether a function may come from ``module``."""
        return is_within(module, self.modules)

    def confined(self, field: str, value: Any, default: Any) -> Any:
        """``value`` with every path in it, however deep, made absolute and its symbolic links followed.

        Args:
            field: its name, for messages.
            value: of an argument, as its annotation made it.
            default: of the argument; a path in the place that a task itself names is within reach.

        Raises:
            InvalidArgument: a path leads out of the folders.
        """
        own = [default] if isinstance(default, Path) and default.is_absolute() else []

        def inner(one: Any) -> Any:
            return self.confined(field, one, default)

        match value:
            case Path():
                return self._within(field, value, own)
            case tuple() | list() | set() | frozenset():
                return type(value)(map(inner, value))
            case Mapping():
                return {inner(key): inner(one) for key, one in value.items()}
            case BaseModel():
                return value.model_copy(update={name: inner(getattr(value, name)) for name in type(value).model_fields})
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{one.name: inner(getattr(value, one.name)) for one in fields(value)})
        return value

    def _within(self, field: str, path: Path, own: list[Path]) -> Path:
        given = [path] if path.is_absolute() else [Path(folder) / path for folder in self.folders]
        roots = [folder.resolve() for folder in (*map(Path, self.folders), *own)]
        places = [one.resolve() for one in given]
        inside = [place for place in places if any(place.is_relative_to(root) for root in roots)]
        if not inside:
            named = ", ".join(self.folders) or "none"
            raise InvalidArgument(field, f"must be a path in a folder that jobs may read here ({named})", str(path))
        return next((place for place in inside if place.exists()), inside[0])
