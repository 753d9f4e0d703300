"""What makes two versions comparable where one keeps a fact that the other works out."""

from __future__ import annotations

from typing import Any

from localnet.developer import in_rhythm
from localnet.net import Localnet
from localnet.rehearsal.subnet_states import PALLET
from localnet.rules.accounts import pallet_account


class Bridge:
    """Written into the other chain at the end of every block, and only where the reference does not have the item.

    LastEpochBlock, PendingEpochAt
                                runtimes without them run an epoch where the block's number says so
    ActivityCutoffFactorMilli   thousandths of a tempo, before that blocks
    LiquidAlphaConsensusMode    there was only the current consensus
    the subnets' own accounts   hold the TAO of their pools, which older runtimes only count
    """

    def __init__(self, reference: Localnet, other: Localnet) -> None:
        self.reference, self.other = reference, other
        stores = [net.client.document.storage for net in (reference, other)]
        wanted = ("LastEpochBlock", "PendingEpochAt", "ActivityCutoffFactorMilli", "LiquidAlphaConsensusMode")
        self.needed = [item for item in wanted if (PALLET, item) in stores[1] and (PALLET, item) not in stores[0]]
        constants = [net.client.document.constants for net in (reference, other)]
        self._purse = (
            constants[1].get((PALLET, "SubtensorPalletId"))
            if (PALLET, "SubtensorPalletId") not in constants[0]
            else None
        )

    def writes(self, block: int) -> dict[bytes, bytes | None]:
        """For the other, at the end of `block`."""
        if not self.needed and self._purse is None:
            return {}
        writes: dict[bytes, bytes | None] = {}
        read, words = self._read, self.other.client
        cutoffs, pools = read("ActivityCutoff"), read("SubnetTAO")
        for netuid, added in read("NetworksAdded").items():
            tempo = self.reference.query(PALLET, "Tempo", netuid)
            if not added or not netuid or not tempo:
                continue
            due = in_rhythm(netuid, tempo, block + 1)
            values = {
                "LastEpochBlock": max(due - tempo, 0),
                "PendingEpochAt": due if due < tempo and due == block + 1 else 0,  # the first: no block was a tempo ago
                "ActivityCutoffFactorMilli": -(-cutoffs.get(netuid, 5_000) * 1_000 // tempo),
                "LiquidAlphaConsensusMode": "Current",
            }
            writes |= dict(words.storage_write(PALLET, item, (netuid,), values[item]) for item in self.needed)
            if self._purse is not None:
                who = pallet_account(self._purse, netuid.to_bytes(2, "little"))
                account = self.other.query("System", "Account", who)
                data = {**account["data"], "free": 2 * pools.get(netuid, 0) + 10**15}
                writes |= [words.storage_write("System", "Account", (who,), {**account, "providers": 1, "data": data})]
        return writes

    def _read(self, item: str) -> dict[int, Any]:
        """A map of the reference's, empty where it has none of that name."""
        known = (PALLET, item) in self.reference.client.document.storage
        return self.reference.query_map(PALLET, item) if known else {}
