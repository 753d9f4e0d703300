"""What a caller of the gateway is told when there is no answer: OpenAI's error object and its HTTP status.

    raise ApiError(404, "no model of that name", param="model", code="model_not_found")

| status | code                                                                 | what to do                         |
|--------|----------------------------------------------------------------------|------------------------------------|
| 400    | invalid_value, unknown_parameter, unsupported_parameter, ...          | change the request                 |
| 401    | invalid_api_key                                                      | send a key that is not revoked     |
| 404    | model_not_found, unknown_url                                         | see /v1/models                     |
| 405    | method_not_allowed                                                   | use the other method               |
| 408    | request_timeout                                                      | send the body faster               |
| 413    | request_too_large                                                    | send less                          |
| 415    | unsupported_media_type                                               | send Content-Type: application/json |
| 429    | rate_limit_exceeded, concurrency_limit_exceeded, insufficient_quota   | wait for Retry-After               |
| 500    | internal_error                                                       | the operator finds it in the log   |
| 502    | no_usable_answer, answer_not_verified                                | try again; miners failed           |
| 503    | overloaded, no_miners, shutting_down                                 | wait for Retry-After               |
| 504    | deadline_exceeded                                                    | ask for fewer tokens               |

Codes are stable. The official clients retry 408, 429 and 5xx by themselves; `retry` false tells them not to.
"""

from __future__ import annotations

from template.errors import TemplateError


class ApiError(TemplateError):
    """A refusal in OpenAI's form. `message` is safe to send; `retry_after` is in seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.retry = retry

    @property
    def type(self) -> str:
        """OpenAI's coarse kind of error."""
        if self.status == 429:
            return "insufficient_quota" if self.code == "insufficient_quota" else "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def to_object(self) -> dict[str, object]:
        """The JSON document of the error."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
