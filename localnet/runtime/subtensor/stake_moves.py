"""Calls that carry stake elsewhere without the holder asking for TAO, or out of existence.

    move_stake, transfer_stake, swap_stake (and the _limit forms), transfer_stake_and_hotkey    one `Transition`
    recycle_alpha, burn_alpha, add_stake_burn                        alpha that leaves its holder for good
    set_coldkey_auto_stake_hotkey                                    where a miner's incentive is staked

Between subnets the alpha is sold and the TAO buys again; the fee is charged once, on the origin leg, or on the
destination leg when the origin is root. Within a subnet only shares change hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localnet.rules.errors import SwapError
from localnet.rules.fixed import U64_MAX, div64, mul64, sub_floor0, to_u64
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import collateral, locks, positions, stake_calls, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


@dataclass(frozen=True)
class Transition:
    """From one position to another. `transfer`: the toggles and the minimum of transfers apply."""

    from_coldkey: bytes
    to_coldkey: bytes
    from_hotkey: bytes
    to_hotkey: bytes
    from_netuid: int
    to_netuid: int
    transfer: bool = False

    @property
    def crosses(self) -> bool:
        return self.from_netuid != self.to_netuid

    @property
    def same_owner(self) -> bool:
        return self.from_coldkey == self.to_coldkey and self.from_hotkey == self.to_hotkey


def max_move(p: Subtensor, origin: int, destination: int, limit: int) -> int:
    """Most alpha that can move before origin price / destination price (times 1e9) falls to `limit`."""
    origin_stable, destination_stable = staking.is_stable(p, origin), staking.is_stable(p, destination)
    if origin_stable and destination_stable:
        return 0 if limit > stake_calls.RAO_PER_TAO else U64_MAX
    if origin_stable:
        if not limit:
            return U64_MAX
        inverse = div64(stake_calls.RAO_PER_TAO << 64, limit << 64) * stake_calls.RAO_PER_TAO
        return stake_calls.max_add(p, destination, to_u64(inverse, 64))
    if destination_stable:
        return stake_calls.max_remove(p, origin, limit)
    return _max_between_markets(p, origin, destination, limit)


def _max_between_markets(p: Subtensor, origin: int, destination: int, limit: int) -> int:
    """alpha_2 * t1/(t1+t2) / limit - alpha_1 * t2/(t1+t2), from the reserves of both (constant-product form)."""
    tao_1, tao_2 = p.SubnetTAO[origin], p.SubnetTAO[destination]
    alpha_1, alpha_2 = p.SubnetAlphaIn[origin], p.SubnetAlphaIn[destination]
    if not (tao_1 and tao_2 and alpha_1 and alpha_2):
        return 0
    bound = div64(limit << 64, stake_calls.RAO_PER_TAO << 64)
    if bound > div64(staking.spot_price(p, origin), staking.spot_price(p, destination)):
        return 0
    if not limit:
        return U64_MAX
    total = (tao_1 + tao_2) << 64
    gained = div64(mul64(alpha_2 << 64, div64(tao_1 << 64, total)), bound)
    return to_u64(sub_floor0(gained, mul64(alpha_1 << 64, div64(tao_2 << 64, total))), 64)


# -- checks ---------------------------------------------------------------------------------------------------------


def _check(p: Subtensor, t: Transition, alpha: int, most: int, partial: bool) -> None:
    if t.same_owner and not t.crosses:
        raise p.error("SameNetuid")
    for netuid in (t.from_netuid, t.to_netuid):
        stake_calls.ensure_subnet(p, netuid)
    for netuid in (t.from_netuid, t.to_netuid):
        stake_calls.ensure_subtoken(p, netuid)
    for hotkey in (t.from_hotkey, t.to_hotkey):
        if not staking.hotkey_exists(p, hotkey):
            raise p.error("HotKeyAccountNotExists")
    if t.crosses:
        _check_amount(p, t, alpha, most, partial)
    if t.transfer:
        for netuid in (t.from_netuid, t.to_netuid):
            if not p.TransferToggle[netuid]:
                raise p.error("TransferDisallowed")
    if t.crosses:
        locks.ensure_available(p, t.from_coldkey, t.from_netuid, alpha)
    elif t.from_coldkey != t.to_coldkey:  # locks go along, collateral does not
        collateral.ensure_transfer_covered(p, t.from_coldkey, t.from_netuid, alpha)
    collateral.ensure_position_covered(p, t.from_coldkey, t.from_hotkey, t.from_netuid, alpha)
    stake_calls.ensure_root_unlocked(p, t.from_coldkey, t.from_hotkey, t.from_netuid)


def _check_amount(p: Subtensor, t: Transition, alpha: int, most: int, partial: bool) -> None:
    try:
        value = staking.simulate_sell(p, t.from_netuid, alpha).paid_out
    except SwapError as error:
        raise p.error("InsufficientLiquidity") from error
    if value <= (positions.min_transfer(p) if t.transfer else positions.min_stake(p)):
        raise p.error("AmountTooLow")
    if not partial and alpha > most:
        raise p.error("SlippageTooHigh")


# -- moving ---------------------------------------------------------------------------------------------------------


def _move(p: Subtensor, t: Transition, alpha: int, limit: int | None = None, partial: bool = False) -> int:
    """Check and carry out. The amount is cut to the position first. Returns the TAO that passed between the legs."""
    alpha = min(alpha, staking.stake_of(p, t.from_hotkey, t.from_coldkey, t.from_netuid))
    most = alpha if limit is None or not t.crosses else max_move(p, t.from_netuid, t.to_netuid, limit)
    _check(p, t, alpha, most, partial)
    staking.queue_parent_check(p, t.from_hotkey)
    if t.crosses:
        return _cross(p, t, min(alpha, most))
    source, target = (t.from_coldkey, t.from_hotkey), (t.to_coldkey, t.to_hotkey)
    return positions.move_within_subnet(p, source, target, t.from_netuid, alpha)


def _cross(p: Subtensor, t: Transition, alpha: int) -> int:
    fee_at_origin = t.from_netuid != staking.ROOT
    tao = positions.unstake_from_subnet(p, t.from_hotkey, t.from_coldkey, t.from_netuid, alpha, with_fee=fee_at_origin)
    if t.from_coldkey != t.to_coldkey:
        p.rt.balances.transfer(t.from_coldkey, t.to_coldkey, tao, keep_alive=False)
    if tao >= positions.min_stake(p):  # less stays with the coldkey as TAO
        if not staking.owns(p, t.to_coldkey, t.to_hotkey):
            staking.become_delegate(p, t.to_hotkey)
        positions.stake_into_subnet(p, t.to_hotkey, t.to_coldkey, t.to_netuid, tao, with_fee=not fee_at_origin)
    return tao


@call(ref_time=480_000_000)
def move_stake(
    p: Subtensor,
    origin: Origin,
    origin_hotkey: bytes,
    destination_hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    alpha_amount: int,
) -> None:
    who = ensure_signed(origin)
    t = Transition(who, who, origin_hotkey, destination_hotkey, origin_netuid, destination_netuid)
    tao = _move(p, t, alpha_amount)
    p.emit("StakeMoved", who, origin_hotkey, origin_netuid, destination_hotkey, destination_netuid, tao)


@call(ref_time=480_000_000)
def move_stake_limit(
    p: Subtensor,
    origin: Origin,
    origin_hotkey: bytes,
    destination_hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    alpha_amount: int,
    limit_price: int,
    allow_partial: bool,
) -> None:
    who = ensure_signed(origin)
    t = Transition(who, who, origin_hotkey, destination_hotkey, origin_netuid, destination_netuid)
    tao = _move(p, t, alpha_amount, limit_price, allow_partial)
    p.emit("StakeMoved", who, origin_hotkey, origin_netuid, destination_hotkey, destination_netuid, tao)


@call(ref_time=480_000_000)
def transfer_stake(
    p: Subtensor,
    origin: Origin,
    destination_coldkey: bytes,
    hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    alpha_amount: int,
) -> None:
    who = ensure_signed(origin)
    t = Transition(who, destination_coldkey, hotkey, hotkey, origin_netuid, destination_netuid, transfer=True)
    tao = _move(p, t, alpha_amount)
    p.emit("StakeTransferred", who, destination_coldkey, hotkey, origin_netuid, destination_netuid, tao)


@call(ref_time=480_000_000)
def transfer_stake_and_hotkey(
    p: Subtensor,
    origin: Origin,
    destination_coldkey: bytes,
    origin_hotkey: bytes,
    destination_hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    alpha_amount: int,
) -> None:
    """A transfer that also lands on another hotkey."""
    who = ensure_signed(origin)
    t = Transition(
        who, destination_coldkey, origin_hotkey, destination_hotkey, origin_netuid, destination_netuid, transfer=True
    )
    p.emit(
        "StakeAndHotkeyTransferred",
        origin_coldkey=who,
        destination_coldkey=destination_coldkey,
        origin_hotkey=origin_hotkey,
        destination_hotkey=destination_hotkey,
        origin_netuid=origin_netuid,
        destination_netuid=destination_netuid,
        amount=_move(p, t, alpha_amount),
    )


@call(ref_time=480_000_000)
def swap_stake(
    p: Subtensor, origin: Origin, hotkey: bytes, origin_netuid: int, destination_netuid: int, alpha_amount: int
) -> None:
    who = ensure_signed(origin)
    tao = _move(p, Transition(who, who, hotkey, hotkey, origin_netuid, destination_netuid), alpha_amount)
    p.emit("StakeSwapped", who, hotkey, origin_netuid, destination_netuid, tao)


@call(ref_time=480_000_000)
def swap_stake_limit(
    p: Subtensor,
    origin: Origin,
    hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    alpha_amount: int,
    limit_price: int,
    allow_partial: bool,
) -> None:
    who = ensure_signed(origin)
    t = Transition(who, who, hotkey, hotkey, origin_netuid, destination_netuid)
    tao = _move(p, t, alpha_amount, limit_price, allow_partial)
    p.emit("StakeSwapped", who, hotkey, origin_netuid, destination_netuid, tao)


# -- destroying -----------------------------------------------------------------------------------------------------


def _take_out(p: Subtensor, coldkey: bytes, hotkey: bytes, amount: int, netuid: int) -> int:
    """Debit at most `amount` after the checks of recycle and burn. Returns how much it was."""
    stake_calls.ensure_subnet(p, netuid)
    if netuid == staking.ROOT:
        raise p.error("CannotBurnOrRecycleOnRootSubnet")
    stake_calls.ensure_subtoken(p, netuid)
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    amount = min(amount, staking.stake_of(p, hotkey, coldkey, netuid))
    if p.SubnetAlphaOut[netuid] < amount:
        raise p.error("InsufficientLiquidity")
    positions.ensure_available(p, coldkey, hotkey, netuid, amount)
    staking.decrease_stake(p, hotkey, coldkey, netuid, amount)
    staking.forget_hotkey(p, hotkey, coldkey)
    staking.queue_parent_check(p, hotkey)
    return amount


@call(ref_time=110_000_000)
def recycle_alpha(p: Subtensor, origin: Origin, hotkey: bytes, amount: int, netuid: int) -> None:
    """The alpha can be issued again: SubnetAlphaOut falls."""
    coldkey = ensure_signed(origin)
    amount = _take_out(p, coldkey, hotkey, amount, netuid)
    p.rt.alpha_assets.recycle(netuid, amount)
    p.emit("AlphaRecycled", coldkey, hotkey, amount, netuid)


def _burn(p: Subtensor, coldkey: bytes, hotkey: bytes, amount: int, netuid: int) -> None:
    amount = _take_out(p, coldkey, hotkey, amount, netuid)
    p.rt.alpha_assets.burn(netuid, amount)
    p.emit("AlphaBurned", coldkey, hotkey, amount, netuid)


@call(ref_time=110_000_000)
def burn_alpha(p: Subtensor, origin: Origin, hotkey: bytes, amount: int, netuid: int) -> None:
    """The alpha is gone but still counts as issued."""
    _burn(p, ensure_signed(origin), hotkey, amount, netuid)


@call(ref_time=370_000_000)
def add_stake_burn(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, amount: int, limit: int | None) -> None:
    """Buy and burn in one step. With a limit price: the whole amount or nothing."""
    coldkey = ensure_signed(origin)
    if limit is None:
        alpha = stake_calls.add(p, coldkey, hotkey, netuid, amount)
    else:
        alpha = stake_calls.add_up_to(p, coldkey, hotkey, netuid, amount, limit, False)
    _burn(p, coldkey, hotkey, alpha, netuid)
    p.emit("AddStakeBurn", netuid=netuid, hotkey=hotkey, amount=amount, alpha=alpha)


# -- auto-stake -----------------------------------------------------------------------------------------------------


@call(ref_time=30_000_000)
def set_coldkey_auto_stake_hotkey(p: Subtensor, origin: Origin, netuid: int, hotkey: bytes) -> None:
    coldkey = ensure_signed(origin)
    stake_calls.ensure_subnet(p, netuid)
    if p.Uids[netuid, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    before = p.AutoStakeDestination[coldkey, netuid]
    if before == hotkey:
        raise p.error("SameAutoStakeHotkeyAlreadySet")
    if before is not None:
        left = [known for known in p.AutoStakeDestinationColdkeys[before, netuid] if known != coldkey]
        p.AutoStakeDestinationColdkeys[before, netuid] = left
    p.AutoStakeDestination[coldkey, netuid] = hotkey
    known = p.AutoStakeDestinationColdkeys[hotkey, netuid]
    if coldkey not in known:
        p.AutoStakeDestinationColdkeys[hotkey, netuid] = [*known, coldkey]
    p.emit("AutoStakeDestinationSet", coldkey=coldkey, netuid=netuid, hotkey=hotkey)
