"""Coinbase: where each block's new TAO and alpha go.

    block_emission      1 TAO a block, halved as issuance approaches 21 million; the same curve for every subnet's alpha
    demand_shares       how the block's TAO would be divided: by moving price, less what went to the owner's own miners
    subnet_shares       how it is divided: demand through the gate (`emission_gate`), switched-off subnets left out
    injection           what one subnet's pool receives: TAO and alpha at the spot price, alpha capped by root's share
    split_alpha_out     the subnet's alpha for participants: owner, miners ("server"), validators, root
    moving_price        the slow average of the spot price that steers the shares; `fast_moving_price` bounds baskets
    epoch_due, ...      when a subnet's tempo is over
    activity_cutoff     how long a neuron may be silent
    distribute          an epoch's dividends per hotkey into alpha and root parts; `take_split` for the delegate take

Amounts are u64 rao or alpha-rao; fractions are U96F32 (2^-32) or U64F64 (2^-64) as noted.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from localnet.rules import emission_gate
from localnet.rules.fixed import (
    I96F32,
    ONE32,
    ONE64,
    U64_MAX,
    U64F64,
    U96F32,
    div32,
    div64,
    mul32,
    mul64,
    sub_floor0,
    to_u64,
    u16_proportion,
)

K = TypeVar("K")

TOTAL_SUPPLY = 21_000_000_000_000_000
"""Most rao (and, per subnet, most alpha-rao) that will ever exist."""
BLOCK_EMISSION = 1_000_000_000
"""Rao per block before the first halving."""
MAX_TEMPO = 50_400
"""A subnet that has not stepped for more blocks than this is stepped whatever its schedule says."""

_TWO32 = 2 << 32
_HALF32 = 1 << 31


def block_emission(issuance: int) -> int:
    """floor(1e9 / 2^k) with k = floor(log2(1/(1 - issuance/21e15))), computed with 32 fraction bits; 0 at the cap."""
    if issuance >= TOTAL_SUPPLY:
        return 0
    left = ONE32 - div32(issuance << 32, TOTAL_SUPPLY << 32)
    x, halvings = div32(ONE32, left), 0
    while x >= _TWO32:
        x = (x >> 1) + (x & 1)
        halvings += 1
    return to_u64(mul32(div32(ONE32, ONE32 << halvings), BLOCK_EMISSION << 32), 32)


# --- shares of the block --------------------------------------------------------------------------


@dataclass(frozen=True)
class SubnetWeight:
    """What decides a subnet's share: moving price (I96F32 bits), share of miner incentive withheld from the owner's own
    hotkeys in the last epoch (U96F32), and whether emission is switched on."""

    netuid: int
    moving_price: I96F32
    miner_burned: U96F32 = 0
    enabled: bool = True


def is_eligible(first_emission_block: int | None, subtoken_enabled: bool, registration_allowed: bool) -> bool:
    """A (non-root) subnet takes part in emission once started, with its token enabled and registration open."""
    return first_emission_block is not None and subtoken_enabled and registration_allowed


def price_shares(subnets: Sequence[SubnetWeight]) -> dict[int, U64F64]:
    """Each subnet's part of the sum of moving prices; all 0 when the sum is."""
    prices = {subnet.netuid: max(subnet.moving_price, 0) << 32 for subnet in subnets}
    total = sum(prices.values())
    return {netuid: div64(price, total) for netuid, price in prices.items()}


def demand_shares(subnets: Sequence[SubnetWeight]) -> dict[int, U64F64]:
    """Each eligible subnet's demand: price share times (1 - miner burned), normalised; the plain price share if all of
    that is 0.
    """
    shares = price_shares(subnets)
    weighted = {s.netuid: mul64(shares[s.netuid], ONE64 - min(s.miner_burned << 32, ONE64)) for s in subnets}
    total = sum(weighted.values())
    return {netuid: div64(weight, total) for netuid, weight in weighted.items()} if total else shares


def enabled_shares(shares: Mapping[int, U64F64], subnets: Sequence[SubnetWeight]) -> dict[int, U64F64]:
    """Switched-off subnets get 0 and the rest is scaled up; 0 for everybody when nobody with a share is switched on."""
    if all(subnet.enabled for subnet in subnets):
        return dict(shares)
    enabled = sum(shares[s.netuid] for s in subnets if s.enabled)
    return {s.netuid: div64(shares[s.netuid], enabled) if s.enabled else 0 for s in subnets}


def subnet_shares(
    demand: Mapping[int, U64F64], subnets: Sequence[SubnetWeight], bar: U64F64, exponent: U64F64
) -> dict[int, U64F64]:
    """Share of the block's TAO per eligible subnet: its demand (`demand_shares`) through the gate, then the switches.

    Without a bar (0) there is no gate.
    """
    return enabled_shares(emission_gate.gated(demand, bar, exponent), subnets)


def emissions_of(shares: Mapping[int, U64F64], block_tao: int) -> dict[int, U96F32]:
    """TAO of this block per subnet, 32 fraction bits."""
    return {netuid: mul64(block_tao << 64, share) >> 32 for netuid, share in shares.items()}


def root_sells(moving_prices: Sequence[I96F32]) -> bool:
    """Root's alpha is paid out, not recycled, when the eligible subnets' moving prices add up to more than 1."""
    return sum(moving_prices) > ONE32


def root_proportion(root_tao: int, alpha_issuance: int, weight: U96F32) -> U96F32:
    """Root's claim on a subnet: R*w/(R*w + alpha issuance), with R the TAO staked on root and w the TAO weight."""
    weighted = mul32(root_tao << 32, weight)
    return div32(weighted, weighted + (alpha_issuance << 32))


class Injection(NamedTuple):
    """What a subnet's pool gets from one block, u64 each. `excess` TAO buys alpha on the pool; `alpha_out` goes to
    participants through `split_alpha_out`."""

    tao_in: int
    alpha_in: int
    alpha_out: int
    excess: int


def injection(tao: U96F32, alpha_emission: int, price: U64F64, root_share: U96F32) -> Injection:
    """TAO goes in with the alpha it is worth at `price`, that alpha capped at root_share*alpha_emission; when capped,
    TAO is reduced in proportion and the rest is `excess`.
    """
    spot = price >> 32
    tao_in, alpha_in = tao, div32(tao, spot)
    cap = mul32(root_share, alpha_emission << 32)
    if alpha_in > cap:
        alpha_in, tao_in = cap, mul32(cap, spot)
    excess = sub_floor0(tao, tao_in)
    return Injection(to_u64(tao_in, 32), to_u64(alpha_in, 32), alpha_emission, to_u64(excess, 32))


class AlphaSplit(NamedTuple):
    """One block's alpha for a subnet's participants: what each pending counter grows by."""

    owner: int
    server: int
    validator: int
    root: int


def split_alpha_out(alpha_out: int, owner_cut: int, root_share: U96F32) -> AlphaSplit:
    """Owner cut (of 65535; pass 0 when switched off) first; half of the rest to miners; the other half to validators,
    out of which root takes its share. Each part floored.
    """
    total = alpha_out << 32
    owner = mul32(total, u16_proportion(owner_cut))
    rest = sub_floor0(total, owner)
    root = mul32(mul32(root_share, rest), _HALF32)
    server = mul32(rest, _HALF32)
    validator = sub_floor0(rest - server, root)
    return AlphaSplit(to_u64(owner, 32), to_u64(server, 32), to_u64(validator, 32), to_u64(root, 32))


def moving_price(old: I96F32, price: U64F64, blocks: int, alpha: U64F64, halving_blocks: int = 201_600) -> I96F32:
    """New moving price: a*min(price, 1) + (1-a)*old with a = alpha*k/(k+halving_blocks), k = `blocks` since the
    subnet's start (its first emission block minus one). `alpha` is stored with 32 fraction bits: shift it left by 32.
    """
    k = blocks << 64
    a = mul64(alpha, div64(k, k + (halving_blocks << 64)))
    return (mul64(a, min(price, ONE64)) + mul64(sub_floor0(ONE64, a), max(old, 0) << 32)) >> 32


FAST_HALF_LIFE = 600
"""Blocks after which the fast moving price has come half way to a new spot price: two hours at 12 s."""
_FAST_WEIGHT = div64(round(math.log(2) * ONE64), FAST_HALF_LIFE << 64)


def fast_moving_price(old: U64F64 | None, spot: U64F64) -> U64F64:
    """New fast moving price: old + (spot - old)*ln(2)/600; the first is the spot price itself. Not capped at 1."""
    if old is None:
        return spot
    if spot >= old:
        return old + mul64(spot - old, _FAST_WEIGHT)
    return old - mul64(old - spot, _FAST_WEIGHT)


# --- tempo ----------------------------------------------------------------------------------------


def epoch_due(tempo: int, block: int, last_epoch: int, pending_at: int = 0, since_last_step: int = 0) -> bool:
    """An epoch is due in `block`: tempo not 0, and an asked-for epoch has come (0 = none), or the subnet has not
    stepped for more than 50400 blocks, or `tempo` blocks have passed since the last epoch.
    """
    if tempo == 0:
        return False
    asked_for = 0 < pending_at <= block
    return asked_for or since_last_step > MAX_TEMPO or sub_floor0(block, last_epoch) >= tempo


def blocks_until_epoch(tempo: int, block: int, last_epoch: int = 0) -> int:
    """Blocks until the next epoch by tempo alone; 2^64-1 when tempo is 0."""
    return U64_MAX if tempo == 0 else sub_floor0(min(last_epoch + tempo, U64_MAX), block)


def next_epoch_block(tempo: int, last_epoch: int, pending_at: int = 0) -> int | None:
    """Block of the next epoch: the asked-for one when earlier; None when tempo is 0."""
    if tempo == 0:
        return None
    return min(last_epoch + tempo, pending_at) if pending_at > 0 else last_epoch + tempo


def is_admin_frozen(tempo: int, block: int, last_epoch: int, pending_at: int, window: int) -> bool:
    """Owner settings are frozen shortly before an epoch: an asked-for epoch lies ahead, or fewer than `window` blocks
    are left; never on a subnet without tempo.
    """
    if tempo == 0:
        return False
    return pending_at > block or blocks_until_epoch(tempo, block, last_epoch) < window


def activity_cutoff(factor_milli: int, tempo: int) -> int:
    """Blocks a neuron may go without an update: factor/1000 tempos, at least 1."""
    return max(factor_milli * tempo // 1000, 1)


# --- distribution after an epoch ------------------------------------------------------------------


@dataclass(frozen=True)
class Dividends:
    """Dividend of one hotkey: alpha (to its nominators) and root (to root stakers), 32 fraction bits each."""

    alpha: U96F32
    root: U96F32


def validator_pool(pending_validator: int, pending_server: int, total_incentive: int) -> int:
    """Alpha for validators: their own half, and the miners' half too when no miner earned anything."""
    return pending_validator if total_incentive else pending_validator + pending_server


def distribute(
    dividends: Mapping[K, int],
    stakes: Mapping[K, tuple[int, int]],
    pool: int,
    root_pool: int,
    weight: U96F32,
    without_seat: Container[K] = (),
) -> dict[K, Dividends]:
    """Divide the validators' alpha and root's alpha over hotkeys.

    `dividends`: per hotkey after `stake.split_dividend` (used as proportions only); `stakes`: (alpha, root TAO) of
    each. A hotkey's dividend counts to root by its root*w/(alpha + root*w); both sets are then scaled to add up to
    `pool` (from `validator_pool`) and `root_pool`. Of a hotkey `without_seat` on root the part that counts to root is
    nobody's, and the others share its place. When all root parts are 0 nobody gets the root pool.

    The seat is a rule of a public tree newer than spec 461, which notes that an older one gave the part of a hotkey
    without a seat to its alpha; which of them 461 has is not known.
    """
    parts: dict[K, tuple[int, int]] = {}
    for key, dividend in dividends.items():
        alpha, root = stakes[key]
        weighted = mul32(root << 32, weight)
        to_root = mul32(dividend << 32, div32(weighted, (alpha << 32) + weighted))
        parts[key] = (sub_floor0(dividend << 32, to_root), 0 if key in without_seat else to_root)
    total_alpha = sum(alpha for alpha, _ in parts.values())
    total_root = sum(root for _, root in parts.values())
    return {
        key: Dividends(
            alpha=mul32(pool << 32, div32(alpha, total_alpha)),
            root=mul32(root_pool << 32, div32(root, total_root)),
        )
        for key, (alpha, root) in parts.items()
    }


def take_split(dividend: U96F32, take: int) -> tuple[int, int]:
    """(delegate take, remainder) of a dividend, u64 each, floored; take of 65535."""
    taken = mul32(u16_proportion(take), dividend)
    return to_u64(taken, 32), to_u64(sub_floor0(dividend, taken), 32)


def miner_burned(withheld: int, total: int) -> U96F32:
    """Share of miner incentive that went to the owner's own hotkeys and was therefore not paid."""
    return div32(withheld << 32, total << 32)
