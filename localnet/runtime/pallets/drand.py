"""Drand: published randomness, one pulse a round, that timelocked weights and commitments are opened with.

    write_pulse              unsigned, from the node's off-chain worker (`localnet.node.drand`): the beacon's signature
                             is verified, rounds follow each other without a gap; the first one stored may be any
    set_beacon_config        root: another beacon. The default is drand's quicknet, as on the public chains
    set_oldest_stored_round  root

Whoever sends a pulse signs it with some key, which proves nothing: it is the beacon's signature that counts. The newest
216,000 rounds are kept, a week of quicknet's. The order of checks is that of pallet_drand (lib.rs, verifier.rs).
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import Any

from localnet.codec.scale import opaque
from localnet.errors import InvalidTransaction, ScaleError
from localnet.rules import timelock
from localnet.rules.errors import TimelockError
from localnet.runtime.framework import (
    Origin,
    Pallet,
    StorageMap,
    StorageValue,
    Validity,
    call,
    ensure_none,
    ensure_root,
)
from localnet.signatures import sr25519_verify

MAX_KEPT = 216_000  # rounds
MAX_REMOVED = 100  # rounds removed by one call
MAX_AHEAD = 50  # rounds behind the newest that the pool takes: what the worker sends in one go
PULSE_LONGEVITY, CONFIG_LONGEVITY = 3, 1  # blocks
TAG = opaque(b"DrandOffchainWorker")
HIGHEST = (1 << 64) - 1
BOUNDS = {  # bytes; the types' own bounds, which the metadata has in their names only
    "randomness": 32, "signature": 144,
    "public_key": 96, "hash": 32, "group_hash": 32, "scheme_id": 32, "beacon_id": 32,
}  # fmt: skip


def _check_bounds(fields: dict[str, Any]) -> None:
    """Raises ScaleError for a pulse or a beacon's settings that the chain could not decode."""
    for name, most in BOUNDS.items():
        if len(fields.get(name, b"")) > most:
            raise ScaleError(f"{name} holds at most {most} bytes, not {len(fields[name])}")


def _check_payload(payload: dict[str, Any]) -> None:
    for pulse in payload.get("pulses", ()):
        _check_bounds(pulse)
    if "config" in payload:
        _check_bounds({**payload["config"], **payload["config"]["metadata"]})


class Drand(Pallet):
    name = "Drand"

    BeaconConfig = StorageValue[dict[str, Any]]()
    Pulses = StorageMap[dict[str, Any] | None]()  # round
    LastStoredRound = StorageValue[int]()
    OldestStoredRound = StorageValue[int]()
    NextUnsignedAt = StorageValue[int]()  # block

    # -- calls

    @call(ref_time=4_294_000_000)
    def write_pulse(self, origin: Origin, pulses_payload: dict[str, Any], signature: Any) -> None:
        ensure_none(origin)
        _check_payload(pulses_payload)
        key = self.BeaconConfig.get()["public_key"]
        first, last = self._is_empty(), self.LastStoredRound.get()
        stored: list[int] = []
        for pulse in pulses_payload["pulses"]:
            if not self._verified(key, pulse):
                continue
            number = pulse["round"]
            # The chain looks at what was there before the call: a first call may store several, in rising order.
            if number <= last if first else number != last + 1:
                raise self.error("InvalidRoundNumber")
            self.Pulses[number] = pulse
            stored.append(number)
            last = number
        self.LastStoredRound.put(last)
        if first and stored:
            self.OldestStoredRound.put(stored[0])
        self._prune(last)
        self.NextUnsignedAt.put(self.rt.number)
        if stored:
            self.emit("NewPulse", rounds=stored)

    def _is_empty(self) -> bool:
        return not self.LastStoredRound.get() and not self.OldestStoredRound.get()

    def _verified(self, key: bytes, pulse: dict[str, Any]) -> bool:
        """A signature of something else is passed over; bytes that are no signature raise PulseVerificationError."""
        try:
            return timelock.verify(key, pulse["round"], pulse["signature"])
        except TimelockError as error:
            raise self.error("PulseVerificationError") from error

    def _prune(self, last: int) -> None:
        oldest = self.OldestStoredRound.get()
        if not oldest:
            return
        keep = min(max(last - MAX_KEPT + 1, oldest), oldest + MAX_REMOVED)
        for number in range(oldest, keep):
            del self.Pulses[number]
        self.OldestStoredRound.put(keep)

    @call(ref_time=8_766_000)
    def set_beacon_config(self, origin: Origin, config_payload: dict[str, Any], signature: Any) -> None:
        ensure_root(origin)
        _check_payload(config_payload)
        self.BeaconConfig.put(config_payload["config"])
        self.NextUnsignedAt.put(self.rt.number + 1)
        self.emit("BeaconConfigChanged")

    @call(ref_time=5_370_000)
    def set_oldest_stored_round(self, origin: Origin, oldest_round: int) -> None:
        ensure_root(origin)
        self.OldestStoredRound.put(oldest_round)
        self.emit("SetOldestStoredRound", oldest_round)

    # -- pool

    @cached_property
    def _payload_types(self) -> dict[str, int]:
        type_id = self.rt.document.type_id
        return {
            "write_pulse": type_id("pallet_drand", "types", "PulsesPayload"),
            "set_beacon_config": type_id("pallet_drand", "types", "BeaconConfigurationPayload"),
        }

    def validate_unsigned(self, function: str, arguments: dict[str, Any]) -> Validity:
        """Raises InvalidTransaction: BadSigner, BadProof, Future, Call, Stale; ScaleError for bytes beyond a bound."""
        if function not in self._payload_types:
            raise InvalidTransaction("Call")
        payload = next(iter(arguments.values()))
        _check_payload(payload)
        self._check_proof(function, payload, arguments["signature"])
        if self.rt.number < payload["block_number"]:
            raise InvalidTransaction("Future")
        return self._of_pulses(payload) if function == "write_pulse" else self._of_config(payload)

    def _check_proof(self, function: str, payload: dict[str, Any], signature: Any) -> None:
        """The worker's own signature, of sr25519 as its keys are."""
        if signature is None:
            raise InvalidTransaction("BadSigner")
        (kind, key), (form, proof) = payload["public"], signature
        message = self.rt.document.registry.encode(self._payload_types[function], payload)
        if kind != "Sr25519" or form != "Sr25519" or not sr25519_verify(proof, message, key):
            raise InvalidTransaction("BadProof")

    def _of_pulses(self, payload: dict[str, Any]) -> Validity:
        """One pulse a transaction; the lower its round, the sooner it gets into a block."""
        if len(payload["pulses"]) != 1:
            raise InvalidTransaction("Call")
        number, last = payload["pulses"][0]["round"], self.LastStoredRound.get()
        if self.NextUnsignedAt.get() > self.rt.number or number <= last:
            raise InvalidTransaction("Stale")
        if not self._is_empty() and number > last + MAX_AHEAD:
            raise InvalidTransaction("Stale")
        priority = min(self._priority + HIGHEST - number, HIGHEST)
        digest = blake2b(b"drand" + number.to_bytes(8, "little"), digest_size=32).digest()
        return Validity(priority, (TAG + digest,), PULSE_LONGEVITY, propagate=False)

    def _of_config(self, payload: dict[str, Any]) -> Validity:
        """The pool takes it, the call then asks for root."""
        opens = self.NextUnsignedAt.get()
        if opens > payload["block_number"]:
            raise InvalidTransaction("Stale")
        # The key's own variant byte, inside a Vec<u8> as the chain encodes it once more.
        key = opaque(self.rt.document.registry.encode(self._public_type, payload["public"]))
        digest = blake2b(opens.to_bytes(4, "little") + key, digest_size=32).digest()
        return Validity(self._priority, (TAG + digest,), CONFIG_LONGEVITY)

    @cached_property
    def _public_type(self) -> int:
        return self.rt.document.type_id("sp_runtime", "MultiSigner")

    @property
    def _priority(self) -> int:
        return int(self.rt.document.constants[self.name, "UnsignedPriority"])
