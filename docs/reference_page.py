"""Writes the page of the REST reference from the API's own OpenAPI document when the site is built."""

import re
from collections.abc import Iterator
from typing import Any

from mkdocs.structure.files import File, Files

from service.app import create_app
from service.settings import Settings

HEAD = """# REST reference

Made from the service's OpenAPI document, which it serves at `/openapi.json` and shows at `/docs`, where calls can be
tried. All but the pages, health and `/metrics` is JSON; errors are problem documents (`application/problem+json`).
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the page to those of the folder."""
    files.append(File.generated(config, "reference.md", content=page()))
    return files


def page() -> str:
    """The reference as Markdown."""
    document = create_app(Settings(_env_file=None)).openapi()
    schemas = document["components"]["schemas"]
    parts = [HEAD, "## Calls"]
    for path, operations in document["paths"].items():
        parts += ["\n".join(call(path, method, told)) for method, told in operations.items()]
    parts.append("## Schemas")
    parts += ["\n".join(schema(name, schemas[name])) for name in sorted(schemas)]
    return "\n\n".join(parts) + "\n"


def call(path: str, method: str, told: dict[str, Any]) -> Iterator[str]:
    """One operation: what it does, its parameters, body and answers."""
    yield f"### `{method.upper()} {path}`\n"
    yield told.get("description", told.get("summary", ""))
    if parameters := told.get("parameters"):
        yield "\n| parameter | in | type | what |\n|---|---|---|---|"
        for one in parameters:
            yield f"| `{one['name']}` | {one['in']} | {kind(one['schema'])} | {cell(one.get('description', ''))} |"
    for media, content in told.get("requestBody", {}).get("content", {}).items():
        yield f"\nBody, `{media}`: {kind(content.get('schema', {}))}"
    yield "\n| status | answer | |\n|---|---|---|"
    for status, answer in told["responses"].items():
        bodies = (
            f"`{media}` {kind(content.get('schema', {}))}" for media, content in answer.get("content", {}).items()
        )
        yield f"| {status} | {'; '.join(bodies)} | {cell(answer.get('description', ''))} |"


def schema(name: str, told: dict[str, Any]) -> Iterator[str]:
    """One schema: its fields with their rules."""
    yield f"### {name}\n"
    yield told.get("description", "")
    if fields := told.get("properties"):
        required = told.get("required", ())
        yield "\n| field | type | default | what |\n|---|---|---|---|"
        for field, rule in fields.items():
            default = "required" if field in required else f"`{rule['default']}`" if "default" in rule else ""
            yield f"| `{field}` | {kind(rule)} | {cell(default)} | {cell(rule.get('description', ''))} |"
    else:
        yield f"\n{kind(told)}"


def kind(rule: dict[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in rule:
        name = rule["$ref"].rpartition("/")[2]
        return f"[{name}](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in rule:
            return " or ".join(dict.fromkeys(kind(one) for one in rule[word]))
    if "enum" in rule or "const" in rule:
        return ", ".join(f"`{value}`" for value in rule.get("enum", [rule.get("const")]))
    if rule.get("type") == "array" and "items" in rule:
        return f"list of {kind(rule['items'])}"
    return cell(" ".join([str(rule.get("type", "any")), *limits(rule)]))


def limits(rule: dict[str, Any]) -> Iterator[str]:
    """Bounds of a number or of a length."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    yield from (f"{sign} {rule[name]}" for name, sign in signs.items() if name in rule)
    yield from (f"({words} {rule[name]})" for name, words in LENGTHS.items() if name in rule)


LENGTHS = {"minLength": "at least", "maxLength": "at most", "minItems": "at least", "maxItems": "at most"}


def cell(text: str) -> str:
    """Text that keeps to its cell."""
    return " ".join(text.split()).replace("|", "\\|")
