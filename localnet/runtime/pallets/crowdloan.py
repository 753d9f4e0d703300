"""Crowdloan: raise TAO up to a cap; on success it goes to an address, or a call of the creator's spends it.

    create, contribute, withdraw      the creator's deposit is the first contribution
    finalize                          by the creator, once the cap is reached
    refund, dissolve                  by the creator, when it is not: give everybody theirs back, then end it
    update_.., set_max_contribution   by the creator, until it is finalized

Contributions lie in an account of the crowdloan's own. While `finalize` dispatches the creator's call,
`CurrentCrowdloanId` tells it which crowdloan pays (a subnet lease asks for it); a call that leaves the raised funds
where they are fails the finalization.
"""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError
from localnet.rules.accounts import pallet_account
from localnet.runtime.framework import Origin, Pallet, Signed, StorageMap, StorageValue, call, ensure_signed

Info = dict[str, Any]


class Crowdloan(Pallet):
    name = "Crowdloan"

    Crowdloans = StorageMap[Info | None]()  # id
    NextCrowdloanId = StorageValue[int]()
    Contributions = StorageMap[int | None]()  # id, account; rao
    MaxContributions = StorageMap[int | None]()  # id; rao per contributor
    CurrentCrowdloanId = StorageValue[int | None]()

    def _constant(self, name: str) -> int:
        return int(self.rt.document.constants[self.name, name])

    def _pay(self, source: bytes, dest: bytes, amount: int) -> None:
        self.rt.balances.transfer(source, dest, amount, keep_alive=False)

    def info(self, crowdloan_id: int | None) -> Info:
        """Raises InvalidCrowdloanId."""
        info = None if crowdloan_id is None else self.Crowdloans[crowdloan_id]
        if info is None:
            raise self.error("InvalidCrowdloanId")
        return info

    def _open(self, crowdloan_id: int) -> Info:
        """A crowdloan that is not finalized. Raises InvalidCrowdloanId, AlreadyFinalized."""
        info = self.info(crowdloan_id)
        if info["finalized"]:
            raise self.error("AlreadyFinalized")
        return info

    def _own(self, origin: Origin, crowdloan_id: int) -> Info:
        """An open crowdloan of the signer's. Raises InvalidOrigin and what `_open` raises."""
        who = ensure_signed(origin)
        info = self._open(crowdloan_id)
        if who != info["creator"]:
            raise self.error("InvalidOrigin")
        return info

    def _ensure_end(self, end: int) -> None:
        """Raises CannotEndInPast, BlockDurationTooShort, BlockDurationTooLong."""
        duration = end - self.rt.number
        if duration <= 0:
            raise self.error("CannotEndInPast")
        if duration < self._constant("MinimumBlockDuration"):
            raise self.error("BlockDurationTooShort")
        if duration > self._constant("MaximumBlockDuration"):
            raise self.error("BlockDurationTooLong")

    # -- raising ----------------------------------------------------------------------------------------------------

    @call(own_fee=True)
    def create(
        self,
        origin: Origin,
        deposit: int,
        min_contribution: int,
        cap: int,
        end: int,
        call: Any,
        target_address: bytes | None,
    ) -> None:
        creator = ensure_signed(origin)
        if deposit < self._constant("MinimumDeposit"):
            raise self.error("DepositTooLow")
        if cap <= deposit:
            raise self.error("CapTooLow")
        if min_contribution < self._constant("AbsoluteMinimumContribution"):
            raise self.error("MinimumContributionTooLow")
        if (call is None) == (target_address is None):
            raise self.error("InvalidFinalizationConfig")
        self._ensure_end(end)
        if self.rt.balances.free(creator) < deposit:
            raise self.error("InsufficientBalance")
        crowdloan_id = self.NextCrowdloanId.get()
        self.NextCrowdloanId.put(crowdloan_id + 1)
        funds = pallet_account(self.rt.document.constants[self.name, "PalletId"], crowdloan_id.to_bytes(4, "little"))
        self.rt.system.inc_providers(funds)
        self.Crowdloans[crowdloan_id] = {
            "creator": creator, "deposit": deposit, "min_contribution": min_contribution, "end": end, "cap": cap,
            "funds_account": funds, "raised": deposit, "target_address": target_address,
            "call": None if call is None else self.rt.preimage.bound(call), "finalized": False,
            "contributors_count": 1,
        }  # fmt: skip
        self._pay(creator, funds, deposit)
        self.Contributions[crowdloan_id, creator] = deposit
        self.emit("Created", crowdloan_id=crowdloan_id, creator=creator, end=end, cap=cap)

    @call()
    def contribute(self, origin: Origin, crowdloan_id: int, amount: int) -> None:
        """Takes less than `amount` where only less is missing to the cap or to the contributor's maximum."""
        who = ensure_signed(origin)
        info = self.info(crowdloan_id)
        if self.rt.number >= info["end"]:
            raise self.error("ContributionPeriodEnded")
        if info["raised"] >= info["cap"]:
            raise self.error("CapRaised")
        if amount < info["min_contribution"]:
            raise self.error("ContributionTooLow")
        if info["contributors_count"] >= self._constant("MaxContributors"):
            raise self.error("MaxContributorsReached")
        before, most = self.Contributions[crowdloan_id, who], self.MaxContributions[crowdloan_id]
        taken = min(amount, info["cap"] - info["raised"])
        if most is not None:
            if (before or 0) >= most:
                raise self.error("MaxContributionReached")
            taken = min(taken, most - (before or 0))
        if self.rt.balances.free(who) < taken:
            raise self.error("InsufficientBalance")
        self._pay(who, info["funds_account"], taken)
        self.Contributions[crowdloan_id, who] = (before or 0) + taken
        count = info["contributors_count"] + (before is None)
        self.Crowdloans[crowdloan_id] = {**info, "raised": info["raised"] + taken, "contributors_count": count}
        self.emit("Contributed", crowdloan_id=crowdloan_id, contributor=who, amount=taken)

    @call()
    def withdraw(self, origin: Origin, crowdloan_id: int) -> None:
        """The creator's deposit stays in."""
        who = ensure_signed(origin)
        info = self._open(crowdloan_id)
        amount, count = self.Contributions[crowdloan_id, who] or 0, info["contributors_count"]
        if not amount:
            raise self.error("NoContribution")
        if who == info["creator"]:
            amount -= info["deposit"]
            if amount <= 0:
                raise self.error("DepositCannotBeWithdrawn")
            self.Contributions[crowdloan_id, who] = info["deposit"]
        else:
            count -= 1
            del self.Contributions[crowdloan_id, who]
        self._pay(info["funds_account"], who, amount)
        self.Crowdloans[crowdloan_id] = {**info, "raised": info["raised"] - amount, "contributors_count": count}
        self.emit("Withdrew", crowdloan_id=crowdloan_id, contributor=who, amount=amount)

    # -- ending -----------------------------------------------------------------------------------------------------

    @call()
    def finalize(self, origin: Origin, crowdloan_id: int) -> None:
        who = ensure_signed(origin)
        info = self.info(crowdloan_id)
        if who != info["creator"]:
            raise self.error("InvalidOrigin")
        if info["raised"] != info["cap"]:
            raise self.error("CapNotRaised")
        if info["finalized"]:
            raise self.error("AlreadyFinalized")
        if self.CurrentCrowdloanId.get() is not None:
            raise self.error("AlreadyFinalizing")
        self.Crowdloans[crowdloan_id] = {**info, "finalized": True}
        if info["call"] is None:
            self._pay(info["funds_account"], info["target_address"], info["raised"])
        else:
            assert isinstance(origin, Signed)
            self._spend(origin, crowdloan_id, info)
        self.emit("Finalized", crowdloan_id=crowdloan_id)

    def _spend(self, origin: Signed, crowdloan_id: int, info: Info) -> None:
        """Dispatch the creator's call. Raises CallUnavailable, FundsNotSettled and what the call raises."""
        try:
            inner = self.rt.preimage.peek(info["call"])
        except DispatchError as error:
            raise self.error("CallUnavailable") from error
        before = self.rt.balances.free(info["funds_account"])
        self.CurrentCrowdloanId.put(crowdloan_id)
        self.rt.dispatch_inner(origin, inner)
        self.CurrentCrowdloanId.kill()
        if self.rt.balances.free(info["funds_account"]) > before - info["raised"]:
            raise self.error("FundsNotSettled")

    @call()
    def refund(self, origin: Origin, crowdloan_id: int) -> None:
        """Pay contributors other than the creator back, a limited number at a time."""
        info = self._own(origin, crowdloan_id)
        others = [one for one in self.Contributions.items(crowdloan_id) if one[0] != info["creator"]]
        refunded = others[: self._constant("RefundContributorsLimit")]
        for who, amount in refunded:
            assert amount is not None
            self._pay(info["funds_account"], who, amount)
            del self.Contributions[crowdloan_id, who]
        self.Crowdloans[crowdloan_id] = {
            **info,
            "raised": info["raised"] - sum(amount or 0 for _, amount in refunded),
            "contributors_count": info["contributors_count"] - len(refunded),
        }
        self.emit("AllRefunded" if len(refunded) == len(others) else "PartiallyRefunded", crowdloan_id=crowdloan_id)

    @call()
    def dissolve(self, origin: Origin, crowdloan_id: int) -> None:
        info = self._own(origin, crowdloan_id)
        own = self.Contributions[crowdloan_id, info["creator"]]
        if own is None:
            raise self.error("NoContribution")
        if own != info["raised"]:
            raise self.error("NotReadyToDissolve")
        self._pay(info["funds_account"], info["creator"], own)
        del self.Contributions[crowdloan_id, info["creator"]]
        if info["call"] is not None:
            self.rt.preimage.drop(info["call"])
        self.rt.system.dec_providers(info["funds_account"])
        del self.Crowdloans[crowdloan_id]
        del self.MaxContributions[crowdloan_id]
        self.emit("Dissolved", crowdloan_id=crowdloan_id)

    # -- changing ---------------------------------------------------------------------------------------------------

    @call()
    def update_min_contribution(self, origin: Origin, crowdloan_id: int, new_min_contribution: int) -> None:
        info = self._own(origin, crowdloan_id)
        if new_min_contribution < self._constant("AbsoluteMinimumContribution"):
            raise self.error("MinimumContributionTooLow")
        most = self.MaxContributions[crowdloan_id]
        if most is not None and new_min_contribution > most:
            raise self.error("MinimumContributionTooHigh")
        self.Crowdloans[crowdloan_id] = {**info, "min_contribution": new_min_contribution}
        self.emit("MinContributionUpdated", crowdloan_id=crowdloan_id, new_min_contribution=new_min_contribution)

    @call()
    def update_end(self, origin: Origin, crowdloan_id: int, new_end: int) -> None:
        info = self._own(origin, crowdloan_id)
        self._ensure_end(new_end)
        self.Crowdloans[crowdloan_id] = {**info, "end": new_end}
        self.emit("EndUpdated", crowdloan_id=crowdloan_id, new_end=new_end)

    @call()
    def update_cap(self, origin: Origin, crowdloan_id: int, new_cap: int) -> None:
        info = self._own(origin, crowdloan_id)
        if new_cap < info["raised"]:
            raise self.error("CapTooLow")
        self.Crowdloans[crowdloan_id] = {**info, "cap": new_cap}
        self.emit("CapUpdated", crowdloan_id=crowdloan_id, new_cap=new_cap)

    @call()
    def set_max_contribution(self, origin: Origin, crowdloan_id: int, new_max_contribution: int | None) -> None:
        info = self._own(origin, crowdloan_id)
        if new_max_contribution is None:
            del self.MaxContributions[crowdloan_id]
        else:
            own = self.Contributions[crowdloan_id, info["creator"]] or 0
            if new_max_contribution < max(info["min_contribution"], own):
                raise self.error("MaximumContributionTooLow")
            self.MaxContributions[crowdloan_id] = new_max_contribution
        self.emit("MaxContributionUpdated", crowdloan_id=crowdloan_id, new_max_contribution=new_max_contribution)
