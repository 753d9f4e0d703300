"""One exchange as the caller sees it: whom it asks, what came back, and why that does not count when it does not.

`Call` is a request that has been signed; `read_body`, `verify_whole` and `decode_answer` are the three steps from a
response to a message, each of which may raise `CallFailed`. Size is checked before content, the signature before form.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import aiohttp

from protocol import auth
from protocol.auth import SignedExchange
from protocol.errors import FailureCode, MalformedMessage, Refusal
from protocol.metagraph import Neuron
from protocol.synapse import Message, decode, decode_refusal, safe_text
from template.errors import CallFailed, Failure
from template.keys import HEADER_NONCE, HEADER_SIGNATURE, Hotkey, verify

Res = TypeVar("Res", bound=Message)
REFUSAL_BYTES = 4096  # no refusal is longer


@dataclass(frozen=True)
class Target:
    """Whom to call: the hotkey that must sign the answer, and where the chain says it listens."""

    hotkey: str  # SS58
    ip: str
    port: int

    @classmethod
    def of(cls, neuron: Neuron) -> Target:
        return cls(neuron.hotkey, neuron.ip, neuron.port)


@dataclass(frozen=True)
class Timing:
    """Seconds since the call began, and bytes of the response body received."""

    first_byte: float | None  # until the response headers; None when they never came
    total: float
    received: int


@dataclass(frozen=True)
class Reply(Generic[Res]):
    """An answer whose signature has verified. `exchange` holds the signed bytes of both sides, for evidence."""

    response: Res
    exchange: SignedExchange
    timing: Timing


@dataclass(frozen=True)
class Outcome(Generic[Res]):
    """What became of one call of a fan-out: exactly one of `reply` and `failure` is set."""

    target: Target
    timing: Timing
    reply: Reply[Res] | None = None
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.reply is not None


@dataclass
class Call:
    """One signed request and what is known about its answer so far."""

    target: Target
    path: str
    body: bytes
    headers: dict[str, str]
    sender: Hotkey
    started: float
    first_byte: float | None = None
    received: int = 0
    request_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        payload = auth.request_payload(
            scheme=self.sender.scheme,
            method="POST",
            path=self.path,
            body=self.body,
            nonce_ns=int(self.headers[HEADER_NONCE]),
            sender=self.sender.ss58,
            receiver=self.target.hotkey,
        )
        self.request_digest = auth.request_digest(payload)

    @property
    def timing(self) -> Timing:
        return Timing(self.first_byte, time.perf_counter() - self.started, self.received)

    def exchange(
        self, status: int, scheme: str, body: bytes, signature: bytes, *, streamed: bool = False
    ) -> SignedExchange:
        return SignedExchange(
            method="POST",
            path=self.path,
            sender=self.sender.ss58,
            receiver=self.target.hotkey,
            nonce_ns=int(self.headers[HEADER_NONCE]),
            request_scheme=self.sender.scheme,
            request_body=self.body,
            request_signature=bytes.fromhex(self.headers[HEADER_SIGNATURE][2:]),
            status=status,
            response_scheme=scheme,
            response_body=body,
            response_signature=signature,
            streamed=streamed,
        )


async def read_body(response: aiohttp.ClientResponse, call: Call, limit: int) -> bytes:
    """The body, at most `limit` bytes; a longer one closes the connection. Raises CallFailed and aiohttp's errors."""
    if (response.content_length or 0) > limit:
        response.close()
        raise CallFailed(
            Failure(FailureCode.TOO_LARGE, f"the response claims {response.content_length} bytes, limit {limit}")
        )
    content = response.content
    body = content.read_nowait(-1) if content.is_eof() else b""
    if content.exception() is not None:
        raise content.exception()  # type: ignore[misc]
    call.received = len(body)
    parts = [body]
    while not content.at_eof() and call.received <= limit:
        parts.append(await content.readany())
        call.received += len(parts[-1])
    if call.received > limit:
        response.close()
        raise CallFailed(Failure(FailureCode.TOO_LARGE, f"the response is larger than {limit} bytes"))
    return b"".join(parts)


def check_signer(call: Call, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    if headers.get(auth.HEADER_RESPONSE) != auth.RESPONSE_VERSION:
        raise CallFailed(Failure(FailureCode.UNSIGNED, f"status {response.status} without a response signature"))
    if headers.get(auth.HEADER_HOTKEY) != call.target.hotkey:
        raise CallFailed(Failure(FailureCode.WRONG_SIGNER, "the response names another hotkey than the one called"))


def scheme_of(response: aiohttp.ClientResponse) -> str:
    """The signature scheme a response names. Checked before it is used: a header may hold what UTF-8 cannot encode."""
    scheme = response.headers.get(auth.HEADER_SCHEME, auth.DEFAULT_SCHEME)
    if scheme not in auth.SCHEMES:
        raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the response names an unknown signature scheme"))
    return scheme


def verify_whole(call: Call, response: aiohttp.ClientResponse, body: bytes) -> SignedExchange:
    headers = response.headers
    text = headers.get(auth.HEADER_SIGNATURE)
    if text is None or headers.get(auth.HEADER_RESPONSE) != auth.RESPONSE_VERSION:
        detail = f"status {response.status} without a response signature"
        raise CallFailed(Failure(FailureCode.UNSIGNED, detail, _claimed_refusal(response.status, body)))
    check_signer(call, response)
    scheme = scheme_of(response)
    try:
        signature = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the response signature is not hex")) from None
    payload = auth.response_payload(
        scheme=scheme, digest=call.request_digest, status=response.status, body=body, hotkey=call.target.hotkey
    )
    if not verify(call.target.hotkey, payload, signature, scheme):
        raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the response signature does not hold for this request"))
    return call.exchange(response.status, scheme, body, signature)


def decode_answer(model: type[Res], status: int, body: bytes) -> Res:
    """The response message, or CallFailed with the signed refusal, or because it is neither."""
    try:
        if status == 200:
            return decode(model, body)
        refusal = decode_refusal(body)
    except MalformedMessage as error:
        raise CallFailed(Failure(FailureCode.MALFORMED, str(error))) from None
    raise CallFailed(Failure(FailureCode.REFUSED, "the peer declined", refusal))


def _claimed_refusal(status: int, body: bytes) -> Refusal | None:
    if status == 200:
        return None
    try:
        return decode_refusal(body)
    except MalformedMessage:
        return None


def transport_failure(error: Exception) -> Failure:
    """The failure an aiohttp or socket error means. Its text may hold bytes of the peer, so it is made safe."""
    detail = safe_text(str(error) or type(error).__name__)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Failure(FailureCode.UNREACHABLE, "no connection in time")
    if isinstance(error, asyncio.TimeoutError):
        return Failure(FailureCode.DEADLINE, "no complete answer in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Failure(FailureCode.UNREACHABLE, detail)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(FailureCode.TRUNCATED, detail)
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError)):
        return Failure(FailureCode.DISCONNECTED, detail)
    return Failure(FailureCode.NOT_HTTP, detail)
