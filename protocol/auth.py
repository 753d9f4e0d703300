"""What is signed: exact bytes of requests, responses and streams. Pure layouts and digests, no keys.

A request is btauth/1, the SDK's `bittensor.http_auth` (`request_payload` restates its layout so that evidence can be
checked without the SDK; the golden vectors in tests/spec hold both to the same bytes). A response is signed by the
miner's hotkey over these newline-joined UTF-8 lines:

    touchstone-response/1
    <sr25519|ed25519>
    <hex SHA-256 of the request payload: body, path, nonce, sender and receiver are all in it>
    <HTTP status, decimal>
    <hex SHA-256 of the body>
    <miner hotkey, SS58>

A stream's seal signs the same with `touchstone-stream/1` first, and instead of the body's digest the number of frames
and the running digest over them (protocol/stream.py). A signature of one request's response is worthless for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, fields

from protocol.errors import ExchangeError

REQUEST_PROTOCOL = "btauth/1"
RESPONSE_PROTOCOL = "touchstone-response/1"
STREAM_PROTOCOL = "touchstone-stream/1"
SCHEMES = ("sr25519", "ed25519")
DEFAULT_SCHEME = "sr25519"

HEADER_RESPONSE = "X-Touchstone-Response"  # "1"; present on every signed response
HEADER_HOTKEY = "X-Touchstone-Hotkey"
HEADER_SCHEME = "X-Touchstone-Scheme"  # absent means sr25519
HEADER_SIGNATURE = "X-Touchstone-Signature"  # 0x-hex, 64 bytes; absent on streams, whose seal is the last frame
RESPONSE_VERSION = "1"
CONTENT_TYPE_STREAM = "application/x-touchstone-stream"


def request_payload(
    *, scheme: str, method: str, path: str, body: bytes, nonce_ns: int, sender: str, receiver: str
) -> bytes:
    """The bytes a btauth/1 sender signs. `path` is the request target as sent, query included."""
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join(
        (REQUEST_PROTOCOL, scheme, method.upper(), path, digest, str(nonce_ns), sender, receiver or "-")
    ).encode()


def request_digest(payload: bytes) -> bytes:
    """32 bytes that name one signed request for good; its nonce makes it unique."""
    return hashlib.sha256(payload).digest()


def response_payload(*, scheme: str, digest: bytes, status: int, body: bytes, hotkey: str) -> bytes:
    """The bytes a server signs for a whole response; `digest` is the request's."""
    body_digest = hashlib.sha256(body).hexdigest()
    return "\n".join((RESPONSE_PROTOCOL, scheme, digest.hex(), str(status), body_digest, hotkey)).encode()


def stream_payload(
    *, scheme: str, digest: bytes, status: int, frames: int, running_digest: bytes, hotkey: str
) -> bytes:
    """The bytes a server signs to seal a stream: `frames` frames before the seal, `running_digest` over them."""
    return "\n".join(
        (STREAM_PROTOCOL, scheme, digest.hex(), str(status), str(frames), running_digest.hex(), hotkey)
    ).encode()


@dataclass(frozen=True)
class SignedExchange:
    """One request and its response with both signatures: enough for anyone to check who said what to whom.

    `response_body` holds the raw body; for a stream, every frame before the seal exactly as received.
    """

    method: str
    path: str
    sender: str  # SS58
    receiver: str  # SS58
    nonce_ns: int
    request_scheme: str
    request_body: bytes
    request_signature: bytes
    status: int
    response_scheme: str
    response_body: bytes
    response_signature: bytes
    streamed: bool = False

    @property
    def request_payload(self) -> bytes:
        return request_payload(
            scheme=self.request_scheme,
            method=self.method,
            path=self.path,
            body=self.request_body,
            nonce_ns=self.nonce_ns,
            sender=self.sender,
            receiver=self.receiver,
        )

    @property
    def request_digest(self) -> bytes:
        return request_digest(self.request_payload)

    @property
    def response_payload(self) -> bytes:
        """The bytes under `response_signature`. Raises StreamError when stored frames are not whole frames."""
        if not self.streamed:
            return response_payload(
                scheme=self.response_scheme,
                digest=self.request_digest,
                status=self.status,
                body=self.response_body,
                hotkey=self.receiver,
            )
        from protocol.stream import digest_frames  # the stream module builds on this one

        frames, running = digest_frames(self.request_digest, self.response_body)
        return stream_payload(
            scheme=self.response_scheme,
            digest=self.request_digest,
            status=self.status,
            frames=frames,
            running_digest=running,
            hotkey=self.receiver,
        )

    @property
    def response_digest(self) -> bytes:
        """32 bytes that name this signed response: what is drawn from, once it can no longer be changed."""
        return hashlib.sha256(self.response_payload + self.response_signature).digest()

    def to_json(self) -> bytes:
        """UTF-8 JSON, byte fields in base64; `from_json` reads it back to an equal value."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(
            {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in record.items()}
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> SignedExchange:
        """Raises ExchangeError for anything that `to_json` would not have written."""
        try:
            record = json.loads(data)
        except ValueError:
            raise ExchangeError("a signed exchange must be a JSON object; this is not JSON") from None
        names = {f.name: str(f.type) for f in fields(cls)}
        if not isinstance(record, dict) or record.keys() != names.keys():
            raise ExchangeError(f"a signed exchange must have exactly the fields {', '.join(names)}")
        values: dict[str, object] = {}
        for name, kind in names.items():
            value = record[name]
            if type(value).__name__ != ("str" if kind == "bytes" else kind):
                raise ExchangeError(f"field {name} of a signed exchange must be {kind}")
            try:
                values[name] = base64.b64decode(value, validate=True) if kind == "bytes" else value
            except (binascii.Error, ValueError):
                raise ExchangeError(f"field {name} of a signed exchange is not base64") from None
        return cls(**values)  # type: ignore[arg-type]
