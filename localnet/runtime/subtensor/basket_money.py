"""Money of baskets: TAO between subnets' accounts, the fund's root slot, trades without a fee.

move_cash, record_flow                    TAO follows what is traded
credit_root_slot, debit_root_slot         a fund's TAO is root stake
sell, sell_for_root, buy                  in parts where a pool takes less at once
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import swap as market
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import staking
from localnet.runtime.subtensor.basket_values import escrow_account

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT


def move_cash(p: Subtensor, source: int, target: int, tao: int) -> None:
    """TAO from one subnet's account to another's. Raises InsufficientTaoBalance."""
    if source == target or not tao:
        return
    account = staking.subnet_account(p, source)
    if p.rt.balances.reducible(account, keep_alive=False) < tao:
        raise p.error("InsufficientTaoBalance")
    p.rt.balances.transfer(account, staking.subnet_account(p, target), tao, keep_alive=False)


def record_flow(p: Subtensor, netuid: int, tao: int) -> None:
    """TAO that the chain itself put into a pool, or (negative) took out."""
    p.SubnetProtocolFlow[netuid] = p.SubnetProtocolFlow[netuid] + tao


def credit_root_reserves(p: Subtensor, tao: int) -> None:
    """Root has no market: what is staked there is counted by hand. Negative to take away."""
    p.SubnetTAO[ROOT] = max(p.SubnetTAO[ROOT] + tao, 0)
    p.SubnetAlphaOut[ROOT] = max(p.SubnetAlphaOut[ROOT] + tao, 0)
    p.TotalStake.put(max(p.TotalStake.get() + tao, 0))


def credit_root_slot(p: Subtensor, hotkey: bytes, tao: int) -> None:
    """TAO that lies on root's account becomes the fund's."""
    staking.increase_stake(p, hotkey, escrow_account(p), ROOT, tao)
    credit_root_reserves(p, tao)


def debit_root_slot(p: Subtensor, hotkey: bytes, tao: int) -> None:
    """Raises NotEnoughStakeToWithdraw."""
    staking.decrease_stake(p, hotkey, escrow_account(p), ROOT, tao)
    credit_root_reserves(p, -tao)


def sell(p: Subtensor, netuid: int, alpha: int) -> int:
    """Sell alpha that nobody holds any more, without a fee; the TAO lies on the subnet's account. Returns it, rao.

    Raises the Swap pallet's errors.
    """
    sale = functools.partial(staking.swap_alpha_for_tao, p, netuid, with_fee=False)
    return _in_parts(p, netuid, alpha, p.SubnetAlphaIn, sale)


def buy(p: Subtensor, netuid: int, tao: int) -> int:
    """Buy alpha with TAO that lies on the subnet's account, fee included. Returns the alpha, which nobody holds yet.

    Raises the Swap pallet's errors.
    """
    return _in_parts(p, netuid, tao, p.SubnetTAO, functools.partial(staking.swap_tao_for_alpha, p, netuid))


def _in_parts(
    p: Subtensor, netuid: int, amount: int, reserve: StorageMap[int], swap: Callable[[int], market.Swap]
) -> int:
    """Swap all of `amount`, no more at a time than the pool takes; what came out of it."""
    total = 0
    with p.rt.transaction():
        while amount:
            most = reserve[netuid] * market.MAX_INPUT_MULTIPLE
            part = amount if staking.is_stable(p, netuid) or not most else min(amount, most)
            done = swap(part)
            if not done.paid_in + done.fee:
                raise p.error("AmountTooLow")
            amount -= done.paid_in + done.fee
            total += done.paid_out
    return total


def sell_for_root(p: Subtensor, netuid: int, alpha: int) -> int:
    """The same, and the TAO lies on root's account. Returns it, rao."""
    tao = sell(p, netuid, alpha)
    move_cash(p, netuid, ROOT, tao)
    record_flow(p, netuid, -tao)
    return tao


def is_terminal(p: Subtensor, error: DispatchError) -> bool:
    """Did the trade fail because the pool is too small for any?"""
    return bool(error.value == p.rt.swap.error("ReservesTooLow").value)
