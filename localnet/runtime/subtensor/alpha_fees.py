"""Fees in alpha: a few staking calls may pay what their coldkey has not got in TAO out of the stake they are about.

    position_of     the one position a call can pay from; a call about several positions, or none, pays in TAO or not
    offer           what it would cost there, of what is neither locked nor bonded
    take            the alpha is sold without a swap fee, and the TAO it fetches is recycled

The position is that of the call itself: a proxy or a batch around it pays in TAO. Which calls, and what becomes of the
TAO: pallets/transaction-fee of the public tree after spec 452, where fees stopped going to block authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localnet.rules import fees
from localnet.runtime.subtensor import collateral, locks, positions, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

PAYING = {  # call -> its arguments that name the position: hotkey, netuid (None: wherever the hotkey has some)
    "remove_stake": ("hotkey", "netuid"),
    "remove_stake_limit": ("hotkey", "netuid"),
    "remove_stake_full_limit": ("hotkey", "netuid"),
    "unstake_all": ("hotkey", None),
    "unstake_all_alpha": ("hotkey", None),
    "move_stake": ("origin_hotkey", "origin_netuid"),
    "move_stake_limit": ("origin_hotkey", "origin_netuid"),
    "transfer_stake": ("hotkey", "origin_netuid"),
    "transfer_stake_and_hotkey": ("origin_hotkey", "origin_netuid"),
    "swap_stake": ("hotkey", "origin_netuid"),
    "swap_stake_limit": ("hotkey", "origin_netuid"),
    "swap_hotkey": ("hotkey", "netuid"),
    "swap_hotkey_v2": ("hotkey", "netuid"),
    "recycle_alpha": ("hotkey", "netuid"),
    "burn_alpha": ("hotkey", "netuid"),
}  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """A fee as a coldkey can pay it in alpha."""

    hotkey: bytes
    netuid: int
    alpha: int


def position_of(p: Subtensor, coldkey: bytes, function: str, arguments: Mapping[str, Any]) -> tuple[bytes, int] | None:
    """(hotkey, netuid) that a call of this pallet pays from, None when there is not exactly one."""
    if function not in PAYING:
        return None
    by_hotkey, by_netuid = PAYING[function]
    hotkey, netuid = arguments[by_hotkey], None if by_netuid is None else arguments[by_netuid]
    if netuid is not None:
        return hotkey, netuid
    held = [
        netuid
        for netuid, added in p.NetworksAdded.items()
        if added and p.SubtokenEnabled[netuid] and staking.stake_of(p, hotkey, coldkey, netuid)
    ]
    return (hotkey, held[0]) if len(held) == 1 else None


def offer(p: Subtensor, coldkey: bytes, function: str, arguments: Mapping[str, Any], fee: int) -> Offer | None:
    """How the coldkey can pay `fee` rao in alpha; None when it cannot."""
    position = position_of(p, coldkey, function, arguments)
    if position is None:
        return None
    hotkey, netuid = position
    alpha = fees.alpha_equivalent(fee, staking.spot_price(p, netuid))
    free = min(
        collateral.free_alpha(p, netuid, hotkey, coldkey),
        locks.availability(p, coldkey, netuid).available,
    )
    return Offer(hotkey, netuid, alpha) if 0 < alpha <= free else None


def take(p: Subtensor, coldkey: bytes, paid: Offer) -> int:
    """Collect an offer; the TAO it came to. Raises what selling and recycling raise."""
    account = staking.subnet_account(p, paid.netuid)
    tao = positions.unstake_from_subnet(
        p, paid.hotkey, coldkey, paid.netuid, paid.alpha, limit=0, with_fee=False, beneficiary=account
    )
    positions.recycle_tao(p, account, tao)
    return tao
