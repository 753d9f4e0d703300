"""What is simulated, and what came of it.

Setting(strategies, windows, validators=(Validator(1),))      who takes part, and what is paid
Result, Account                                               the whole, and one peer's part of it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocol.audits import AuditRules
from protocol.training.ratings import RatingRules, TrainState


@dataclass(frozen=True)
class Validator:
    stake: int  # in any unit
    friendly: bool = False


@dataclass(frozen=True)
class Setting:
    """`strategies`: of each peer. `emission`: to the miners of this mechanism in a window; `price`: of a registration;
    `collateral`: of each hotkey; all in alpha. `hold`: a loss that the model stays at, whatever would become of it: for
    what the rules pay in the long run at a stage of training; None lets it learn from the start."""

    strategies: Sequence[str]
    windows: int
    validators: Sequence[Validator] = (Validator(1), Validator(1), Validator(1))
    emission: float = 12.3  # 60 blocks at one alpha, 41 % of it to miners, half of that to this mechanism
    price: float = 1.0
    collateral: float = 0.0
    hold: float | None = None
    audits: AuditRules = field(default_factory=lambda: AuditRules(least=0.05))  # what validators run with by default
    ratings: RatingRules = field(default_factory=RatingRules)

    def __post_init__(self) -> None:
        if not self.strategies or not self.validators or self.windows < 1:
            raise ValueError("there is at least one peer, one validator and one window")
        if min(validator.stake for validator in self.validators) < 1:
            raise ValueError("every validator has stake")
        if not all(0.0 <= alpha < math.inf for alpha in (self.emission, self.price, self.collateral)):
            raise ValueError("emission, price and collateral are numbers from 0 on")
        if self.hold is not None and not 0.0 < self.hold < math.inf:
            raise ValueError("the loss is held at a positive number")


@dataclass
class Account:
    """What became of one peer. `work`: windows' worth of steps; `fees`: registrations after the first; `replayed`: by
    all validators; `rejected`: windows in which at least one of them found it out."""

    strategy: str
    earned: float = 0.0
    work: float = 0.0
    fees: float = 0.0
    hotkeys: int = 1
    shown: int = 0
    helped: int = 0
    entered: int = 0
    replayed: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Result:
    """`losses`: of the shared model before each window, and after the last. `drops`: what each window's step takes from
    it, or would if it were not held. `burned`: emission that nobody had earned. `states`: of each validator, by
    hotkey."""

    accounts: Sequence[Account]
    losses: Sequence[float]
    drops: Sequence[float]
    burned: float
    states: Sequence[Mapping[str, TrainState]]
