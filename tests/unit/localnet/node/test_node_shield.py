"""What the SDK's own cipher seals, the node opens; nothing else."""

from __future__ import annotations

import contextlib

import bittensor_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.codec.scale import opaque
from localnet.errors import ScaleError
from localnet.node.shield import KEPT_ROTATIONS, ROTATE_EVERY, Sealed, Shield, decode_sealed

SECRET = b"\7" * 32


def _sealed(blob: bytes) -> Sealed:
    size = int.from_bytes(blob[16:18], "little")
    rest = blob[18 + size :]
    return Sealed(blob[:16], blob[18 : 18 + size], rest[24:], rest[:24])


def _seal(public: bytes, data: bytes) -> Sealed:
    return _sealed(bytes(bittensor_core.encrypt_mlkem768(public, data, include_key_hash=True)))


def test_what_the_sdk_seals_to_an_announced_key_opens() -> None:
    shield = Shield(SECRET)
    sealed = _seal(shield.announced(100), b"an extrinsic")
    assert shield.open(sealed, 101) == b"an extrinsic"
    assert Shield(SECRET).open(sealed, 100 + ROTATE_EVERY) == b"an extrinsic"  # after a restart
    assert Shield(b"\x08" * 32).open(sealed, 101) is None
    assert shield.open(sealed, 100 + (KEPT_ROTATIONS + 2) * ROTATE_EVERY) is None


def test_keys_rotate() -> None:
    shield = Shield(SECRET)
    assert shield.announced(0) == shield.announced(ROTATE_EVERY - 1) != shield.announced(ROTATE_EVERY)


@pytest.mark.parametrize("part", ["kem", "ciphertext", "nonce"])
def test_damaged_carriers_do_not_open(part: str) -> None:
    shield = Shield(SECRET)
    good = _seal(shield.announced(1), b"data")
    damaged = bytes((getattr(good, part)[0] ^ 1,)) + getattr(good, part)[1:]
    assert shield.open(Sealed(**{**vars(good), part: damaged}), 1) is None
    assert shield.open(Sealed(**{**vars(good), part: b""}), 1) is None


def test_the_runtimes_answer_is_read() -> None:
    raw = b"\1" + b"h" * 16 + opaque(b"kem") + opaque(b"cipher") + b"n" * 24
    assert decode_sealed(raw) == Sealed(b"h" * 16, b"kem", b"cipher", b"n" * 24)
    assert decode_sealed(b"\0") is None
    with pytest.raises(ScaleError):
        decode_sealed(raw + b"\0")


@given(st.binary(max_size=100))
def test_no_answer_breaks_the_reader(raw: bytes) -> None:
    with contextlib.suppress(ScaleError):
        decode_sealed(raw)
