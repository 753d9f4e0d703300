"""Validators that only pay their own miners, at 20 to 60 % of the stake.

The cabal's miners do no work. Weights that less than a kappa-majority (half) of the stake supports are clipped.
"""

from localnet.economy import Miner, Scenario, Validator, World, cabal, drifting, measuring

TOTAL = 100_000.0  # alpha


def world(share: float) -> World:
    honest = [Validator(f"honest-{i}", TOTAL * (1 - share) / 8, measuring(0.05), party="honest") for i in range(8)]
    bad = [Validator(f"cabal-{i}", TOTAL * share / 4, cabal(), party="cabal") for i in range(4)]
    working = [Miner(f"miner-{i}", worth=1.0 + i / 10) for i in range(24)]
    idle = [Miner(f"idle-{i}", worth=0.0, party="cabal") for i in range(8)]
    return World(validators=[*honest, *bad], miners=[*working, *idle], moving=drifting(0.05))


SCENARIO = Scenario(
    "A cabal that pays itself",
    {f"{share:.0%} of the stake": world(share) for share in (0.2, 0.3, 0.4, 0.48, 0.52, 0.6)},
    claim="Below kappa (half of the stake) a cabal cannot pay its own miners.",
    epochs=300,
)
