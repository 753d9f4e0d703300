"""Positions: staking and unstaking as one step, money, market, shares and events together.

    stake_into_subnet       TAO from the coldkey to the subnet, bought, credited
    unstake_from_subnet     alpha debited, sold, TAO to the coldkey
    move_within_subnet      shares change hands, nothing is traded
    clear_small_nomination  what is left of a nomination below the minimum is paid out

The checks of the calls come before (`stake_calls`, `stake_moves`). A swap fee goes to the block's author on chains that
know one; the local chain does not, so the fee is burned: TAO moves to the burn account, alpha stays out of circulation.
Locked alpha (`locks`) and collateral do not leave; every change of a position brings its coldkey's lock up to date, and
every change of root stake leaves untouched what the coldkey owns of the validator's basket (`baskets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules.fixed import div64, to_u64
from localnet.runtime.pallets.balances import EXISTENTIAL_DEPOSIT
from localnet.runtime.subtensor import basket_values, baskets, collateral, locks, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def min_stake(p: Subtensor) -> int:
    """Smallest stake or unstake, rao."""
    return int(p.rt.document.constants[p.name, "InitialMinStake"])


def min_transfer(p: Subtensor) -> int:
    """Smallest transfer of stake to another coldkey, rao."""
    return int(p.rt.document.constants[p.name, "InitialMinTransfer"])


def min_nomination(p: Subtensor) -> int:
    """Smallest nomination, rao: NominatorMinRequiredStake is a factor of the minimum stake, in millionths."""
    return min_stake(p) * p.NominatorMinRequiredStake.get() // 1_000_000


# -- money ----------------------------------------------------------------------------------------------------------


def pay_subnet(p: Subtensor, netuid: int, coldkey: bytes, tao: int) -> int:
    """Move TAO to the subnet's account; the coldkey keeps its existential deposit, so it may be less. Returns how much.

    Raises InsufficientTaoBalance when nothing can be moved.
    """
    if not tao:
        return 0
    amount = min(tao, p.rt.balances.reducible(coldkey, keep_alive=True))
    if not amount:
        raise p.error("InsufficientTaoBalance")
    p.rt.balances.transfer(coldkey, staking.subnet_account(p, netuid), amount, keep_alive=True)
    return amount


def transfer_tao(p: Subtensor, source: bytes, to: bytes, tao: int) -> None:
    """Move TAO, if need be the last of it.

    Raises InsufficientTaoBalance and what Balances raises.
    """
    if p.rt.balances.reducible(source, keep_alive=False) < tao:
        raise p.error("InsufficientTaoBalance")
    p.rt.balances.transfer(source, to, tao, keep_alive=False)


def pay_from_subnet(p: Subtensor, netuid: int, to: bytes, tao: int) -> None:
    """Move TAO from the subnet's account. Raises InsufficientTaoBalance."""
    transfer_tao(p, staking.subnet_account(p, netuid), to, tao)


def recycle_tao(p: Subtensor, who: bytes, tao: int) -> None:
    """Destroy TAO: it can be issued again. The existential deposit stays. Raises InsufficientTaoBalance."""
    if p.rt.balances.reducible(who, keep_alive=True) < tao:
        raise p.error("InsufficientTaoBalance")
    p.TotalIssuance.put(p.TotalIssuance.get() - tao)
    p.rt.balances.burn(who, tao)
    p.rt.balances.emit("Withdraw", who=who, amount=tao)


def burn_fee(p: Subtensor, netuid: int, tao: int) -> None:
    """A swap fee that no author claims. A fee too small to open the burn account stays where it is, as on chain."""
    target = staking.burn_account(p)
    if tao and p.rt.balances.free(target) + tao >= EXISTENTIAL_DEPOSIT:
        pay_from_subnet(p, netuid, target, tao)


def _record_flow(p: Subtensor, netuid: int, tao: int) -> None:
    p.SubnetTaoFlow[netuid] = p.SubnetTaoFlow[netuid] + tao


def ensure_available(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int) -> None:
    """Alpha that is locked, or the hotkey's own collateral, cannot leave a position. Raises StakeUnavailable."""
    locks.ensure_available(p, coldkey, netuid, alpha)
    collateral.ensure_position_covered(p, coldkey, hotkey, netuid, alpha)


# -- in and out -----------------------------------------------------------------------------------------------------


def stake_into_subnet(
    p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int, tao: int, limit: int | None = None, with_fee: bool = True
) -> int:
    """Buy and credit. Returns the alpha. Raises AmountTooLow, InsufficientLiquidity, InsufficientTaoBalance."""
    if netuid == staking.ROOT:
        baskets.before_root_change(p, hotkey)
    paid = pay_subnet(p, netuid, coldkey, tao)
    swap = staking.swap_tao_for_alpha(p, netuid, paid, limit, with_fee)
    if not swap.paid_out:
        raise p.error("AmountTooLow")
    if not staking.can_credit(p, hotkey, netuid, swap.paid_out):
        raise p.error("InsufficientLiquidity")
    staking.increase_stake(p, hotkey, coldkey, netuid, swap.paid_out)
    if netuid == staking.ROOT:
        baskets.after_root_change(p, hotkey, coldkey, swap.paid_out)
    burn_fee(p, netuid, swap.fee)
    unspent = paid - swap.paid_in - swap.fee
    if unspent:
        pay_from_subnet(p, netuid, coldkey, unspent)
    _record_flow(p, netuid, swap.paid_in)
    locks.touch(p, coldkey, netuid)
    p.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] = p.rt.number
    p.emit("StakeAdded", coldkey, hotkey, paid, swap.paid_out, netuid, swap.fee)
    return swap.paid_out


def unstake_from_subnet(
    p: Subtensor,
    hotkey: bytes,
    coldkey: bytes,
    netuid: int,
    alpha: int,
    limit: int | None = None,
    with_fee: bool = True,
    beneficiary: bytes | None = None,
) -> int:
    """Sell and pay out (to the coldkey unless said otherwise); what the limit price does not let through goes back to
    the position. Returns the TAO."""
    ensure_available(p, coldkey, hotkey, netuid, alpha)
    if netuid == staking.ROOT:
        baskets.before_root_change(p, hotkey)
    staking.decrease_stake(p, hotkey, coldkey, netuid, alpha)
    swap = staking.swap_alpha_for_tao(p, netuid, alpha, limit, with_fee)
    staking.increase_stake(p, hotkey, coldkey, netuid, alpha - swap.paid_in - swap.fee)
    if netuid == staking.ROOT:
        baskets.after_root_change(p, hotkey, coldkey, -swap.paid_in)
    pay_from_subnet(p, netuid, coldkey if beneficiary is None else beneficiary, swap.paid_out)
    staking.forget_hotkey(p, hotkey, coldkey)
    p.rt.alpha_assets.burn(netuid, swap.fee)
    _record_flow(p, netuid, -swap.paid_out)
    locks.touch(p, coldkey, netuid)
    p.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] = p.rt.number
    p.emit("StakeRemoved", coldkey, hotkey, swap.paid_out, swap.paid_in, netuid, swap.fee)
    return swap.paid_out


def move_within_subnet(
    p: Subtensor, source: tuple[bytes, bytes], target: tuple[bytes, bytes], netuid: int, alpha: int
) -> int:
    """Hand shares from one (coldkey, hotkey) to another without a trade or a fee. Returns the alpha's value in rao.

    Raises AmountTooLow when that value is below the minimum transfer.
    """
    (from_coldkey, from_hotkey), (to_coldkey, to_hotkey) = source, target
    locks.transfer(p, from_coldkey, to_coldkey, to_hotkey, netuid, alpha)
    if netuid == staking.ROOT:
        baskets.before_root_change(p, from_hotkey, to_hotkey)
    staking.decrease_stake(p, from_hotkey, from_coldkey, netuid, alpha)
    if not staking.owns(p, to_coldkey, to_hotkey):
        staking.become_delegate(p, to_hotkey)
    staking.increase_stake(p, to_hotkey, to_coldkey, netuid, alpha)
    if netuid == staking.ROOT:
        baskets.after_root_change(p, from_hotkey, from_coldkey, -alpha)
        baskets.after_root_change(p, to_hotkey, to_coldkey, alpha)
    value = to_u64(alpha * staking.spot_price(p, netuid), 64)
    if value < min_transfer(p):
        raise p.error("AmountTooLow")
    staking.forget_hotkey(p, from_hotkey, from_coldkey)
    p.LastColdkeyHotkeyStakeBlock[to_coldkey, to_hotkey] = p.rt.number  # root stake starts to age anew
    p.emit("StakeRemoved", from_coldkey, from_hotkey, value, alpha, netuid, 0)
    p.emit("StakeAdded", to_coldkey, to_hotkey, value, alpha, netuid, 0)
    return value


def clear_small_nomination(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> None:
    """Pay out a nomination that fell below the minimum; owners and baskets may hold as little as they like."""
    if staking.owns(p, coldkey, hotkey) or coldkey == basket_values.escrow_account(p):
        return
    alpha = staking.stake_of(p, hotkey, coldkey, netuid)
    least = to_u64(div64(min_nomination(p) << 64, staking.spot_price(p, netuid)), 64)
    if not 0 < alpha < least:
        return
    try:
        with p.rt.transaction():
            unstake_from_subnet(p, hotkey, coldkey, netuid, alpha)
    except DispatchError:  # too little for the market: the position is deleted unpaid, as on chain
        staking.decrease_stake(p, hotkey, coldkey, netuid, staking.stake_of(p, hotkey, coldkey, netuid))
    locks.force_reduce(p, coldkey, netuid, alpha)
