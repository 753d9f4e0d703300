"""What happens to baskets when keys are swapped, a seat on root is lost, or a subnet goes.

    move_fund         a validator's hotkey is swapped: the whole fund follows
    move_claim        a staker's coldkey is swapped: what it redeemed, and what it bought, follows
    convert_subnet    a subnet is dissolved: every fund's holding there becomes TAO, dividends in the queue are recycled

A validator that loses its seat on root earns nothing more: `baskets.flush` recycles what is queued for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import baskets, beta_index, distribution, staking
from localnet.runtime.subtensor.basket_values import escrow_account, holdings

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def move_fund(p: Subtensor, old: bytes, new: bytes) -> None:
    """Shares, rate, watermarks, queue, holdings and trading limits of a fund go to another hotkey.

    The new one must be clean on root, which a swap makes sure of. A freeze is copied: swapping back does not escape it.
    """
    for item in (p.BasketShares, p.BasketDepositedTao, p.BasketRedeemedTao):
        _add(item, old, new)
    if old in p.BasketRate:
        p.BasketRate[new] = {"bits": p.BasketRate[new]["bits"] + p.BasketRate[old]["bits"]}
        del p.BasketRate[old]
    beta_index.move_display(p, old, new)
    for coldkey in list(p.BasketClaimed.keys(old)):
        _add(p.BasketClaimed, (old, coldkey), (new, coldkey))
    for netuid in list(p.PendingBasketDeposits.keys(old)):
        _add(p.PendingBasketDeposits, (old, netuid), (new, netuid))
    escrow = escrow_account(p)
    for netuid, alpha in holdings(p, old):
        staking.decrease_stake(p, old, escrow, netuid, alpha)
        staking.increase_stake(p, new, escrow, netuid, alpha)
    if old in p.BasketTradingFrozen:
        p.BasketTradingFrozen[new] = ()
    _move_bucket(p, old, new)


def _add(item: StorageMap[int], old: Any, new: Any) -> None:
    if old in item:
        item[new] = item[new] + item[old]
        del item[old]


def _move_bucket(p: Subtensor, old: bytes, new: bytes) -> None:
    """The lower level and the later block, so that a swap fills no bucket."""
    mine, theirs = p.BasketTradeBucket[old], p.BasketTradeBucket[new]
    if mine is None:
        return
    del p.BasketTradeBucket[old]
    p.BasketTradeBucket[new] = mine if theirs is None else (min(mine[0], theirs[0]), max(mine[1], theirs[1]))


def move_claim(p: Subtensor, hotkey: bytes, old: bytes, new: bytes) -> None:
    """Two watermarks are added: both were claimed."""
    _add(p.BasketClaimed, (hotkey, old), (hotkey, new))


def convert_subnet(p: Subtensor, netuid: int) -> None:
    """Before a subnet's pool is taken apart: funds get TAO for what they hold there."""
    for hotkey in list(p.BasketShares.keys()):
        baskets.convert_holding(p, hotkey, netuid)
    for hotkey, queued in list(p.PendingBasketDeposits.keys()):
        if queued == netuid:
            alpha = p.PendingBasketDeposits[hotkey, netuid]
            del p.PendingBasketDeposits[hotkey, netuid]
            distribution.recycle(p, netuid, alpha)
