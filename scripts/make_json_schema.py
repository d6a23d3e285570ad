"""Writes the JSON Schema of a trace that ships in the package.

    python scripts/make_json_schema.py [--check]

The columns and their types come from the rows in hftrace.schema.model, so
that the two cannot differ: a test runs this with --check.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

import hftrace
from hftrace.schema.checks import TABLES
from hftrace.schema.columns import MAX_ROWS
from hftrace.schema.document import SCHEMA, VERSION

MAJOR = VERSION.partition(".")[0]
TARGET = Path(hftrace.__file__).parent / "schema" / f"trace-{MAJOR}.schema.json"
SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}

COLUMN_DESCRIPTION = (
    "One value per row: a plain list, or an object that names its encoding. All columns of a table "
    "have the same number of rows. `constant`: the same value in every row. `dictionary`: each row holds "
    "an index into `values`. `delta`: integers; each row holds the difference to the previous row that is "
    "not null, the first one to `start`. `reference`: equal to another column of the same table (as a list "
    "of one where `list` is true), but for the rows in `exceptions`."
)


def value_schema(hint: Any) -> dict[str, Any]:
    """Returns the schema of the values that a type hint allows."""
    if hint is Any:
        return {}
    if isinstance(hint, types.UnionType):
        parts = [value_schema(part) for part in typing.get_args(hint)]
        if all(set(part) == {"type"} for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is list:
        return {"type": "array", "items": value_schema(arguments[0])}
    if origin is dict:
        values = value_schema(arguments[1])
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    return {"type": SIMPLE[origin]}


def encoded(name: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the schema of one encoding."""
    return {
        "type": "object",
        "properties": {"encoding": {"const": name}, **required, **(optional or {})},
        "required": ["encoding", *required],
    }


def column_schema(hint: Any) -> dict[str, Any]:
    """Returns the schema of a column whose values have a type."""
    values = value_schema(hint)
    kinds = set(typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)) - {type(None)}
    row = {"type": "integer", "minimum": 0}
    ways = [
        {"type": "array", "items": values},
        encoded("constant", {"value": values, "length": {**row, "maximum": MAX_ROWS}}),
        encoded(
            "dictionary",
            {"values": {"type": "array", "items": values}, "indexes": {"type": "array", "items": row}},
        ),
    ]
    if hint is Any or kinds == {int}:
        deltas = {"type": "array", "items": {"type": ["integer", "null"]}}
        ways.append(encoded("delta", {"deltas": deltas}, {"start": {"type": "integer"}}))
    exception = {"type": "array", "prefixItems": [row, values], "minItems": 2, "maxItems": 2}
    ways.append(
        encoded(
            "reference",
            {"column": {"type": "string"}, "exceptions": {"type": "array", "items": exception}},
            {"list": {"type": "boolean"}},
        )
    )
    return {"oneOf": ways}


def name_of(hint: Any) -> str:
    """Returns the name of a column type in ``$defs``, such as ``integer_or_null_column``."""
    if hint is Any:
        return "column"

    def word(part: Any) -> str:
        origin, arguments = typing.get_origin(part) or part, typing.get_args(part)
        if origin is list:
            return f"{word(arguments[0])}_list"
        if origin is dict:
            return "object" if arguments[1] is Any else f"{word(arguments[1])}_by_device"
        return SIMPLE[origin]

    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return "_or_".join(map(word, parts)) + "_column"


def document_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a whole trace."""
    definitions: dict[str, Any] = {"column": {"description": COLUMN_DESCRIPTION, **column_schema(Any)}}
    tables: dict[str, Any] = {}
    for table, row_type in TABLES.items():
        hints = typing.get_type_hints(row_type)
        properties, required = {}, []
        for field in dataclasses.fields(row_type):
            hint = hints[field.name]
            definitions.setdefault(name_of(hint), column_schema(hint))
            properties[field.name] = {"$ref": f"#/$defs/{name_of(hint)}"}
            if type(None) not in typing.get_args(hint) and field.default is dataclasses.MISSING:
                required.append(field.name)
        tables[table] = {
            "description": (row_type.__doc__ or "").strip().splitlines()[0],
            "type": "object",
            "properties": properties,
            "additionalProperties": {"$ref": "#/$defs/column"},
            # A table without rows may be without columns.
            "anyOf": [{"maxProperties": 0}, {"required": required}],
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hftrace:trace:{MAJOR}",
        "title": "hftrace trace",
        "description": (
            "What happened between from_pretrained(...) and a model that is ready to run: facts, "
            "nothing derived. Times are integer nanoseconds from the clock base, bytes are integers, "
            "dtypes and devices go by torch's names, and an unknown value is null. Readers ignore keys "
            "that they do not know."
        ),
        "type": "object",
        "required": ["header"],
        "properties": {
            "header": {
                "description": "What this file is; schema and version come first.",
                "type": "object",
                "required": ["schema", "version"],
                "properties": {
                    "schema": {"const": SCHEMA},
                    "version": {"type": "string", "pattern": rf"^{MAJOR}(\.[0-9]+)?$"},
                },
            },
            "environment": {"description": "Where the load ran.", "type": "object"},
            "request": {"description": "What was asked for.", "type": "object"},
            "outcome": {"description": "How the load ended.", "type": "object"},
            **tables,
        },
        "$defs": dict(sorted(definitions.items())),
    }


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes the JSON Schema of a trace.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is as it should be")
    text = json.dumps(document_schema(), indent=2) + "\n"
    if parser.parse_args().check:
        if TARGET.exists() and TARGET.read_text("utf-8") == text:
            return 0
        sys.stderr.write(f"{TARGET} differs from the rows in hftrace.schema.model: run without --check\n")
        return 1
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
