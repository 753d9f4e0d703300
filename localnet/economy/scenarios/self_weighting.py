"""A validator that gives all weight to itself; and a subnet owner who does, which the chain allows.

The chain drops self-weights: nothing is left of the row, so there are no bonds and no dividends. But a validator with
most of the stake that weighs nobody leaves no weight with a majority: nobody earns by work then, all by stake. The
owner's hotkey may weigh itself; its incentive is burned.
"""

from localnet.economy import Miner, Scenario, Validator, World, drifting, measuring, self_weighting


def world(share: float, owner: bool) -> World:
    honest = [Validator(f"honest-{i}", 80_000 * (1 - share) / 4, measuring(0.05), party="honest") for i in range(4)]
    return World(
        validators=[*honest, Validator("selfish", 80_000 * share, self_weighting())],
        miners=[Miner(f"miner-{i}", worth=1.0 + i / 10) for i in range(24)],
        moving=drifting(0.05),
        owner="selfish" if owner else None,
    )


SCENARIO = Scenario(
    "Weighing oneself",
    {
        "20 % of the stake": world(0.2, owner=False),
        "60 % of the stake": world(0.6, owner=False),
        "the owner, 20 %": world(0.2, owner=True),
        "the owner, 60 %": world(0.6, owner=True),
    },
    claim="Weighing oneself pays nothing; with most of the stake it ends all pay for work.",
    epochs=300,
)
