"""Localnet as people use it from Python: sending, reading, mining, snapshots, the shield, the synchronous twin."""

from __future__ import annotations

import asyncio
import math
import socket
import threading

import bittensor_core
import pytest

import localnet
from localnet.client import keypair
from localnet.errors import CallFailed, ChainError, ConfigError, LocalnetError, MetadataError, PoolRejected
from localnet.net import TAO, Localnet
from localnet.sync import SyncLocalnet


async def test_the_export_list() -> None:
    assert sorted(localnet.__all__) == ["Localnet", "Outcome", "RuntimeSource", "SyncLocalnet", "TAO"]
    assert all(getattr(localnet, name) is not None for name in localnet.__all__)
    with pytest.raises(AttributeError):
        _ = localnet.Nonsense  # type: ignore[attr-defined]


async def test_sending_and_reading(localnet: Localnet) -> None:
    before = localnet.balance("//Bob")
    outcome = await localnet.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=TAO)
    assert outcome.success and outcome.block == localnet.block and outcome.index == 2
    assert localnet.balance("//Bob") == before + TAO
    assert localnet.balance(keypair("//Bob").ss58_address) == before + TAO
    assert localnet.query("System", "Account", "//Bob", block=1)["data"]["free"] == before
    accounts = localnet.query_map("System", "Account")
    assert accounts[bytes(keypair("//Bob").public_key)]["data"]["free"] == before + TAO
    assert [e["name"] for e in localnet.events() if e["phase"] == 2][-1] == "ExtrinsicSuccess"
    assert localnet.call("AccountNonceApi", "account_nonce", "//Alice") == 1


async def test_failures_have_the_chains_name(localnet: Localnet) -> None:
    send = localnet.extrinsic
    failed = await send("//Alice", "Balances", "transfer_keep_alive", check=False, dest="//Bob", value=2 * 10**15)
    assert not failed.success and failed.error == "Token.FundsUnavailable" and failed.block == localnet.block
    with pytest.raises(CallFailed, match="FundsUnavailable"):
        await send("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=2 * 10**15)
    refused = await send("//Nobody", "Balances", "transfer_keep_alive", check=False, dest="//Bob", value=1)
    assert refused.block is None and refused.error is not None and "Inability to pay some fees" in refused.error
    with pytest.raises(CallFailed, match="Invalid signing address"):
        inner = localnet.client.call_value("System", "remark", {"remark": b""})
        await send("//Bob", "Sudo", "sudo", call=inner)
    with pytest.raises(MetadataError, match="takes dest, value"):
        await send("//Alice", "Balances", "transfer_keep_alive", to="//Bob")
    with pytest.raises(MetadataError, match="no call"):
        await send("//Alice", "Balances", "give_me_money")
    with pytest.raises(MetadataError, match="no storage item"):
        localnet.query("Balances", "Nothing")


async def test_what_finds_no_room_in_the_block_made_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Localnet(mining="manual") as net:
        monkeypatch.setattr("localnet.node.author.MAX_EXTRINSICS", 0)
        with pytest.raises(CallFailed, match="waits in the pool"):
            await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=TAO)
        monkeypatch.undo()
        before = net.balance("//Bob")
        await net.mine()
        assert net.balance("//Bob") == before + TAO


class Wrapping:
    """Signs as wallets sign messages for people."""

    pair = keypair("//Alice")
    public_key = pair.public_key

    def sign(self, data: bytes) -> bytes:
        return bytes(self.pair.sign(b"<Bytes>" + data + b"</Bytes>"))


async def test_a_signature_of_the_wrapped_message_is_none(localnet: Localnet) -> None:
    call = localnet.client.encode_call("System", "remark", {"remark": b""})
    with pytest.raises(PoolRejected, match="bad signature"):
        localnet.chain.submit(localnet.client.sign(Wrapping(), call, 0))  # type: ignore[arg-type]


async def test_errors_name_what_is_wrong_and_what_is_meant(localnet: Localnet) -> None:
    pay = {"dest": "//Bob", "value": TAO}
    for pallet, call, arguments, text in (
        ("Balance", "transfer_all", {}, "no pallet Balance with calls: Balances"),
        ("Balances", "transfer_keepalive", {}, "no call Balances.transfer_keepalive: transfer_keep_alive"),
        (
            "Balances",
            "transfer_keep_alive",
            {**pay, "value": 1.5},
            r"transfer_keep_alive, value: value 1.5 does not fit",
        ),
        ("Balances", "transfer_keep_alive", {**pay, "dest": "Bob"}, "'Bob' is no account"),
        ("Balances", "transfer_keep_alive", {**pay, "dest": 7}, "7 is no account"),
    ):
        with pytest.raises((LocalnetError, ValueError), match=text):
            await localnet.extrinsic("//Alice", pallet, call, **arguments)
    with pytest.raises(MetadataError, match=r"SubtensorModule.Tempoo: Tempo\?"):
        localnet.query("SubtensorModule", "Tempoo", 1)
    with pytest.raises(MetadataError, match=r"no pallet Subtensor with storage: SubtensorModule\?"):
        localnet.query("Subtensor", "Tempo", 1)
    with pytest.raises(ConfigError, match=r"whole number of rao, not 1.5: int"):
        await localnet.fund("//Zoe", 1.5)  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="there is no subnet 77"):
        await localnet.mine_epoch(77)
    assert localnet.block == 2


async def test_a_call_inside_a_call_is_written_like_one(localnet: Localnet) -> None:
    pay = ("Balances", "transfer_keep_alive", {"dest": "//Zoe", "value": TAO})
    inner = ("Utility", "batch_all", {"calls": [pay, pay]})
    await localnet.extrinsic("//Bob", "Proxy", "add_proxy", delegate="//Alice", proxy_type="Any", delay=0)
    await localnet.extrinsic("//Alice", "Proxy", "proxy", real="//Bob", force_proxy_type=None, call=inner)
    assert localnet.balance("//Zoe") == 2 * TAO


async def test_a_chain_that_does_not_run_says_so_and_one_that_runs_is_not_started_again() -> None:
    net = Localnet(mining="manual")
    for look in (lambda: net.block, lambda: net.query("System", "Number"), net.snapshot, lambda: net.client):
        with pytest.raises(ChainError, match="not running: use it inside"):
            look()
    with pytest.raises(ChainError, match="not running: use it inside"):
        await net.mine()
    async with net:
        with pytest.raises(ChainError, match=f"runs already, at {net.url}"):
            await net.start()
        assert await net.mine() == 1


async def test_a_failure_inside_sudo_is_a_failure(localnet: Localnet) -> None:
    with pytest.raises(CallFailed):
        await localnet.sudo("Balances", "force_transfer", source="//Bob", dest="//Alice", value=2 * 10**15)


async def test_funding_adds(localnet: Localnet) -> None:
    await localnet.fund("//Zoe", 5 * TAO)
    await localnet.fund("//Zoe", 2 * TAO)
    assert localnet.balance("//Zoe") == 7 * TAO


async def test_snapshots_nest(localnet: Localnet) -> None:
    outer = localnet.snapshot()
    await localnet.fund("//Zoe", TAO)
    inner, digest = localnet.snapshot(), localnet.block_hash
    await localnet.fund("//Zoe", TAO)
    await localnet.revert(inner)
    assert (localnet.balance("//Zoe"), localnet.block_hash) == (TAO, digest)
    await localnet.revert(outer)
    assert localnet.balance("//Zoe") == 0
    await localnet.fund("//Zoe", 3 * TAO)
    assert localnet.balance("//Zoe") == 3 * TAO


async def test_writing_storage_by_name(localnet: Localnet) -> None:
    await localnet.set_storage("Balances", "TotalIssuance", value=42)
    assert localnet.query("Balances", "TotalIssuance") == 42


@pytest.mark.localnet(mining="manual", clock="step", genesis_time=1_700_000_000_000, profile="mainnet")
async def test_manual_chains_repeat_exactly(localnet: Localnet) -> None:
    async with Localnet(mining="manual", clock="step", genesis_time=1_700_000_000_000, profile="mainnet") as twin:
        for net in (localnet, twin):
            await net.mine(3)
        assert localnet.block_hash == twin.block_hash
        assert localnet.timestamp == 1_700_000_000_000 + 2 * 12_000
        await localnet.travel(1_800_000_000_000)
        assert localnet.query("Timestamp", "Now") == 1_800_000_000_000
        with pytest.raises(ChainError):
            await localnet.travel(5)


async def test_interval_mining_goes_on_by_itself() -> None:
    async with Localnet(block_time=0.01) as net:
        start = net.block
        for _ in range(500):
            if net.block >= start + 5:
                break
            await asyncio.sleep(0.01)
        assert net.block >= start + 5
        outcome = await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
        assert outcome.block is not None and outcome.block > start


async def test_what_is_submitted_together_shares_an_instant_block(localnet: Localnet) -> None:
    call = localnet.client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Bob", "value": 1})
    before = localnet.block
    for nonce in (1, 0, 2):
        localnet.chain.submit(localnet.client.sign("//Alice", call, nonce))
        localnet.miner.poke()
    for _ in range(200):
        if localnet.query("System", "Account", "//Alice")["nonce"] == 3:
            break
        await asyncio.sleep(0.01)
    assert localnet.block == before + 1 and len(localnet.chain.head.extrinsics or []) == 5


@pytest.mark.localnet(mining="manual")
async def test_a_shielded_extrinsic_lands_behind_its_carrier(localnet: Localnet) -> None:
    await localnet.mine(3)
    client = localnet.client
    inner_call = client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Bob", "value": TAO})
    inner = client.sign("//Alice", inner_call, 1)
    key = localnet.query("MevShield", "NextKey")
    ciphertext = bytes(bittensor_core.encrypt_mlkem768(key, inner, include_key_hash=True))
    before = localnet.balance("//Bob")
    outcome = await localnet.extrinsic("//Alice", "MevShield", "submit_encrypted", ciphertext=ciphertext)
    body = localnet.chain.head.extrinsics or []
    assert outcome.index is not None and body[outcome.index + 1] == inner
    assert localnet.balance("//Bob") == before + TAO
    events = [e["name"] for e in localnet.events() if e["phase"] == outcome.index + 1]
    assert events[-1] == "ExtrinsicSuccess"
    assert localnet.query("System", "Account", "//Alice")["nonce"] == 2


@pytest.mark.localnet(mining="manual")
async def test_a_carrier_that_holds_nonsense_costs_only_its_fee(localnet: Localnet) -> None:
    await localnet.mine(3)
    key = localnet.query("MevShield", "NextKey")
    foreign = localnet.client.sign("//Bob", localnet.client.encode_call("System", "remark", {"remark": b""}), 77)
    for plain in (b"not an extrinsic", b"", foreign):
        ciphertext = bytes(bittensor_core.encrypt_mlkem768(key, plain, include_key_hash=True))
        for blob in (ciphertext, bytes(16) + ciphertext[16:]):
            outcome = await localnet.extrinsic("//Alice", "MevShield", "submit_encrypted", ciphertext=blob)
            assert outcome.success and len(localnet.chain.head.extrinsics or []) == (outcome.index or 0) + 1


def test_the_synchronous_twin(sync_localnet: SyncLocalnet) -> None:
    net = sync_localnet
    assert net.url.startswith("ws://127.0.0.1:")
    snapshot = net.snapshot()
    assert net.mine(2) == snapshot + 2
    assert net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=TAO).success
    net.fund("//Zoe", TAO)
    assert net.balance("//Zoe") == TAO
    with pytest.raises(CallFailed):
        net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=2 * 10**15)
    net.revert(snapshot)
    assert net.balance("//Zoe") == 0 and net.block == snapshot
    net.stop()
    net.stop()
    with pytest.raises(ChainError, match="not running"):
        net.mine()


def test_the_synchronous_twin_starts_once_and_always_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    net = SyncLocalnet(mining="manual").start()
    with pytest.raises(ChainError, match="runs already"):
        net.start()
    assert net.mine() == 1

    ended = net.net.stop

    async def stop() -> None:
        await ended()
        raise OSError("disk full")

    monkeypatch.setattr(net.net, "stop", stop)
    with pytest.raises(OSError, match="disk full"):
        net.stop()
    assert threading.active_count() == before


def test_the_synchronous_twin_has_the_same_names() -> None:
    names = {name for name in dir(Localnet) if not name.startswith("_")} - {"client"}
    assert names <= set(vars(SyncLocalnet))


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70_000},
        {"mining": "sometimes"},
        {"block_time": 0.0},
        {"block_time": math.inf},
        {"history": -1},
        {"profile": "slow"},
    ],
)
async def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        await Localnet(**options).start()  # type: ignore[arg-type]


async def test_a_port_in_use_is_named_and_a_stopped_net_frees_its_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            await Localnet(port=port).start()
        with pytest.raises(ConfigError):
            SyncLocalnet(port=port).start()
    for _ in range(2):
        async with Localnet(port=port) as net:
            assert net.url.endswith(f":{port}")


async def test_time_travel_is_one_step_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Localnet(mining="manual", clock="step", genesis_time=1_700_000_000_000) as net:
        await net.mine()
        slot, there = net.chain.slot_ms, 1_800_000_000_000
        async with net.miner.hold():
            travel = asyncio.ensure_future(net.travel(there))
            await asyncio.sleep(0)
            await net.mine()
            assert net.timestamp == 1_700_000_000_000 + slot  # this block is not the traveller's
        assert await travel == 3 and net.timestamp == there
        with monkeypatch.context() as patch, pytest.raises(ChainError, match="not now"):
            patch.setattr(net.chain, "author", lambda *_: (_ for _ in ()).throw(ChainError("not now")))
            await net.travel(2 * there)
        assert await net.mine() == 4 and net.timestamp == there + slot
