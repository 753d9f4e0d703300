"""Commitments: a few bytes of metadata per neuron, such as where a model can be fetched.

`set_commitment` replaces the neuron's whole commitment. Space is rationed per epoch. A `ResetBondsFlag` field clears
the neuron's column in every validator's bonds. Timelocked fields need the published randomness of a drand round to
open, which this runtime does not verify yet: a commitment with one is refused, not kept unopened.
"""

from __future__ import annotations

import logging
from typing import Any

from localnet.errors import DispatchError, ScaleError
from localnet.rules.weights import storage_index
from localnet.runtime.framework import Origin, Pallet, StorageMap, StorageValue, call, ensure_root, ensure_signed

log = logging.getLogger("localnet.runtime")

LEAST_SPACE = 100  # bytes a commitment counts for, however small
MOST_BIG_RAW = 512  # bytes; the type's own bound, which the metadata does not carry
RESET_BONDS = "ResetBondsFlag"


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
        self._refuse_timelocks(fields)
        if RESET_BONDS in fields:
            self.LastBondsReset[netuid, who] = self.rt.number
            self._reset_bonds(netuid, who)
        self._use_space(netuid, who, max(LEAST_SPACE, sum(field_size(field) for field in fields)))
        # Deposits are 0 on this chain (InitialDeposit, FieldDeposit), so nothing is reserved.
        self.CommitmentOf[netuid, who] = {"deposit": 0, "block": self.rt.number, "info": info}
        self.LastCommitment[netuid, who] = self.rt.number
        self.emit("Commitment", netuid=netuid, who=who)

    def _refuse_timelocks(self, fields: list[Any]) -> None:
        kinds = {field if isinstance(field, str) else field[0] for field in fields}
        if "TimelockRevealFailed" in kinds:  # the chain writes this one itself
            raise self.error("TimelockRevealFailedNotAllowed")
        if "TimelockEncrypted" in kinds:
            log.warning("timelocked commitments are not implemented by the specification runtime")
            raise DispatchError("Unavailable", "Commitments.set_commitment with a timelocked field is not implemented")

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

    @call(ref_time=6_000_000)
    def set_max_space(self, origin: Origin, new_limit: int) -> None:
        ensure_root(origin)
        self.MaxSpace.put(new_limit)
