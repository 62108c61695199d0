"""`docs/configuration.md`: every key with its type, bounds, default and meaning, from the JSON Schemas."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INTRODUCTION = """\
# Configuration

Every key of `params.yaml` and of the files in `configs/`: what it may be, what it is by default, and what it means.
An editor with a YAML language server completes and checks the files by the schemas in [schema/](schema), which each
file names in its header. Values are never converted, and unknown keys are refused: `teachonce check` reads all files
against each other, in a second.

This page is written by `make docs`, from the classes that read the files.
"""
_TITLES = {
    "params": "params.yaml",
    "dataset": "configs/dataset",
    "views": "configs/views",
    "teacher": "configs/teacher",
    "cache": "configs/cache",
    "student": "configs/student",
}
_NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}

Schema = Mapping[str, Any]


def format_reference(schemas: Mapping[str, Schema]) -> str:
    """The page: a section for each file, and one for each map within it.

    Args:
        schemas: as of `config_schemas.build_schemas`.
    """
    described: set[str] = set()
    sections = [_INTRODUCTION, _contents(schemas)]
    for name, schema in schemas.items():
        sections.append(f"## {_TITLES[name]}\n")
        sections += _sections(schema, described)
    return "\n".join(sections)


def _contents(schemas: Mapping[str, Schema]) -> str:
    anchors = {name: _TITLES[name].replace("/", "").replace(".", "") for name in schemas}
    return " · ".join(f"[{_TITLES[name]}](#{anchor})" for name, anchor in anchors.items()) + "\n"


def _sections(schema: Schema, described: set[str]) -> Iterator[str]:
    """The file's own keys, then those of each model that it refers to, once a page."""
    if "properties" in schema:
        yield _description(schema)
        yield _table(schema, schema.get("$defs", {}))
    definitions = schema.get("$defs", {})
    for name in _references(schema, definitions):
        if name not in described:
            described.add(name)
            yield f"### {_heading(definitions[name], name)}\n"
            yield _description(definitions[name])
            yield _table(definitions[name], definitions)


def _references(schema: Schema, definitions: Schema) -> list[str]:
    """Names of the models that a schema refers to, also through others, in the order in which they are met."""
    names: list[str] = []

    def visit(data: object) -> None:
        if isinstance(data, dict):
            name = str(data.get("$ref", "")).rpartition("/")[2]
            if name and name not in names:
                names.append(name)
                visit(definitions[name])
            for key, value in data.items():
                if key not in {"$defs", "discriminator"}:
                    visit(value)
        elif isinstance(data, list):
            for item in data:
                visit(item)

    visit({key: value for key, value in schema.items() if key != "$defs"})
    return names


def _heading(schema: Schema, name: str) -> str:
    """What a model is called: by its kind, where it is one of several."""
    kind = schema.get("properties", {}).get("kind", {}).get("const")
    return f"kind: {kind}" if kind else name


def _description(schema: Schema) -> str:
    return f"{schema.get('description', '')}\n"


def _table(schema: Schema, definitions: Schema) -> str:
    required = schema.get("required", [])
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    # The kind first, then what must be there.
    for key in sorted(schema["properties"], key=lambda key: (key != "kind", key not in required)):
        value = schema["properties"][key]
        default = "required" if key in required else f"`{json.dumps(value.get('default'), ensure_ascii=False)}`"
        cells = (f"`{key}`", _type_text(value, definitions), default, value.get("description", ""))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _type_text(schema: Schema, definitions: Schema) -> str:
    """What a value may be, in words."""
    for key, text in (("$ref", _link), ("anyOf", _choice), ("oneOf", _choice)):
        if key in schema:
            return text(schema[key], definitions)
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return _list_text(schema, definitions)
    if schema.get("type") == "object":
        return f"map of names to {_type_text(schema['additionalProperties'], definitions)}"
    return _scalar_text(schema)


def _link(reference: str, definitions: Schema) -> str:
    name = reference.rpartition("/")[2]
    heading = _heading(definitions[name], name)
    return f"[{heading}](#{heading.lower().replace(': ', '-')})"


def _choice(options: Sequence[Schema], definitions: Schema) -> str:
    return " or ".join(dict.fromkeys(_type_text(option, definitions) for option in options))


def _list_text(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" not in schema:
        return f"list of {_type_text(schema['items'], definitions)}"
    items = [_type_text(item, definitions) for item in schema["prefixItems"]]
    return f"list of {len(items)} × {items[0]}" if len(set(items)) == 1 else f"list of {', '.join(items)}"


def _scalar_text(schema: Schema) -> str:
    bounds = [text.format(_number_text(schema[key])) for key, text in _BOUNDS.items() if key in schema]
    # Two models' bounds may meet in one value: above 0 says all that at least 0 does.
    if schema.get("exclusiveMinimum") == schema.get("minimum"):
        bounds = bounds[1:] if "minimum" in schema else bounds
    if "pattern" in schema:
        bounds.append(f"like `{schema['pattern']}`")
    name = _NAMES[schema["type"]]
    return f"{name} ({', '.join(bounds)})" if bounds else name


def _number_text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
