"""SubtensorModule: subnets, registration, stake, weights, consensus, emission.

The storage items are in `storage`; each group of calls is a module of functions `(pallet, origin, ...)` marked with
`@call`, listed in `modules` below:

    creation, networks, identity, clock, dissolution    subnets: from the first payment to the last
    registration, serving, evm_keys    neurons: a uid, where to reach it, and its address on the EVM
    hotkey_swap, coldkey_swap       keys that take others' places
    weights, commits, timelocked    opinions: open, committed first, sealed to a drand round
    stake_calls, stake_moves        money in, out and across (`staking`, `positions`: how)
    root_claims, basket_trades      what root stakers own beside their stake, and who rearranges it (`baskets`)
    delegation, children            takes, and stake handed to other hotkeys
    leasing                         subnets that crowdloans pay for
    collateral, locks, voting_power alpha that stays: behind a miner, behind an opinion; who has a say

`block_step` runs at the start of every block (`emission`, `distribution` and `epochs` are its long parts), `guards`
before an extrinsic enters the pool, `genesis` once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from localnet.runtime.subtensor import (
    basket_trades,
    block_step,
    children,
    clock,
    coldkey_swap,
    collateral,
    commits,
    creation,
    delegation,
    dissolution,
    evm_keys,
    guards,
    hotkey_swap,
    identity,
    leasing,
    locks,
    networks,
    registration,
    root_claims,
    serving,
    stake_calls,
    stake_moves,
    timelocked,
    voting_power,
    weights,
)
from localnet.runtime.subtensor.storage import SubtensorStorage

if TYPE_CHECKING:
    from localnet.rules.coinbase import Dividends
    from localnet.rules.epoch import EpochInput, EpochTerms  # brings numpy


class Subtensor(SubtensorStorage):
    modules = (
        creation, networks, identity, clock, dissolution, hotkey_swap, coldkey_swap, evm_keys, registration, serving,
        weights, commits, timelocked, stake_calls, stake_moves, delegation, children, collateral, locks, voting_power,
        root_claims, basket_trades, leasing,
    )  # fmt: skip

    watch_epoch: Callable[[int, int, EpochInput, EpochTerms], None] | None = None  # is shown (netuid, mechanism, ..)
    watch_dividends: Callable[[int, Mapping[bytes, Dividends]], None] | None = None  # is shown (netuid, by hotkey)

    def on_initialize(self, number: int) -> None:
        hotkey_swap.forget_old_swaps(self)
        block_step.run(self)

    def on_finalize(self, number: int) -> None:
        dissolution.clean_up(self)
        creation.admit_queued(self)
        children.recheck_parents(self)

    def validate(self, who: bytes, function: str, arguments: dict[str, Any]) -> None:
        guards.validate(self, who, function, arguments)
