"""AlphaAssets: per subnet, how much alpha was issued, burned and recycled.

Issued is what blocks emitted, to the pool and to participants; a new subnet's first pool is not part of it. Burned
alpha still counts as issued and outstanding (SubnetAlphaOut) though nobody holds it; recycled alpha can be issued
again. The counters are what clients and the takeover rule read; SubtensorModule moves the alpha itself.
"""

from __future__ import annotations

from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import Pallet, StorageMap


class AlphaAssets(Pallet):
    name = "AlphaAssets"

    TotalAlphaIssuance = StorageMap[int]()  # netuid
    AlphaBurned = StorageMap[int]()  # netuid
    AlphaRecycled = StorageMap[int]()  # netuid

    def mint(self, netuid: int, alpha: int) -> None:
        """Alpha that a block emitted."""
        if alpha:
            self.TotalAlphaIssuance[netuid] = self.TotalAlphaIssuance[netuid] + alpha

    def burn(self, netuid: int, alpha: int) -> None:
        """Alpha that left its holder and stays outstanding."""
        if alpha:
            self.AlphaBurned[netuid] = self.AlphaBurned[netuid] + alpha

    def recycle(self, netuid: int, alpha: int) -> None:
        """Alpha that left circulation: the subnet's issuance falls."""
        if alpha:
            self.AlphaRecycled[netuid] = self.AlphaRecycled[netuid] + alpha
            self.TotalAlphaIssuance[netuid] = sub_floor0(self.TotalAlphaIssuance[netuid], alpha)
            outstanding = self.rt.subtensor.SubnetAlphaOut
            outstanding[netuid] = sub_floor0(outstanding[netuid], alpha)
