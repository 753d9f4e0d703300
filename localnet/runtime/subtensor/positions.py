"""Positions: staking and unstaking as one step, money, market, shares and events together.

    stake_into_subnet       TAO from the coldkey to the subnet, bought, credited
    unstake_from_subnet     alpha debited, sold, TAO to the coldkey
    move_within_subnet      shares change hands, nothing is traded
    clear_small_nomination  what is left of a nomination below the minimum is paid out

The checks of the calls come before (`stake_calls`, `stake_moves`). A swap fee goes to the block's author, alpha sold
without a fee first. In a block without author it is burned: TAO moves to the burn account, alpha stays outstanding.
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
    p.TotalIssuance.put(max(p.TotalIssuance.get() - tao, 0))  # its own count: it may know of less
    p.rt.balances.burn(who, tao)
    p.rt.balances.emit("Withdraw", who=who, amount=tao)


def settle_tao_fee(p: Subtensor, netuid: int, tao: int) -> None:
    """Place a buy's swap fee, which lies on the subnet's account. Without author, a fee too small to open the burn
    account stays there, as on chain."""
    author, burned = p.rt.aura.author(), staking.burn_account(p)
    if author is not None:
        pay_from_subnet(p, netuid, author, tao)
    elif tao and p.rt.balances.free(burned) + tao >= EXISTENTIAL_DEPOSIT:
        pay_from_subnet(p, netuid, burned, tao)


def settle_alpha_fee(p: Subtensor, netuid: int, alpha: int) -> int:
    """Place a sale's swap fee. Returns the TAO that left the pool for it."""
    author = p.rt.aura.author()
    if author is None:
        p.rt.alpha_assets.burn(netuid, alpha)
        return 0
    tao = staking.swap_alpha_for_tao(p, netuid, alpha, with_fee=False).paid_out if alpha else 0
    pay_from_subnet(p, netuid, author, tao)
    return tao


def _touch_root(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int) -> None:
    """Root stake that changes starts to age anew (RootStakeUnlockInterval)."""
    if netuid == staking.ROOT:
        p.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] = p.rt.number


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
    settle_tao_fee(p, netuid, swap.fee)
    unspent = paid - swap.paid_in - swap.fee
    if unspent:
        pay_from_subnet(p, netuid, coldkey, unspent)
    _record_flow(p, netuid, swap.paid_in)
    locks.touch(p, coldkey, netuid)
    _touch_root(p, coldkey, hotkey, netuid)
    if hotkey in p.ChildkeyThresholdSuspended:
        staking.queue_parent_check(p, hotkey)
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
    _record_flow(p, netuid, -swap.paid_out - settle_alpha_fee(p, netuid, swap.fee))
    locks.touch(p, coldkey, netuid)
    _touch_root(p, coldkey, hotkey, netuid)
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
    _touch_root(p, to_coldkey, to_hotkey, netuid)
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
