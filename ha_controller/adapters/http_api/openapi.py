"""The served document, OpenAPI 3.1, made from the list of operations and their models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from ha_controller.adapters.http_api.access import CSRF_HEADER, SESSION_COOKIE, Role
from ha_controller.adapters.http_api.operations import PATH_KINDS, Operation
from ha_controller.adapters.http_api.problems import MEANING, MEDIA_TYPE, ProblemBody
from ha_controller.adapters.http_api.repeats import KEY_HEADER, KEY_PATTERN

Json = dict[str, Any]
REFERENCES = "#/components/schemas/{model}"
OPENAPI_VERSION = "3.1.0"


def document(operations: Iterable[Operation], version: str) -> Json:
    """The whole document."""
    schemas: Json = {}
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    _schema(ProblemBody, schemas)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "ha-controller",
            "version": version,
            "summary": "High availability for OpenNebula",
            "description": "See docs/api.md. Answers only ever gain keys.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": SESSION_COOKIE,
                    "description": f"Requests that change something carry {CSRF_HEADER} as well.",
                },
            },
        },
    }


def _operation(operation: Operation, schemas: Json) -> Json:
    found: Json = {"operationId": operation.name, "summary": operation.summary, "x-role": operation.role.word}
    found["security"] = [] if operation.role is Role.NOBODY else [{"token": []}, {"session": []}]
    if parameters := [*_path(operation, schemas), *_query(operation, schemas), *_headers(operation)]:
        found["parameters"] = parameters
    if operation.body is not None:
        needed = any(each.is_required() for each in operation.body.model_fields.values())
        content = {"application/json": {"schema": _schema(operation.body, schemas)}}
        found["requestBody"] = {"required": needed, "content": content}
    found["responses"] = {
        str(status): answer
        for status, answer in sorted({**_answers(operation, schemas), **_problems(operation, schemas)}.items())
    }
    return found


def _answers(operation: Operation, schemas: Json) -> dict[int, Json]:
    found: dict[int, Json] = {}
    for status, answer in ((operation.status, operation.answer), *operation.also.items()):
        meaning = "Done." if status < 300 else "The same, and the answer is no."
        if status == 204:
            found[status] = {"description": meaning}
            continue
        schema: Json = {"type": "string"} if answer is None else _answer_schema(answer, schemas)
        found[status] = {"description": meaning, "content": {operation.media: {"schema": schema}}}
    return found


def _problems(operation: Operation, schemas: Json) -> dict[int, Json]:
    schema = _schema(ProblemBody, schemas)
    return {
        status: {"description": MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in operation.possible_problems
    }


def _path(operation: Operation, schemas: Json) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _schema(PATH_KINDS[name], schemas)}
        for name in operation.path_names
    ]


def _query(operation: Operation, schemas: Json) -> list[Json]:
    whole = operation.query.model_json_schema(ref_template=REFERENCES)
    _keep(whole.pop("$defs", {}), schemas)
    needed = whole.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": _of_a_query(schema)}
        for name, schema in whole.get("properties", {}).items()
    ]


def _of_a_query(schema: Json) -> Json:
    """A query cannot say null: it leaves the name out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**choices[0], **kept}


def _headers(operation: Operation) -> list[Json]:
    known = {KEY_HEADER: KEY_PATTERN} if operation.ordered else {}
    return [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string", "pattern": pattern}}
        for name, pattern in {**known, **operation.headers}.items()
    ]


def _schema(kind: Any, schemas: Json) -> Json:
    """What is taken; a model goes among the schemas."""
    return _made(kind, schemas, "validation")


def _answer_schema(kind: Any, schemas: Json) -> Json:
    """What is answered: clients must bear keys that come later."""
    known = set(schemas)
    found = _made(kind, schemas, "serialization")
    for name in set(schemas) - known:
        schemas[name].pop("additionalProperties", None) if schemas[name].get("properties") else None
    found.pop("additionalProperties", None) if found.get("properties") else None
    return found


def _made(kind: Any, schemas: Json, mode: Any) -> Json:
    if isinstance(kind, type) and hasattr(kind, "model_fields"):
        keys, whole = models_json_schema([(kind, mode)], ref_template=REFERENCES)
        _keep(whole.get("$defs", {}), schemas)
        return dict(keys[(kind, mode)])
    made = TypeAdapter(kind).json_schema(ref_template=REFERENCES, mode=mode)
    _keep(made.pop("$defs", {}), schemas)
    return made


def _keep(found: Mapping[str, Json], schemas: Json) -> None:
    for name, schema in found.items():
        if schemas.setdefault(name, schema) is not schema and not _alike(schemas[name], schema):
            raise ValueError(f"two models are called {name}")


def _alike(one: Json, other: Json) -> bool:
    drop = "additionalProperties"
    return {k: v for k, v in one.items() if k != drop} == {k: v for k, v in other.items() if k != drop}
