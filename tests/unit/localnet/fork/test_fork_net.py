"""A chain forked from a node of our own, and what `--fork` makes of nodes and files that cannot be used."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localnet.cli import _serve
from localnet.errors import ConfigError, ForkError, StateDiscarded, UnknownBlock
from localnet.fork.base import Base
from localnet.fork.cache import VALUE, Cache, Point
from localnet.fork.start import Options, Target, open_fork
from localnet.net import Localnet
from localnet.node.blocks import Header, blake2_256
from localnet.sync import SyncLocalnet
from tests.support.remote_node import CODE, HEAD, RemoteNode, error, result

PALLET = "SubtensorModule"


@pytest.fixture(scope="module")
def far() -> Iterator[SyncLocalnet]:
    """The chain forked from: two subnets, in a thread of its own."""
    with SyncLocalnet(mining="manual", clock="step", genesis_time=1_700_000_000_000) as net:
        net.mine(2)
        net.fund("//Zoe", 10**13)
        for _ in range(2):
            net.subnet(miners=3, validators=2, epochs=0)
        yield net


def forked(far: SyncLocalnet, path: Path, **options: Any) -> SyncLocalnet:
    usual: dict[str, Any] = {"mining": "manual", "clock": "step", "fork": far.url, "fork_rate": 1e6}
    return SyncLocalnet(fork_cache=path, **usual | options)


def test_a_fork_goes_on_as_the_chain_it_left_does(far: SyncLocalnet, tmp_path: Path) -> None:
    """Block by block the state of a chain that has everything at hand, across the epochs of its subnets."""
    with far.snapshot(), forked(far, tmp_path / "cache") as net:
        assert (net.block, net.block_hash, net.genesis_hash) == (far.block, far.block_hash, far.genesis_hash)
        assert net.timestamp == far.timestamp
        for _ in range(2):
            blocks = 12
            assert net.mine(blocks) == far.mine(blocks)
            for item in ("Emission", "Incentive", "Consensus", "SubnetAlphaOut", "LastEpochBlock", "TotalHotkeyAlpha"):
                assert net.query_map(PALLET, item) == far.query_map(PALLET, item)
            assert net.events() == far.events()
        assert far.query(PALLET, "LastEpochBlock", 2) > far.block - 24  # there were epochs


def test_the_first_block_was_read_for_before_the_start_is_over(far: SyncLocalnet, tmp_path: Path) -> None:
    with forked(far, tmp_path / "cache") as net:
        assert net.net.forked is not None
        asked = net.net.forked.stats.requests
        assert net.block == far.block and net.net.chain.state.depth == 0
        net.mine()
        assert net.net.forked.stats.requests == asked


def test_a_start_that_was_broken_off_leaves_no_list_of_what_to_fetch_ahead(far: SyncLocalnet, tmp_path: Path) -> None:
    """It would be taken for all that a block reads."""
    path = tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ForkError, match="pulled"):
        patch.setattr("localnet.fork.chain.ForkedChain.rehearse", pulled)
        forked(far, path).start()
    cache, genesis = Cache(path), bytes.fromhex(far.genesis_hash[2:])
    assert cache.touched(genesis) == []
    with forked(far, path):
        pass
    assert len(cache.touched(genesis)) > 10
    cache.close()


def pulled(chain: object) -> None:
    raise ForkError("the plug is pulled")


def test_what_a_developer_can_do(far: SyncLocalnet, tmp_path: Path) -> None:
    with forked(far, tmp_path / "cache") as net:
        start = net.block
        with net.snapshot():
            sent = net.extrinsic("//Zoe", "Balances", "transfer_keep_alive", dest="//New", value=10**9)
            assert sent.success and net.balance("//New") == 10**9
            assert net.trace()["steps"][0]["step"] == "initialization"
            net.set_storage(PALLET, "Kappa", 1, value=5)
            assert net.query(PALLET, "Kappa", 1) == 5
            assert net.impersonate("root", "AdminUtils", "sudo_set_kappa", netuid=2, kappa=7).success
            assert net.dry_run("//Zoe", "Balances", "transfer_all", dest="//Bob", keep_alive=True).success
        assert (net.block, net.balance("//New")) == (start, 0)
        assert net.query(PALLET, "Kappa", 1) == far.query(PALLET, "Kappa", 1)
        with pytest.raises((StateDiscarded, UnknownBlock), match="older than the fork"):
            net.set_head(start - 1)
        with pytest.raises(ForkError, match="cannot be listed"):
            net.export_state()
        chain = net.net.chain
        assert "0x" + chain.hash_of(0).hex() == far.genesis_hash
        assert chain.hash_of(start - 1) == far.net.chain.blocks[start - 1].hash
        with pytest.raises(UnknownBlock, match="older than the fork"):
            chain.block(start - 1)


def test_a_second_run_asks_for_two_hashes_and_a_third_for_nothing(far: SyncLocalnet, tmp_path: Path) -> None:
    path, asked = tmp_path / "cache", []
    for offline in (False, False, True):
        with forked(far, path, fork_offline=offline) as net:
            net.mine(12)
            state = net.query_map(PALLET, "Emission"), net.block_hash
            assert net.net.forked is not None
            asked.append((net.net.forked.stats.requests, state))
            if offline:
                with pytest.raises(ForkError, match=r"offline.*does not have 0x.*without --fork-offline"):
                    net.query("System", "Account", bytes(range(32)))
                with pytest.raises(UnknownBlock):
                    net.net.chain.hash_of(1)
                net.mine()  # a read that failed breaks nothing
    assert [requests for requests, _ in asked][1:] == [2, 0]
    assert asked[0][1] == asked[1][1] == asked[2][1]


def test_another_block_is_fetched_ahead_by_what_blocks_touched(far: SyncLocalnet, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with forked(far, path) as net:
        net.mine(12)
    with far.snapshot():
        far.mine(1)
        with forked(far, path) as net:
            assert net.net.forked is not None
            before = net.net.forked.stats.requests
            net.mine(1)
            assert net.net.forked.stats.requests == before


def test_a_lost_node_breaks_the_block_and_not_the_chain(far: SyncLocalnet, tmp_path: Path) -> None:
    with forked(far, tmp_path / "cache") as net:
        base = net.net.forked
        assert base is not None and base.remote is not None
        start, working = net.block, base.remote.values

        def broken(keys: object, at: object) -> None:
            raise ForkError("the node does not answer")

        client = net.net.client
        call = client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Unheard", "value": 10**9})
        net.net.chain.submit(client.sign("//Zoe", call, 0))
        base.remote.values = broken  # type: ignore[method-assign, assignment]
        with pytest.raises(ForkError, match="does not answer"):  # the runtime swallows it: the call would just fail
            net.mine()
        with pytest.raises(ForkError, match="does not answer"):
            net.balance("//Unheard")
        assert net.block == start and len(net.net.chain.pool) == 1
        base.remote.values = working  # type: ignore[method-assign]
        net.mine()
        assert net.balance("//Unheard") == 10**9


def test_by_number_and_by_hash(far: SyncLocalnet, tmp_path: Path) -> None:
    number = far.block - 2
    digest = "0x" + far.net.chain.blocks[number].hash.hex()
    for block in (str(number), digest):
        with forked(far, tmp_path / "cache", fork=f"{far.url}@{block}") as net:
            assert (net.block, net.block_hash) == (number, digest)
            assert net.mine() == number + 1
    with forked(far, tmp_path / "cache", fork=f"{far.url}@{number}", fork_offline=True) as net:
        assert net.block_hash == digest
    for block, words in (("999999", "not that long"), ("0x" + "11" * 32, "has no block")):
        with pytest.raises(ForkError, match=words):
            SyncLocalnet(fork=f"{far.url}@{block}", fork_cache=tmp_path / "cache").start()
    with pytest.raises(ForkError, match="other constants"):
        SyncLocalnet(fork=far.url, fork_cache=tmp_path / "cache", profile="mainnet").start()


def test_addresses() -> None:
    assert Target.parse("ws://node:9944") == Target("ws://node:9944", None)
    assert Target.parse("wss://a.b/key@17") == Target("wss://a.b/key", 17)
    assert Target.parse("https://user@a.b") == Target("https://user@a.b", None)
    assert Target.parse("http://a@0x" + "ab" * 32) == Target("http://a", b"\xab" * 32)
    for wrong in ("node", "ftp://a", "ws://", "ws://a@x", "ws://a@0x12", "ws://a@-1", "ws://a@0xzz"):
        with pytest.raises(ConfigError):
            Target.parse(wrong)
    with pytest.raises(ConfigError, match="not kept in a state file"):
        Localnet(fork="ws://a", state="file")
    with pytest.raises(ConfigError, match="leave the runtime out"):
        Localnet(fork="ws://a", runtime="file.wasm")


# -- nodes that lie, files that are damaged


@pytest.fixture
def node() -> Iterator[RemoteNode]:
    with RemoteNode({b"key": b"value"}) as made:
        yield made


def opened(node: RemoteNode, path: Path, offline: bool = False) -> Base:
    return open_fork(node.url, Options(path, offline, 1e6))


def test_a_signal_ends_a_start_that_waits_for_the_node(node: RemoteNode, tmp_path: Path) -> None:
    node.silent.add("chain_getHeader")
    node.on_request = lambda: os.kill(os.getpid(), signal.SIGINT)
    before, options = signal.getsignal(signal.SIGINT), {"fork": node.url, "fork_cache": tmp_path / "cache"}
    asyncio.run(_serve(options, None, json_output=False, quiet=True))
    assert signal.getsignal(signal.SIGINT) is before
    assert not any(thread.name == "localnet-fork" for thread in threading.enumerate())


def test_ctrl_c_ends_a_start_in_a_thread(node: RemoteNode, tmp_path: Path) -> None:
    node.silent.add("chain_getHeader")
    node.on_request = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        SyncLocalnet(fork=node.url, fork_cache=tmp_path / "cache").start()
    assert not any(thread.name == "localnet-fork" for thread in threading.enumerate())


def test_a_chain_that_is_interrupted_makes_no_block_and_can_be_stopped(far: SyncLocalnet, tmp_path: Path) -> None:
    with forked(far, tmp_path / "cache") as net:
        block = net.block
        net.net.interrupt()
        with pytest.raises(ForkError, match="not asked any more"):
            net.balance("//Unheard")
        assert net.block == block


LIES = {
    "chain_getBlockHash": (result(None), "where a block hash"),
    "chain_getFinalizedHead": (result("0x00"), "block hash of 1 bytes"),
    "chain_getHeader": (result(Header(bytes(32), 5).json()), "hashes to"),
    "chain_getBlock": (result({"block": {"header": Header(bytes(32), 5).json(), "extrinsics": []}}), "hashes to"),
    "state_getStorageHash": (result("0x" + "11" * 32), "does not hash to"),
    "state_getStorage": (result("0x" + "11" * 32), "does not hash to"),
}


@pytest.mark.parametrize("method", LIES)
def test_lies_about_the_block_are_found(node: RemoteNode, tmp_path: Path, method: str) -> None:
    node.always[method], words = LIES[method]
    with pytest.raises(ForkError, match=words):
        opened(node, tmp_path / "cache")
    del node.always[method]
    base = opened(node, tmp_path / "cache")  # nothing of it was kept
    assert base.get(b"key") == b"value" and base.values[CODE] == node.storage[CODE]
    base.close()


def test_a_node_without_state_is_named(node: RemoteNode, tmp_path: Path) -> None:
    node.always["state_getStorageHash"] = error(4003, "State already discarded")
    with pytest.raises(ForkError, match=r"State already discarded.*archive node"):
        opened(node, tmp_path / "cache")
    with pytest.raises(ForkError, match="knows no block"):
        opened(node, tmp_path / "cache", offline=True)
    node.always = {"chain_getBlock": result(None)}
    with pytest.raises(ForkError, match=r"does not keep block.*archive node"):
        opened(node, tmp_path / "cache")


def test_two_processes_share_a_cache(node: RemoteNode, tmp_path: Path) -> None:
    one, two = opened(node, tmp_path / "cache"), opened(node, tmp_path / "cache")
    assert one.get(b"key") == b"value" and two.get(b"absent") is None and two.get(b"key") == b"value"
    for base in (one, two):
        base.close()
    later = opened(node, tmp_path / "cache", offline=True)
    assert (later.get(b"key"), later.get(b"absent")) == (b"value", None)
    later.close()


def test_another_chain_behind_the_same_address(node: RemoteNode, tmp_path: Path) -> None:
    opened(node, tmp_path / "cache").close()
    node.genesis = b"\x09" * 32
    with pytest.raises(ForkError, match="another genesis"):
        opened(node, tmp_path / "cache")


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    text, foreign, newer = (tmp_path / name for name in ("text", "foreign", "newer"))
    text.write_text("no database" * 100)
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (a)")
    Cache(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    for path, words in ((text, "damaged"), (foreign, "no fork cache"), (newer, "format 99"), (tmp_path, "cannot use")):
        with pytest.raises(ForkError, match=words):
            Cache(path)


def _point(header: Header) -> Point:
    return Point(b"\1" * 32, header.hash(), header, [b"\4\4"], blake2_256(b"code"), "ws://a")


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        ("UPDATE blocks SET header = zeroblob(100)", lambda cache, point: cache.point(point.hash, point.url)),
        ("UPDATE blocks SET header = x'00'", lambda cache, point: cache.point(point.hash, point.url)),
        ("UPDATE blocks SET body = x'0800'", lambda cache, point: cache.point(point.hash, point.url)),
        ("UPDATE codes SET code = x'00'", lambda cache, point: cache.code(point.code)),
        ("UPDATE pages SET keys = x'ffff'", lambda cache, point: cache.load(point)),
        ("UPDATE pages SET keys = x'08626104616100'", lambda cache, point: cache.load(point)),
        ("DROP TABLE entries", lambda cache, point: cache.load(point)),
    ],
)
def test_damage_in_a_cache_is_found(tmp_path: Path, damage: str, read: object) -> None:
    cache, point = Cache(tmp_path / "cache"), _point(Header(b"\2" * 32, HEAD))
    cache.remember(point)
    cache.keep_code(b"code")
    cache.keep(point, {b"k": b"v", b"none": None}, [(b"a", b"c", [b"aa", b"ab"])])
    assert cache.point(point.hash, "ws://a") == point and cache.code(point.code) == b"code"
    assert cache.load(point) == ({b"k": b"v", b"none": None}, [(b"a", b"c", [b"aa", b"ab"])])
    with sqlite3.connect(tmp_path / "cache") as db:
        db.execute(damage)
    with pytest.raises(ForkError, match="delete it"):
        read(cache, point)  # type: ignore[operator]
    cache.close()


def test_touched_keys_that_nobody_uses_any_more_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localnet.fork.cache.MAX_TOUCHED", 3)
    cache, genesis = Cache(tmp_path / "cache"), bytes(32)
    for run, keys in enumerate((b"ab", b"bc", b"d"), 1):
        assert cache.next_run(genesis) == run
        cache.touch(genesis, [(bytes((key,)), VALUE) for key in keys], run)
    assert sorted(key for key, _ in cache.touched(genesis)) == [b"b", b"c", b"d"]
    cache.close()
