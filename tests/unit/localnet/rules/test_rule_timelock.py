"""Timelock: against a pulse that drand published, and against the crate that the chain and its SDK are built with."""

from __future__ import annotations

from hashlib import sha256

import bittensor_core
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.codec.scale import opaque
from localnet.rules import timelock
from localnet.rules.errors import RuleError, TimelockError
from localnet.rules.weights import TimelockPayload, read_opened_commit
from tests.support.drand import (
    BAD_SIGNATURE,
    QUICKNET_KEY,
    RANDOMNESS,
    ROUND,
    SIGNATURE,
    payload,
    pulse,
    sdk_envelope,
    sdk_sealed,
)

pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")


def reason(data: bytes, number: int = ROUND, signature: bytes = SIGNATURE) -> str:
    with pytest.raises(TimelockError) as caught:
        timelock.unseal(timelock.unwrap(data, number), signature)
    return caught.value.reason


def test_a_published_pulse_verifies_and_nothing_near_it_does() -> None:
    assert timelock.verify(QUICKNET_KEY, ROUND, SIGNATURE)
    assert pulse(ROUND, SIGNATURE)["randomness"] == RANDOMNESS
    assert not timelock.verify(QUICKNET_KEY, ROUND + 1, SIGNATURE)
    assert not timelock.verify(timelock.Beacon(b"").public_key, ROUND, SIGNATURE)
    assert not timelock.verify(QUICKNET_KEY, ROUND, b"\xc0" + bytes(47))  # the neutral element
    for signature in (BAD_SIGNATURE, b"", SIGNATURE[:47], bytes(48)):
        with pytest.raises(TimelockError, match="SignatureDeserialize"):
            timelock.verify(QUICKNET_KEY, ROUND, signature)
    with pytest.raises(TimelockError, match="G2"):
        timelock.verify(SIGNATURE + SIGNATURE, ROUND, SIGNATURE)


def test_of_a_long_signature_only_the_point_counts_and_is_remembered() -> None:
    timelock._verify.cache_clear()
    for behind in (b"", b"J", bytes(96)):
        assert timelock.verify(QUICKNET_KEY + behind, ROUND, SIGNATURE + behind)
    assert timelock._verify.cache_info().currsize == 1
    sealed = timelock.unwrap(sdk_sealed(b"x"), ROUND)
    assert timelock.unseal(sealed, b"0x" + SIGNATURE) == b"x"  # a pulse's b"0x" is passed over where it opens something
    with pytest.raises(TimelockError, match="SignatureDeserialize"):
        timelock.verify(QUICKNET_KEY, ROUND, b"0x" + SIGNATURE)


@settings(max_examples=10, deadline=None)
@given(st.binary(max_size=300))
def test_both_sides_open_what_the_other_seals(plaintext: bytes) -> None:
    assert timelock.unseal(timelock.unwrap(sdk_sealed(plaintext), ROUND), SIGNATURE) == plaintext
    mine = opaque(timelock.seal(plaintext, QUICKNET_KEY, ROUND)) + ROUND.to_bytes(8, "little")
    assert bittensor_core.decrypt_with_signature(mine, SIGNATURE.hex()) == plaintext
    assert timelock.unseal(timelock.unwrap(mine, ROUND), SIGNATURE) == plaintext


def test_sealing_is_a_function_of_its_randomness() -> None:
    def ones(size: int) -> bytes:
        return b"\1" * size

    sealed = timelock.seal(b"same", QUICKNET_KEY, ROUND, random=ones)
    assert (
        sealed
        == timelock.seal(b"same", QUICKNET_KEY, ROUND, random=ones)
        != timelock.seal(b"same", QUICKNET_KEY, ROUND)
    )
    assert timelock.unseal(timelock.unwrap(sealed, ROUND), SIGNATURE) == b"same"


def test_what_does_not_open_says_why() -> None:
    sealed = sdk_sealed(b"secret")
    other = timelock.Beacon(b"").sign(ROUND)
    assert reason(sealed, signature=other) == "Decrypt"
    assert reason(sdk_sealed(b"secret", ROUND + 1)) == "Decrypt"
    assert reason(sealed, signature=BAD_SIGNATURE) == "SignatureDeserialize"
    assert reason(sdk_envelope(b"secret"), ROUND + 1) == "RoundMismatch"
    assert reason(sealed + b"\0") == "CiphertextDeserialize"
    assert reason(opaque(sealed + b"\0") + ROUND.to_bytes(8, "little")) == "CiphertextDeserialize"
    assert reason(bytes(96) + sealed[96:]) == "CiphertextDeserialize"
    huge = sealed[:96] + b"\xff" * 8 + sealed[104:]
    assert reason(huge) == "CiphertextDeserialize"


def test_damage_and_truncation_are_always_noticed() -> None:
    sealed = sdk_sealed(b"secret")
    suite = len(sealed) - len(timelock.SUITE) - 8  # the name of the cipher is not looked at
    for at in range(0, suite, 7):
        damaged = sealed[:at] + bytes((sealed[at] ^ 0x10,)) + sealed[at + 1 :]
        assert reason(damaged) in ("CiphertextDeserialize", "Decrypt"), at
    for size in range(0, len(sealed), 9):
        assert reason(sealed[:size]) == "CiphertextDeserialize", size


def test_a_ciphertext_whose_r_was_chosen_freely_is_refused() -> None:
    """Everything else about it is right: without the check it would open. The crate refuses it too."""
    lib = timelock.curve()
    sigma, secret, nonce, r = b"s" * 32, b"k" * 32, bytes(12), lib.Scalar(5)
    point = lib.G1Point.hash_to_curve(timelock.message(ROUND), timelock.DST)
    shared = lib.GT.pairing(point * r, lib.G2Point.from_compressed_bytes(QUICKNET_KEY))
    hidden = sha256(bytes.fromhex(str(shared))).digest()
    text = AESGCM(secret).encrypt(nonce, b"x", None)
    body = len(text).to_bytes(8, "little") + text + (12).to_bytes(8, "little") + nonce
    masked = ((sigma, hidden), (secret, sha256(sigma).digest()))
    parts = [bytes(a ^ b for a, b in zip(*pair, strict=True)) for pair in masked]
    sealed = bytes((lib.G2Point() * r).to_compressed_bytes())
    for part in (*parts, body, timelock.SUITE):
        sealed += len(part).to_bytes(8, "little") + part
    assert reason(sealed) == "Decrypt"
    with pytest.raises(ValueError, match="InvalidSignature"):
        bittensor_core.decrypt_with_signature(opaque(sealed) + ROUND.to_bytes(8, "little"), SIGNATURE.hex())


def test_rounds_are_counted_from_the_beacons_start() -> None:
    start, period = 1_692_803_367, 3
    assert timelock.round_time(1, start, period) == start
    assert [timelock.round_at(start + s, start, period) for s in (-1, 0, 2.9, 3)] == [0, 1, 1, 2]
    assert timelock.round_at(timelock.round_time(ROUND, start, period), start, period) == ROUND


def test_an_opened_commit_is_read_as_the_chain_reads_it() -> None:
    """As in test_reveal_crv3_commits_hotkey_check and .._legacy_payload_success of the public chain's tests."""
    who, row = b"\7" * 32, TimelockPayload(b"", (1, 2), (3, 4), 9)
    read = read_opened_commit(payload(who, (1, 2), (3, 4), 9) + b"behind the end", who)
    assert (read.uids, read.values, read.version) == (row.uids, row.values, row.version)
    assert read_opened_commit(payload(b"", (1, 2), (3, 4), 9)[1:], who) == row
    with pytest.raises(RuleError, match="another hotkey"):
        read_opened_commit(payload(b"\1" * 32, (1, 2), (3, 4)), who)
    for rubbish in (b"", b"\xff" * 40, payload(b"\7" * 31, (1,), (2,))):
        with pytest.raises(RuleError):
            read_opened_commit(rubbish, who)
