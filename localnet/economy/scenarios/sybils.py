"""One machine behind many hotkeys, against the price of a place, and against collateral.

If validators pay every uid that answers, a swarm multiplies its income by its places, and what it locks comes free as
it earns: neither price nor collateral stops it. If they pay for work, one machine's work is one machine's work,
whatever the number of its hotkeys, and what a place without income has locked stays locked.
"""

from localnet.economy import Entrant, Miner, Scenario, Settings, Validator, World, measuring, newcomers, swarm


def world(pay_for_work: bool, min_price: float, lock_share: float = 0.0) -> World:
    return World(
        validators=[Validator(f"validator-{i}", 20_000, measuring(0.05), party="validators") for i in range(4)],
        miners=[Miner(f"miner-{i}") for i in range(60)],
        entrants=[
            Entrant("newcomers", 1.0, newcomers(0.2)),
            Entrant("swarm", 1.0, swarm(horizon=30), one_worker=pay_for_work),
        ],
        settings=Settings(max_uids=128, price=max(min_price, 1.0), min_price=min_price, lock_share=lock_share),
    )


SCENARIO = Scenario(
    "A swarm of sybils",
    {
        f"{pay}, places from {price:g}{lock}": world(pay == "pay for work", price, 0.9 if lock else 0.0)
        for pay in ("pay per uid", "pay for work")
        for price, lock in ((0.0005, ""), (5.0, ""), (5.0, ", 90 % locked"))
    },
    claim="Neither price nor collateral stops a swarm that is paid per uid; pay for work does.",
    epochs=300,
)
