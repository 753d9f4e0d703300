"""One known change between versions of the chain's rules, `Versioned`, and the checks that rows of known_items.py and
known_calls.py make of what two versions show.

A spec version is the one that stands in the runtime of the commit named as source, in the public repository of the
chain (opentensor/subtensor); the first release that has the change is that one or the next. In 2024 the numbers of test
networks, 181 to 195, ran ahead of the main network's, 144 to 166: a row about builds that carry one of them says so by
`only`, or begins with the number after them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from localnet.rehearsal.subnet_states import PALLET
from localnet.rules.fixed import U16_MAX, U64_MAX
from localnet.rules.registration import decay_price

RULE_SOURCE = "pallets/subtensor/src/epoch/run_epoch.rs"
BEGIN = "hooks before the extrinsics"
FOUNDING = ("register_network", "sudo_add_network", "")  # "": the call itself, which ends differently
TRADES = (
    "add_stake", "add_stake of too much", "add_stake on root", "remove_stake", "unstake_all", "move_stake",
    "transfer_stake", "swap_stake", "burned_register", "register_network", "root_register",
)  # fmt: skip
NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"  # the account of 32 zeros, a default
HALF_LIFE = 360  # blocks: BurnHalfLife of a subnet that sets none

Check: TypeAlias = "Callable[[Any, Any], bool]"
"""Are two values, of the older version and of the newer one, apart as the change has it?"""
Ended: TypeAlias = "tuple[str | None, tuple[str, ...]]"
"""How a call ended: its error, and its events without those of paying."""


@dataclass(frozen=True)
class Versioned:
    """A difference that two versions are expected to show, one below `since` and one from it on.

    `items`: of SubtensorModule, or "Pallet.Item"; or calls as reports name them, which then may end differently.
    `causes`: what changes the items, as in a difference; nothing: whatever does. `keys`: what an item's keys begin
    with. `only`: the older version is one of these, builds of a branch whose rule it is. `exact`: whether two values
    (of a call: two `Ended`) are apart as the change has it; None: they are not looked at, and the row accounts for any
    two, a mistake among them too.
    """

    items: tuple[str, ...]
    since: int
    what: str
    source: str
    causes: tuple[str, ...] = ()
    exact: Check | None = None
    keys: tuple[Any, ...] = ()
    only: tuple[int, ...] = ()

    @property
    def checked(self) -> bool:
        """Whether it looks at the values. Rows of no version (`since` 0) are `explain_money`'s, which does."""
        return self.exact is not None or self.since == 0

    def covers(
        self, item: str, cause: str, specs: tuple[int, int], values: tuple[Any, Any], keys: tuple[Any, ...] = ()
    ) -> bool:
        """`values`: of the reference and of the other."""
        named = item in self.items or item.removeprefix(f"{PALLET}.") in self.items
        between = (specs[0] < self.since) != (specs[1] < self.since)
        branch = not self.only or min(specs) in self.only
        if not named or not between or not branch or (self.causes and cause not in self.causes):
            return False
        if keys[: len(self.keys)] != self.keys:
            return False
        return self.exact is None or self.exact(*(values if specs[0] < specs[1] else values[::-1]))


# -- values of items ------------------------------------------------------------------------------------------------


def nothing(older: Any, newer: Any) -> bool:
    """The newer version keeps it elsewhere."""
    return newer in (None, 0, {"bits": 0}) and newer != older


def earlier(older: Any, newer: Any) -> bool:
    """A block's number that the newer version does not write here any more."""
    return int(newer or 0) < int(older)


def decayed(older: Any, newer: Any) -> bool:
    """A registration's price that the older version leaves, and that loses a block's part of 360 to its half."""
    return int(newer) == decay_price(int(older), HALF_LIFE, 0, U64_MAX, block=2)


def one_tao_more(older: Any, newer: Any) -> bool:
    """What a block issues while less than half of all TAO is there."""
    return int(newer) - int(older) == 10**9


def nobody_there(older: Any, newer: Any) -> bool:
    """What is stored of a neuron, or of all, with the newer version only."""
    return older in (None, False, 0, [], NOBODY) and newer not in (None, [], NOBODY) and newer != older


def smaller(older: Any, newer: Any) -> bool:
    return int(newer) < int(older)


def unlimited(older: Any, newer: Any) -> bool:
    return int(older) < int(newer) == U16_MAX


def stays_on(older: Any, newer: Any) -> bool:
    return (older, newer) == (False, True)


def later_in_one(older: Any, newer: Any) -> bool:
    """Of one neuron a later block, and all others as they are."""
    if len(older) != len(newer):
        return False
    apart = [(one, other) for one, other in zip(older, newer, strict=True) if one != other]
    return len(apart) == 1 and int(apart[0][0]) < int(apart[0][1])


def one_more(older: Any, newer: Any) -> bool:
    """One permit more, and all others as they are."""
    if len(older) != len(newer):
        return False
    return [pair for pair in zip(older, newer, strict=True) if pair[0] != pair[1]] == [(False, True)]


def same_space(older: Any, newer: Any) -> bool:
    return bool(older["used_space"] == newer["used_space"])


def counted(older: Any, newer: Any) -> bool:
    """A count of blocks that the older version moves on, or begins anew, and the newer one leaves."""
    return int(older) in (int(newer) + 1, 0) and older != newer


def not_counted(older: Any, newer: Any) -> bool:
    """A count of blocks that has never begun in the older version; the newer one has begun it."""
    return (int(older), int(newer)) == (0, 1)


def root_epoch(older: Any, newer: Any) -> bool:
    """The block of an epoch of root's: those in which (block + netuid + 1) % (tempo + 1) is the tempo, which is 100."""
    return int(older) > int(newer) and (int(older) + 1) % 101 == 100


def at_zero(older: Any, newer: Any) -> bool:
    """An axon at the address 0, with the newer version only."""
    return bool(newer) and newer["ip"] == 0 and older != newer


def never(older: Any, newer: Any) -> bool:
    """A block's number that the older version has never written."""
    return int(older) == 0 < int(newer)


# -- ends of calls --------------------------------------------------------------------------------------------------


def ends(*pairs: tuple[str | None, str | None]) -> Check:
    """One of these pairs of errors, of the older version and of the newer one; None: success."""

    def check(older: Ended, newer: Ended) -> bool:
        return (older[0], newer[0]) in pairs

    return check


def tells(gone: Collection[str] = (), come: Collection[str] = ()) -> Check:
    """Success in both, with all the same events in the same order but for these of SubtensorModule or another pallet:
    `gone` with the older version, `come` with the newer one."""
    only_older, only_newer = ({e if "." in e else f"{PALLET}.{e}" for e in events} for events in (gone, come))

    def check(older: Ended, newer: Ended) -> bool:
        kept = [event for event in older[1] if event not in only_older]
        return older[0] is newer[0] is None and kept == [event for event in newer[1] if event not in only_newer]

    return check


def refused(older: Ended, newer: Ended) -> bool:
    """The older version's pool refused it; in the newer one it fails in its block."""
    return str(older[0]).startswith("refused: Custom error") and newer[0] is not None and not refusal(newer)


def refusal(ended: Ended) -> bool:
    return str(ended[0]).startswith("refused: ")
