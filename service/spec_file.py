"""A job spec in a file: JSON, or YAML as people write it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from clr.errors import InvalidArgument

MOST = 2**20
"""Characters of a spec: what a service takes."""


class _Loader(yaml.SafeLoader):
    """YAML with JSON's values alone: dates stay text, and 1e-3 is a number, which PyYAML takes for text."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A few lines of aliases to aliases stand for more than any memory holds."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "must hold no aliases (*name)", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Of two values for one name YAML would take the last."""
        _once([(self.construct_object(name, deep=True), None) for name, _ in node.value])
        return super().construct_mapping(node, deep)

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(path: str) -> dict[str, Any]:
    """The spec in the file at ``path``, or on standard input for ``-``."""
    with sys.stdin if path == "-" else Path(path).open(encoding="utf-8") as file:
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise InvalidArgument(path, f"must be a job spec of at most {MOST:,} characters", f"{text[:20]}...")
    spec = _parse(path, text)
    if not isinstance(spec, dict):
        raise InvalidArgument(path, "must hold a mapping with at least a task", spec)
    return spec


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of these pairs, none of which has another's name."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if str(name) in made:
            raise InvalidArgument(str(name), "must be given once")
        made[str(name)] = value
    return made


def _parse(path: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except InvalidArgument:
        raise
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.load(text, _Loader)
    except InvalidArgument:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidArgument(path, f"must be a job spec in JSON or YAML ({error})") from error
