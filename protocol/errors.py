"""Errors of the protocol room, and the codes that cross the wire.

    ProtocolError
    ├── SynapseError          a synapse is defined wrongly; a mistake in this program, never in a peer
    ├── MalformedMessage      bytes that are not the message the synapse promises
    ├── StreamError           a stream of frames breaks its rules (truncated, altered, too large)
    ├── ExchangeError         a stored exchange cannot be read, or its signatures do not hold
    ├── EvidenceError         bytes that are no evidence, or a verdict of which none can be made
    └── Refusal               a server declines a request: `code`, a safe sentence, perhaps `retry_after`

`RefusalCode` is what a server answers; the HTTP status goes with the code and carries nothing more. `FailureCode` is
what a client found when it did not get an answer it may use. Both are stable: logs, metrics, scores and other
implementations key on them, so a code is never renamed or given a second meaning.
"""

from __future__ import annotations

from enum import Enum


class ProtocolError(Exception):
    """Root of this room. The message says what happened and what to do."""


class SynapseError(ProtocolError):
    """A synapse, or the use of one, contradicts its own definition."""


class MalformedMessage(ProtocolError):
    """Bytes do not decode to the expected message. The text names fields, never values."""


class StreamError(ProtocolError):
    """A frame stream broke a rule; `code` says which kind of failure it is for the client."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ExchangeError(ProtocolError):
    """A stored exchange cannot be decoded, or a signature in it does not verify."""


class EvidenceError(ProtocolError):
    """Bytes are not evidence in its one form, or no evidence can be made of what is at hand."""


class RefusalCode(str, Enum):
    """Why a server declined. The comment is the remedy for the sender."""

    MALFORMED = "malformed"  # headers or body do not have the promised form: fix the sender
    UNAUTHENTICATED = "unauthenticated"  # no valid btauth/1 signature: sign with a hotkey
    STALE = "stale"  # nonce outside the freshness window: set the clock, sign anew for every attempt
    REPLAYED = "replayed"  # this nonce was used: sign anew for every attempt
    WRONG_RECEIVER = "wrong_receiver"  # signed for another hotkey: read the metagraph again
    NOT_PERMITTED = "not_permitted"  # not registered, no permit, or too little stake
    UNKNOWN_ROUTE = "unknown_route"  # nothing is served there
    VERSION_MISMATCH = "version_mismatch"  # the synapse is served in another version: update one side
    TOO_LARGE = "too_large"  # body above the synapse's limit
    RATE_LIMITED = "rate_limited"  # wait for retry_after seconds
    BUSY = "busy"  # every slot and the queue are taken, or the server is stopping: wait for retry_after seconds
    TIMEOUT = "timeout"  # the body or the work took longer than the limit
    INTERNAL = "internal"  # the server failed; its operator finds the reason in its log

    def __str__(self) -> str:
        return self.value

    @property
    def status(self) -> int:
        """HTTP status that goes with the code."""
        return _STATUS[self]


_STATUS = {
    RefusalCode.MALFORMED: 400,
    RefusalCode.UNAUTHENTICATED: 401,
    RefusalCode.STALE: 401,
    RefusalCode.REPLAYED: 401,
    RefusalCode.WRONG_RECEIVER: 421,
    RefusalCode.NOT_PERMITTED: 403,
    RefusalCode.UNKNOWN_ROUTE: 404,
    RefusalCode.VERSION_MISMATCH: 404,
    RefusalCode.TOO_LARGE: 413,
    RefusalCode.RATE_LIMITED: 429,
    RefusalCode.BUSY: 503,
    RefusalCode.TIMEOUT: 504,
    RefusalCode.INTERNAL: 500,
}


class FailureCode(str, Enum):
    """Why a client has no usable answer."""

    ADDRESS_REFUSED = "address_refused"  # the address may not be called (private, loopback, multicast, port 0, ...)
    UNREACHABLE = "unreachable"  # no connection
    DISCONNECTED = "disconnected"  # the connection ended before the response headers did
    DEADLINE = "deadline"  # the caller's deadline, or a stream's longest silence, passed
    NOT_HTTP = "not_http"  # what came back breaks HTTP
    TRUNCATED = "truncated"  # the body ended early
    TOO_LARGE = "too_large"  # the body is above the synapse's limit
    UNSIGNED = "unsigned"  # no response signature; a refusal sent so is only a claim
    WRONG_SIGNER = "wrong_signer"  # signed by another hotkey than the one called
    BAD_SIGNATURE = "bad_signature"  # the signature does not hold: altered, reordered, or for another request
    MALFORMED = "malformed"  # signed, but not the message the synapse promises
    REFUSED = "refused"  # a signed refusal; see the refusal code

    def __str__(self) -> str:
        return self.value


class Refusal(ProtocolError):
    """A request is declined. Raise it in a handler or a policy; the server turns it into a signed answer.

    `message` is sent to the peer: one sentence without secrets or internals. `retry_after` is in seconds.
    """

    def __init__(self, code: RefusalCode, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"Refusal({self.code.value!r}, {self.message!r}, retry_after={self.retry_after!r})"
