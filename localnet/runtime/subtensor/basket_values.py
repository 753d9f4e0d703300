"""What a basket holds and what it is worth: reads, without side effects.

escrow_account, held, holdings    who holds a fund's alpha and its TAO (root stake), and how much
realizable, valued, nav           what selling it without a fee would fetch now: deposits and claims use this one
marketable, spot_value            the same for views, which must not fail; and at the spot price
guarded                           what caps and budgets go by: a holding at most at its moving price
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import baskets as rules
from localnet.rules import swap as market
from localnet.rules.errors import SwapError
from localnet.rules.fixed import U64F64, to_u64
from localnet.runtime.subtensor import staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT


def escrow_account(p: Subtensor) -> bytes:
    """The coldkey under which all funds hold their positions; nobody has its key."""
    pallet_id: bytes = p.rt.document.constants[p.name, "SubtensorPalletId"]
    return (b"modl" + pallet_id + b"beta/esc").ljust(32, b"\0")


def held(p: Subtensor, hotkey: bytes, netuid: int) -> int:
    """The fund's alpha on a subnet; on root its TAO."""
    return staking.stake_of(p, hotkey, escrow_account(p), netuid)


def holdings(p: Subtensor, hotkey: bytes) -> list[tuple[int, int]]:
    """(netuid, alpha) of everything the fund holds, in storage order; netuid 0 is its TAO."""
    escrow = escrow_account(p)
    netuids = dict.fromkeys([*p.AlphaV2.keys(hotkey, escrow), *p.Alpha.keys(hotkey, escrow)])
    rows = ((netuid, staking.stake_of(p, hotkey, escrow, netuid)) for netuid in netuids)
    return [(netuid, alpha) for netuid, alpha in rows if alpha]


def realizable(p: Subtensor, netuid: int, alpha: int) -> int | None:
    """TAO that selling `alpha` without a fee would fetch now; None when the pool is too small for any trade.

    Raises the Swap pallet's other errors.
    """
    if not alpha or staking.is_stable(p, netuid):
        return alpha
    try:
        return _quote(staking.pool_of(p, netuid), alpha)
    except SwapError as error:
        if error.name == "ReservesTooLow":
            return None
        raise p.rt.swap.error(error.name) from error


def _quote(pool: market.Pool, alpha: int) -> int:
    """Sold in parts, as `sell` does it, when it is more than one trade may put in. Raises SwapError."""
    total = 0
    while alpha:
        swap = market.sell(pool, min(alpha, pool.alpha * market.MAX_INPUT_MULTIPLE or alpha), fee_rate=0)
        alpha -= swap.paid_in
        total += swap.paid_out
        pool = replace(pool, tao=pool.tao - swap.paid_out, alpha=pool.alpha + swap.paid_in)
        if not swap.paid_in:
            raise SwapError("ReservesTooLow", "nothing of it can be sold")
    return total


def marketable(p: Subtensor, netuid: int, alpha: int) -> int:
    """What a view shows: what selling would fetch, and nothing where it would fail, whatever the reason."""
    try:
        return realizable(p, netuid, alpha) or 0
    except DispatchError:
        return 0


def spot_value(p: Subtensor, netuid: int, alpha: int) -> int:
    """Alpha at the spot price, rao."""
    return to_u64(staking.spot_price(p, netuid) * alpha, 64)


def valued(p: Subtensor, hotkey: bytes) -> list[tuple[int, int, int]]:
    """(netuid, alpha, realizable rao) of each holding; 0 on a dead pool. Raises the Swap pallet's errors."""
    return [(netuid, alpha, realizable(p, netuid, alpha) or 0) for netuid, alpha in holdings(p, hotkey)]


def nav(p: Subtensor, hotkey: bytes) -> int:
    """The fund's realizable value, rao. Raises the Swap pallet's errors."""
    return sum(value for _, _, value in valued(p, hotkey))


def slow_price(p: Subtensor, netuid: int) -> U64F64:
    """Moving price, TAO per alpha."""
    return staking.moving_price(p, netuid) << 32


def guarded(p: Subtensor, netuid: int, alpha: int, value: int) -> int:
    """A holding's value for caps and budgets: not above its alpha at the moving price."""
    return value if netuid == ROOT else rules.guarded_value(value, alpha, slow_price(p, netuid))
