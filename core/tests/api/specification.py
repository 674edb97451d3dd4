"""The Engine API's specification, as JSON schemas that a reply can be held against."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from attrs import frozen

VERSIONS = ("1.25", "1.30", "1.35", "1.40", "1.41", "1.45", "1.50")
_METHODS = ("get", "head", "post", "put", "delete")


@frozen(eq=False)
class Operation:
    version: str
    name: str
    method: str
    path: str
    document: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.version}-{self.name}"

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.document["responses"] if str(status).isdigit()}

    def schema(self, status: int) -> dict[str, Any] | None:
        """What the body of a reply must be; None when nothing is said, or it is no JSON."""
        responses = {int(key): value for key, value in self.document["responses"].items() if str(key).isdigit()}
        found = responses.get(status, {}).get("schema")
        return None if found is None or found.get("type") in ("string", "file") else dict(found)

    def mistakes(self, status: int, body: Any) -> list[str]:
        """Where a body does not fit, one line each."""
        schema = self.schema(status)
        if schema is None:
            return []
        whole = {**_json_schema(schema), "definitions": _definitions(self.version)}
        return [
            f"{'.'.join(map(str, error.absolute_path)) or 'the body'}: {error.message[:200]}"
            for error in jsonschema.Draft4Validator(whole).iter_errors(body)
        ]


@cache
def load(version: str) -> dict[str, Any]:
    path = Path(__file__).parent / "specs" / f"docker-engine-api-v{version}.yaml.gz"
    return dict(yaml.load(gzip.decompress(path.read_bytes()), Loader=yaml.CSafeLoader))


@cache
def operations(version: str) -> dict[str, Operation]:
    return {operation.name: operation for operation in _operations(version)}


def _operations(version: str) -> Iterator[Operation]:
    for path, item in load(version)["paths"].items():
        for method, document in item.items():
            if method in _METHODS:
                yield Operation(version, document["operationId"], method.upper(), path, document)


@cache
def _definitions(version: str) -> dict[str, Any]:
    return {name: _json_schema(schema) for name, schema in load(version)["definitions"].items()}


def _json_schema(schema: Any) -> Any:
    """A schema of Swagger 2.0 as one of JSON Schema, draft 4: ``x-nullable`` allows null, examples go.

    With ``$ref`` nothing beside it counts, in either.
    """
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may be called "example" or "format": only where a schema stands are these words of Swagger.
    plain = {
        key: {name: _json_schema(one) for name, one in value.items()}
        if key == "properties"
        else value
        if key in ("enum", "required", "default")
        else _json_schema(value)
        for key, value in schema.items()
        if key not in ("example", "examples", "format", "title", "description") and not key.startswith("x-")
    }
    if not schema.get("x-nullable"):
        return plain
    return {"anyOf": [plain, {"type": "null"}]}
