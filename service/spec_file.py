"""A job spec in a file: JSON, or YAML as people write it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from clr.errors import InvalidArgument


class _Loader(yaml.SafeLoader):
    """YAML with JSON's values alone: dates stay text, and 1e-3 is a number, which PyYAML takes for text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(path: str) -> dict[str, Any]:
    """The spec in the file at ``path``, or on standard input for ``-``."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    spec = _parse(path, text)
    if not isinstance(spec, dict):
        raise InvalidArgument(path, "must hold a mapping with at least a task", spec)
    return spec


def _parse(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InvalidArgument(path, f"must be a job spec in JSON or YAML ({error})") from error
