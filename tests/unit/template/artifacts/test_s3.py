"""A bucket of a peer: read with keys that can do nothing else, and hostile in every way a server can be."""

import asyncio
import socket

import pytest

from protocol.artifacts import CHUNK_BYTES, Manifest, chunk_cid
from protocol.locations import Location
from template.artifacts import s3
from template.artifacts.errors import ArtifactTooLarge, ArtifactTooSlow, ArtifactUnavailable, EndpointRefused
from template.artifacts.s3 import S3Backend
from template.artifacts.store import ArtifactLimits, ArtifactStore
from tests.support.s3 import ACCESS_KEY, REGION, SECRET, answer, s3_server, scripted

LIMITS = ArtifactLimits(max_bytes=2**20, seconds=60.0)
DATA = b"content"
NAME = chunk_cid(DATA)
CID = Manifest.of(DATA).cid
SHORT = ArtifactLimits(max_bytes=1000 * CHUNK_BYTES, seconds=0.5)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(s3, "PAUSE", 0.0)


async def got(location, max_bytes=100, *, allow_local=True):
    backend = S3Backend(location, allow_local=allow_local)
    try:
        return await backend.get(NAME, max_bytes)
    finally:
        await backend.close()


async def test_keys_that_may_only_read_are_enough_to_read(tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    (tmp_path / "bucket").mkdir()
    with s3_server(tmp_path) as own, s3_server(tmp_path, "--read-only") as published:
        async with ArtifactStore(S3Backend(own.location("bucket"), allow_local=True)) as store:
            cid = await store.put_bytes(DATA)
        async with ArtifactStore(S3Backend(published.location("bucket"), allow_local=True)) as store:
            assert await store.read(cid, LIMITS) == DATA
            with pytest.raises(ArtifactUnavailable):
                await store.put_bytes(b"something else")


async def test_wrong_keys_and_a_missing_bucket(server, bucket):
    async with ArtifactStore(S3Backend(server.location(bucket, "another-secret"), allow_local=True)) as store:
        with pytest.raises(ArtifactUnavailable, match="check bucket, region and keys"):
            await store.backend.get(NAME, 10)
        with pytest.raises(ArtifactUnavailable, match="may write"):
            await store.put_bytes(DATA)
    async with ArtifactStore(S3Backend(server.location("no-such-bucket"), allow_local=True)) as store:
        with pytest.raises(ArtifactUnavailable):
            await store.backend.get(NAME, 10)
        with pytest.raises(ArtifactUnavailable, match="NoSuchBucket"):
            await store.put_bytes(DATA)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[fe80::1]"])
async def test_an_endpoint_in_the_own_network_is_not_called(host):
    async with scripted(answer("200 OK", DATA)) as script:
        with pytest.raises(EndpointRefused, match="refused"):
            await got(script.location(host), allow_local=False)
        assert script.requests == []


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "100.64.0.1"])
async def test_some_addresses_are_not_called_from_a_local_network_either(host):
    with pytest.raises(EndpointRefused):
        await got(Location(f"http://{host}:8080", "bucket", REGION, ACCESS_KEY, SECRET))


async def test_a_name_is_judged_by_what_it_resolves_to_at_each_connection(monkeypatch):
    """A name that is public when it is looked at and private when it is called (DNS rebinding) leads nowhere."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with scripted(answer("200 OK", DATA)) as script:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(EndpointRefused, match="loopback"):
            await got(script.location("miner.example.org"), allow_local=False)
        assert script.requests == []
        assert await got(script.location("miner.example.org")) == DATA
    assert set(asked) == {"miner.example.org"} and len(script.requests) == 1


async def test_of_several_addresses_only_those_that_may_be_called_are(monkeypatch):
    def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("169.254.169.254", "127.0.0.1")]

    async with scripted(answer("200 OK", DATA)) as script:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert await got(script.location("miner.example.org")) == DATA


async def test_a_name_without_an_address_is_unavailable(monkeypatch):
    def resolve(host, port, **_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ArtifactUnavailable):
        await got(Location("http://miner.example.org", "bucket", REGION, ACCESS_KEY, SECRET))


async def test_a_redirect_is_not_followed():
    async with scripted(answer("200 OK", DATA)) as inner:
        to = f"Location: http://127.0.0.1:{inner.port}/secret"
        async with scripted(answer("307 Temporary Redirect", b"", to, "Content-Length: 0")) as script:
            with pytest.raises(ArtifactUnavailable, match="307"):
                await got(script.location())
            assert len(script.requests) == 1 and inner.requests == []


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    async with scripted(answer("200 OK", b"of the proxy")) as proxy, scripted(answer("200 OK", DATA)) as script:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await got(script.location()) == DATA
        assert proxy.requests == []


async def test_a_request_is_a_signed_get_without_the_secret():
    async with scripted(answer("200 OK", DATA)) as script:
        assert await got(script.location()) == DATA
        (request,) = script.requests
    assert request.startswith(f"GET /bucket/{NAME} HTTP/1.1\r\n")
    assert f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/" in request and SECRET not in request
    assert "accept-encoding: identity" in request.lower()


async def test_a_body_without_end_stops_at_the_limit():
    sent = []

    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            sent.append(0x10000)

    async with scripted(endless) as script:
        with pytest.raises(ArtifactTooLarge):
            await got(script.location(), max_bytes=2**20)
    assert sum(sent) < 2**24  # what fits into the buffers of two sockets, and not the sixteenth of it more


@pytest.mark.parametrize("claimed", ["Content-Length: 4", "Content-Length: 99999999999", "Content-Length: -1"])
async def test_a_body_that_is_not_as_long_as_claimed_is_not_used(claimed):
    async with scripted(answer("200 OK", DATA, claimed)) as script:
        with pytest.raises(ArtifactUnavailable):
            await got(script.location())
        assert len(script.requests) == s3.ATTEMPTS


async def test_a_body_without_a_length_ends_with_its_connection():
    async with scripted(answer("200 OK", DATA, "X-Length: 0")) as script:
        assert await got(script.location()) == DATA
        with pytest.raises(ArtifactTooLarge):
            await got(script.location(), len(DATA) - 1)


async def test_a_server_that_drips_costs_no_more_than_the_time_allowed():
    async def drip(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def drip_headers(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    for behaviour in (drip, drip_headers):
        async with (
            scripted(behaviour) as script,
            ArtifactStore(S3Backend(script.location(), allow_local=True)) as store,
        ):
            with pytest.raises(ArtifactTooSlow):
                await store.read(CID, SHORT)


async def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr(s3, "SILENCE", 0.1)

    async def silent(writer):
        await asyncio.sleep(60)

    async with scripted(silent) as script:
        with pytest.raises(ArtifactUnavailable, match=f"{s3.ATTEMPTS} attempts"):
            await got(script.location())
        assert len(script.requests) == s3.ATTEMPTS


@pytest.mark.parametrize("first", ["503 Slow Down", "500 Oops", "429 Too Many"])
async def test_a_busy_server_is_asked_again(first):
    async with scripted(answer(first), answer("200 OK", DATA, "Content-Length: 9"), answer("200 OK", DATA)) as script:
        assert await got(script.location()) == DATA
        assert len(script.requests) == 3


async def test_what_is_no_http_is_unavailable():
    async def noise(writer):
        writer.write(b"220 mail.example.org ESMTP\r\n")

    async def long_header(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")

    for behaviour in (noise, long_header):
        async with scripted(behaviour) as script:
            with pytest.raises(ArtifactUnavailable):
                await got(script.location())


async def test_nobody_listens(unused_tcp_port):
    with pytest.raises(ArtifactUnavailable):
        await got(Location(f"http://127.0.0.1:{unused_tcp_port}", "bucket", REGION, ACCESS_KEY, SECRET))


async def test_other_objects_of_a_bucket_are_not_listed(server, bucket, monkeypatch):
    monkeypatch.setattr(s3, "PAGE", 2)
    backend = S3Backend(server.location(bucket), allow_local=True)
    names = sorted([NAME, *(chunk_cid(bytes([number])) for number in range(4))])
    for name in names:
        await backend.put(name, b"x")
    for name in ("aaa", "notes.txt", "zzz"):
        backend._own("put_object", {"Key": name, "Body": b"mine"})
    assert await backend.list(100) == tuple(names)
    assert await backend.list(3) == tuple(names[:3])
    await backend.close()
