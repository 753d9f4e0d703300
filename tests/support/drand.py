"""A pulse that drand's quicknet published, and beacons of our own: what timelock tests open things with.

Round 1000 is a plain published value; the public chain's tests use it too (pallets/drand/src/tests.rs).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import bittensor_core

from localnet.rules.timelock import Beacon
from localnet.rules.weights import TimelockPayload, timelock_payload

ROUND = 1000
SIGNATURE = bytes.fromhex(
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
RANDOMNESS = bytes.fromhex("fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd")
BAD_SIGNATURE = bytes.fromhex(  # no point of G1: it_rejects_invalid_pulse_due_to_bad_signature, same file
    "b0a8b04e009cf72534321aca0f50048da596a3feec1172a0244d9a4a623a3123d0402da79854d4c705e94bc73224c341"
)
QUICKNET_KEY = bytes.fromhex(
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc2"
    "2b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)


def pulse(number: int, signature: bytes) -> dict[str, Any]:
    """As it is stored on chain."""
    return {"round": number, "randomness": sha256(signature).digest(), "signature": signature}


def answer(number: int, signature: bytes) -> dict[str, Any]:
    """As the drand API gives it."""
    return {"round": number, "randomness": sha256(signature).hexdigest(), "signature": signature.hex()}


def pulse_file(path: Path, pulses: Sequence[dict[str, Any]] = ()) -> Path:
    """A file of answers; quicknet's round 1000 without any."""
    lines = [json.dumps(one) for one in pulses or [answer(ROUND, SIGNATURE)]]
    path.write_text("\n".join(lines) + "\n")
    return path


def signed_by(beacon: Beacon, *rounds: int) -> list[dict[str, Any]]:
    """Answers of a beacon of our own."""
    return [answer(number, beacon.sign(number)) for number in rounds]


def payload(hotkey: bytes, uids: Sequence[int], values: Sequence[int], version: int = 0) -> bytes:
    return timelock_payload(TimelockPayload(hotkey, tuple(uids), tuple(values), version))


def sdk_envelope(plaintext: bytes, number: int = ROUND) -> bytes:
    """Sealed to quicknet by the crate that the SDK and the chain are built with, in its envelope."""
    return bytes(bittensor_core.encrypt_at_round(plaintext, number)[0])


def sdk_sealed(plaintext: bytes, number: int = ROUND) -> bytes:
    """The ciphertext alone: what goes into a commit."""
    return bytes(bittensor_core.inner_ciphertext(sdk_envelope(plaintext, number)))
