"""Forms out of JSON schemas: which fields there are, what they show, and the document that they send."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["number", "text", "flag", "choice", "choices", "pair", "json", "group", "variants"]
Schema = Mapping[str, Any]
Sent = Mapping[str, Sequence[str]]
"""What a form holds: the values of each of its inputs, as a browser sends them."""

MISSING: Any = object()
MOST_BRACKETS = 100
"""JSON nested deeper than a stack may be cannot be read, nor shown."""

ON = ["on"]


@dataclass(frozen=True)
class Field:
    """One field of a document.

    Args:
        name: of its input, unique within the form.
        path: in the document, as problem documents name it.
        schema: its JSON schema, null taken out of it.
        nullable: whether null is allowed: an empty input, or a group that is switched off.
        fields: of a group, or one group for each of the variants.
    """

    name: str
    path: str
    kind: Kind
    schema: Schema
    nullable: bool = False
    fields: tuple["Field", ...] = ()

    @property
    def label(self) -> str:
        words = self.path.rpartition(".")[2].replace("_", " ")
        return words[:1].upper() + words[1:]

    @property
    def default(self) -> Any:
        return self.schema.get("default", MISSING)

    @property
    def options(self) -> Sequence[str]:
        found: Sequence[str] = self.schema.get("enum") or self.schema.get("items", {}).get("enum", [])
        return found

    @property
    def rules(self) -> str:
        """Its limits, in words."""
        schema = self.schema if self.kind != "pair" else self.schema["prefixItems"][0]
        found = [f"{words} {schema[rule]:.10g}" for rule, words in _LIMITS.items() if rule in schema]
        return ", ".join(found)

    @property
    def inputs(self) -> Iterator["Field"]:
        """Itself and all fields within, groups before their fields."""
        yield self
        for field in self.fields:
            yield from field.inputs

    @property
    def paths(self) -> list[str]:
        """Where it and all fields within are in the document."""
        return [field.path for field in self.inputs]


_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def field(schema: Schema, path: str, name: str = "", definitions: Schema | None = None) -> Field | None:
    """The field for a schema at ``path``; None where there is nothing to choose."""
    definitions = definitions or schema.get("$defs", {})
    bare, nullable = _without_null(_resolved(schema, definitions), definitions)
    name = name or path
    if "const" in bare or bare.get("type") == "null":
        return None
    kind = _kind(bare)
    inner: list[Field | None] = []
    if kind == "group":
        inner = [
            field(about, _join(path, key), _join(name, key), definitions) for key, about in bare["properties"].items()
        ]
    if kind == "variants":
        inner = [
            found for one in bare["oneOf"] for found in _variants(_resolved(one, definitions), path, name, definitions)
        ]
    return Field(name, path, kind, bare, nullable, tuple(found for found in inner if found))


def held(field: Field, value: Any = MISSING) -> dict[str, list[str]]:
    """What the inputs of a field hold for a value; for none, the defaults."""
    if value is MISSING and field.kind not in ("group", "variants"):
        value = field.default
    match field.kind:
        case "group" if value is not None:
            given = {} if value is MISSING else value
            own = {field.name: ON} if field.nullable and not (value is MISSING and field.default is None) else {}
            return own | _held_within(field, given)
        case "variants" if value is None or (value is MISSING and field.nullable):
            return {field.name: [""]} | {k: v for one in field.fields for k, v in held(one).items()}
        case "variants":
            chosen = field.fields[0].label if value is MISSING else value["name"]
            group = next((one for one in field.fields if one.label == chosen), field.fields[0])
            args = MISSING if value is MISSING else value.get("args", MISSING)
            return (
                {field.name: [group.label]}
                | {k: v for one in field.fields for k, v in held(one).items()}
                | held(group, args)
            )
        case "flag":
            return {field.name: ON} if value is True else {}
        case "choices":
            return {field.name: list(value)} if value is not MISSING and value else {}
        case "pair":
            low, high = ("", "") if value in (None, MISSING) else map(_shown, value)
            return {f"{field.name}.0": [low], f"{field.name}.1": [high]}
    return {} if value is None or value is MISSING else {field.name: [_shown(value)]}


def document(field: Field, sent: Sent) -> Any:
    """The value that was sent for a field; MISSING for what is left to its default."""
    value = _value(field, sent)
    return MISSING if value == field.default and (value is None or field.kind not in ("group", "variants")) else value


def _value(field: Field, sent: Sent) -> Any:
    texts = sent.get(field.name, [])
    text = texts[0].strip() if texts else ""
    match field.kind:
        case "group":
            if field.nullable and not texts:
                return None
            found = {one.path.rpartition(".")[2]: document(one, sent) for one in field.fields}
            return {key: value for key, value in found.items() if value is not MISSING} or MISSING
        case "variants" if field.nullable and not text:
            return None
        case "variants":
            group = next((one for one in field.fields if one.label == text), None)
            args = MISSING if group is None else document(group, sent)
            return {"name": text} | ({} if args is MISSING else {"args": args})
        case "flag":
            return bool(texts)
        case "choices":
            return list(texts) or (None if field.nullable else [])
        case "pair":
            ends = [end for part in "01" if (end := (sent.get(f"{field.name}.{part}") or [""])[0].strip())]
            return [_parsed(end) for end in ends] or (None if field.nullable else MISSING)
    if not text:
        return None if field.nullable else MISSING
    return _parsed(text) if field.kind in ("number", "json") else text


def _held_within(field: Field, value: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in field.fields:
        found |= held(one, value.get(one.path.rpartition(".")[2], MISSING))
    return found


def _variants(schema: Schema, path: str, name: str, definitions: Schema) -> Iterator[Field]:
    """The arguments under each name of a variant: inputs of their own, at the one path that all variants share."""
    named = schema["properties"]["name"]
    args = _resolved(schema["properties"]["args"], definitions)
    for own in [named["const"]] if "const" in named else named["enum"]:
        found = field(args, f"{path}.args", f"{name}.{own}", definitions)
        if found is not None:
            yield Variant(**{**vars(found), "variant": own})


@dataclass(frozen=True)
class Variant(Field):
    """The arguments of one of several alternatives."""

    variant: str = ""

    @property
    def label(self) -> str:
        return self.variant


def _kind(schema: Schema) -> Kind:
    if "oneOf" in schema and "discriminator" in schema:
        return "variants"
    if "enum" in schema:
        return "choice"
    match schema.get("type"):
        case "integer" | "number":
            return "number"
        case "boolean":
            return "flag"
        case "string":
            return "text"
        case "array" if len(schema.get("prefixItems", ())) == 2:
            return "pair"
        case "array" if "enum" in schema.get("items", {}):
            return "choices"
        case "object" if "properties" in schema:
            return "group"
    return "json"


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return {**definitions[reference.rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}


def _without_null(schema: Schema, definitions: Schema) -> tuple[Schema, bool]:
    some = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(some) != 1:
        return schema, False
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**_resolved(some[0], definitions), **rest}, True


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parsed(text: str) -> Any:
    """As JSON; what is none stays text, for the rules to refuse."""
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        return text
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text
