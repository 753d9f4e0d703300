"""SubtensorModule: subnets, registration, stake, weights, consensus, emission.

The storage items are in `storage`; each group of calls is a module of functions `(pallet, origin, ...)` marked with
`@call`, listed in `modules` below:

    networks, identity, clock       subnets: creating, naming, scheduling
    registration, serving           neurons: a uid and where to reach it
    weights, commits                opinions, open or committed first
    stake_calls, stake_moves        money in, out and across (`staking`, `positions`: how)
    delegation, children            takes, and stake handed to other hotkeys

`block_step` runs at the start of every block (`distribution` and `epochs` are its long parts), `guards` before an
extrinsic enters the pool, `genesis` once.
"""

from __future__ import annotations

from typing import Any

from localnet.runtime.subtensor import (
    block_step,
    children,
    clock,
    commits,
    delegation,
    guards,
    identity,
    networks,
    registration,
    serving,
    stake_calls,
    stake_moves,
    weights,
)
from localnet.runtime.subtensor.storage import SubtensorStorage


class Subtensor(SubtensorStorage):
    modules = (
        networks, identity, clock, registration, serving, weights, commits, stake_calls, stake_moves, delegation,
        children,
    )  # fmt: skip

    def on_initialize(self, number: int) -> None:
        block_step.run(self)

    def validate(self, who: bytes, function: str, arguments: dict[str, Any]) -> None:
        guards.validate(self, who, function, arguments)
