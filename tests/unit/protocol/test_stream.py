"""Frames: what was sent is what arrives, however it is cut; every other sequence is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import FailureCode, StreamError
from protocol.stream import Frame, FrameParser, Kind, RunningDigest, digest_frames

SEAL = Frame(Kind.SEAL, b"s" * 64)
END = Frame(Kind.END, b"{}")


def chunk(payload: bytes) -> Frame:
    return Frame(Kind.CHUNK, payload)


def parse(data: bytes, *, frame: int = 100, stream: int = 10_000) -> list[Frame]:
    parser = FrameParser(frame, stream)
    frames = parser.feed(data)
    parser.finish()
    return frames


@given(st.lists(st.binary(max_size=100), max_size=10), st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cut(payloads, cuts):
    sent = [*(chunk(p) for p in payloads), END, SEAL]
    data = b"".join(f.encode() for f in sent)
    parser, got, i = FrameParser(100, 10_000), [], 0
    while data:
        size = cuts[i % len(cuts)]
        got += parser.feed(data[:size])
        data, i = data[size:], i + 1
    parser.finish()
    assert got == sent


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", FailureCode.TRUNCATED),
        (chunk(b"a").encode(), FailureCode.TRUNCATED),
        (END.encode(), FailureCode.TRUNCATED),
        ((END.encode() + SEAL.encode())[:-1], FailureCode.TRUNCATED),
        (SEAL.encode(), FailureCode.MALFORMED),
        (END.encode() + END.encode(), FailureCode.MALFORMED),
        (END.encode() + chunk(b"a").encode(), FailureCode.MALFORMED),
        (END.encode() + SEAL.encode() + b"x", FailureCode.MALFORMED),
        (END.encode() + SEAL.encode() + chunk(b"a").encode(), FailureCode.MALFORMED),
        (END.encode() + Frame(Kind.SEAL, b"s").encode(), FailureCode.MALFORMED),
        (b"\x09\x00\x00\x00\x00", FailureCode.MALFORMED),
        (b"\x01\x00\x00\x00\x65", FailureCode.TOO_LARGE),
        (b"\x02\xff\xff\xff\xff", FailureCode.TOO_LARGE),
        (chunk(b"a" * 90).encode() * 200, FailureCode.TOO_LARGE),
    ],
)
def test_a_broken_stream_is_an_error(data, code):
    with pytest.raises(StreamError) as error:
        parse(data)
    assert error.value.code == code


def test_the_digest_sees_request_order_content_and_number():
    def digest(request: bytes, *frames: Frame) -> bytes:
        running = RunningDigest(request)
        for frame in frames:
            running.add(frame.encode())
        return running.digest()

    a, b, r = chunk(b"a"), chunk(b"b"), b"r" * 32
    seen = {
        digest(r, a, b),
        digest(r, b, a),
        digest(r, a),
        digest(r, chunk(b"ab")),
        digest(b"q" * 32, a, b),
        digest(r, a, Frame(Kind.END, b"b")),
    }
    assert len(seen) == 6


def test_stored_frames_give_the_same_digest():
    running = RunningDigest(b"r" * 32)
    data = b""
    for frame in (chunk(b"a"), chunk(b""), END):
        running.add(frame.encode())
        data += frame.encode()
    assert digest_frames(b"r" * 32, data) == (3, running.digest())
    for broken in (data[:-1], data + b"\x01", chunk(b"a").encode(), b""):
        with pytest.raises(StreamError):
            digest_frames(b"r" * 32, broken)
