"""Reservoirs: protocol liquidity that a pool cannot take now without its weights leaving their range.

The chain adds TAO and alpha to a pool at an unchanged price by moving the pool's weights (`swap.inject`). What would
push a weight out of [0.01, 0.99] is issued all the same, waits beside the pool, and is tried again with the next
block's part.
"""

from __future__ import annotations

from typing import NamedTuple

from localnet.rules.fixed import U64_MAX
from localnet.rules.swap import Pool, inject


class Injected(NamedTuple):
    """The pool afterwards; `tao` and `alpha` that became part of it; what waits from now on. Rao and alpha-rao."""

    pool: Pool
    tao: int
    alpha: int
    tao_waiting: int
    alpha_waiting: int


def add_liquidity(pool: Pool, tao: int, alpha: int, tao_waiting: int = 0, alpha_waiting: int = 0) -> Injected:
    """Add this block's part and what waits: both assets, else alpha alone, else TAO alone, else nothing."""
    tao, alpha = min(tao + tao_waiting, U64_MAX), min(alpha + alpha_waiting, U64_MAX)
    for some_tao, some_alpha in ((tao, alpha), (0, alpha), (tao, 0)):
        after = inject(pool, some_tao, some_alpha)
        if after is not None:
            return Injected(after, some_tao, some_alpha, tao - some_tao, alpha - some_alpha)
    return Injected(pool, 0, 0, tao, alpha)
