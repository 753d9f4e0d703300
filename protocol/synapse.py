"""A synapse: one kind of request between neurons and its response.

    class Ask(Message):
        prompt: str

    class Answer(Message):
        text: str

    ECHO = Synapse("echo", 1, Ask, Answer)       # POST /v1/echo, JSON both ways
    TALK = Synapse("talk", 1, Ask, Answer, chunk=Word)   # streams Word chunks, then one Answer

The server decodes with `decode(synapse.request, body)`, the client with `decode(synapse.response, body)`. Messages are
strict: no unknown field, no coercion, no NaN or infinity; so a signed body has one meaning. A change of either model is
a new version. Sizes are limits on the raw bytes and are checked before anything is parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.errors import MalformedMessage, Refusal, RefusalCode, SynapseError

KIB = 1024
MIB = 1024 * KIB

# Longest piece of peer-made text that is kept for logs and answers.
_MAX_TEXT = 300
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ROUTE = re.compile(r"/v([1-9][0-9]{0,3})/([a-z][a-z0-9_]{0,63})")


class Message(BaseModel):
    """Base of everything that crosses the wire: strict, closed, finite, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RefusalBody(Message):
    """Body of every refusal. `code` is a `RefusalCode`, left as text so that a newer server's code still decodes."""

    code: str
    message: str
    retry_after: float | None = None

    @classmethod
    def of(cls, refusal: Refusal) -> RefusalBody:
        return cls(code=refusal.code.value, message=refusal.message, retry_after=refusal.retry_after)


Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class Synapse(Generic[Request, Response]):
    """One kind of request and its response.

    `timeout` is the longest a server works on one request, in seconds; callers set their own deadline beside it.
    `chunk` makes the synapse stream: chunks of that model, then one final `response`. For a stream
    `max_response_bytes` bounds all frames together and `max_chunk_bytes` each of them.
    """

    name: str
    version: int
    request: type[Request]
    response: type[Response]
    max_request_bytes: int = 256 * KIB
    max_response_bytes: int = 1 * MIB
    timeout: float = 60.0
    chunk: type[Message] | None = None
    max_chunk_bytes: int = 64 * KIB

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SynapseError(f"synapse name {self.name!r} must match {_NAME.pattern}")
        if not 1 <= self.version <= 9999:
            raise SynapseError(f"synapse {self.name}: version {self.version} must be 1..9999")
        for model in (self.request, self.response, *((self.chunk,) if self.chunk else ())):
            if not (isinstance(model, type) and issubclass(model, Message)):
                raise SynapseError(f"synapse {self.name}: {model!r} must be a subclass of protocol.synapse.Message")
        if min(self.max_request_bytes, self.max_response_bytes, self.max_chunk_bytes) <= 0 or self.timeout <= 0:
            raise SynapseError(f"synapse {self.name}: limits must be positive")
        if self.chunk is self.response:
            raise SynapseError(f"synapse {self.name}: chunk and response must be different models")

    @property
    def route(self) -> str:
        return f"/v{self.version}/{self.name}"

    @property
    def streaming(self) -> bool:
        return self.chunk is not None


def parse_route(path: str) -> tuple[str, int] | None:
    """(name, version) of a request path, or None when it has not the form /v<version>/<name>."""
    match = _ROUTE.fullmatch(path)
    return (match[2], int(match[1])) if match else None


def encode(message: Message) -> bytes:
    """The bytes that are sent and signed: compact UTF-8 JSON in field order."""
    return message.model_dump_json().encode()


def decode(model: type[AnyMessage], body: bytes) -> AnyMessage:
    """Strictly decode `body`; the caller has checked its size. Raises MalformedMessage, which never quotes values."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False, include_context=False)[:3]
        ]
        raise MalformedMessage(safe_text(f"not a valid {model.__name__}: {'; '.join(problems)}")) from None


def decode_refusal(body: bytes) -> Refusal:
    """The refusal a server sent. Raises MalformedMessage for anything else, an unknown code included."""
    decoded = decode(RefusalBody, body)
    try:
        code = RefusalCode(decoded.code)
    except ValueError:
        raise MalformedMessage(safe_text(f"unknown refusal code {decoded.code!r}")) from None
    return Refusal(code, safe_text(decoded.message), retry_after=decoded.retry_after)


def safe_text(text: str) -> str:
    """Text made by a peer, cut and stripped of everything that could disturb a terminal or a log line."""
    cut = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in cut)
