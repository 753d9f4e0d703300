"""The state file: what it keeps through a restart, a revert and a kill, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from localnet.errors import StateFileError, StateFileMismatch, StateFileVersion
from localnet.net import Localnet
from localnet.node.state import Journal
from localnet.node.store import Store, decode_journal, encode_journal
from tests.unit.localnet.node.tiny_runtime import TinyRuntime, extrinsic, put

HERE = Path(__file__).parent
ROOT = HERE.parents[3]


def _net(path: Path, metadata: bytes = b"tiny", **options: object) -> Localnet:
    return Localnet(runtime=TinyRuntime(metadata), mining="manual", state=path, **options)  # type: ignore[arg-type]


def test_journals_round_trip() -> None:
    journal: Journal = {b"": b"", b"k": None, b"long" * 100: b"v" * 20_000}
    assert decode_journal(encode_journal(journal)) == journal


async def test_a_restart_restores_blocks_states_and_nonces(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "chain.db"
    async with _net(path) as net:
        for nonce in range(3):
            net.chain.submit(extrinsic(1, nonce, put(b"k", bytes((nonce,)))))
            await net.mine()
        hashes = [block.hash for block in net.chain.blocks]
        bodies = [block.extrinsics for block in net.chain.blocks]
        times = [block.timestamp for block in net.chain.blocks]
        key = net.chain.shield.announced(3)
    async with _net(path) as net:
        assert [block.hash for block in net.chain.blocks] == hashes
        assert [block.extrinsics for block in net.chain.blocks] == bodies
        assert [block.timestamp for block in net.chain.blocks] == times
        assert [net.chain.storage(b"k", n) for n in range(4)] == [None, b"\0", b"\1", b"\2"]
        assert net.rpc.node.api.next_nonce(b"\1" * 32) == 3
        assert net.chain.shield.announced(3) == key
        assert await net.mine() == 4
        assert net.timestamp > times[-1]


async def test_a_revert_is_stored_too(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    async with _net(path) as net:
        await net.mine(3)
        await net.miner.mine(1, {b"k": b"v", b"number": None})
        await net.revert(2)
        expected = dict(net.chain.state.head)
        await net.mine()
        await net.revert(2)
    async with _net(path) as net:
        assert net.block == 2 and net.chain.state.head == expected


async def test_discarded_history_stays_discarded(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    async with _net(path, history=10) as net:
        await net.mine(130)
        oldest = net.chain.state.oldest
    async with _net(path, history=10) as net:
        assert net.chain.state.oldest == oldest == 118
        assert net.chain.block(117).extrinsics is None and net.chain.block(118).extrinsics is not None
        assert net.chain.storage(b"number", 118) == (118).to_bytes(4, "little")
        await net.mine(70)
        assert net.chain.state.oldest == 182


async def test_a_file_of_another_chain_is_refused(tmp_path: Path) -> None:
    async with _net(tmp_path / "chain.db") as net:
        await net.mine()
    with pytest.raises(StateFileMismatch, match="genesis"):
        await _net(tmp_path / "chain.db", b"other metadata").start()
    async with _net(tmp_path / "chain.db") as net:  # and released again
        assert net.block == 1


async def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    async with _net(tmp_path / "chain.db"):
        with pytest.raises(StateFileError, match="another process"):
            await _net(tmp_path / "chain.db").start()


def test_foreign_damaged_and_newer_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, please do not overwrite them " * 100)
    with pytest.raises(StateFileError, match="not a state file"):
        Store.open(text)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateFileError, match="another program"):
        Store.open(foreign)
    newer = tmp_path / "newer.db"
    asyncio.run(Store.open(newer)[0].close())
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateFileVersion, match="99"):
        Store.open(newer)
    with pytest.raises(StateFileError):
        Store.open(tmp_path)
    assert text.read_text().startswith("these are my notes")


async def test_a_damaged_file_is_refused_or_whole(tmp_path: Path) -> None:
    """Any bytes of the file may have gone: it opens with a chain that hangs together, or says what can be done."""
    path, rng = tmp_path / "chain.db", random.Random(5)
    async with _net(path) as net:
        for nonce in range(20):
            net.chain.submit(extrinsic(1, nonce, put(b"k" * 40, bytes((nonce,)) * 300)))
            await net.mine()
    whole = path.read_bytes()
    refused = 0
    for number in range(80):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if number % 4 == 0 else whole)
        for _ in range(rng.randrange(1, 30)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 255, rng.randrange(256)))
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(damaged)
        try:
            store, stored = Store.open(copy)
        except StateFileError as error:
            refused += 1
            assert any(word in str(error) for word in ("delete it", "choose another", "use the program")), error
            continue
        for block, parent in zip(stored.blocks[1:], stored.blocks, strict=False) if stored else ():
            assert block.header.parent_hash == parent.hash
        await store.close()
    assert refused > 20


VICTIM = """
    import asyncio, sys
    sys.path[:0] = [{here!r}, {root!r}]
    from tests.unit.localnet.node.tiny_runtime import TinyRuntime
    from localnet.net import Localnet
    async def main():
        async with Localnet(runtime=TinyRuntime(), mining="manual", state={path!r}) as net:
            while True:
                number = await net.mine()
                print(number, net.block_hash, flush=True)
    asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
async def test_a_killed_process_loses_no_block_it_has_announced(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    script = textwrap.dedent(VICTIM.format(here=str(HERE), root=str(ROOT), path=str(path)))
    last = 0
    for round_ in range(3):
        victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert victim.stdout is not None
        for line in victim.stdout:
            number, digest = line.split()
            if int(number) >= last + 20 + 7 * round_:
                break
        os.kill(victim.pid, signal.SIGKILL)
        rest = victim.communicate()[0].split("\n")
        seen = [line.split() for line in [f"{number} {digest}", *rest] if len(line.split()) == 2 and len(line) > 66]
        last = int(seen[-1][0])
        async with _net(path) as net:
            assert net.block >= last
            assert net.block <= last + 1
            for number, digest in seen:
                assert "0x" + net.chain.block(int(number)).hash.hex() == digest
            last = net.block


async def test_a_chain_stops_rather_than_go_on_without_its_file(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    async with _net(path) as net:
        await net.mine(2)
        store = net._store
        assert store is not None
        pages = await store._in_thread(lambda: store._db.execute("PRAGMA page_count").fetchone()[0])
        await store._in_thread(
            lambda: store._db.execute(f"PRAGMA max_page_count = {pages}")
        )  # as if the disk were full
        with pytest.raises(StateFileError, match="full"):
            await net.miner.mine(1, {b"large": bytes(2**20)})
        for attempt in (net.mine(), net.revert(1)):
            with pytest.raises(StateFileError):
                await attempt
        assert net.chain.storage(b"number", 2) is not None  # reading goes on
    async with _net(path) as net:
        assert net.block == 2
        assert await net.mine() == 3


async def test_a_listener_that_fails_keeps_no_block_from_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "chain.db"

    def fail(*news: object) -> None:
        raise ZeroDivisionError

    async with _net(path) as net:
        net.chain.listeners.insert(0, fail)
        net.chain.reverted.insert(0, fail)
        await net.mine(3)
        await net.revert(2)
        assert caplog.text.count("a listener failed") == 4
        net.chain.author()  # behind the miner's back: the file does not get it
        with pytest.raises(StateFileError, match="ends with block 2: block 4 leaves a gap"):
            await net.mine()
        assert isinstance(net.miner.failure, StateFileError)
    async with _net(path) as net:
        assert net.block == 2 and await net.mine() == 3
