"""TransactionPayment: what an extrinsic costs and who pays it.

The fee is the weight fee plus one rao per encoded byte plus the tip. It leaves the payer and nobody receives it, no
block's author either: it is recycled, the issuance of both pallets that count it falls, as recorded from a spec-461
node. When the payer lacks TAO, a few staking calls pay in alpha (`localnet.runtime.subtensor.alpha_fees`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localnet.errors import DispatchError, InvalidTransaction
from localnet.rules import fees
from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import CallInfo, Pallet, StorageValue
from localnet.runtime.subtensor import alpha_fees
from localnet.runtime.subtensor.alpha_fees import Offer

Call = tuple[str, str, dict[str, Any]]  # pallet, function, arguments


@dataclass(frozen=True)
class Paid:
    """A fee that was withdrawn, rao; with the alpha that stood for it and the TAO that fetched."""

    fee: int
    offer: Offer | None = None
    tao: int = 0


class TransactionPayment(Pallet):
    name = "TransactionPayment"
    NextFeeMultiplier = StorageValue[int]()

    def fee(self, info: CallInfo, length: int, tip: int = 0) -> int:
        """Rao; a free call costs its tip."""
        return fees.fee(info.ref_time, length, tip) if info.pays else tip

    def check_payable(self, who: bytes, fee: int, call: Call) -> None:
        """Raises InvalidTransaction Payment when the account cannot pay for this call and stay alive."""
        if not self._has(who, fee) and self._offer(who, fee, call) is None:
            raise InvalidTransaction("Payment")

    def _has(self, who: bytes, fee: int) -> bool:
        return not fee or self.rt.balances.reducible(who) >= fee

    def _offer(self, who: bytes, fee: int, call: Call) -> Offer | None:
        pallet, function, arguments = call
        subtensor = self.rt.subtensor
        return alpha_fees.offer(subtensor, who, function, arguments, fee) if pallet == subtensor.name else None

    def withdraw(self, who: bytes, fee: int, call: Call) -> Paid:
        """Take the fee. Raises InvalidTransaction Payment."""
        if not self._has(who, fee):
            return self._withdraw_alpha(who, fee, call)
        if fee:
            self.rt.balances.burn(who, fee)
            self.rt.balances.emit("Withdraw", who=who, amount=fee)
        return Paid(fee)

    def _withdraw_alpha(self, who: bytes, fee: int, call: Call) -> Paid:
        offer = self._offer(who, fee, call)
        if offer is None:
            raise InvalidTransaction("Payment")
        try:
            with self.rt.transaction():
                return Paid(fee, offer, alpha_fees.take(self.rt.subtensor, who, offer))
        except DispatchError as error:
            raise InvalidTransaction("Payment") from error

    def settle(self, who: bytes, paid: Paid, tip: int, info: CallInfo) -> None:
        """Give back all but the tip where the call turned out to be free, and report the fee, were it 0. Weights are
        not corrected after dispatch, so there is no other refund; alpha is not given back.
        """
        actual = paid.fee if info.pays else tip
        if paid.offer is None:
            self._recycle(who, paid.fee, actual)
        else:
            self.rt.subtensor.emit(
                "TransactionFeePaidWithAlpha", who=who, netuid=paid.offer.netuid, alpha_fee=paid.offer.alpha,
                tao_amount=paid.tao,
            )  # fmt: skip
        self.emit("TransactionFeePaid", who=who, actual_fee=actual, tip=tip)

    def _recycle(self, who: bytes, withdrawn: int, actual: int) -> None:
        """What is not given back; an account that the call has closed gets nothing."""
        if not withdrawn:
            return
        data, refund = self.rt.system.Account[who]["data"], 0
        if data["free"] or data["reserved"]:
            refund = withdrawn - actual
            if refund:
                self.rt.balances.mint(who, refund)
            self.rt.balances.emit("Deposit", who=who, amount=refund)
        issuance = self.rt.subtensor.TotalIssuance
        issuance.put(sub_floor0(issuance.get(), withdrawn - refund))
