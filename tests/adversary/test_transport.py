"""Bad input on the wire, in both directions. Every case has its clear code, and the other side goes on serving."""

import asyncio
import contextlib
import json
import time

import aiohttp
import pytest

from protocol import auth
from protocol.errors import FailureCode, RefusalCode
from protocol.stream import Frame, Kind, RunningDigest
from protocol.synapse import encode
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.keys import sign_request
from template.limits import Limits, ReplayStore
from template.server import SynapseServer
from tests.support.transport import (
    ALICE,
    BOB,
    CHARLIE,
    ECHO,
    TALK,
    Answer,
    Ask,
    Word,
    peer,
    response,
    serving,
    signed_head,
)

BODY = encode(Ask(prompt="hello"))


@pytest.fixture
async def client():
    async with SynapseClient(ALICE, allow_local=True) as client:
        yield client


# Requests to a miner


async def send(target: Target, headers: dict[str, str], body: bytes = BODY, path: str = ECHO.route, method="POST"):
    """(status, refusal code or None, signed) of a request whose headers are exactly these."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"http://127.0.0.1:{target.port}{path}", data=body, headers=headers) as answer,
    ):
        record = json.loads(await answer.read())
        return answer.status, record.get("code"), auth.HEADER_SIGNATURE in answer.headers


def headers(**options) -> dict[str, str]:
    return sign_request(ALICE, **{"path": ECHO.route, "body": BODY, "receiver": BOB.ss58, **options})


def seconds_from_now(seconds: float) -> int:
    return time.time_ns() + int(seconds * 1e9)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"headers": {}}, (401, "unauthenticated", False)),
        ({"drop": "X-Bittensor-Signature"}, (400, "malformed", False)),
        ({"headers": {"X-Bittensor-Hotkey": "5Nonsense"}, "keep": True}, (400, "malformed", False)),
        ({"headers": {"X-Bittensor-Hotkey": CHARLIE.ss58}, "keep": True}, (401, "unauthenticated", False)),
        ({"headers": {"X-Bittensor-Signature": "0x" + "00" * 64}, "keep": True}, (401, "unauthenticated", False)),
        ({"headers": {"X-Bittensor-Signature": "0x"}, "keep": True}, (400, "malformed", False)),
        ({"headers": {"X-Bittensor-Nonce": "9" * 5000}, "keep": True}, (400, "malformed", False)),
        ({"headers": {"X-Bittensor-Nonce": "-1"}, "keep": True}, (401, "stale", False)),
        ({"sign": {"nonce_ns": seconds_from_now(-3600)}}, (401, "stale", False)),
        ({"sign": {"nonce_ns": seconds_from_now(+3600)}}, (401, "stale", False)),
        ({"sign": {"receiver": CHARLIE.ss58}}, (421, "wrong_receiver", False)),
        ({"drop": "X-Bittensor-Receiver"}, (421, "wrong_receiver", False)),
        ({"body": b'{"prompt":"other"}'}, (401, "unauthenticated", False)),
        ({"sign": {"path": TALK.route}}, (401, "unauthenticated", False)),
        ({"body": b"x" * 5000}, (413, "too_large", False)),
        ({"body": b'{"prompt":"NaN', "sign": {"body": b'{"prompt":"NaN'}}, (400, "malformed", True)),
        ({"body": b"\x00\xff" * 99, "sign": {"body": b"\x00\xff" * 99}}, (400, "malformed", True)),
        ({"body": b"", "sign": {"body": b""}}, (400, "malformed", True)),
        ({"path": "/v1/nothing"}, (404, "unknown_route", False)),
        ({"path": "/v9/echo"}, (404, "version_mismatch", False)),
        ({"path": "/v1/echo?x=1"}, (404, "unknown_route", False)),
        ({"method": "PUT"}, (404, "unknown_route", False)),
    ],
)
async def test_a_wrong_request_gets_its_code_and_the_miner_goes_on(client, change, expected):
    rest = {key: change[key] for key in ("body", "path", "method") if key in change}
    async with serving() as (_, target):
        sent = headers(**change.get("sign", {})) if change.get("keep", "headers" not in change) else {}
        sent.update(change.get("headers", {}))
        sent.pop(change.get("drop"), None)
        assert await send(target, sent, **rest) == expected
        assert (await client.call(target, ECHO, Ask(prompt="still there"))).response.text == "still there"


async def test_a_replay_is_refused_unsigned_and_costs_its_victim_nothing(client):
    async with serving(limits=Limits(rate_per_hotkey=0.001, burst_per_hotkey=2)) as (_, target):
        captured = headers()
        assert (await send(target, captured))[0] == 200
        for _ in range(5):
            assert await send(target, captured) == (401, "replayed", False)
        assert (await client.attempt(target, ECHO, Ask(prompt="mine"))).ok


@pytest.mark.parametrize("journal", [False, True])
async def test_a_replay_after_a_restart_is_refused(journal, tmp_path):
    def store():
        return ReplayStore(path=tmp_path / "nonces") if journal else ReplayStore()

    async with serving(replay=store() if journal else None) as (_, target):
        captured = headers()
        assert (await send(target, captured))[0] == 200
    async with serving(replay=store()) as (_, target):
        assert (await send(target, captured))[1] == ("replayed" if journal else "stale")


async def raw(port: int, data: bytes, *, timeout: float = 10.0) -> bytes:
    """Send bytes, then read until the server closes or `timeout`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), timeout)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/echo HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"POST /v1/echo HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
        b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_broken_http_is_refused_without_a_trace(client, data, caplog):
    async with serving(limits=Limits(header_timeout=1.0)) as (_, target):
        answer = await raw(target.port, data)
        assert b" 200 " not in answer.split(b"\r\n")[0]
        assert b"Traceback" not in answer and "Traceback" not in caplog.text
        assert (await client.attempt(target, ECHO, Ask(prompt="a"))).ok


async def test_a_header_given_twice_is_malformed():
    async with serving() as (_, target):
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers().items())
        head = f"POST {ECHO.route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(BODY)}\r\n{lines}"
        twice = f"{head}x-bittensor-hotkey: {CHARLIE.ss58}\r\n\r\n".encode() + BODY
        assert b'"malformed"' in await raw(target.port, twice)
        assert b" 200 " in await raw(target.port, f"{head}\r\n".encode() + BODY)


async def test_slow_headers_and_slow_bodies_are_cut_off(client):
    limits = Limits(header_timeout=0.3, body_timeout=0.3)
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers().items())
    async with serving(limits=limits) as (_, target):
        assert await raw(target.port, b"POST /v1/echo HTTP/1.1\r\nHost:") == b""
        late = f"POST {ECHO.route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{lines}\r\n"
        assert b'"timeout"' in await raw(target.port, late.encode() + BODY[:3])
        assert (await client.attempt(target, ECHO, Ask(prompt="a"))).ok


async def test_a_body_of_unknown_length_is_stopped_at_the_limit(client):
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers().items())
    head = f"POST {ECHO.route} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
    async with serving() as (_, target):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        assert b'"too_large"' in await asyncio.wait_for(reader.readuntil(b"}"), 10)
        writer.close()
        assert (await client.attempt(target, ECHO, Ask(prompt="a"))).ok


async def test_bodies_in_flight_are_bounded_in_memory(client):
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers().items())
    head = f"POST {ECHO.route} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n{lines}\r\n".encode()
    async with serving(limits=Limits(max_buffered_bytes=8000, body_timeout=60, drain_timeout=0.1)) as (server, target):
        held = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(2)]
        for _, writer in held:
            writer.write(head)
        while server._bodies.buffered < 8000:
            await asyncio.sleep(0.005)
        _, third = await asyncio.open_connection("127.0.0.1", target.port)
        third.write(head)
        assert (await client.attempt(target, ECHO, Ask(prompt="small"))).ok  # arrives whole, needs no reservation
        assert b'"busy"' in await asyncio.wait_for(_.readuntil(b"}"), 10)
        for _, writer in held:
            writer.close()
        while server._bodies.buffered:
            await asyncio.sleep(0.005)


async def test_connections_are_bounded_by_address():
    async with serving(limits=Limits(max_connections_per_address=3)) as (server, target):
        held = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(3)]
        while server._door.connections < 3:
            await asyncio.sleep(0.005)
        with contextlib.suppress(ConnectionError):
            assert await raw(target.port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == b""
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        while True:
            with contextlib.suppress(ConnectionError):
                if b" 200 " in await raw(target.port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
                    break
            await asyncio.sleep(0.02)


async def test_a_reader_who_does_not_read_a_stream_is_cut_off():
    finished = asyncio.Event()

    async def endless(request, caller):
        try:
            while True:
                yield Word(word="x" * 400)
        finally:
            finished.set()

    big = type(TALK)("big", 1, Ask, Answer, chunk=Word, max_response_bytes=1 << 30)
    async with serving(limits=Limits(write_timeout=0.3)) as (server, target):
        server.attach_stream(big, endless)
        lines = sign_request(ALICE, path=big.route, body=BODY, receiver=BOB.ss58)
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        _, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(
            f"POST {big.route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{head}\r\n".encode() + BODY
        )
        await asyncio.wait_for(finished.wait(), 20)
        writer.close()


async def test_a_reader_who_does_not_read_a_big_answer_is_cut_off():
    size = 1 << 25

    async def big_answer(request, caller):
        return Answer(text="x" * size)

    big = type(ECHO)("big", 1, Ask, Answer, max_response_bytes=1 << 26)
    async with serving(limits=Limits(write_timeout=0.3)) as (server, target):
        server.attach(big, big_answer)
        lines = sign_request(ALICE, path=big.route, body=BODY, receiver=BOB.ss58)
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(
            f"POST {big.route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{head}\r\n".encode() + BODY
        )
        while server._door.connections:  # ends only because the server cuts the connection
            await asyncio.sleep(0.02)
        received = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                received += len(data)
        assert received < size
        writer.close()


async def test_a_storm_of_garbage_does_not_stop_honest_callers(client):
    async with serving(limits=Limits(rate_per_address=10_000, burst_per_address=10_000)) as (_, target):

        async def garbage(i: int) -> None:
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                await raw(target.port, bytes([i % 256]) * 5000 + b"\r\n\r\n", timeout=0.5)

        storm = [asyncio.create_task(garbage(i)) for i in range(100)]
        outcomes = [await client.attempt(target, ECHO, Ask(prompt=str(i))) for i in range(20)]
        await asyncio.gather(*storm)
    assert all(outcome.ok for outcome in outcomes)


# Miners that answer badly


async def attempt(client, script, *, deadline: float = 5.0, **options):
    async with peer(script, **options) as target:
        return await client.attempt(target, ECHO, Ask(prompt="hello"), deadline=deadline)


GOOD = encode(Answer(text="hello"))


def say(make):
    """A script that sends what `make(digest)` returns and closes."""

    async def script(reader, writer, digest):
        writer.write(make(digest))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    return script


async def test_the_test_peer_is_believed_when_it_is_honest(client):
    outcome = await attempt(client, say(lambda d: response(d, GOOD)))
    assert outcome.reply.response == Answer(text="hello")


def refused(digest: bytes, **fields) -> bytes:
    record = {"code": "busy", "message": "later", "retry_after": None, **fields}
    return response(digest, json.dumps(record).encode(), status=503)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda d: b"", FailureCode.DISCONNECTED),
        (lambda d: b"garbage\r\n\r\n", FailureCode.NOT_HTTP),
        (lambda d: b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", FailureCode.NOT_HTTP),
        (lambda d: b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", FailureCode.NOT_HTTP),
        (lambda d: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", FailureCode.UNSIGNED),
        (
            lambda d: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            FailureCode.UNSIGNED,
        ),
        (lambda d: response(d, GOOD)[:-5], FailureCode.TRUNCATED),
        (lambda d: response(d, GOOD).replace(b"hello", b"hallo"), FailureCode.BAD_SIGNATURE),
        (lambda d: response(d, GOOD).replace(b" 200 ", b" 201 ", 1), FailureCode.BAD_SIGNATURE),
        (lambda d: response(b"\x00" * 32, GOOD), FailureCode.BAD_SIGNATURE),
        (lambda d: response(d, GOOD, signer=CHARLIE), FailureCode.BAD_SIGNATURE),
        (lambda d: response(d, GOOD, signer=CHARLIE, claim=CHARLIE.ss58), FailureCode.WRONG_SIGNER),
        (lambda d: response(d, GOOD).replace(b"-Signature: 0x", b"-Signature: 0xzz"), FailureCode.BAD_SIGNATURE),
        (
            lambda d: response(d, GOOD).replace(b"Content-Type:", b"X-Touchstone-Scheme: none\r\nContent-Type:"),
            FailureCode.BAD_SIGNATURE,
        ),
        (
            lambda d: response(d, GOOD).replace(b"Content-Type:", b"X-Touchstone-Scheme: \xff\r\nContent-Type:"),
            FailureCode.BAD_SIGNATURE,
        ),
        (lambda d: response(d, b""), FailureCode.MALFORMED),
        (lambda d: response(d, b"null"), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":5}'), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"wrong":"schema"}'), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":"a","score":NaN}'), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":"a","score":-Infinity}'), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":"a","score":1e999}'), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":"' + b"[" * 5000 + b'"'), FailureCode.MALFORMED),
        (lambda d: response(d, b"[" * 8000), FailureCode.MALFORMED),
        (lambda d: response(d, b'{"text":"' + b"x" * 9000 + b'"}'), FailureCode.TOO_LARGE),
        (lambda d: refused(d), FailureCode.REFUSED),
        (lambda d: refused(d, code="unheard_of"), FailureCode.MALFORMED),
        (lambda d: refused(d, message="x" * 5000), FailureCode.TOO_LARGE),
    ],
)
async def test_a_wrong_answer_is_a_typed_failure(client, make, code):
    outcome = await attempt(client, say(make))
    assert outcome.failure.code == code, outcome.failure
    assert len(str(outcome.failure)) < 1000


async def test_a_refusal_s_text_cannot_disturb_the_operator_s_terminal(client):
    outcome = await attempt(client, say(lambda d: refused(d, message="\x1b[2J" + "x" * 1000)))
    assert "\x1b" not in str(outcome.failure) and len(outcome.failure.refusal.message) <= 300


async def test_a_length_that_lies_upwards_ends_at_the_deadline(client):
    async def script(reader, writer, digest):
        writer.write(f"{signed_head(digest, GOOD)}Content-Length: 5000\r\n\r\n".encode() + GOOD)
        await writer.drain()
        await asyncio.sleep(30)

    outcome = await attempt(client, script, deadline=0.3)
    assert outcome.failure.code == FailureCode.DEADLINE


async def test_a_length_that_lies_downwards_is_not_believed(client):
    body = GOOD[:-3]
    outcome = await attempt(
        client, say(lambda d: f"{signed_head(d, GOOD)}Content-Length: {len(body)}\r\n\r\n".encode() + GOOD)
    )
    # Which of the two depends on whether the surplus is seen before the body has been read.
    assert outcome.failure.code in (FailureCode.BAD_SIGNATURE, FailureCode.NOT_HTTP)


@pytest.mark.parametrize("chunked", [False, True])
async def test_gigabytes_are_left_where_they_are(client, chunked):
    sent = 0

    async def script(reader, writer, digest):
        nonlocal sent
        length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 4000000000"
        writer.write(f"{signed_head(digest, GOOD)}{length}\r\n\r\n".encode())
        block = b"x" * 65536
        while sent < 4_000_000_000:
            writer.write(b"10000\r\n" + block + b"\r\n" if chunked else block)
            await writer.drain()
            sent += len(block)

    outcome = await attempt(client, script)
    assert outcome.failure.code == FailureCode.TOO_LARGE
    assert outcome.timing.received < 1_000_000 and sent < 50_000_000


async def test_a_compressed_bomb_is_not_inflated(client):
    import zlib

    bomb = zlib.compress(b"x" * 1_000_000)
    outcome = await attempt(
        client,
        say(
            lambda d: (
                f"{signed_head(d, bomb)}Content-Encoding: deflate\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
                + bomb
            )
        ),
    )
    assert outcome.failure.code == FailureCode.MALFORMED
    assert outcome.timing.received == len(bomb)


async def hang(reader, writer, digest):
    await asyncio.sleep(30)


async def drip(reader, writer, digest):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(10_000):
        writer.write(f"X-{i}: y\r\n".encode() if i < 50 else b"")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_body(reader, writer, digest):
    writer.write(f"{signed_head(digest, GOOD)}Content-Length: 8000\r\n\r\n".encode())
    for _ in range(8000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def informational(reader, writer, digest):
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("script", [hang, drip, drip_body, informational])
async def test_whoever_stalls_ends_at_the_deadline(client, script):
    outcome = await attempt(client, script, deadline=0.3)
    assert outcome.failure.code == FailureCode.DEADLINE, outcome.failure


async def test_hostile_peers_do_not_hold_the_honest_ones(client):
    """Thirty bad peers of every kind beside five honest ones; the honest are done before any deadline has passed."""

    async def flood(reader, writer, digest):
        writer.write(f"{signed_head(digest, GOOD)}Transfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    kinds = [hang, drip, drip_body, informational, flood, say(lambda d: b"garbage\r\n\r\n")]
    async with contextlib.AsyncExitStack() as stack:
        bad = [await stack.enter_async_context(peer(kind)) for kind in kinds for _ in range(5)]
        good = [(await stack.enter_async_context(serving()))[1] for _ in range(5)]
        order = [
            outcome
            async for outcome in client.fan_out(ECHO, {t: Ask(prompt="hello") for t in [*bad, *good]}, deadline=3.0)
        ]
    assert len(order) == 35
    assert all(outcome.ok == (outcome.target in good) for outcome in order)
    last_good = max(i for i, outcome in enumerate(order) if outcome.ok)
    first_late = min(i for i, o in enumerate(order) if o.failure and o.failure.code == FailureCode.DEADLINE)
    assert last_good < first_late


# Miners that stream badly


def frames(digest: bytes, *parts: Frame, seal_over=None, signer=BOB, request=None) -> bytes:
    """A stream's body with a right seal over `seal_over` (the parts themselves unless given)."""
    running = RunningDigest(request or digest)
    for frame in parts if seal_over is None else seal_over:
        running.add(frame.encode())
    payload = auth.stream_payload(
        scheme="sr25519",
        digest=request or digest,
        status=200,
        frames=running.frames,
        running_digest=running.digest(),
        hotkey=BOB.ss58,
    )
    return b"".join(f.encode() for f in parts) + Frame(Kind.SEAL, signer.sign(payload)).encode()


def streamed(body: bytes, claim: str = BOB.ss58) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {auth.CONTENT_TYPE_STREAM}\r\n{auth.HEADER_RESPONSE}: 1\r\n"
        f"{auth.HEADER_HOTKEY}: {claim}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


A, B = Frame(Kind.CHUNK, b'{"word":"a"}'), Frame(Kind.CHUNK, b'{"word":"b"}')
END = Frame(Kind.END, GOOD)
BUSY = Frame(Kind.REFUSAL, b'{"code":"busy","message":"later","retry_after":null}')


async def read_stream(client, make):
    async with peer(say(make)) as target, client.stream(target, TALK, Ask(prompt="")) as stream:
        words = [word.word async for word in stream]
    return words, stream.reply.response


async def test_the_test_peer_s_honest_stream_is_believed(client):
    assert await read_stream(client, lambda d: streamed(frames(d, A, B, END))) == (["a", "b"], Answer(text="hello"))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda d: streamed(frames(d, B, A, END, seal_over=[A, B, END])), FailureCode.BAD_SIGNATURE),
        (lambda d: streamed(frames(d, A, END, seal_over=[A, B, END])), FailureCode.BAD_SIGNATURE),
        (lambda d: streamed(frames(d, A, A, B, END, seal_over=[A, B, END])), FailureCode.BAD_SIGNATURE),
        (lambda d: streamed(frames(d, A, END, request=b"\x00" * 32)), FailureCode.BAD_SIGNATURE),
        (lambda d: streamed(frames(d, A, END, signer=CHARLIE)), FailureCode.BAD_SIGNATURE),
        (lambda d: streamed(frames(d, A, END), claim=CHARLIE.ss58), FailureCode.WRONG_SIGNER),
        (
            lambda d: streamed(frames(d, A, END)).replace(
                b"Content-Type:", b"X-Touchstone-Scheme: \xff\r\nContent-Type:"
            ),
            FailureCode.BAD_SIGNATURE,
        ),
        (lambda d: streamed(frames(d, A, END)[:-64]), FailureCode.TRUNCATED),
        (lambda d: streamed(A.encode() + B.encode()), FailureCode.TRUNCATED),
        (lambda d: streamed(frames(d, A, END))[:-10], FailureCode.TRUNCATED),
        (lambda d: streamed(frames(d, A, END) + A.encode()), FailureCode.MALFORMED),
        (lambda d: streamed(frames(d, Frame(Kind.CHUNK, b'{"word":1}'), END)), FailureCode.MALFORMED),
        (lambda d: streamed(frames(d, A, Frame(Kind.END, b"{}"))), FailureCode.MALFORMED),
        (lambda d: streamed(b"\x01\xff\xff\xff\xff"), FailureCode.TOO_LARGE),
        (
            lambda d: streamed(frames(d, Frame(Kind.CHUNK, b'{"word":"' + b"x" * 600 + b'"}'), END)),
            FailureCode.TOO_LARGE,
        ),
        (lambda d: streamed(frames(d, *[A] * 5000, END)), FailureCode.TOO_LARGE),
        (lambda d: streamed(frames(d, A, BUSY)), FailureCode.REFUSED),
        (lambda d: streamed(b""), FailureCode.TRUNCATED),
        (lambda d: response(d, GOOD), FailureCode.MALFORMED),
    ],
)
async def test_a_wrong_stream_is_a_typed_failure(client, make, code):
    with pytest.raises(CallFailed) as failed:
        await read_stream(client, make)
    assert failed.value.failure.code == code, failed.value.failure


async def test_a_stream_that_falls_silent_ends_after_the_allowed_silence(client):
    async def script(reader, writer, digest):
        writer.write(streamed(b"x" * 1000)[:-1000] + A.encode())
        await writer.drain()
        await asyncio.sleep(30)

    async with peer(script) as target:
        with pytest.raises(CallFailed) as failed:
            async with client.stream(target, TALK, Ask(prompt=""), deadline=20, silence=0.2) as stream:
                async for _ in stream:
                    pass
    assert failed.value.failure.code == FailureCode.DEADLINE


async def test_every_refusal_code_a_server_may_send_is_understood(client):
    for code in RefusalCode:
        outcome = await attempt(client, say(lambda d, code=code: refused(d, code=code.value)))
        assert outcome.failure.refusal.code == code


def test_a_server_must_be_told_who_may_call():
    with pytest.raises(TypeError, match="policy"):
        SynapseServer(BOB)
