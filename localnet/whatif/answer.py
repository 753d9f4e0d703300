"""The words of this package: what is asked, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from localnet.rules.weights import storage_index
from localnet.whatif.rules import Named, Results, Row

PALLET = "SubtensorModule"

Edits: TypeAlias = "dict[bytes, bytes | None]"  # storage key -> value, None removes it
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """`who`: the validator, a uid in digits or a hotkey's address. `ahead`: the coming epoch, not the last one.
    `epochs`: how many, one after another. `explain`: a uid."""

    netuid: int
    weights: Named
    who: str
    mecid: int = 0
    epochs: int = 1
    ahead: bool = False
    explain: int | None = None

    @property
    def index(self) -> int:
        """What the mechanism's rows are stored under."""
        return storage_index(self.netuid, self.mecid)


@dataclass(frozen=True)
class Asked:
    """The question in terms of the subnet at that block. `hotkeys`: by uid; `uid`: of the validator; `row`: as the SDK
    would send it."""

    hotkeys: list[bytes]
    uid: int
    row: Row


@dataclass(frozen=True)
class Epoch:
    """What an epoch left behind. `weights`, `bonds`: the validator's rows."""

    block: int
    results: Results
    weights: Row
    bonds: Row


@dataclass(frozen=True)
class Check:
    """The epoch's block made again with its extrinsics, against what the node has after it.

    `undone`: why it could not be. `rooted`: of the `values`, those that differ by the state's root alone, which a fork
    does not have. `results`: names of results that the node has otherwise than the epoch left them.
    """

    undone: str | None = None
    extrinsics: int = 0
    values: int = 0
    rooted: int = 0
    differing: tuple[dict[str, Any], ...] = ()
    results: tuple[str, ...] = ()

    @property
    def faithful(self) -> bool:
        return self.undone is None and self.values > 0 and not self.differing


@dataclass(frozen=True)
class Answer:
    """`before` and `after`: the epochs, one after another. `row`: as set_weights stores it."""

    question: Question
    spec: int
    fork: dict[str, Any]
    uid: int
    hotkeys: list[bytes]
    owner: int | None
    row: Row
    before: list[Epoch]
    after: list[Epoch]
    check: Check
    opened: int  # commits of the validator's own that this epoch opens, and that were left out
    explained: dict[str, Any] = field(default_factory=dict)
