"""result.json: the whole run as one document, for programs, for comparing runs, for making the other reports again."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterproof.outcome import SCHEMA_VERSION, Run, to_json

from . import files

NAME = "result.json"
SCHEMA = Path(__file__).with_name("schema") / f"result-{SCHEMA_VERSION}.json"
"""The published JSON Schema of the document; `result_schema.py` derives it from the dataclasses."""


def write(run: Run, directory: Path) -> Path:
    """Write the run as JSON; a figure that is no number (infinite, undefined) becomes null."""
    document = to_json(run)
    for result in document["results"]:
        figures = result["measurements"]
        result["measurements"] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return files.replace(directory / NAME, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Run:
    """The run that `write` wrote; fields that a newer minor version added are passed over.

    ValueError says in one sentence what is wrong with the file: not JSON, another major version, not a result document.
    """
    return parse(path.read_bytes(), str(path))


def parse(content: bytes, name: str) -> Run:
    """The same of a file's content; `name` is what the file is called in the sentence."""
    # Only a reader needs this, and every pytest run pays for what is imported at the top.
    import jsonschema

    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not a JSON document: {error}") from None
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, str):
        raise ValueError(f"{name}: not a result document: it does not name its schema version")
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ValueError(f"{name}: schema version {version} cannot be read; this is version {SCHEMA_VERSION}")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    if wrong := jsonschema.exceptions.best_match(validator.iter_errors(document)):
        raise ValueError(f"{name}: not a result document: {wrong.json_path}: {wrong.message[:200]}")
    try:
        run: Run = _build(Run, document)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: not a result document: {error}") from None
    return run


def check_time(started: float, seconds: float) -> None:
    """ValueError when something cannot have begun then and taken so long: no calendar has its beginning or its end."""
    try:
        for moment in (started, started + seconds):
            datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"it cannot have started at {started!r} and taken {seconds!r} s") from None


def _build(kind: Any, value: Any) -> Any:
    """A value of a type that outcome.py uses, from the JSON that `to_json` made of it and the schema has accepted."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _build(kind, value)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if origin is dict:
        return {name: _build(arguments[1], item) for name, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        made: Any = kind(**{name: _build(hint, value[name]) for name, hint in hints.items() if name in value})
        if "started" in hints:
            check_time(made.started, getattr(made, "seconds", 0.0))
        return made
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float:
        if value is None:
            return math.nan
        if not math.isfinite(number := float(value)):
            raise ValueError(f"{value} is no finite number")
        return number
    return value
