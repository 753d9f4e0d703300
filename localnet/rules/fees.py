"""Fees: what a signed extrinsic pays.

    fee = floor(0.0005 * base time) + floor(0.0005 * the call's time) + 1 rao a byte + tip

The multiplier never moves. Calls marked free (Pays::No) pay nothing and still use up a nonce. When the TAO balance does
not cover the fee, a few staking calls may pay in alpha at the pool's price (`alpha_fee`).
"""

from __future__ import annotations

from localnet.rules.fixed import U64F64, div64, to_u64

BASE_EXTRINSIC_REF_TIME = 108_157_000
"""Picoseconds charged to every extrinsic before the call's own time (chain constant, spec 461)."""
RAO_PER_BYTE = 1
WEIGHT_FEE_NUMERATOR = 5
WEIGHT_FEE_DENOMINATOR = 10_000


def weight_fee(ref_time: int) -> int:
    """floor(0.0005*ref_time) rao; ref_time in picoseconds."""
    return ref_time * WEIGHT_FEE_NUMERATOR // WEIGHT_FEE_DENOMINATOR


def inclusion_fee(total_ref_time: int, length: int) -> int:
    """Fee without tip from a total that has the per-extrinsic base in it, as vectors state it; length in bytes.

    Rounding the sum once can be a rao above `fee`, which is what the chain charges."""
    return weight_fee(total_ref_time) + RAO_PER_BYTE * length


def fee(call_ref_time: int, length: int, tip: int = 0) -> int:
    """What a paid extrinsic costs its signer, in rao; length in bytes as sent, prefix included.

    Base and call are priced and rounded down one by one: the transfer recorded from a spec-461 node (224 051 000 ps,
    144 bytes) cost 54 078 + 112 025 + 144 = 166 247 rao."""
    return weight_fee(BASE_EXTRINSIC_REF_TIME) + weight_fee(call_ref_time) + RAO_PER_BYTE * length + tip


def alpha_equivalent(tao_fee: int, price: U64F64) -> int:
    """A fee of `tao_fee` rao in alpha at `price` TAO per alpha, floored; 0 when the pool has no price."""
    return to_u64(div64(tao_fee << 64, price), 64)


def alpha_fee(tao_fee: int, price: U64F64, available_alpha: int) -> int:
    """The same fee in alpha at `price` TAO per alpha, at most what is there; nothing when the pool has no price."""
    return min(available_alpha, alpha_equivalent(tao_fee, price))
