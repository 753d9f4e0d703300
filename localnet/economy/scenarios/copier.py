"""A validator that copies weights instead of measuring, with open weights and behind commit-reveal.

Both have the same stake. Every four epochs miners overtake each other, so old weights are wrong weights. Openly set
weights can be copied in the same epoch; behind commit-reveal a copier reads what was measured some epochs ago.
"""

from localnet.economy import Miner, Scenario, Settings, Validator, World, copying, measuring, shuffled


def world(reveal_period: int) -> World:
    return World(
        validators=[
            Validator("honest", 5_000, measuring(0.05)),
            Validator("others", 20_000, measuring(0.05)),
            Validator("copier", 5_000, copying()),
        ],
        miners=[Miner(f"miner-{i}", worth=float(i)) for i in range(1, 33)],
        moving=shuffled(every=4),
        settings=Settings(reveal_period=reveal_period),
    )


SCENARIO = Scenario(
    "Weight copying",
    {"open weights": world(0), "revealed after 1 epoch": world(1), "revealed after 3 epochs": world(3)},
    per_stake=True,
    claim="Behind commit-reveal a copier earns less than those it copies, because scores move.",
)
