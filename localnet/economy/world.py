"""Who is on a subnet, and under which settings: what a scenario writes down.

    World       validators, miners, entrants, how the worth of work moves, settings
    View        what a validator knows when it sets weights; Market what an entrant knows
    Outcome     what everybody earned, one entry an epoch

Amounts are alpha, as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from localnet.rules.constants import NETWORK
from localnet.rules.epoch import EpochHyper

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Neuron:
    """A uid as everybody sees it."""

    uid: int
    name: str
    party: str
    stake: float
    """Alpha; 0 for miners."""


@dataclass(frozen=True)
class View:
    """What a validator knows when it sets weights."""

    epoch: int
    me: Neuron
    neurons: Sequence[Neuron]
    """By uid."""
    worth: Floats
    """True worth of each uid's work, shape (n,): for strategies that really measure; add the error of measuring."""
    public: Sequence[Floats | None]
    """Per uid the weights on chain that anybody can read, shape (n,) or None."""
    rng: np.random.Generator


Weighing: TypeAlias = Callable[[View], Floats | None]
"""Weights of any scale, shape (n,); None sets nothing this time."""
Moving: TypeAlias = Callable[[Floats, int, np.random.Generator], Floats]
"""Worth of the miners' work at an epoch, from that of the epoch before; shape (n,)."""


@dataclass(frozen=True)
class Market:
    """What somebody knows who thinks of registering."""

    epoch: int
    price: float
    """Alpha of the next place."""
    held: int
    """Places that the party has."""
    factor: float
    """What a registration multiplies the price with."""
    income: float
    """Alpha that one of its places earned in the last epoch; the subnet's mean while it has none."""
    rng: np.random.Generator


@dataclass(frozen=True)
class Validator:
    name: str
    stake: float
    """Alpha at the start."""
    weighing: Weighing
    party: str = ""
    """Who earns together; default: the name."""


@dataclass(frozen=True)
class Miner:
    name: str
    worth: float = 1.0
    party: str = "miners"


@dataclass(frozen=True)
class Entrant:
    """Somebody who buys places; each gets a hotkey of the given worth.

    With `one_worker` the worth is that of one machine which all the party's hotkeys share.
    """

    party: str
    worth: float
    wanted: Callable[[Market], int]
    one_worker: bool = False


@dataclass(frozen=True)
class Settings:
    """The subnet's hyperparameters, with the chain's defaults where it has such."""

    hyper: EpochHyper = field(default_factory=lambda: EpochHyper(yuma3=True, max_validators=64, activity_cutoff=5000))
    reveal_period: int = 0
    """Epochs from a commit to when it counts; 0: weights are set openly."""
    owner_cut: int = NETWORK.owner_cut
    """Of 65535, of all emission; leaves the subnet here."""
    max_uids: int = 256
    immunity: int = 5000
    """Blocks."""
    price: float = 1.0
    """Alpha of a place at the start."""
    min_price: float = 0.0005
    max_price: float = 100.0
    price_half_life: int = 360
    """Blocks."""
    price_factor: float = 1.26
    """What a registration multiplies the price with."""
    lock_share: float = 0.0
    """Part of the price that is locked as collateral instead of burned."""
    drain_ratio: float = 1.0
    """Collateral that comes free per alpha of incentive."""


@dataclass(frozen=True)
class World:
    """Who is there at the start, and how things move. uids: validators first, then miners, in this order."""

    validators: Sequence[Validator]
    miners: Sequence[Miner] = ()
    entrants: Sequence[Entrant] = ()
    moving: Moving | None = None
    settings: Settings = field(default_factory=Settings)
    owner: str | None = None
    """Name of the neuron that is the subnet owner's hotkey."""


@dataclass
class Account:
    """What a party has earned and spent, alpha; one entry an epoch."""

    dividends: list[float] = field(default_factory=list)
    incentive: list[float] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)
    """For places: what was burned."""
    locked: list[float] = field(default_factory=list)
    """Collateral at the end of the epoch, also that of places which were lost."""
    stake: list[float] = field(default_factory=list)
    """Before the epoch."""
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    accounts: dict[str, Account]
    price: list[float]
    """Of the next place, after each epoch."""
    burned: float
    """Incentive of the owner's own hotkeys, which the chain does not pay."""
