"""Artifacts and locations against their frozen vectors: whoever passes these gives the same bytes the same address."""

import contextlib
import json
from pathlib import Path

import multiformats
import pytest

from protocol.artifacts import (
    CHUNK_BYTES,
    MAX_BYTES,
    MAX_CHUNKS,
    Manifest,
    chunk_cid,
    is_object,
    manifest_cid,
    manifest_limit,
    parse_manifest,
    require_artifact,
    require_object,
)
from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_BYTES, Location, is_location

VECTORS = json.loads((Path(__file__).parent / "protocol" / "artifacts.json").read_text())
CASES = pytest.mark.parametrize("case", VECTORS["artifacts"], ids=lambda case: case["name"])


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@CASES
def test_content_has_its_chunks_and_its_address(case):
    data = content(case["size"])
    manifest = Manifest.of(data)
    assert manifest == Manifest(case["size"], tuple(case["chunks"]))
    assert manifest.encode().hex() == case["manifest"]
    assert manifest.cid == manifest_cid(bytes.fromhex(case["manifest"])) == case["cid"]
    pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    assert [chunk_cid(piece) for piece in pieces] == case["chunks"]
    assert [manifest.chunk_bytes(index) for index in range(len(pieces))] == [len(piece) for piece in pieces]


@CASES
def test_a_manifest_is_read_back_and_fits_its_limit(case):
    encoded = bytes.fromhex(case["manifest"])
    assert parse_manifest(encoded) == Manifest(case["size"], tuple(case["chunks"]))
    assert len(encoded) <= manifest_limit(case["size"])


@CASES
def test_addresses_are_those_of_the_multiformats_library(case):
    for text, digest in zip(case["chunks"], case["blake3"], strict=True):
        assert text == str(multiformats.CID("base32", 1, "raw", ("blake3", bytes.fromhex(digest))))
        require_object(text)
        with pytest.raises(MalformedMessage):
            require_artifact(text)
    address = multiformats.CID.decode(case["cid"])
    assert (address.version, address.codec.name, address.hashfun.name) == (1, "dag-cbor", "blake3")
    require_artifact(case["cid"])
    require_object(case["cid"])


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_anything_else_is_no_manifest(case):
    with pytest.raises(MalformedMessage):
        parse_manifest(bytes.fromhex(case["manifest"]))


def test_every_changed_byte_is_noticed():
    encoded = bytes.fromhex(VECTORS["artifacts"][1]["manifest"])
    whole = parse_manifest(encoded)
    for at in range(len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 0x01
        with contextlib.suppress(MalformedMessage):
            assert parse_manifest(bytes(changed)) != whole


def test_lists_that_claim_to_be_long_are_never_decoded():
    nested = b"".join(b"\x9a" + (9000 - 5 * depth).to_bytes(4, "big") for depth in range(1800))
    for claimed in (nested, b"\xa4\x64size\x00\x66chunks" + nested, b"\x81" * 100_000):
        with pytest.raises(MalformedMessage, match="not the manifest"):
            parse_manifest(claimed)


def test_the_largest_artifact_has_the_longest_manifest():
    manifest = Manifest(MAX_BYTES, (chunk_cid(b"x"),) * MAX_CHUNKS)
    encoded = manifest.encode()
    assert manifest_limit(MAX_BYTES) - 64 < len(encoded) <= manifest_limit(MAX_BYTES) == manifest_limit(2**63)
    assert parse_manifest(encoded) == manifest
    with pytest.raises(MalformedMessage, match="at most"):
        parse_manifest(encoded + bytes(64))
    with pytest.raises(MalformedMessage):
        Manifest(MAX_BYTES + 1, (chunk_cid(b"x"),) * (MAX_CHUNKS + 1))


@pytest.mark.parametrize("text", VECTORS["refused_addresses"], ids=repr)
def test_anything_else_is_no_address(text):
    assert not is_object(text)
    for require in (require_object, require_artifact):
        with pytest.raises(MalformedMessage):
            require(text)


@pytest.mark.parametrize("case", VECTORS["locations"], ids=lambda case: case["fields"][0])
def test_locations(case):
    location = Location(*case["fields"])
    assert location.encode() == case["text"] and len(case["text"].encode("ascii")) <= LOCATION_BYTES
    assert Location.parse(case["text"]) == location
    assert is_location(case["text"])
    assert location.secret not in repr(location).split()


@pytest.mark.parametrize("text", VECTORS["refused_locations"], ids=lambda text: repr(text[:80]))
def test_anything_else_is_no_location(text):
    with pytest.raises(MalformedMessage):
        Location.parse(text)


def test_host_and_port_are_those_that_are_called():
    assert [
        (location.host, location.port) for location in (Location(*each["fields"]) for each in VECTORS["locations"])
    ] == [
        ("s3.eu-central-1.amazonaws.com", 443),
        ("127.0.0.1", 9000),
        ("2001:db8::1", 8443),
    ]
