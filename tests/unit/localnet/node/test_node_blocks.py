"""Headers and extrinsic envelopes, against a block recorded from the public localnet (spec 461)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.errors import ExtrinsicFormat, ScaleError
from localnet.node.blocks import Block, Blocks, Header, sealed, slot_item, state_digest
from localnet.node.extrinsic import Era, join_vector, parse, split_vector

RECORDED = {
    "parentHash": "0xd9f2d5c7e6b387e32b3f41d7808094cc966fbbbbd4709d96471c52d9b1a2b2aa",
    "number": "0x43",
    "stateRoot": "0x815cfdbecf3bd34e34508b7366cad9324a29a726dd9ff49faf81d6d26c58772e",
    "extrinsicsRoot": "0x9ddd3b757c35964f7379450aed9ae14aff2072f4e8db526349cbc5c9206d9411",
    "digest": {
        "logs": [
            "0x066175726120eb66a7aa01000000",
            "0x0466726f6e88018dd58d0e3eb0d20f8d46b1ec1bbef20372f701df3b386ac4f001ad2c4a80bef200",
            "0x0561757261010112b97c1477303aa2d41bfd3f82ee05a51bf1bcbbcf70f3039f4751dc20285467d6e130c534eea714f2618a5887"
            "558914e54c86d8cfc5f64a3419d14e47326387",
        ]
    },
}
RECORDED_HASH = "3c56d5098b9ddbc5a1826fb13af5eae5e599d3c6c9bdb3f9d257905ec2b64e31"
ALICE = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
SIGNED = bytes.fromhex(
    "31028400" + ALICE + "01" + bytes(range(1, 65)).hex() + "00000000"
    "0503008eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48e5c0"
)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _recorded() -> Header:
    logs = tuple(map(_bytes, RECORDED["digest"]["logs"]))  # type: ignore[index]
    parent, state, extrinsics = (_bytes(str(RECORDED[k])) for k in ("parentHash", "stateRoot", "extrinsicsRoot"))
    return Header(parent, 0x43, state, extrinsics, logs)


def test_the_hash_of_a_recorded_header_is_the_recorded_block_hash() -> None:
    assert _recorded().hash().hex() == RECORDED_HASH
    assert _recorded().json() == RECORDED


def test_headers_decode_to_what_was_encoded_and_damaged_ones_are_refused() -> None:
    raw = _recorded().encode()
    assert Header.decode(raw) == _recorded()
    for bad in (raw + b"\0", raw[:-1], raw[:40]):
        with pytest.raises(ScaleError):
            Header.decode(bad)


def test_the_digest_opens_with_the_slot_and_closes_with_a_seal() -> None:
    assert slot_item(0x1AAA766EB).hex() == RECORDED["digest"]["logs"][0][2:]  # type: ignore[index]
    header = sealed(Header(bytes(32), 1, digest=(slot_item(7),)))
    assert header.digest[-1][:5] == b"\5aura"
    assert len(header.digest[-1]) == len(_recorded().digest[-1])


def test_the_state_digest_covers_keys_values_deletions_and_the_past() -> None:
    base = state_digest(b"", {b"k": b"v"})
    others = [
        state_digest(b"x", {b"k": b"v"}), state_digest(b"", {b"k": b"w"}), state_digest(b"", {b"k": None}),
        state_digest(b"", {b"kv": b""}), state_digest(b"", {b"k": b"v", b"l": b""}),
    ]  # fmt: skip
    assert len({base, *others}) == 6
    assert base == state_digest(b"", dict([(b"k", b"v")]))


def test_a_recorded_extrinsic_is_sliced() -> None:
    xt = parse(SIGNED)
    assert (xt.who, xt.nonce, xt.tip, xt.era) == (bytes.fromhex(ALICE), 0, 0, None)
    assert xt.hash.hex() == "2da12d35e770dbfe53a2c66c76d5c6d21f64f99fcbda35a757c021cc41ace46b"
    assert parse(bytes.fromhex("280502000b7e817aa7a001")).who is None


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\0", b"\4", SIGNED[:-1], SIGNED + b"\0", b"\4\x99", b"\x08\x84\0",
        SIGNED[:2] + b"\x85" + SIGNED[3:], SIGNED[:3] + b"\1" + SIGNED[4:], SIGNED[:36] + b"\7" + SIGNED[37:],
    ],
)  # fmt: skip
def test_what_is_not_an_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(ExtrinsicFormat):
        parse(raw)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(raw: bytes) -> None:
    for read in (parse, split_vector):
        with contextlib.suppress(ExtrinsicFormat):
            read(raw)


def test_a_body_splits_into_the_extrinsics_it_was_joined_from() -> None:
    body = [SIGNED, bytes.fromhex("280502000b7e817aa7a001")]
    assert split_vector(join_vector(body)) == body
    with pytest.raises(ExtrinsicFormat):
        split_vector(join_vector(body)[:-1])


def test_an_eras_birth_is_the_last_block_of_its_phase() -> None:
    era = Era(period=64, phase=42)
    assert [era.birth(n) for n in (42, 43, 105, 106, 10)] == [42, 42, 42, 106, 42]


def test_folded_blocks_are_the_same_blocks_without_their_bodies() -> None:
    made = [Block(Header(bytes((n,)) * 32, n, digest=(slot_item(n),)), [b"x"], 10**12 + n) for n in range(10)]
    blocks = Blocks(made)
    blocks.fold(6)
    assert len(blocks) == 10 and [block.extrinsics for block in blocks] == [None] * 6 + [[b"x"]] * 4
    assert [(b.hash, b.header, b.timestamp) for b in blocks] == [(b.hash, b.header, b.timestamp) for b in made]
    assert blocks[-1] is made[9] and blocks[-10].hash == made[0].hash
    assert [block.number for block in reversed(blocks)] == list(range(9, -1, -1))
    assert [block.number for block in blocks[4:8]] == [4, 5, 6, 7]
    for outside in (10, -11):
        with pytest.raises(IndexError):
            blocks[outside]
    blocks.fold(3)  # nothing is unfolded
    blocks.truncate(8)
    assert [block.number for block in blocks] == list(range(8)) and blocks[5].extrinsics is None
