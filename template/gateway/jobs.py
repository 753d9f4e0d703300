"""One request on its way through the gateway, and the answers that are not a model's: lists and errors."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import orjson
from aiohttp import web

from protocol.errors import Refusal, RefusalCode
from template.gateway.access import Ticket
from template.gateway.errors import ApiError
from template.gateway.replies import Usage


@dataclass
class Job:
    """One request on its way through the gateway, and what it has used so far."""

    request: web.BaseRequest
    ticket: Ticket
    until: float  # monotonic
    prompt_tokens: int = 0
    answer_tokens: int = 0
    miners: int = 1  # whose work counts
    working: bool = False  # whether miners were asked

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.answer_tokens)

    @property
    def used(self) -> int:
        """Tokens that count for the quota."""
        return (self.prompt_tokens + self.answer_tokens) * self.miners if self.working else 0


def json_response(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json", headers=request_id())


def request_id() -> dict[str, str]:
    """Clients show it in their errors."""
    return {"X-Request-Id": "req_" + secrets.token_hex(12)}


def refuse(request: web.BaseRequest, error: ApiError) -> web.Response:
    response = json_response(error.to_object())
    response.set_status(error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    if not error.retry:
        response.headers["X-Should-Retry"] = "false"
    if not request.content.is_eof():
        response.force_close()
    return response


def body_error(refusal: Refusal) -> ApiError:
    """A refusal of the body's reader, in OpenAI's form."""
    status, code = _BODY_ERRORS[refusal.code]
    return ApiError(status, refusal.message, code=code, retry_after=refusal.retry_after)


_BODY_ERRORS = {
    RefusalCode.TOO_LARGE: (413, "request_too_large"),
    RefusalCode.TIMEOUT: (408, "request_timeout"),
    RefusalCode.MALFORMED: (400, "invalid_json"),
    RefusalCode.BUSY: (503, "overloaded"),
}
