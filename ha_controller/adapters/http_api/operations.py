"""What the API can do, as a list: each operation with its method, path, role, question and answers.

The same list makes the routes and the served document, so none of the two can say what the other does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ha_controller.adapters.http_api.access import Caller, Role
from ha_controller.adapters.http_api.problems import Problem, of_validation
from ha_controller.adapters.http_api.questions import NUMBER_MAX, HostName, NoQuery

Json = Any
QuestionT = TypeVar("QuestionT", bound=BaseModel)

#: what a name in a path stands for
PATH_KINDS: Final[Mapping[str, Any]] = {
    "host": Annotated[HostName, Field(description="A host's name, or its id.")],
    "vm": Annotated[HostName, Field(description="A VM's name, or its id.")],
    "number": Annotated[int, Field(ge=1, le=NUMBER_MAX, description="An incident's number.")],
    "name": Annotated[str, Field(min_length=1, max_length=64, description="A token's name.")],
}
_PATH_ADAPTERS = {name: TypeAdapter[Any](kind) for name, kind in PATH_KINDS.items()}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, checked."""

    request: web.Request
    caller: Caller
    path: Mapping[str, Any]
    query: BaseModel
    body: BaseModel | None
    still_welcome: Callable[[], None] = lambda: None  #: raises Problem: what the caller has shown is not valid any more

    def asked(self, model: type[QuestionT]) -> QuestionT:
        """The query, as the model that the operation names."""
        if not isinstance(self.query, model):
            raise TypeError(f"the operation asks for no {model.__name__}")
        return self.query

    def sent(self, model: type[QuestionT]) -> QuestionT:
        """The body, as the model that the operation names."""
        if not isinstance(self.body, model):
            raise TypeError(f"the operation takes no {model.__name__}")
        return self.body


Handler = Callable[[Call], Awaitable[Json]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that the API can do. The handler returns what JSON can hold, or a whole response."""

    method: str
    path: str
    handler: Handler
    answer: Any = None  #: a type; None: `media` says all
    role: Role = Role.VIEWER
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    status: int = 200
    media: str = "application/json"
    also: Mapping[int, Any] = field(default_factory=dict)  #: other statuses with an answer of the same kind
    problems: frozenset[int] = frozenset()  #: beside those that every such operation may have
    headers: Mapping[str, str] = field(default_factory=dict)  #: those it heeds: name -> pattern
    ordered: bool = False  #: an act: it may carry an Idempotency-Key

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.handler.__name__.strip("_")

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.handler) or "").split("\n")[0]

    @property
    def path_names(self) -> list[str]:
        """The names in its path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def possible_problems(self) -> list[int]:
        """The statuses of all problems that may come."""
        found = set(self.problems)
        found |= {401, 403} if self.role is not Role.NOBODY else set()
        found |= {400} if self.query.model_fields or self.path_names or self.body is not None else set()
        found |= {404, 503} if self.path_names else set()
        found |= {408, 413, 415} if self.body is not None else set()
        found |= {400, 409, 421, 422, 503, 504} if self.ordered else set()
        return sorted(found)


def path_of(operation: Operation, request: web.Request) -> dict[str, Any]:
    """The values in the path. Raises Problem: one is none."""
    found = {}
    for name in operation.path_names:
        try:
            found[name] = _PATH_ADAPTERS[name].validate_python(request.match_info[name])
        except ValidationError as error:
            raise of_validation(error, name) from None
    return found


def query_of(operation: Operation, request: web.Request) -> BaseModel:
    """The query. Raises Problem: it does not fit."""
    fields = operation.query.model_fields
    values: dict[str, Any] = {}
    for name in request.query:
        given = request.query.getall(name)
        is_list = name in fields and "list" in str(fields[name].annotation)
        if len(given) > 1 and not is_list:
            raise Problem(400, "query: a name that stands for one value is given twice")
        values[name] = given if is_list else given[0]
    try:
        return operation.query.model_validate(values)
    except ValidationError as error:
        raise of_validation(error, "query") from None


def body_of(operation: Operation, request: web.Request, raw: bytes) -> BaseModel | None:
    """The body. Raises Problem: it does not fit."""
    if operation.body is None:
        return None
    if raw and request.content_type != "application/json":
        raise Problem(415, "A body must be application/json.")
    try:
        return operation.body.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise of_validation(error, "body") from None
