"""Commitments: a few bytes of metadata per neuron, such as where a model can be fetched.

`set_commitment` replaces the neuron's whole commitment. Space is rationed per epoch. A `ResetBondsFlag` field clears
the neuron's column in every validator's bonds. When a uid is given to another hotkey, or trimmed, its commitment goes.

A `TimelockEncrypted` field is opened at the start of the first block after its drand round's pulse is stored: it moves
to `RevealedCommitments`, which keeps the last ten. Until then it waits. One that does not open, or whose pulse has been
removed, stays in the commitment as `TimelockRevealFailed`, and an event says why.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from localnet.errors import ConfigError, ScaleError
from localnet.rules import timelock
from localnet.rules.errors import TimelockError
from localnet.rules.weights import storage_index
from localnet.runtime.framework import Origin, Pallet, StorageMap, StorageValue, call, ensure_root, ensure_signed

log = logging.getLogger("localnet.runtime")

LEAST_SPACE = 100  # bytes a commitment counts for, however small
MOST_BIG_RAW = 512  # bytes; the type's own bound, which the metadata does not carry
MOST_SEALED = 1024  # bytes of a timelocked field; likewise
MAX_REVEALS = 10  # kept per neuron
RESET_BONDS = "ResetBondsFlag"
SEALED, FAILED = "TimelockEncrypted", "TimelockRevealFailed"


def field_size(field: Any) -> int:
    """Bytes a `Data` field counts for: its contents, without the tag."""
    if isinstance(field, str):  # None, ResetBondsFlag
        return 0
    content = field[1]
    return len(content["encrypted"] if isinstance(content, dict) else content)


def _check_bounds(fields: list[Any]) -> None:
    for field in fields:
        if field[0] == "BigRaw" and len(field[1]) > MOST_BIG_RAW:
            raise ScaleError(f"a BigRaw field holds at most {MOST_BIG_RAW} bytes, not {len(field[1])}")
        if field[0] in (SEALED, FAILED) and len(field[1]["encrypted"]) > MOST_SEALED:
            raise ScaleError(f"a timelocked field holds at most {MOST_SEALED} bytes")


class Commitments(Pallet):
    name = "Commitments"

    CommitmentOf = StorageMap[dict[str, Any] | None]()  # netuid, account
    LastCommitment = StorageMap[int | None]()  # netuid, account
    LastBondsReset = StorageMap[int | None]()  # netuid, account
    RevealedCommitments = StorageMap[list[tuple[bytes, int]] | None]()  # netuid, account
    UsedSpaceOf = StorageMap[dict[str, int] | None]()  # netuid, account
    TimelockedIndex = StorageValue[list[tuple[int, bytes]]]()
    MaxSpace = StorageValue[int]()  # bytes per account, subnet and epoch

    def validate(self, who: bytes, function: str, arguments: dict[str, Any]) -> None:
        """Raises ScaleError for a field that the chain could not decode."""
        if function == "set_commitment":
            _check_bounds(arguments["info"]["fields"])

    @call(pays=False, ref_time=40_000_000)
    def set_commitment(self, origin: Origin, netuid: int, info: dict[str, Any]) -> None:
        who = ensure_signed(origin)
        fields = info["fields"]
        if self.rt.subtensor.Uids[netuid, who] is None:
            raise self.error("AccountNotAllowedCommit")
        if len(fields) > self.rt.document.constants[self.name, "MaxFields"]:
            raise self.error("TooManyFieldsInCommitmentInfo")
        _check_bounds(fields)
        if any(field[0] == FAILED for field in fields):  # the chain writes this one itself
            raise self.error("TimelockRevealFailedNotAllowed")
        if RESET_BONDS in fields:
            self.LastBondsReset[netuid, who] = self.rt.number
            self._reset_bonds(netuid, who)
        self._use_space(netuid, who, max(LEAST_SPACE, sum(field_size(field) for field in fields)))
        # Deposits are 0 on this chain (InitialDeposit, FieldDeposit), so nothing is reserved.
        self.CommitmentOf[netuid, who] = {"deposit": 0, "block": self.rt.number, "info": info}
        self.LastCommitment[netuid, who] = self.rt.number
        rounds = [field[1]["reveal_round"] for field in fields if field[0] == SEALED]
        if rounds:
            self.emit("TimelockCommitment", netuid=netuid, who=who, reveal_round=rounds[0])
        else:
            self.emit("Commitment", netuid=netuid, who=who)
        self._index(netuid, who, sealed=bool(rounds))

    def _index(self, netuid: int, who: bytes, *, sealed: bool) -> None:
        """Note whether the commitment has fields to open. The index is a set, stored in ascending order."""
        before = self.TimelockedIndex.get()
        after = set(before) - {(netuid, who)} | ({(netuid, who)} if sealed else set())
        if len(after) != len(before):
            self.TimelockedIndex.put(sorted(after))

    def _use_space(self, netuid: int, who: bytes, size: int) -> None:
        epoch = self.rt.subtensor.SubnetEpochIndex[netuid]
        usage = self.UsedSpaceOf[netuid, who]
        used = usage["used_space"] if usage is not None and usage["last_epoch"] == epoch else 0
        if used + size > self.MaxSpace.get():
            raise self.error("SpaceLimitExceeded")
        self.UsedSpaceOf[netuid, who] = {"last_epoch": epoch, "used_space": used + size}

    def _reset_bonds(self, netuid: int, who: bytes) -> None:
        """Remove the neuron's entry from every bonds row of every mechanism, where the subnet allows it."""
        p = self.rt.subtensor
        uid = p.Uids[netuid, who]
        if not p.BondsResetOn[netuid]:
            return
        for mechanism in range(p.MechanismCountCurrent[netuid]):
            index = storage_index(netuid, mechanism)
            for validator, row in list(p.Bonds.items(index)):
                p.Bonds[index, validator] = [entry for entry in row if entry[0] != uid]

    def purge(self, netuid: int, who: bytes) -> None:
        """Everything of a neuron that lost its uid."""
        for item in (
            self.CommitmentOf, self.LastCommitment, self.LastBondsReset, self.RevealedCommitments, self.UsedSpaceOf
        ):  # fmt: skip
            del item[netuid, who]
        self._index(netuid, who, sealed=False)

    @call(ref_time=6_000_000)
    def set_max_space(self, origin: Origin, new_limit: int) -> None:
        ensure_root(origin)
        self.MaxSpace.put(new_limit)

    # -- opening ----------------------------------------------------------------------------------------------------

    def on_initialize(self, number: int) -> None:
        before = self.TimelockedIndex.get()
        after = [entry for entry in before if self._open_fields(*entry)]
        if len(after) != len(before):
            self.TimelockedIndex.put(after)

    def _open_fields(self, netuid: int, who: bytes) -> bool:
        """Open what can be opened of a commitment. Does some of it still wait?"""
        commitment = self.CommitmentOf[netuid, who]
        if commitment is None:
            return False
        fields = commitment["info"]["fields"]
        remaining: list[Any] = []
        revealed: list[bytes] = []
        for field in fields:
            plain = self._open(netuid, who, field[1]) if field[0] == SEALED else None
            if isinstance(plain, bytes):
                revealed.append(plain)
            else:
                remaining.append((FAILED, field[1]) if plain is False else field)
        if remaining != fields:
            self._store_opened(netuid, who, {**commitment, "info": {"fields": remaining}}, revealed)
        return any(field[0] == SEALED for field in remaining)

    def _open(self, netuid: int, who: bytes, field: dict[str, Any]) -> bytes | Literal[False] | None:
        """The plaintext of a sealed field; None while it waits; False when it never opens, which an event says."""
        try:
            return self._unsealed(field)
        except TimelockError as error:
            log.warning("commitment of 0x%s on subnet %d: %s", who.hex(), netuid, error)
            failure = {"reveal_round": field["reveal_round"], "error": error.reason}
            self.emit("CommitmentRevealFailed", netuid=netuid, who=who, **failure)
            return False
        except ConfigError as error:
            log.error("commitment of 0x%s on subnet %d waits: %s", who.hex(), netuid, error)
            return None

    def _unsealed(self, field: dict[str, Any]) -> bytes | None:
        """The plaintext; None while the pulse may still come. Raises TimelockError, ConfigError (no BLS library)."""
        number = field["reveal_round"]
        pulse = self.rt.drand.Pulses[number]
        if pulse is None:
            oldest = self.rt.drand.OldestStoredRound.get()
            if number < oldest:
                raise TimelockError("PulseExpired", f"round {number} is older than the oldest kept, {oldest}")
            return None
        plain = timelock.unseal(timelock.unwrap(field["encrypted"], number), pulse["signature"])
        if not plain:
            raise TimelockError("EmptyPlaintext", "there is nothing in it")
        return plain

    def _store_opened(self, netuid: int, who: bytes, left: dict[str, Any], revealed: list[bytes]) -> None:
        if revealed:
            kept = [*(self.RevealedCommitments[netuid, who] or ()), *((plain, self.rt.number) for plain in revealed)]
            self.RevealedCommitments[netuid, who] = kept[-MAX_REVEALS:]
            for _ in revealed:
                self.emit("CommitmentRevealed", netuid=netuid, who=who)
        if left["info"]["fields"]:
            self.CommitmentOf[netuid, who] = left
        else:
            del self.CommitmentOf[netuid, who]
