"""TransactionPayment: what an extrinsic costs and who pays it.

The fee is the weight fee plus one rao per encoded byte plus the tip. It leaves the payer and nobody receives it:
issuance falls by it, as recorded from a spec-461 node. When the payer lacks TAO, a few stake calls may pay in alpha
on the released chain; here they are refused like any other call that cannot pay.
"""

from __future__ import annotations

from localnet.errors import InvalidTransaction
from localnet.rules import fees
from localnet.runtime.framework import CallInfo, Pallet, StorageValue


class TransactionPayment(Pallet):
    name = "TransactionPayment"
    NextFeeMultiplier = StorageValue[int]()

    def fee(self, info: CallInfo, length: int, tip: int = 0) -> int:
        """Rao; a free call costs its tip."""
        return fees.fee(info.ref_time, length, tip) if info.pays else tip

    def check_payable(self, who: bytes, info: CallInfo, length: int, tip: int) -> None:
        """Raises InvalidTransaction Payment when the account cannot pay and stay alive."""
        fee = self.fee(info, length, tip)
        if fee and self.rt.balances.reducible(who) < fee:
            raise InvalidTransaction("Payment")

    def withdraw(self, who: bytes, info: CallInfo, length: int, tip: int) -> int | None:
        """Take the fee. None: this call is free."""
        fee = self.fee(info, length, tip)
        if not info.pays and not tip:
            return None
        self.rt.balances.burn(who, fee)
        self.rt.balances.emit("Withdraw", who=who, amount=fee)
        return fee

    def settle(self, who: bytes, fee: int | None, tip: int, info: CallInfo) -> None:
        """Give back all but the tip where the call turned out to be free, and report the fee. Weights are not corrected
        after dispatch, so there is no other refund.
        """
        if fee is None:
            return
        actual = fee if info.pays else tip
        if fee > actual:
            self.rt.balances.mint(who, fee - actual)
        self.rt.balances.emit("Deposit", who=who, amount=fee - actual)
        self.emit("TransactionFeePaid", who=who, actual_fee=actual, tip=tip)
