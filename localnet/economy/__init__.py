"""Economic experiments: what strategies earn on a subnet, epoch after epoch, under the chain's own rules.

A scenario is a short Python file that names its variants and what it claims:

    from localnet.economy import *

    def world(reveal_period: int) -> World:
        return World(
            validators=[Validator("honest", 1000, measuring(noise=0.05)), Validator("copier", 1000, copying())],
            miners=[Miner(f"miner-{i}", worth=1 + i) for i in range(16)],
            moving=shuffled(every=4),
            settings=Settings(reveal_period=reveal_period),
        )

    SCENARIO = Scenario("Weight copying", {"open": world(0), "hidden for two epochs": world(2)})

`touchstone simulate FILE` runs it. In the order to read:

    world        who is on the subnet, under which settings
    running      how an epoch passes and what it pays
    strategies   how validators weigh, how miners' worth moves, who registers
    report       what each party earned, as JSON and as a picture
    scenarios    the ones that come along; the name without `.py` is enough to run one

Consensus, bonds and emission are `localnet.rules.epoch`, the price of a place and who loses it
`localnet.rules.registration`, the split of the emission `localnet.rules.coinbase`: the code the chain runs. What is a
model here: the worth of miners' work, that alpha has one price, and that decisions are made once an epoch.
"""

from __future__ import annotations

from localnet.economy.report import Scenario
from localnet.economy.strategies import (
    cabal,
    copying,
    drifting,
    measuring,
    newcomers,
    once,
    self_weighting,
    shuffled,
    stopping,
    swarm,
)
from localnet.economy.world import Entrant, Miner, Settings, Validator, World
from localnet.rules.epoch import EpochHyper

__all__ = [
    "Entrant",
    "EpochHyper",
    "Miner",
    "Scenario",
    "Settings",
    "Validator",
    "World",
    "cabal",
    "copying",
    "drifting",
    "measuring",
    "newcomers",
    "once",
    "self_weighting",
    "shuffled",
    "stopping",
    "swarm",
]
