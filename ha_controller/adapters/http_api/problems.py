"""What is answered when something is not done: RFC 9457 problems, each with the exit code of the command line.

A problem never holds a secret, nor what the caller sent: only where it is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

MEDIA_TYPE: Final = "application/problem+json"
DETAIL_MAX: Final = 2000  #: characters
HTTP_OF_CODE: Final = {3: 404, 4: 409, 6: 503, 9: 421}  #: what the core answers, as a status
CODE_OF_HTTP: Final = {400: 2, 401: 8, 403: 8, 404: 3, 409: 4, 413: 2, 415: 2, 421: 9, 422: 2, 429: 6, 503: 6, 504: 6}
MEANING: Final = {
    400: "The request is not what this operation takes.",
    401: "Nobody is logged in, or the token or the session is not valid.",
    403: "The caller may not do this, or the request does not come from the page it claims to come from.",
    404: "There is no such thing.",
    408: "The request did not come in time.",
    409: "Refused for safety; the detail says by what.",
    413: "The request is too large.",
    415: "A body must be application/json.",
    421: "This controller does not lead.",
    422: "The Idempotency-Key was used for another request.",
    429: "Too many failed logins; try again later.",
    500: "A bug; the controller's log has the details.",
    503: "Not done, and may be tried again: what is needed does not answer, or too many ask.",
    504: "No answer in time; what was ordered may still be done. Look, before it is ordered again.",
}


class ProblemBody(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(description="What kind of problem, as an identifier; not to be fetched.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, and what helps.")
    code: int = Field(description="The exit code of the command line for it.")


class Problem(Exception):
    """A request that is not carried out."""

    def __init__(self, status: int, detail: str, *, code: int | None = None, headers: Mapping[str, str] | None = None):
        """`code`: the exit code of the command line, if it is not the usual one of the status."""
        super().__init__(detail)
        self.status = status
        self.detail = detail[:DETAIL_MAX]
        self.code = CODE_OF_HTTP.get(status, 1) if code is None else code
        self.headers = dict(headers or {})
        self.on_record = False  #: an act that was refused is on the audit trail already

    def response(self) -> web.Response:
        """The answer."""
        title = HTTPStatus(self.status).phrase
        body = ProblemBody(
            type=f"urn:ha-controller:problem:{title.lower().replace(' ', '-')}",
            title=title,
            status=self.status,
            detail=self.detail,
            code=self.code,
        )
        text = json.dumps(body.model_dump())
        return web.Response(text=text, status=self.status, content_type=MEDIA_TYPE, headers=self.headers)


def refused(code: int, text: str, *, on_record: bool = True) -> Problem:
    """What the core refused, with its own code."""
    headers = {"Retry-After": "1"} if code == 6 else None
    problem = Problem(HTTP_OF_CODE.get(code, 500), text, code=code, headers=headers)
    problem.on_record = on_record
    return problem


def of_validation(error: ValidationError, what: str) -> Problem:
    """A request that does not fit its model: where, never what was sent."""
    wrong = [
        f"{'.'.join(map(str, each['loc'])) or what}: {each['msg']}"
        for each in error.errors(include_input=False, include_url=False, include_context=False)[:20]
    ]
    return Problem(400, f"{what}: {'; '.join(wrong)}")


def no_such_host() -> Problem:
    """A host that OpenNebula does not have, or a name that is the number of another one."""
    return Problem(404, "There is no such host in OpenNebula, or one has the number of another as its name.")
