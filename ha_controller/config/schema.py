"""The JSON Schema of the configuration, for editors that complete and check while one writes.

It tells less than `check-config`: what does not go together, and what plugins take, is not in it.
"""

from __future__ import annotations

from typing import Any

from ha_controller.config.model import Config
from ha_controller.config.secret import KINDS

Json = Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WORD: Json = {"type": "string", "minLength": 1}
#: a secret is written as where it is read
SECRET: Json = {
    "type": "object",
    "description": "Where the secret is read: exactly one of these.",
    "properties": {
        kind: {"type": "array", "items": _WORD, "minItems": 1} if kind == "command" else _WORD for kind in KINDS
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


def config_schema() -> dict[str, Any]:
    """The schema."""
    found = {"$schema": DIALECT, **Config.model_json_schema(by_alias=True)}
    made: dict[str, Any] = _written(found)
    return made


def _written(schema: Json) -> Json:
    """As it stands in the file: with sources in the place of secrets."""
    if isinstance(schema, list):
        return [_written(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "password":
        return SECRET
    return {key: _written(value) for key, value in schema.items()}
