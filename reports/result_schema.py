"""The JSON Schema of result.json, derived from the dataclasses and their docstrings: one source, two readers.

After a change of `outcome.py`, `python -m clusterproof.reports.result_schema` writes it anew; a test compares the two.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import json
import types
import typing
from typing import Any

from clusterproof import outcome
from clusterproof.outcome import SCHEMA_VERSION, Run

from . import files, result

_PLAIN = {str: "string", int: "integer", bool: "boolean", float: "number"}


def schema() -> dict[str, Any]:
    """The schema of a run. It does not forbid other fields: a minor version may add some."""
    definitions: dict[str, Any] = {}
    root = _object(Run, definitions)
    root["required"].append("schema")
    root["properties"]["schema"]["pattern"] = rf"^{SCHEMA_VERSION.split('.')[0]}\."
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:clusterproof:result:{SCHEMA_VERSION}",
        "title": "Clusterproof result",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The published file's content."""
    return json.dumps(schema(), indent=2) + "\n"


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, meanings = typing.get_type_hints(kind), _field_docstrings(kind)
    properties, required = {}, []
    for field in dataclasses.fields(kind):
        properties[field.name] = _value(hints[field.name], definitions)
        if meaning := meanings.get(field.name):
            properties[field.name]["description"] = meaning
        # A field with a default may be missing: that is how a later minor version adds one and still reads older files.
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return {"description": inspect.getdoc(kind), "type": "object", "required": required, "properties": properties}


def _value(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return {"anyOf": [_value(argument, definitions) for argument in arguments]}
    if kind is types.NoneType:
        return {"type": "null"}
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if origin is dict:
        value = _value(arguments[1], definitions)
        if arguments[1] is float:
            value["type"] = ["number", "null"]
        return {"type": "object", "additionalProperties": value}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if kind.__name__ not in definitions:
        if issubclass(kind, enum.Enum):
            meaning = " ".join(f"{kind[name].value}: {told}" for name, told in _field_docstrings(kind).items())
            definitions[kind.__name__] = {"description": meaning, "enum": [member.value for member in kind]}
        else:
            definitions[kind.__name__] = {}
            definitions[kind.__name__].update(_object(kind, definitions))
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _field_docstrings(kind: type) -> dict[str, str]:
    """The string after each field or member of a class, which Python itself throws away."""
    (definition,) = (
        node
        for node in ast.parse(inspect.getsource(outcome)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    meanings = {}
    for before, node in zip(definition.body, definition.body[1:], strict=False):
        match before, node:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(told))),
            ):
                meanings[name] = inspect.cleandoc(told)
    return meanings


if __name__ == "__main__":
    files.replace(result.SCHEMA, text())
