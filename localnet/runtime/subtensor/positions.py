"""Positions: staking and unstaking as one step, money, market, shares and events together.

    stake_into_subnet       TAO from the coldkey to the subnet, bought, credited
    unstake_from_subnet     alpha debited, sold, TAO to the coldkey
    move_within_subnet      shares change hands, nothing is traded
    clear_small_nomination  what is left of a nomination below the minimum is paid out

The checks of the calls come before (`stake_calls`, `stake_moves`). A swap fee goes to the block's author on chains that
know one; the local chain does not, so the fee is burned: TAO moves to the burn account, alpha stays out of circulation.
Conviction locks have no calls here; a lock written into the state by hand stops an unstake with an error that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules.errors import RuleError
from localnet.rules.fixed import div64, to_u64
from localnet.runtime.pallets.balances import EXISTENTIAL_DEPOSIT
from localnet.runtime.subtensor import staking

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


def pay_from_subnet(p: Subtensor, netuid: int, to: bytes, tao: int) -> None:
    """Move TAO from the subnet's account. Raises InsufficientTaoBalance."""
    account = staking.subnet_account(p, netuid)
    if p.rt.balances.reducible(account, keep_alive=False) < tao:
        raise p.error("InsufficientTaoBalance")
    p.rt.balances.transfer(account, to, tao, keep_alive=False)


def burn_fee(p: Subtensor, netuid: int, tao: int) -> None:
    """A swap fee that no author claims. A fee too small to open the burn account stays where it is, as on chain."""
    target = staking.burn_account(p)
    if tao and p.rt.balances.free(target) + tao >= EXISTENTIAL_DEPOSIT:
        pay_from_subnet(p, netuid, target, tao)


def _record_flow(p: Subtensor, netuid: int, tao: int) -> None:
    p.SubnetTaoFlow[netuid] = p.SubnetTaoFlow[netuid] + tao


def ensure_available(p: Subtensor, coldkey: bytes, netuid: int, alpha: int) -> None:
    """Locked alpha cannot leave a subnet. Raises StakeUnavailable; RuleError when there is a lock at all."""
    if next(iter(p.Lock.keys(coldkey, netuid)), None) is not None:
        raise RuleError("the coldkey has a conviction lock; this runtime does not compute how locks decay")
    held = sum(staking.stake_of(p, hotkey, coldkey, netuid) for hotkey in p.StakingHotkeys[coldkey])
    if held < alpha:
        raise p.error("StakeUnavailable")


# -- in and out -----------------------------------------------------------------------------------------------------


def stake_into_subnet(
    p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int, tao: int, limit: int | None = None, with_fee: bool = True
) -> int:
    """Buy and credit. Returns the alpha. Raises AmountTooLow, InsufficientLiquidity, InsufficientTaoBalance."""
    paid = pay_subnet(p, netuid, coldkey, tao)
    swap = staking.swap_tao_for_alpha(p, netuid, paid, limit, with_fee)
    if not swap.paid_out:
        raise p.error("AmountTooLow")
    if not staking.can_credit(p, hotkey, netuid, swap.paid_out):
        raise p.error("InsufficientLiquidity")
    staking.increase_stake(p, hotkey, coldkey, netuid, swap.paid_out)
    burn_fee(p, netuid, swap.fee)
    unspent = paid - swap.paid_in - swap.fee
    if unspent:
        pay_from_subnet(p, netuid, coldkey, unspent)
    _record_flow(p, netuid, swap.paid_in)
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
) -> int:
    """Sell and pay out; what the limit price does not let through goes back to the position. Returns the TAO."""
    staking.decrease_stake(p, hotkey, coldkey, netuid, alpha)
    swap = staking.swap_alpha_for_tao(p, netuid, alpha, limit, with_fee)
    staking.increase_stake(p, hotkey, coldkey, netuid, alpha - swap.paid_in - swap.fee)
    pay_from_subnet(p, netuid, coldkey, swap.paid_out)
    staking.forget_hotkey(p, hotkey, coldkey)
    _record_flow(p, netuid, -swap.paid_out)
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
    staking.decrease_stake(p, from_hotkey, from_coldkey, netuid, alpha)
    if not staking.owns(p, to_coldkey, to_hotkey):
        staking.become_delegate(p, to_hotkey)
    staking.increase_stake(p, to_hotkey, to_coldkey, netuid, alpha)
    value = to_u64(alpha * staking.spot_price(p, netuid), 64)
    if value < min_transfer(p):
        raise p.error("AmountTooLow")
    staking.forget_hotkey(p, from_hotkey, from_coldkey)
    p.LastColdkeyHotkeyStakeBlock[to_coldkey, to_hotkey] = p.rt.number  # root stake starts to age anew
    p.emit("StakeRemoved", from_coldkey, from_hotkey, value, alpha, netuid, 0)
    p.emit("StakeAdded", to_coldkey, to_hotkey, value, alpha, netuid, 0)
    return value


def clear_small_nomination(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> None:
    """Pay out a nomination that fell below the minimum; owners may hold as little as they like."""
    if staking.owns(p, coldkey, hotkey):
        return
    alpha = staking.stake_of(p, hotkey, coldkey, netuid)
    least = to_u64(div64(min_nomination(p) << 64, staking.spot_price(p, netuid)), 64)
    if not 0 < alpha < least:
        return
    p.rt.state.begin()
    mark = len(p.rt.events)
    try:
        unstake_from_subnet(p, hotkey, coldkey, netuid, alpha)
    except DispatchError:  # too little for the market: the position is deleted unpaid, as on chain
        p.rt.state.rollback()
        del p.rt.events[mark:]
        staking.decrease_stake(p, hotkey, coldkey, netuid, staking.stake_of(p, hotkey, coldkey, netuid))
    else:
        p.rt.state.commit()
