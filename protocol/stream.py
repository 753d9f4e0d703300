"""Frames of a streamed response: pure framing, bounds and running digest, no I/O.

    frame  = kind (1 byte) | length (4 bytes, big-endian) | payload
    stream = chunk* (end | refusal) seal

`chunk` and `end` carry JSON messages, `refusal` a RefusalBody, `seal` the 64-byte signature over
`auth.stream_payload`. The running digest is SHA-256 over `touchstone-stream/1\\n`, the request digest, and every
frame before the seal with its head, so that dropping, adding, swapping or altering a frame, or ending early, is seen.
Frames are handed out as they arrive; what they say is the miner's word only once the seal has verified.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum

from protocol.auth import STREAM_PROTOCOL
from protocol.errors import FailureCode, StreamError

HEAD_BYTES = 5
SIGNATURE_BYTES = 64  # sr25519 and ed25519 alike


class Kind(IntEnum):
    CHUNK = 1
    END = 2
    REFUSAL = 3
    SEAL = 4


@dataclass(frozen=True)
class Frame:
    kind: Kind
    payload: bytes

    def encode(self) -> bytes:
        return bytes((self.kind,)) + len(self.payload).to_bytes(4, "big") + self.payload


@dataclass
class RunningDigest:
    """Digest over the frames of one stream, fed in the order of the wire."""

    request_digest: bytes
    frames: int = 0
    _hash: hashlib._Hash = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._hash = hashlib.sha256(STREAM_PROTOCOL.encode() + b"\n" + self.request_digest)

    def add(self, encoded: bytes) -> None:
        self._hash.update(encoded)
        self.frames += 1

    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass
class FrameParser:
    """Turns received bytes into frames and enforces the grammar and the bounds.

    `max_frame_bytes` bounds a chunk, `max_stream_bytes` all bytes of the stream. Holds at most one unfinished frame.
    """

    max_frame_bytes: int
    max_stream_bytes: int
    _buffer: bytearray = field(default_factory=bytearray)
    _received: int = 0
    _ended: bool = False  # the end or refusal frame has been seen; only a seal may follow
    _sealed: bool = False

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`. Raises StreamError (too_large or malformed)."""
        self._received += len(data)
        if self._received > self.max_stream_bytes:
            raise StreamError(FailureCode.TOO_LARGE, f"stream is larger than {self.max_stream_bytes} bytes")
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= HEAD_BYTES:
            kind, length = self._head()
            if len(self._buffer) < HEAD_BYTES + length:
                break
            payload = bytes(self._buffer[HEAD_BYTES : HEAD_BYTES + length])
            del self._buffer[: HEAD_BYTES + length]
            self._ended = self._ended or kind in (Kind.END, Kind.REFUSAL)
            self._sealed = kind is Kind.SEAL
            frames.append(Frame(kind, payload))
        if self._sealed and self._buffer:
            raise StreamError(FailureCode.MALFORMED, "bytes follow the seal of the stream")
        return frames

    def finish(self) -> None:
        """Call at the end of the body. Raises StreamError(truncated) when the seal has not come."""
        if not self._sealed:
            raise StreamError(FailureCode.TRUNCATED, "the stream ended before its seal")

    def _head(self) -> tuple[Kind, int]:
        """Kind and payload length of the frame at the front, refused before its payload has to arrive."""
        if self._sealed:
            raise StreamError(FailureCode.MALFORMED, "bytes follow the seal of the stream")
        try:
            kind = Kind(self._buffer[0])
        except ValueError:
            raise StreamError(FailureCode.MALFORMED, f"unknown frame kind {self._buffer[0]}") from None
        if (kind is Kind.SEAL) != self._ended:
            raise StreamError(FailureCode.MALFORMED, f"frame {kind.name.lower()} is out of order")
        length = int.from_bytes(self._buffer[1:HEAD_BYTES], "big")
        limit = {Kind.CHUNK: self.max_frame_bytes, Kind.SEAL: SIGNATURE_BYTES}.get(kind, self.max_stream_bytes)
        if length > limit:
            raise StreamError(FailureCode.TOO_LARGE, f"frame {kind.name.lower()} claims {length} bytes, limit {limit}")
        if kind is Kind.SEAL and length != SIGNATURE_BYTES:
            raise StreamError(FailureCode.MALFORMED, f"the seal must be {SIGNATURE_BYTES} bytes")
        return kind, length


def digest_frames(request_digest: bytes, data: bytes) -> tuple[int, bytes]:
    """(number of frames, running digest) of stored frames without their seal. Raises StreamError when not whole."""
    running = RunningDigest(request_digest)
    parser = FrameParser(max_frame_bytes=len(data), max_stream_bytes=len(data))
    for frame in parser.feed(data):
        running.add(frame.encode())
    if not parser._ended or parser._buffer:
        raise StreamError(FailureCode.TRUNCATED, "stored frames do not form a whole stream")
    return running.frames, running.digest()
