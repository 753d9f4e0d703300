"""Calls that stake and unstake: add_stake, remove_stake and their variants.

    plain       any price; the whole amount or an error
    _limit      stops at a price (TAO per alpha times 1e9); without `allow_partial` the whole amount or SlippageTooHigh
    _full_limit, unstake_all, unstake_all_alpha    whole positions

Checks come in the chain's order: the first broken rule names the error. Positions change in `positions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import swap as market
from localnet.rules.errors import SwapError
from localnet.rules.fixed import U64_MAX, sub_floor0
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import positions, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

RAO_PER_TAO = 1_000_000_000  # the price of one to one, as limits are written


# -- checks ---------------------------------------------------------------------------------------------------------


def ensure_subtoken(p: Subtensor, netuid: int) -> None:
    if not p.SubtokenEnabled[netuid]:
        raise p.error("SubtokenDisabled")


def ensure_subnet(p: Subtensor, netuid: int) -> None:
    if not p.NetworksAdded[netuid]:
        raise p.error("SubnetNotExists")


def _ensure_input(p: Subtensor, netuid: int, amount: int, reserve: int) -> None:
    """Root and stable subnets take any amount; a market up to 1000 times its reserve of the asset."""
    if not staking.is_stable(p, netuid) and amount > reserve * market.MAX_INPUT_MULTIPLE:
        raise p.error("InsufficientLiquidity")


def max_add(p: Subtensor, netuid: int, limit: int) -> int:
    """Most TAO, fee included, that can be spent up to the limit price. Raises the Swap pallet's errors."""
    if staking.is_stable(p, netuid):
        return U64_MAX if limit >= RAO_PER_TAO else 0
    try:
        return market.max_buy(staking.pool_of(p, netuid), limit, staking.fee_rate(p, netuid))
    except SwapError as error:
        raise p.rt.swap.error(error.name) from error


def max_remove(p: Subtensor, netuid: int, limit: int) -> int:
    """Most alpha, fee included, that can be sold down to the limit price. Raises the Swap pallet's errors."""
    if staking.is_stable(p, netuid):
        return U64_MAX if limit <= RAO_PER_TAO else 0
    try:
        return market.max_sell(staking.pool_of(p, netuid), limit, staking.fee_rate(p, netuid))
    except SwapError as error:
        raise p.rt.swap.error(error.name) from error


def _least_to_add(p: Subtensor, netuid: int) -> int:
    """The minimum stake with the fee it would pay."""
    least = positions.min_stake(p)
    try:
        return least + staking.simulate_buy(p, netuid, least).fee
    except SwapError:  # a pool that cannot trade: the chain falls back to the fee rate alone
        return least + market.fee_amount(least, staking.fee_rate(p, netuid))


def _check_add(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, tao: int, most: int, partial: bool) -> None:
    ensure_subnet(p, netuid)
    ensure_subtoken(p, netuid)
    if tao < _least_to_add(p, netuid):
        raise p.error("AmountTooLow")
    if not partial and tao > most:
        raise p.error("SlippageTooHigh")
    tao = min(tao, most)
    if p.rt.balances.reducible(coldkey, keep_alive=False) < tao:
        raise p.error("NotEnoughBalanceToStake")
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    try:
        swap = staking.simulate_buy(p, netuid, tao)
    except SwapError as error:
        raise p.error("InsufficientLiquidity") from error
    if swap.paid_in < positions.min_stake(p):
        raise p.error("AmountTooLow")
    if not swap.paid_out or not staking.can_credit(p, hotkey, netuid, swap.paid_out):
        raise p.error("InsufficientLiquidity")


def _check_remove(
    p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int, most: int, partial: bool
) -> None:
    ensure_subnet(p, netuid)
    if not alpha:
        raise p.error("AmountTooLow")
    held = staking.stake_of(p, hotkey, coldkey, netuid)
    if held < alpha:
        raise p.error("NotEnoughStakeToWithdraw")
    try:
        swap = staking.simulate_sell(p, netuid, alpha)
    except SwapError as error:
        raise p.error("InsufficientLiquidity") from error
    if held != alpha and swap.paid_out < positions.min_stake(p):
        raise p.error("AmountTooLow")
    if not partial and alpha > most:
        raise p.error("SlippageTooHigh")
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    positions.ensure_available(p, coldkey, hotkey, netuid, alpha)
    ensure_root_unlocked(p, coldkey, hotkey, netuid)


def ensure_root_unlocked(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int) -> None:
    """Root stake may have to age first (RootStakeUnlockInterval blocks, 0 = no hold). Raises RootStakeLocked."""
    interval = p.RootStakeUnlockInterval.get()
    last = p.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] or 0
    if netuid == staking.ROOT and interval and sub_floor0(p.rt.number, last) < interval:
        raise p.error("RootStakeLocked")


# -- add ------------------------------------------------------------------------------------------------------------


def ensure_can_add(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, tao: int) -> None:
    """Raises what add_stake raises before it moves anything."""
    _ensure_input(p, netuid, tao, p.SubnetTAO[netuid])
    _check_add(p, coldkey, hotkey, netuid, tao, tao, False)


def add(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, tao: int) -> int:
    """add_stake without the origin. Returns the alpha."""
    ensure_can_add(p, coldkey, hotkey, netuid, tao)
    return positions.stake_into_subnet(p, hotkey, coldkey, netuid, tao)


def add_up_to(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, tao: int, limit: int, partial: bool) -> int:
    """add_stake_limit without the origin. Returns the alpha."""
    _ensure_input(p, netuid, tao, p.SubnetTAO[netuid])
    most = max_add(p, netuid, limit)
    _check_add(p, coldkey, hotkey, netuid, tao, most, partial)
    if not staking.owns(p, coldkey, hotkey):
        staking.become_delegate(p, hotkey)
    return positions.stake_into_subnet(p, hotkey, coldkey, netuid, min(tao, most), limit)


@call(ref_time=340_000_000)
def add_stake(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, amount_staked: int) -> None:
    add(p, ensure_signed(origin), hotkey, netuid, amount_staked)


@call(ref_time=400_000_000)
def add_stake_limit(
    p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, amount_staked: int, limit_price: int, allow_partial: bool
) -> None:
    add_up_to(p, ensure_signed(origin), hotkey, netuid, amount_staked, limit_price, allow_partial)


# -- remove ---------------------------------------------------------------------------------------------------------


def _after_removal(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> None:
    """Small change is paid out; a parent has to show that it still has the stake for it."""
    positions.clear_small_nomination(p, hotkey, coldkey, netuid)
    staking.queue_parent_check(p, hotkey)


def remove(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int) -> None:
    """remove_stake without the origin. The amount is cut to the position first."""
    ensure_subtoken(p, netuid)
    alpha = min(alpha, staking.stake_of(p, hotkey, coldkey, netuid))
    _ensure_input(p, netuid, alpha, p.SubnetAlphaIn[netuid])
    _check_remove(p, coldkey, hotkey, netuid, alpha, alpha, False)
    positions.unstake_from_subnet(p, hotkey, coldkey, netuid, alpha)
    _after_removal(p, hotkey, coldkey, netuid)


def remove_down_to(
    p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, alpha: int, limit: int, partial: bool
) -> None:
    """remove_stake_limit without the origin. Unlike the plain form it takes the amount as given."""
    _ensure_input(p, netuid, alpha, p.SubnetAlphaIn[netuid])
    most = max_remove(p, netuid, limit)
    _check_remove(p, coldkey, hotkey, netuid, alpha, most, partial)
    positions.unstake_from_subnet(p, hotkey, coldkey, netuid, min(alpha, most), limit)
    _after_removal(p, hotkey, coldkey, netuid)


@call(ref_time=200_000_000)
def remove_stake(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, amount_unstaked: int) -> None:
    remove(p, ensure_signed(origin), hotkey, netuid, amount_unstaked)


@call(ref_time=430_000_000)
def remove_stake_limit(
    p: Subtensor,
    origin: Origin,
    hotkey: bytes,
    netuid: int,
    amount_unstaked: int,
    limit_price: int,
    allow_partial: bool,
) -> None:
    remove_down_to(p, ensure_signed(origin), hotkey, netuid, amount_unstaked, limit_price, allow_partial)


@call(ref_time=430_000_000)
def remove_stake_full_limit(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, limit_price: int | None) -> None:
    coldkey = ensure_signed(origin)
    alpha = staking.stake_of(p, hotkey, coldkey, netuid)
    if limit_price is None:
        remove(p, coldkey, hotkey, netuid, alpha)
    else:
        remove_down_to(p, coldkey, hotkey, netuid, alpha, limit_price, False)


# -- everything -----------------------------------------------------------------------------------------------------


def _sell_everywhere(p: Subtensor, coldkey: bytes, hotkey: bytes, *, with_root: bool) -> int:
    """Sell each position of the pair that may be sold, and leave the others. Returns the TAO."""
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    total = 0
    for netuid in sorted(p.NetworksAdded.keys()):
        if not p.SubtokenEnabled[netuid] or (netuid == staking.ROOT and not with_root):
            continue
        alpha = staking.stake_of(p, hotkey, coldkey, netuid)
        try:
            _check_remove(p, coldkey, hotkey, netuid, alpha, alpha, False)
        except DispatchError:  # this position cannot be sold now; the call is about all that can
            continue
        total += positions.unstake_from_subnet(p, hotkey, coldkey, netuid, alpha)
        _after_removal(p, hotkey, coldkey, netuid)
    return total


@call(ref_time=280_000_000)
def unstake_all(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    _sell_everywhere(p, ensure_signed(origin), hotkey, with_root=True)


@call(ref_time=550_000_000)
def unstake_all_alpha(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    """Everything but root is sold, and the TAO staked on root."""
    coldkey = ensure_signed(origin)
    total = _sell_everywhere(p, coldkey, hotkey, with_root=False)
    positions.stake_into_subnet(p, hotkey, coldkey, staking.ROOT, total)
