"""Validators that stop working: one sets its first weights for ever, one refreshes them rarely, one falls silent.

Scores drift. Who is silent for longer than the activity cutoff (5,000 blocks, 14 epochs) is not heard any more.
"""

from localnet.economy import Miner, Scenario, Validator, World, drifting, measuring, once, stopping

SCENARIO = Scenario(
    "Lazy validators",
    {
        f"scores drift by {step:.0%} an epoch": World(
            validators=[
                Validator("diligent", 20_000, measuring(0.05)),
                Validator("every 20th", 20_000, once(measuring(0.05), every=20)),
                Validator("never again", 20_000, once(measuring(0.05))),
                Validator("silent", 20_000, stopping(measuring(0.05), after=20)),
                Validator("others", 60_000, measuring(0.05)),
            ],
            miners=[Miner(f"miner-{i}", worth=1.0 + i / 10) for i in range(24)],
            moving=drifting(step),
        )
        for step in (0.02, 0.10)
    },
    per_stake=True,
    claim="Old weights earn less the faster scores move; silence earns nothing after the activity cutoff.",
    epochs=500,
)
