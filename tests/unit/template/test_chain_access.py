"""`template.chain` against a real chain in this process."""

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from localnet.net import Localnet
from template.chain import (
    Chain,
    ChainError,
    ChainRefused,
    ChainTimeout,
    ChainUnreachable,
    NoSuchSubnet,
    NotRegistered,
    Receipt,
    Taken,
    is_local_network,
)
from template.commitments import replaced
from template.keys import Hotkey
from template.operations import Operator

ALICE = Hotkey.from_uri("//Alice")
VALIDATOR = Hotkey.from_uri("//validator")
MINER = Hotkey.from_uri("//miner")


async def subnet(chain: Chain, tempo: int = 8) -> int:
    """A subnet of Alice's with one staked validator and one miner."""
    alice = Operator(chain, ALICE.keypair)
    netuid = await alice.create_subnet(Hotkey.from_uri("//owner").ss58)
    await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
    await alice.tune(
        netuid,
        {"tempo": tempo, "weights_rate_limit": 3, "serving_rate_limit": 0, "commit_reveal": False},
    )
    for hotkey in (VALIDATOR, MINER):
        await alice.register(netuid, hotkey.ss58)
    await alice.stake(netuid, VALIDATOR.ss58, 500.0)
    return netuid


async def test_a_subnet_is_created_read_and_served_on(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        graph = await chain.metagraph(netuid)
        assert graph.netuid == netuid and graph.tempo == 8
        assert graph.block_hash == await chain.block_hash(graph.block)
        assert [n.hotkey for n in graph.neurons[1:]] == [VALIDATOR.ss58, MINER.ss58]
        assert graph.by_hotkey[VALIDATOR.ss58].stake > 100
        assert not graph.by_hotkey[MINER.ss58].is_serving

        assert await chain.serve_axon(netuid, MINER, "127.0.0.2", 4321) is True
        assert await chain.serve_axon(netuid, MINER, "127.0.0.2", 4321) is False, "published again without a change"
        miner = (await chain.metagraph(netuid)).by_hotkey[MINER.ss58]
        assert (miner.ip, miner.port, miner.protocol) == ("127.0.0.2", 4321, 4)


async def test_weights_pass_through_every_stage_and_are_read_back(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        assert (await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 1.0})).taken is Taken.NO_PERMIT
        await localnet.mine(16)
        assert (await chain.set_weights(netuid, VALIDATOR, {})).taken is Taken.NOTHING
        stranger = Hotkey.from_uri("//stranger").ss58
        outcome = await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 3.0, VALIDATOR.ss58: 1.0, stranger: 9.0})
        assert outcome.taken is Taken.HELD, outcome
        miner, me = (await chain.metagraph(netuid)).uids((MINER.ss58, VALIDATOR.ss58)).values()
        assert outcome.held[miner] == pytest.approx(0.75, abs=1e-4)
        assert await chain.weights_of(netuid, me) == dict(outcome.held)
        assert (await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 1.0})).taken is Taken.NOT_DUE
        await localnet.mine(4)
        assert (await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 1.0})).ok


async def test_a_version_key_that_is_too_old_is_refused_by_name(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        await localnet.mine(16)
        alice = Operator(chain, ALICE.keypair)
        await alice.admin("sudo_set_weights_version_key", {"netuid": netuid, "weights_version_key": 7})
        refused = await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 1.0}, version_key=6)
        assert refused.taken is Taken.REFUSED and "version" in refused.detail.lower()
        assert (await chain.set_weights(netuid, VALIDATOR, {MINER.ss58: 1.0}, version_key=7)).ok


async def test_what_is_missing_is_said_with_the_command_that_helps(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        with pytest.raises(NoSuchSubnet, match="subnet 77"):
            await chain.metagraph(77)
        with pytest.raises(NotRegistered, match=r"touchstone register --network .* --netuid 1 --wallet w --hotkey h"):
            await chain.require_registered(1, MINER.ss58, "w", "h")


async def test_texts_are_committed_replaced_and_read_back(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        assert await chain.commitment(netuid, MINER.ss58) is None
        last = ("touchstone-model/1:...", "touchstone-store/1:" + "y" * 493)
        for texts in (("a",), ("0x6162",), ("x" * 128,), ("x" * 129,), ("a", "b", "c"), last):
            await chain.commit(netuid, MINER, *texts)
            held = await chain.commitment(netuid, MINER.ss58)
            assert held is not None and held.texts == texts
        assert await chain.commitment(netuid, VALIDATOR.ss58) is None
        for wrong in ((), ("",), ("x" * 513,), ("caf\u00e9",), ("two\nlines",), ("a", ""), ("a",) * 4):
            with pytest.raises(ValueError, match="512 printable ASCII"):
                await chain.commit(netuid, MINER, *wrong)
        with pytest.raises(ChainRefused) as refused:
            await chain.commit(netuid, Hotkey.from_uri("//stranger"), "a")
        assert refused.value.name == "AccountNotAllowedCommit"
        held = await chain.commitment(netuid, MINER.ss58)
        assert held is not None and held.texts == last and held.find("touchstone-store/") == last[1]
        assert replaced(held.texts, "touchstone-model/", "touchstone-model/2:") == (last[1], "touchstone-model/2:")
        assert replaced((), "a", "ab") == ("ab",)


async def test_everybodys_commitments_are_read_as_of_a_block(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        await chain.commit(netuid, MINER, "first")
        first = await chain.block()
        await chain.commit(netuid, MINER, "second", "and more")
        await chain.commit(netuid, VALIDATOR, "mine")
        now = await chain.commitments(netuid)
        assert {hotkey: held.texts for hotkey, held in now.items()} == {
            MINER.ss58: ("second", "and more"),
            VALIDATOR.ss58: ("mine",),
        }
        then = await chain.commitments(netuid, first)
        assert {hotkey: held.texts for hotkey, held in then.items()} == {MINER.ss58: ("first",)}
        assert then[MINER.ss58].block <= first < now[MINER.ss58].block
        assert await chain.commitments(77) == {}


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["ResetBondsFlag"],
        [("Raw0", b"")],
        [("Raw2", b"\xff\xfe")],
        [("Raw6", b"caf\xc3\xa9\x00")],
        [("Raw3", b"a\nb")],
        [("BigRaw", b"caf\xc3\xa9")],
        [("BigRaw", b"a\nb")],
        [("Raw1", b"a"), ("Raw0", b"")],
        [("Raw1", b"a")] * 4,
        [("Sha256", b"\x01" * 32)],
        [("Raw1", b"a"), "ResetBondsFlag"],
    ],
    ids=str,
)
async def test_a_commitment_that_is_no_text_is_none(localnet: Localnet, fields: list[object]) -> None:
    async with Chain(localnet.url) as chain:
        entry = {"deposit": 0, "block": 1, "info": {"fields": fields}}
        who = MINER.public_key
        await localnet.set_storage("Commitments", "CommitmentOf", 1, who, value=entry)
        assert await chain.query("CommitmentOf", 1, MINER.ss58, pallet="Commitments"), "nothing was stored"
        assert await chain.commitment(1, MINER.ss58) is None


async def test_two_processes_of_one_hotkey_do_not_mind_each_others_nonces(localnet: Localnet) -> None:
    """A validator of both mechanisms is two processes with one hotkey; here two connections, each with its cache."""
    async with Chain(localnet.url) as one, Chain(localnet.url) as other:
        netuid = await Operator(one, ALICE.keypair).create_subnet(MINER.ss58)
        for number in range(3):
            await one.commit(netuid, MINER, f"one/{number}")
            await other.commit(netuid, MINER, f"other/{number}")
        writes = [chain.commit(netuid, MINER, "at once") for chain in (one, other, one, other)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(receipt, Receipt) for receipt in done), done


async def test_the_error_inside_a_sudo_call_is_seen(localnet: Localnet) -> None:
    async with Chain(localnet.url) as chain:
        alice = Operator(chain, ALICE.keypair)
        await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
        with pytest.raises(ChainRefused, match=r"(?i)subnet.*exist"):
            await alice.tune(77, {"tempo": 5})


async def test_a_chain_that_comes_back_is_used_again_with_fresh_nonces(tmp_path: Path) -> None:
    state = tmp_path / "chain.sqlite"
    first = Localnet(mining="instant", state=state)
    await first.start()
    port = int(first.url.rpartition(":")[2])
    async with Chain(first.url, timeout=5.0) as chain:
        alice = Operator(chain, ALICE.keypair)
        await alice.transfer(MINER.ss58, 1.0)
        block = await chain.block()
        await first.stop()
        with pytest.raises((ChainUnreachable, ChainTimeout)):
            await chain.block()
        said: list[str] = []
        waiting = asyncio.ensure_future(chain.wait_ready(on_wait=said.append))
        await asyncio.sleep(0.5)
        second = Localnet(mining="instant", state=state, port=port)
        await second.start()
        try:
            assert await waiting >= block, "the chain lost blocks in the restart"
            assert said, "waiting was silent"
            await alice.transfer(MINER.ss58, 1.0)
            assert await chain.balance(MINER.ss58) == 2 * 10**9
        finally:
            await second.stop()


async def test_nobody_there_is_unreachable_and_says_what_to_do(unused_tcp_port: int) -> None:
    async with Chain(f"ws://127.0.0.1:{unused_tcp_port}", timeout=5.0) as chain:
        with pytest.raises(ChainUnreachable, match="touchstone localnet"):
            await chain.wait_ready(longest=0.1)


async def test_a_chain_that_accepts_and_is_silent_times_out() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server, Chain(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.3) as chain:
        with pytest.raises(ChainTimeout):
            await chain.block()


def test_only_a_chain_on_this_machine_is_local() -> None:
    assert is_local_network("local") and is_local_network("ws://127.0.0.1:1")
    assert not is_local_network("finney") and not is_local_network("wss://example.org")
    with pytest.raises(ChainError, match="unknown network"):
        Chain("fnney")


@pytest.mark.parametrize("answer", [{"result": {"a": 1}}, {"result": 12345}, {"error": 5}, {"result": "0x00"}])
async def test_a_node_that_answers_nonsense_is_a_chain_error(answer: dict[str, object]) -> None:
    async def node(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_json({"jsonrpc": "2.0", "id": json.loads(message.data)["id"], **answer})
        return socket

    application = web.Application()
    application.router.add_get("/", node)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with Chain(f"ws://{host}:{port}", timeout=5.0) as chain:
            with pytest.raises(ChainUnreachable, match="cannot read the answer"):
                await chain.block()
            assert not chain.connected
    finally:
        await runner.cleanup()


async def test_a_uid_that_changes_hands_under_way_is_told(localnet: Localnet, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
        await localnet.mine(16)
        now = await chain.metagraph(netuid)
        gone = Hotkey.from_uri("//gone").ss58
        before = dataclasses.replace(
            now,
            neurons=tuple(dataclasses.replace(n, hotkey=gone) if n.hotkey == MINER.ss58 else n for n in now.neurons),
        )
        graphs = [before, now]

        async def metagraph(netuid: int, block: int | None = None) -> object:
            return graphs.pop(0)

        monkeypatch.setattr(chain, "metagraph", metagraph)
        outcome = await chain.set_weights(netuid, VALIDATOR, {gone: 1.0})
        assert outcome.taken is Taken.NOT_TAKEN and "changed hands" in outcome.detail
