"""Registration: what a place costs, who makes room, what a subnet costs.

    bump_price / decay_price      the neuron registration price ("burn"): up with every sale, halved every half life
    uid_to_prune                  which uid a full subnet gives to the newcomer
    immortal_uids                 the owner's uids that are never given away
    root_uid_to_replace           the same question on the root network, decided by stake
    lock_cost, initial_pool       the price of a subnet and the pool it opens with
    subnet_to_prune               which subnet makes room for a new one

Prices are rao; Q32 numbers are integers counting 2^-32. Everything is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from localnet.rules.fixed import ONE64, U64_MAX, U64F64, div64, sub_floor0, to_u64

Q32_ONE = 1 << 32
Q32_HALF = 1 << 31
RAO_PER_TAO = 1_000_000_000


def mul_q32(value: int, factor: int) -> int:
    """value times a Q32 factor, shifted down (floor), saturating at 2^64-1."""
    return min((value * factor) >> 32, U64_MAX)


def pow_q32(base: int, exponent: int) -> int:
    """Q32 base to an integer power by square and multiply, with the 32-bit shift after each product."""
    result, factor = Q32_ONE, base
    while exponent > 0:
        if exponent & 1:
            result = mul_q32(result, factor)
        exponent >>= 1
        if exponent:
            factor = mul_q32(factor, factor)
    return result


@lru_cache(maxsize=1024)
def decay_factor_q32(half_life: int) -> int:
    """Largest Q32 factor whose half_life-th power (as `pow_q32` computes it) is at most one half; 1 for half life 0."""
    if half_life == 0:
        return Q32_ONE
    low, high = 0, Q32_ONE
    while low + 1 < high:
        middle = low + ((high - low) >> 1)
        if pow_q32(middle, half_life) > Q32_HALF:
            high = middle
        else:
            low = middle
    return low


def _clamp(price: int, min_burn: int, max_burn: int) -> int:
    """Raise to the minimum first, then cut at the maximum (the maximum wins when the two cross)."""
    return min(max(price, min_burn), max_burn)


def bump_price(price: int, multiplier: U64F64, min_burn: int, max_burn: int) -> int:
    """Price after one registration: floor(price * max(multiplier, 1)), clamped. Not applied on the root network."""
    return _clamp(to_u64(price * max(multiplier, ONE64), 64), min_burn, max_burn)


def decay_price(price: int, half_life: int, min_burn: int, max_burn: int, block: int) -> int:
    """Price at the start of `block`: decayed by one block's factor (from block 2 on; not at half life 0), clamped."""
    if half_life > 0 and block > 1:
        price = mul_q32(price, decay_factor_q32(half_life))
    return _clamp(price, min_burn, max_burn)


def uid_to_prune(
    emission: Sequence[int],
    registered_at: Sequence[int],
    block: int,
    immunity_period: int,
    min_non_immune: int,
    immortal: Collection[int] = (),
) -> int | None:
    """The uid a newcomer replaces, or None when nobody may be replaced.

    Immortal uids are skipped. The lowest (emission, registration block, uid) among the uids past their immunity goes,
    if there are more than `min_non_immune` of those; otherwise the lowest among the still immune; None if there is
    none.
    """
    mortal = [(emission[uid], registered_at[uid], uid) for uid in range(len(registered_at)) if uid not in immortal]
    immune = [entry for entry in mortal if block - entry[1] < immunity_period]
    free = [entry for entry in mortal if block - entry[1] >= immunity_period]
    if free and len(free) > min_non_immune:
        return min(free)[2]
    return min(immune)[2] if immune else None


def immortal_uids(owned: Sequence[tuple[int, int]], owner_hotkey_uid: int | None, limit: int) -> list[int]:
    """The owner's uids that are never pruned: `owned` = (registration block, uid) of the owner coldkey's hotkeys on the
    subnet, oldest first, up to `limit`; the subnet owner hotkey is put first if it is not among them already.
    """
    uids = [uid for _, uid in sorted(owned)][:limit]
    if owner_hotkey_uid is not None and owner_hotkey_uid not in uids:
        uids = [owner_hotkey_uid, *uids][:limit]
    return uids


def root_uid_to_replace(
    stakes: Sequence[int], registered_at: Sequence[int], block: int, immunity_period: int
) -> int | None:
    """On a full root network: the uid with the least stake (ties: lowest uid) of those that are not immune any more;
    None while all are."""
    mortal = [uid for uid, since in enumerate(registered_at) if block - since >= immunity_period]
    return min(mortal, key=lambda uid: (stakes[uid], uid)) if mortal else None


def lock_reduction_interval(interval: int, block_emission: int) -> int:
    """Blocks over which the last lock cost decays: the setting, shortened with the halvings of block emission."""
    return to_u64((interval << 64) * div64(block_emission << 64, RAO_PER_TAO << 64) >> 64, 64)


def lock_cost(block: int, last_lock: int, last_lock_block: int, min_lock: int, reduction_interval: int) -> int:
    """Price of a new subnet: twice the last price (once, if nobody has paid yet) falling linearly by last/interval a
    block, never below the minimum. `reduction_interval` from `lock_reduction_interval`; 0 means no reduction.
    """
    multiple = 1 if last_lock_block == 0 else 2
    per_block = last_lock // reduction_interval if reduction_interval else 0
    cost = sub_floor0(last_lock * multiple, per_block * sub_floor0(block, last_lock_block))
    return max(cost, min_lock)


def median_price(prices: Sequence[U64F64]) -> U64F64:
    """Median of the positive spot prices; mean of the two middle ones for an even count; 1 when there is none."""
    ordered = sorted(price for price in prices if price > 0)
    if not ordered:
        return ONE64
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return high if len(ordered) % 2 else (low + high) // 2


@dataclass(frozen=True)
class InitialPool:
    """Reserves of a new subnet, rao and alpha-rao, and what of the lock was not pooled."""

    tao: int
    alpha: int
    recycled: int


def initial_pool(lock: int, min_lock: int, median: U64F64) -> InitialPool:
    """A new subnet's pool: the whole lock (at least the minimum) in TAO, and alpha at the others' median price."""
    tao = max(lock, min_lock)
    return InitialPool(tao=tao, alpha=to_u64(div64(tao << 64, median), 64), recycled=sub_floor0(lock, tao))


def subnet_to_prune(subnets: Sequence[tuple[int, int, int]], block: int, network_immunity_period: int) -> int | None:
    """Which subnet makes room: `subnets` = (netuid, moving price bits, registered at). Lowest moving price among those
    older than the immunity period; ties go to the oldest registration. None when all are immune.
    """
    mortal = [(price, at, netuid) for netuid, price, at in subnets if block >= at + network_immunity_period]
    return min(mortal)[2] if mortal else None


def rate_limit_passed(last: int | None, block: int, limit: int) -> bool:
    """A rate-limited action may happen: never done before (None or 0), no limit, or `limit` blocks have gone by."""
    return not last or limit == 0 or block - last >= limit


def passes_pow(seal: bytes, difficulty: int) -> bool:
    """A faucet seal is good when, read as a little-endian number, its product with the difficulty fits 256 bits."""
    return int.from_bytes(seal, "little") * difficulty < 1 << 256


__all__ = [
    "InitialPool",
    "bump_price",
    "decay_factor_q32",
    "decay_price",
    "immortal_uids",
    "initial_pool",
    "lock_cost",
    "lock_reduction_interval",
    "median_price",
    "mul_q32",
    "passes_pow",
    "pow_q32",
    "rate_limit_passed",
    "root_uid_to_replace",
    "subnet_to_prune",
    "uid_to_prune",
]
