"""The page and the schemas are those of the classes, and what editors are told is what `check` says."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from teachonce.core import config
from teachonce.tools.reference import config_schemas, reference_command

ROOT = Path(__file__).parents[3]
SCHEMAS = config_schemas.build_schemas()
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*/*.yaml")) if path.parent.name != "params"]
PARAMS = [ROOT / "params.yaml", *sorted((ROOT / "configs/params").glob("*.yaml"))]
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
SILENT = {"description", "default", "discriminator", "$defs", "$schema", "required"}


def faults(schema: Mapping, data: object, definitions: Mapping) -> Iterator[str]:
    """What is wrong with plain data by a JSON Schema, as far as ours go; a keyword of no rule here is a KeyError."""
    if isinstance(data, bool) and schema.get("type") in {"integer", "number"}:
        yield f"{data} is no {schema['type']}"
    for key, value in schema.items():
        if key not in SILENT:
            yield from RULES[key](value, data, schema, definitions)


def properties(value: Mapping, data: object, schema: Mapping, definitions: Mapping) -> Iterator[str]:
    if isinstance(data, dict):
        yield from (f"{key} is missing" for key in schema.get("required", ()) if key not in data)
        for key in data.keys() & value.keys():
            yield from faults(value[key], data[key], definitions)


def additional(value: object, data: object, schema: Mapping, definitions: Mapping) -> Iterator[str]:
    for key in data.keys() - schema.get("properties", {}).keys() if isinstance(data, dict) else ():
        yield from [f"{key} is unknown"] if value is False else faults(value, data[key], definitions)


def choice(value: list, data: object, schema: Mapping, definitions: Mapping) -> Iterator[str]:
    reasons = [list(faults(option, data, definitions)) for option in value]
    if all(reasons):
        yield f"{data} is none of {len(value)}: {reasons}"


def items(value: object, data: object, schema: Mapping, definitions: Mapping) -> Iterator[str]:
    if isinstance(data, list):
        for number, item in enumerate(data):
            yield from faults(value[number] if isinstance(value, list) else value, item, definitions)


def limit(test):
    def rule(value: object, data: object, schema: Mapping, definitions: Mapping) -> Iterator[str]:
        if not test(value, data):
            yield f"{data} breaks {value}"

    return rule


def is_number(data: object) -> bool:
    return isinstance(data, int | float)


RULES = {
    "properties": properties,
    "additionalProperties": additional,
    "anyOf": choice,
    "oneOf": choice,
    "items": items,
    "prefixItems": items,
    "$ref": lambda value, data, _, definitions: faults(definitions[value.rpartition("/")[2]], data, definitions),
    "type": limit(lambda value, data: isinstance(data, TYPES[value])),
    "const": limit(lambda value, data: data == value),
    "enum": limit(lambda value, data: data in value),
    "pattern": limit(lambda value, data: not isinstance(data, str) or re.search(value, data)),
    "minLength": limit(lambda value, data: not isinstance(data, str) or len(data) >= value),
    "minItems": limit(lambda value, data: not isinstance(data, list) or len(data) >= value),
    "maxItems": limit(lambda value, data: not isinstance(data, list) or len(data) <= value),
    "minProperties": limit(lambda value, data: not isinstance(data, dict) or len(data) >= value),
    "minimum": limit(lambda value, data: not is_number(data) or data >= value),
    "maximum": limit(lambda value, data: not is_number(data) or data <= value),
    "exclusiveMinimum": limit(lambda value, data: not is_number(data) or data > value),
    "exclusiveMaximum": limit(lambda value, data: not is_number(data) or data < value),
}


def faults_of(group: str, data: object) -> list[str]:
    return list(faults(SCHEMAS[group], data, SCHEMAS[group].get("$defs", {})))


@pytest.mark.parametrize("name", reference_command.reference_files())
def test_the_files_in_docs_are_those_of_the_classes(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == reference_command.reference_files()[name], "run: make docs"


@pytest.mark.parametrize("path", [*CONFIGS, *PARAMS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_configuration_is_right_by_its_schema(path):
    assert faults_of("params" if path in PARAMS else path.parent.name, config.read(path)) == []


@pytest.mark.parametrize("path", [*CONFIGS, PARAMS[0]], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_configuration_names_its_schema_in_its_header(path):
    header = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
    named = re.findall(r"^# yaml-language-server: \$schema=(.*)$", header[0], re.MULTILINE)
    group = "params" if path in PARAMS else path.parent.name
    assert [(path.parent / name).resolve() for name in named] == [ROOT / f"docs/schema/{group}.json"]


@pytest.mark.parametrize(
    ("group", "change", "fault"),
    [
        ("views", {"aug_seed": 3}, "aug_seed is unknown"),
        ("views", {"aug_seeds": 0}, "0 breaks 1"),
        ("views", {"aug_seeds": True}, "True is no integer"),
        ("cache", {"k": "some"}, "some is none of 2"),
        ("student", {"mean": [0.5, 0.5]}, "breaks 3"),
        ("dataset", {"kind": "digit"}, "is none of 4"),
        ("teacher", {"weights": {"kind": "fit"}}, "is none of"),
        ("params", {"students": {"a": {"model": "x", "kind": "soft", "alpha": 2, "tau": 1}}}, "2 breaks 1"),
    ],
)
def test_what_check_refuses_an_editor_underlines(group, change, fault):
    path = next(path for path in [*PARAMS, *CONFIGS] if path.parent.name == group)
    data = config.read(path)
    assert fault in str(faults_of(group, {**data, **change}))


def test_every_key_is_on_the_page():
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    definitions = [schema for root in SCHEMAS.values() for schema in (root, *root.get("$defs", {}).values())]
    for schema in definitions:
        for key, value in schema.get("properties", {}).items():
            assert f"| `{key}` |" in page
            assert value.get("description"), f"{key} has no description"
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= set(anchors)


def test_the_command_writes_them(tmp_path):
    reference_command.main(["--out", str(tmp_path)])
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert written == set(reference_command.reference_files())
    assert json.loads((tmp_path / "schema/views.json").read_text())["$schema"] == config_schemas.DIALECT
