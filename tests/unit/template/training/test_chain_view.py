"""What the chain says of a window, read from a real chain as of the blocks that the clock names."""

from __future__ import annotations

from localnet.net import Localnet
from protocol.training.statement import TrainCommitment
from protocol.training.votes import RootCommitment, Votes
from protocol.training.windows import Phase, Schedule
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.training.chain_view import WindowView

ALICE = Hotkey.from_uri("//Alice")
FIRST, SECOND = Hotkey.from_uri("//first"), Hotkey.from_uri("//second")
MINERS = [Hotkey.from_uri(f"//miner{number}") for number in range(3)]
CID, OTHER = "b" + "a" * 58, "b" + "c" * 58
STORE = "touchstone-artifacts/1 somewhere"


async def subnet(net: Localnet, chain: Chain) -> int:
    alice = Operator(chain, ALICE.keypair)
    netuid = await alice.create_subnet(Hotkey.from_uri("//owner").ss58)
    await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
    await alice.tune(netuid, {"tempo": 10, "weights_rate_limit": 0, "serving_rate_limit": 0, "commit_reveal": False})
    for hotkey in (FIRST, SECOND, *MINERS):
        await alice.register(netuid, hotkey.ss58)
    await alice.stake(netuid, FIRST.ss58, 500.0)
    await alice.stake(netuid, SECOND.ss58, 300.0)
    await net.mine_epoch(netuid)
    return netuid


async def until(net: Localnet, chain: Chain, block: int) -> None:
    missing = block - await chain.block()
    assert missing >= 0, "the clock of the test is too tight"
    if missing:
        await net.mine(missing)


async def test_a_window_from_commitments_to_the_agreed_root(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(localnet, chain)
        start = await chain.block() + 2
        schedule = Schedule(start=start, assign=1, train=2, commit=8, reveal=1, score=8, aggregate=8)
        view = WindowView(chain, netuid, schedule)

        await until(localnet, chain, schedule.block_of(0, Phase.COMMIT))
        for miner in MINERS[:2]:
            await chain.commit(netuid, miner, TrainCommitment(0, CID).encode(), STORE)
        await chain.commit(netuid, MINERS[2], TrainCommitment(0, CID).encode())  # says not where
        await chain.commit(netuid, FIRST, "touchstone-train/1:0:" + "x" * 59, STORE)  # no commitment
        await chain.commit(netuid, SECOND, TrainCommitment(1, CID).encode(), STORE)  # another window
        await until(localnet, chain, schedule.block_of(0, Phase.REVEAL))
        await chain.commit(netuid, MINERS[2], TrainCommitment(0, OTHER).encode(), STORE)  # too late
        due = await view.due(0)
        assert set(due) == {miner.ss58 for miner in MINERS[:2]}
        assert all(promised.statement == CID and promised.location == STORE for promised in due.values())

        await until(localnet, chain, schedule.block_of(0, Phase.SCORE))
        uids = [due[miner.ss58].uid for miner in MINERS[:2]]
        await chain.commit(netuid, FIRST, Votes(0, frozenset({uids[0], 999})).encode())
        await chain.commit(netuid, SECOND, Votes(0, frozenset(uids)).encode())
        await chain.commit(netuid, MINERS[1], Votes(0, frozenset({uids[1]})).encode())  # has no stake
        await until(localnet, chain, schedule.block_of(0, Phase.AGGREGATE))
        assert await view.accepted(0, due) == {MINERS[0].ss58}
        assert await view.newest_root() is None and await view.agreed(0) is None

        await chain.commit(netuid, SECOND, RootCommitment(0, "22" * 32, OTHER).encode(), STORE)
        assert await view.agreed(0) is not None, "it is the only one so far"
        await chain.commit(netuid, FIRST, RootCommitment(0, "11" * 32, CID).encode(), STORE)
        assert await view.agreed(0) == (RootCommitment(0, "11" * 32, CID), [STORE])
        assert await view.newest_root() == 0 and await view.agreed(1) is None
        assert await view.accepted(0, due) == {MINERS[0].ss58}, "votes were replaced, and the past is as it was"

        seeds = {await view.seed(0, phase) for phase in (Phase.ASSIGN, Phase.REVEAL)}
        assert len(seeds) == 2 and all(len(seed) == 32 for seed in seeds)
