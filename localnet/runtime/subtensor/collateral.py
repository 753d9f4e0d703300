"""Miner collateral: alpha locked on a (hotkey, coldkey) position of a subnet, which only payouts set free again.

    charge, pay            a registration's price, paid in one swap, part of it burned and part of it locked
    settle                 a payout to the hotkey: drains the lock, or fills it up to the miner's floor
    ensure_*               what is locked cannot be unstaked, moved or transferred
    add_collateral, set_min_collateral    the miner's calls
    move_to_hotkey, move_to_coldkey       the lock follows a swapped key

A lock outlives its uid: a miner who was pruned pays less at its next registration. Where nobody locked anything the
rest of the chain pays one look at an empty prefix for it. The arithmetic is `localnet.rules.collateral`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.rules import collateral as rules
from localnet.rules.collateral import Charge, Collateral
from localnet.rules.fixed import U64F64, sub_floor0
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import locks, positions, stake_calls, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


# -- records --------------------------------------------------------------------------------------------------------


def record_of(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes) -> Collateral | None:
    stored = p.MinerCollateral[netuid, hotkey, coldkey]
    if stored is None:
        return None
    return Collateral(stored["locked"], stored["drain_ratio"]["bits"], stored["min_locked"], stored["earned"])


def locked(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes) -> int:
    """Alpha locked on one position."""
    record = record_of(p, netuid, hotkey, coldkey)
    return 0 if record is None else record.locked


def free_alpha(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes) -> int:
    """Alpha of one position that its collateral does not need."""
    return sub_floor0(staking.stake_of(p, hotkey, coldkey, netuid), locked(p, netuid, hotkey, coldkey))


def is_used(p: Subtensor, netuid: int) -> bool:
    """Does anybody on the subnet have collateral?"""
    return next(iter(p.MinerCollateral.keys(netuid)), None) is not None


def _store(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes, record: Collateral | None) -> None:
    """Write a record, its coldkey's total and the index of its hotkeys. Raises ColdkeyCollateralPositionsFull."""
    key, before = (netuid, hotkey, coldkey), locked(p, netuid, hotkey, coldkey)
    index = p.ColdkeyCollateralHotkeys[netuid, coldkey]
    after = 0 if record is None else record.locked
    if record is None:
        del p.MinerCollateral[key]
        _write_index(p, netuid, coldkey, [known for known in index if known != hotkey])
    else:
        if hotkey not in index:
            _ensure_room(p, index)
            _write_index(p, netuid, coldkey, [*index, hotkey])
        p.MinerCollateral[key] = {
            "locked": record.locked,
            "drain_ratio": {"bits": record.drain_ratio},
            "min_locked": record.min_locked,
            "earned": record.earned,
        }
    total = sub_floor0(p.ColdkeyMinerCollateral[netuid, coldkey], before) + after
    if total:
        p.ColdkeyMinerCollateral[netuid, coldkey] = total
    else:
        del p.ColdkeyMinerCollateral[netuid, coldkey]


def _write_index(p: Subtensor, netuid: int, coldkey: bytes, hotkeys: list[bytes]) -> None:
    if hotkeys:
        p.ColdkeyCollateralHotkeys[netuid, coldkey] = hotkeys
    else:
        del p.ColdkeyCollateralHotkeys[netuid, coldkey]


def _ensure_room(p: Subtensor, hotkeys: list[bytes]) -> None:
    if len(hotkeys) >= rules.MAX_HOTKEYS:
        raise p.error("ColdkeyCollateralPositionsFull")


def _lock(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes, alpha: int) -> int:
    """Lock more of a position; all that it has locked then. Keeps the drain ratio of an existing lock."""
    record = record_of(p, netuid, hotkey, coldkey) or Collateral(0, drain_ratio(p, netuid))
    after = rules.merge(record, Collateral(alpha, record.drain_ratio))
    _store(p, netuid, hotkey, coldkey, after)
    return after.locked


def _renew_drain(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes) -> None:
    """A registration is a new contract: the lock drains at the subnet's present ratio."""
    stored = p.MinerCollateral[netuid, hotkey, coldkey]
    if stored is not None:
        p.MinerCollateral[netuid, hotkey, coldkey] = {**stored, "drain_ratio": {"bits": drain_ratio(p, netuid)}}


def drain_ratio(p: Subtensor, netuid: int) -> U64F64:
    """Alpha set free per alpha earned, for locks made now."""
    return int(p.CollateralDrainRatio[netuid]["bits"])


def moving_price(p: Subtensor, netuid: int) -> U64F64:
    """TAO per alpha, averaged: one block's trades do not change what a lock counts for."""
    return staking.moving_price(p, netuid) << 32


# -- guards ---------------------------------------------------------------------------------------------------------


def ensure_position_covered(p: Subtensor, coldkey: bytes, hotkey: bytes, netuid: int, amount: int) -> None:
    """What leaves a position leaves its own collateral there. Raises StakeUnavailable."""
    bonded = locked(p, netuid, hotkey, coldkey)
    if bonded and amount > free_alpha(p, netuid, hotkey, coldkey):
        raise p.error("StakeUnavailable")


def ensure_transfer_covered(p: Subtensor, coldkey: bytes, netuid: int, amount: int) -> None:
    """What changes its owner leaves the coldkey's collateral on the subnet covered. Raises StakeUnavailable."""
    bonded = p.ColdkeyMinerCollateral[netuid, coldkey]
    if bonded and amount > sub_floor0(locks.total_alpha(p, coldkey, netuid), bonded):
        raise p.error("StakeUnavailable")


# -- registration ---------------------------------------------------------------------------------------------------


def charge(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes, price: int) -> Charge:
    """What a registration at `price` costs this position."""
    return rules.split_price(
        price, p.CollateralLockShare[netuid], locked(p, netuid, hotkey, coldkey), moving_price(p, netuid)
    )


def pay(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes, cost: Charge) -> None:
    """Pay for a registration in one swap; what is not locked of the bought alpha leaves circulation.

    A swap that locks something spends the whole price within 5 % above spot or fails, as in the public source of spec
    469 (437 returned what a thin pool did not take; the metadata of 461 does not tell which it does). Raises
    InsufficientLiquidity, SlippageTooHigh, NotEnoughBalanceToStake, ColdkeyCollateralPositionsFull and Swap's errors.
    """
    _renew_drain(p, netuid, hotkey, coldkey)
    if not cost.total:
        return
    limit = _purchase_limit(p, netuid, cost.total) if cost.topup else None
    if positions.pay_subnet(p, netuid, coldkey, cost.total) != cost.total:
        raise p.error("NotEnoughBalanceToStake")
    swap = staking.swap_tao_for_alpha(p, netuid, cost.total, limit)
    positions.settle_tao_fee(p, netuid, swap.fee)
    p.SubnetTaoFlow[netuid] = p.SubnetTaoFlow[netuid] + swap.paid_in
    part = rules.lock_part(swap.paid_out, cost)
    p.SubnetAlphaOut[netuid] = sub_floor0(p.SubnetAlphaOut[netuid], swap.paid_out - part)
    if part:
        _stake_and_lock(p, netuid, hotkey, coldkey, part, cost.topup, swap.fee)


def _purchase_limit(p: Subtensor, netuid: int, tao: int) -> int:
    """Highest price for a purchase of that much, fee included, all of which has to fit below it."""
    limit = rules.purchase_limit(staking.spot_price(p, netuid))
    if not limit:
        raise p.error("InsufficientLiquidity")
    if tao > stake_calls.max_add(p, netuid, limit):
        raise p.error("SlippageTooHigh")
    return limit


def _stake_and_lock(p: Subtensor, netuid: int, hotkey: bytes, coldkey: bytes, alpha: int, tao: int, fee: int) -> None:
    if not staking.can_credit(p, hotkey, netuid, alpha):
        raise p.error("InsufficientLiquidity")
    staking.increase_stake(p, hotkey, coldkey, netuid, alpha)
    locks.touch(p, coldkey, netuid)
    p.emit("StakeAdded", coldkey, hotkey, tao, alpha, netuid, fee)
    total = _lock(p, netuid, hotkey, coldkey, alpha)
    p.emit("CollateralLocked", netuid=netuid, hotkey=hotkey, locked=alpha, total_locked=total)


# -- payouts --------------------------------------------------------------------------------------------------------


def settle(p: Subtensor, netuid: int, hotkey: bytes, owner: bytes, emission: int, capturable: int) -> int:
    """Settle a payout of `emission`; the alpha captured into the lock (staked on the hotkey itself, never on an
    auto-stake destination). At most `capturable` of it, the part that is the owner's own."""
    record = record_of(p, netuid, hotkey, owner) if emission else None
    if record is None:
        return 0
    after, captured = rules.settle(record, emission, capturable)
    staking.increase_stake(p, hotkey, owner, netuid, captured)
    _store(p, netuid, hotkey, owner, after)
    return captured


# -- calls ----------------------------------------------------------------------------------------------------------


def _ensure_own(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes, *, subtoken: bool) -> None:
    if netuid == staking.ROOT:
        raise p.error("RegistrationNotPermittedOnRootSubnet")
    stake_calls.ensure_subnet(p, netuid)
    if subtoken:
        stake_calls.ensure_subtoken(p, netuid)
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")


@call(ref_time=400_000_000)
def add_collateral(p: Subtensor, origin: Origin, netuid: int, hotkey: bytes, alpha: int, limit_price: int) -> None:
    """Lock alpha the position has free; buy what is missing, the whole of it below the limit price or nothing."""
    coldkey = ensure_signed(origin)
    _ensure_own(p, coldkey, netuid, hotkey, subtoken=True)
    if not alpha:
        raise p.error("AmountTooLow")
    held = min(free_alpha(p, netuid, hotkey, coldkey), alpha)
    tao = _price_of(p, netuid, alpha - held) if alpha > held else 0
    if tao:
        stake_calls.ensure_can_add(p, coldkey, hotkey, netuid, tao)
        if p.rt.balances.reducible(coldkey, keep_alive=True) < tao:
            raise p.error("NotEnoughBalanceToStake")
    added = held
    if held:
        _lock(p, netuid, hotkey, coldkey, held)
    if tao:
        if tao > stake_calls.max_add(p, netuid, limit_price):
            raise p.error("SlippageTooHigh")
        bought = positions.stake_into_subnet(p, hotkey, coldkey, netuid, tao, limit_price)
        _lock(p, netuid, hotkey, coldkey, bought)
        added += bought
    if not added:
        raise p.error("AmountTooLow")
    total = locked(p, netuid, hotkey, coldkey)
    p.emit("CollateralLocked", netuid=netuid, hotkey=hotkey, locked=added, total_locked=total)


def _price_of(p: Subtensor, netuid: int, alpha: int) -> int:
    price = moving_price(p, netuid)
    if not price:
        raise p.error("InsufficientLiquidity")
    return rules.value(alpha, price)


@call(ref_time=60_000_000)
def set_min_collateral(p: Subtensor, origin: Origin, netuid: int, hotkey: bytes, min_locked: int) -> None:
    """The floor: the lock drains no further, and payouts fill it up to there. 0 removes it."""
    coldkey = ensure_signed(origin)
    _ensure_own(p, coldkey, netuid, hotkey, subtoken=False)
    record = record_of(p, netuid, hotkey, coldkey) or Collateral(0, drain_ratio(p, netuid))
    after = Collateral(record.locked, record.drain_ratio, min_locked, record.earned)
    _store(p, netuid, hotkey, coldkey, None if after.is_empty else after)
    p.emit("MinCollateralSet", netuid=netuid, hotkey=hotkey, min_locked=min_locked)


# -- swapped keys ---------------------------------------------------------------------------------------------------


def ensure_movable(p: Subtensor, netuid: int, old: bytes, new: bytes, coldkey: bytes) -> None:
    """Asked before a swap charges or changes anything: a lock that the index does not list needs a free place in it.

    Raises ColdkeyCollateralPositionsFull.
    """
    index = p.ColdkeyCollateralHotkeys[netuid, coldkey]
    if (netuid, old, coldkey) in p.MinerCollateral and old not in index and new not in index:
        _ensure_room(p, index)


def move_to_hotkey(p: Subtensor, netuid: int, old: bytes, new: bytes, coldkey: bytes) -> None:
    """The lock of a swapped hotkey, in its place in the index; an existing lock of the new one takes it in."""
    record, index = record_of(p, netuid, old, coldkey), p.ColdkeyCollateralHotkeys[netuid, coldkey]
    if record is None:
        return
    if old in index and new not in index:
        _write_index(p, netuid, coldkey, [new if one == old else one for one in index])
    _store(p, netuid, old, coldkey, None)
    _store(p, netuid, new, coldkey, rules.merge(record_of(p, netuid, new, coldkey), record))


def move_to_coldkey(p: Subtensor, netuid: int, old: bytes, new: bytes) -> None:
    """All locks of a swapped coldkey on a subnet. Raises ColdkeyCollateralPositionsFull."""
    for hotkey in list(p.ColdkeyCollateralHotkeys[netuid, old]):
        record = record_of(p, netuid, hotkey, old)
        if record is not None and old != new:
            _store(p, netuid, hotkey, old, None)
            _store(p, netuid, hotkey, new, rules.merge(record_of(p, netuid, hotkey, new), record))
    if old != new and p.ColdkeyMinerCollateral[netuid, old]:
        raise p.error("ColdkeyCollateralIncomplete")


def forget_subnet(p: Subtensor, netuid: int) -> None:
    """Nothing of a dissolved subnet's collateral is left."""
    for item in (p.MinerCollateral, p.ColdkeyMinerCollateral, p.ColdkeyCollateralHotkeys):
        item.clear(netuid)
    del p.CollateralLockShare[netuid]
    del p.CollateralDrainRatio[netuid]
