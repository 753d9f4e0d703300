"""What a leased subnet's contributors get: of the crowdloan's left-over TAO once, of the owner's cut for good.

Shares are U64F64 bits of what each contributor but the beneficiary paid; the beneficiary gets what the others' parts
leave. Formulas as in the chain's subnets/leasing.rs: shares and refunds round down, cuts and dividends up.
"""

from __future__ import annotations

from collections.abc import Mapping

from localnet.rules.fixed import ONE64

Parts = tuple[dict[bytes, int], int]  # amount per contributor, and what is left for the beneficiary


def share(contribution: int, raised: int) -> int:
    """U64F64 bits of a contribution's part of what was raised; both in rao."""
    return contribution * ONE64 // raised


def refunds(shares: Mapping[bytes, int], leftover: int) -> Parts:
    """Rao that each gets back of what the subnet did not cost."""
    each = {who: bits * leftover // ONE64 for who, bits in shares.items()}
    return each, max(leftover - sum(each.values()), 0)


def contributors_cut(owner_cut: int, percent: int) -> int:
    """Alpha-rao of the owner's cut that goes to contributors and beneficiary by shares."""
    return -(-owner_cut * percent // 100)


def dividends(shares: Mapping[bytes, int], cut: int) -> Parts:
    """Alpha-rao that each gets of the accumulated cut."""
    each = {who: -(-bits * cut // ONE64) for who, bits in shares.items()}
    return each, max(cut - sum(each.values()), 0)
