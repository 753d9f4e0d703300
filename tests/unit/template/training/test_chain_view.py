"""What the chain says of a window, read from a real chain as of the blocks that the clock names."""

from __future__ import annotations

from localnet.net import Localnet
from protocol.artifacts import Manifest
from protocol.training.statement import TrainCommitment
from protocol.training.votes import Word
from protocol.training.windows import Phase, Schedule
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.training.chain_view import Standing, WindowView

ALICE = Hotkey.from_uri("//Alice")
FIRST, SECOND = Hotkey.from_uri("//first"), Hotkey.from_uri("//second")
MINERS = [Hotkey.from_uri(f"//miner{number}") for number in range(3)]
CID, OTHER = Manifest.of(b"one").cid, Manifest.of(b"two").cid
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
        await chain.commit(netuid, FIRST, Word(0, frozenset({uids[0], 999}), None).encode())
        await chain.commit(netuid, SECOND, Word(0, frozenset(uids), None).encode())
        await chain.commit(netuid, MINERS[1], Word(0, frozenset({uids[1]}), None).encode())  # has no stake
        await until(localnet, chain, schedule.block_of(0, Phase.AGGREGATE))
        assert await view.accepted(0, due) == {MINERS[0].ss58}
        assert await view.agreed() is None

        await chain.commit(netuid, SECOND, Word(7, frozenset(), OTHER).encode(), STORE)
        assert await view.agreed() is None, "less than half of all stake"
        await chain.commit(netuid, FIRST, Word(1, frozenset(), CID).encode(), STORE)
        assert await view.agreed() == Standing(0, CID, (STORE,)), "a newer one that few stand behind does not count"
        assert await view.validator_locations() == [STORE, STORE]
        assert await view.accepted(0, due) == {MINERS[0].ss58}, "votes were replaced, and the past is as it was"

        seeds = {await view.seed(0, phase) for phase in (Phase.ASSIGN, Phase.REVEAL)}
        assert len(seeds) == 2 and all(len(seed) == 32 for seed in seeds)
