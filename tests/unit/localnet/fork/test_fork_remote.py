"""The client of a remote node: what it asks, what it refuses to believe, and how it keeps trying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from localnet.errors import ForkError
from localnet.fork import answers, transport
from localnet.fork.answers import Garbage
from localnet.fork.reading import BULK
from localnet.fork.remote import ATTEMPTS, Remote
from localnet.fork.transport import Bucket, Interrupted, Lost, Socket
from localnet.node.blocks import Header, slot_item
from localnet.node.children import entry_key
from localnet.node.trie import ordered_root
from tests.support import remote_node
from tests.support.remote_node import RemoteNode, error, garbage, hang_up, result

STORAGE = {b"item" + n.to_bytes(2, "big"): bytes((n % 251,)) * (n % 5) for n in range(2500)}
KEYS = sorted(STORAGE)


@pytest.fixture(scope="module")
def served() -> Iterator[RemoteNode]:
    with RemoteNode(STORAGE, {entry_key(b"child", b"k"): b"v"}) as node:
        yield node


@pytest.fixture
def node(served: RemoteNode) -> RemoteNode:
    served.faults.clear()
    served.always.clear()
    served.silent.clear()
    served.seen.clear()
    served.statuses.clear()
    served.closing, served.most = 1000, 1000
    return served


@contextmanager
def client(url: str, **options: float) -> Iterator[Remote]:
    remote = Remote(url, **{"rate": 1e6, "pause": 0.001, "timeout": 5.0, "jitter": lambda: 0.5, **options})
    try:
        yield remote
    finally:
        remote.close()


@pytest.mark.parametrize("kind", ["url", "post_url"])
def test_values_headers_and_keys(node: RemoteNode, kind: str) -> None:
    with client(getattr(node, kind)) as remote:
        assert remote.header(node.hash) == node.header
        assert (remote.finalized(), remote.block_hash(0), remote.block_hash(99)) == (node.hash, node.genesis, None)
        wanted = [*KEYS, b"absent"]
        assert remote.values(wanted, node.hash) == {**STORAGE, b"absent": None}
        assert node.counts()["state_queryStorageAt"] == -(-len(wanted) // BULK)
        assert remote.page(b"item", KEYS[3], 4, node.hash) == KEYS[4:8]
        found, end = remote.scan([b"item"], 10_000, node.hash)[b"item"]
        assert (found, end) == (KEYS, b"iten")
        assert remote.values([entry_key(b"child", b"k")], node.hash) == {entry_key(b"child", b"k"): b"v"}
        assert remote.page(entry_key(b"child", b""), None, 5, node.hash) == [entry_key(b"child", b"k")]
    assert node.connections <= 1 or kind == "url"
    assert remote.stats.requests == len(node.seen) and remote.stats.values == len(wanted) + 1


def test_bulk_reads_that_are_refused_become_single_ones(node: RemoteNode, caplog: pytest.LogCaptureFixture) -> None:
    node.always["state_queryStorageAt"] = error(-32601, "RPC call is unsafe to be called externally")
    with client(node.url) as remote, caplog.at_level(logging.WARNING):
        assert remote.values(KEYS[:30], node.hash) == {key: STORAGE[key] for key in KEYS[:30]}
        assert remote.values(KEYS[30:40], node.hash) == {key: STORAGE[key] for key in KEYS[30:40]}
    assert node.counts() == {"state_queryStorageAt": 1, "state_getStorage": 40}
    assert [record.message for record in caplog.records if "one by one" in record.message] != []
    assert sum("one by one" in record.message for record in caplog.records) == 1


def test_answers_that_are_too_big_are_asked_for_in_parts(node: RemoteNode) -> None:
    node.faults += [error(-32008, "Response is too big"), error(-32008, "Response is too big")]
    with client(node.url) as remote:
        assert remote.values(KEYS[:40], node.hash) == {key: STORAGE[key] for key in KEYS[:40]}
    assert node.counts() == {"state_queryStorageAt": 5}


def test_a_block_without_state_is_one_clear_error(node: RemoteNode) -> None:
    refusal = error(4003, "Client error: UnknownBlock: State already discarded for 0x00")
    node.always |= {"state_queryStorageAt": refusal, "state_getStorage": refusal}
    with client(node.url) as remote, pytest.raises(ForkError, match=r"State already discarded.*archive node"):
        remote.values(KEYS[:500], node.hash)
    assert len(node.seen) == 2


LOST = {
    "hung up": [hang_up],
    "not JSON": [garbage("<html>")],
    "a list": [garbage("[]")],
    "another id": [result("0x01", shift=1000)],
    "busy": [error(-32005, "limit")],
    "busy in words": [error(-32000, "Too Many Requests")],
    "no result": [garbage('{"jsonrpc":"2.0","id":%d}')],
    "hung up often": [hang_up] * (ATTEMPTS - 1),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_asked_for_again(node: RemoteNode, name: str) -> None:
    node.faults += LOST[name]
    with client(node.url, timeout=0.2) as remote:
        assert remote.values(KEYS[7:8], node.hash) == {KEYS[7]: STORAGE[KEYS[7]]}
        assert remote.stats.retries == len(LOST[name])


def test_it_gives_up_in_the_end_and_says_how_often_it_tried(node: RemoteNode) -> None:
    node.silent.add("state_getStorage")
    with client(node.url, timeout=0.02) as remote, pytest.raises(ForkError, match=f"did not answer.*{ATTEMPTS} times"):
        remote.values(KEYS[:1], node.hash)
    assert len(node.seen) == ATTEMPTS


def test_nobody_waits_as_long_again_for_a_node_that_was_given_up(node: RemoteNode) -> None:
    node.silent.add("state_getStorage")
    with client(node.url, timeout=0.03) as remote:
        for seen in (ATTEMPTS, ATTEMPTS + 1):
            with pytest.raises(ForkError, match="did not answer"):
                remote.values(KEYS[:1], node.hash)
            assert len(node.seen) == seen
        node.silent.clear()
        while True:  # a busy machine: a hundredth of a second may be too little
            with suppress(ForkError):
                assert remote.values(KEYS[:1], node.hash) == {KEYS[0]: STORAGE[KEYS[0]]}
                break
        node.faults.append(hang_up)
        assert remote.values(KEYS[1:2], node.hash) == {KEYS[1]: STORAGE[KEYS[1]]}


def test_one_of_several_nodes_behind_an_address_may_lag(node: RemoteNode) -> None:
    node.faults.append(error(4003, "Client error: UnknownBlock: Header was not found in the database: 0x00"))
    with client(node.url) as remote:
        assert remote.values(KEYS[:1], node.hash) == {KEYS[0]: STORAGE[KEYS[0]]}


def test_who_waits_on_a_connection_that_is_dropped_is_told(node: RemoteNode) -> None:
    node.silent.add("state_getStorage")
    with client(node.url) as remote:

        async def dropped() -> None:
            link = remote._link
            assert isinstance(link, Socket)
            waiting = asyncio.ensure_future(link.ask("state_getStorage", []))
            while not link._waiting:
                await asyncio.sleep(0)
            await link._drop()
            await waiting

        with pytest.raises(Lost, match="closed the connection"):
            remote._run(asyncio.wait_for(dropped(), 5.0))


def test_nobody_there() -> None:
    with client("ws://127.0.0.1:1") as remote, pytest.raises(ForkError, match="cannot connect"):
        remote.finalized()
    with client("http://127.0.0.1:1") as remote, pytest.raises(ForkError, match="broke"):
        remote.finalized()
    with pytest.raises(ForkError, match="no node's address"):
        Remote("file:///etc/passwd")
    with pytest.raises(ForkError, match="asks nothing"):
        Remote("ws://127.0.0.1:1", rate=0)


def test_http_statuses(node: RemoteNode) -> None:
    node.statuses += [429, 503]
    with client(node.post_url) as remote:
        assert remote.finalized() == node.hash
        assert remote.stats.retries == 2
        node.statuses.append(404)
        with pytest.raises(ForkError, match="HTTP 404"):
            remote.finalized()
        node.always["chain_getFinalizedHead"] = result("0x00", shift=3)
        with pytest.raises(ForkError, match="another request"):
            remote.finalized()


@pytest.mark.parametrize("most", [7, 999, 1000])
def test_a_node_that_gives_fewer_keys_than_asked_for_is_asked_for_the_rest(node: RemoteNode, most: int) -> None:
    node.most = most
    keys = KEYS[: 40 * most]
    with client(node.url) as remote:
        assert remote.scan([b"item"], len(keys), node.hash)[b"item"][0][: len(keys)] == keys
        assert remote.page(b"item\0", None, 300, node.hash) == KEYS[:256]
    with client(node.url) as remote:  # who knows that the node gives more at once does not ask again
        assert remote.page(b"item", None, 5, node.hash) == KEYS[:5]
        node.seen.clear()
        assert remote.page(b"item\0\1", None, 9, node.hash) == KEYS[1:2]
        assert len(node.seen) == 1


def test_a_busy_node_is_asked_less_often(node: RemoteNode, caplog: pytest.LogCaptureFixture) -> None:
    node.closing = 1008  # policy violation
    with client(node.url, rate=100.0) as remote, caplog.at_level(logging.WARNING):
        node.faults.append(hang_up)
        assert remote.finalized() == node.hash
    with client(node.url, rate=100.0) as remote:
        node.statuses.append(429)
        assert remote.finalized() == node.hash
    with client(node.post_url, rate=100.0) as remote:
        node.statuses += [429]
        assert remote.finalized() == node.hash
    with client(node.url, rate=100.0) as remote:
        node.faults.append(error(-32029, "rate limit"))
        assert remote.finalized() == node.hash
    assert sum("50.0 requests a second for a while" in record.message for record in caplog.records) == 4
    node.statuses += [429] * ATTEMPTS
    with client(node.url) as remote, pytest.raises(ForkError, match=r"HTTP 429.*fewer requests.*--fork-rate"):
        remote.finalized()


def test_the_rate_of_a_busy_node_has_a_floor_and_falls_once_for_what_was_under_way() -> None:
    bucket = Bucket(rate=8.0, burst=4.0)
    assert bucket.slow(10.0) and not bucket.slow(10.5) and bucket.slow(11.0)
    assert (bucket.rate, [bucket.wait(11.0) for _ in range(2)]) == (2.0, [0.5, 1.0])
    assert [bucket.slow(float(now)) for now in range(12, 17)] == [True, True, False, False, False]
    assert bucket.rate == 0.5
    for now, rate in ((70.0, 0.5), (75.0, 1.0), (80.0, 1.0), (200.0, 2.0), (300.0, 4.0), (400.0, 8.0), (500.0, 8.0)):
        bucket.wait(now)
        assert bucket.rate == rate


def test_when_one_fails_the_others_are_not_asked_for_any_more(node: RemoteNode) -> None:
    node.silent.add("state_getStorage")
    with client(node.url) as remote:
        with pytest.raises(ForkError, match="Method not found"):
            remote.ask(("unknown",), *(("state_getStorage", "0x00", "0x" + node.hash.hex()) for _ in range(50)))
        assert remote._link._waiting == {}  # type: ignore[attr-defined]
        assert remote.stats.retries == 0
        asked = remote.stats.requests
        assert remote.finalized() == node.hash
        assert remote.stats.requests == asked + 1


def test_who_waits_can_be_interrupted(node: RemoteNode) -> None:
    node.silent.add("state_getStorage")
    with client(node.url, timeout=60.0) as remote:
        for for_good in (False, True):
            node.on_request = partial(remote.interrupt, for_good)
            with pytest.raises(Interrupted, match="interrupted while"):
                remote.values(KEYS[:1], node.hash)
            if not for_good:
                assert remote.finalized() == node.hash
        with pytest.raises(Interrupted, match="not asked any more"):
            remote.finalized()


def test_one_broken_connection_fails_nobody_else(node: RemoteNode) -> None:
    node.faults += [hang_up]
    with client(node.url) as remote:
        found = remote.ask(*(("state_getStorage", "0x" + key.hex(), "0x" + node.hash.hex()) for key in KEYS[:20]))
    assert found == ["0x" + STORAGE[key].hex() for key in KEYS[:20]]


def test_answers_larger_than_the_limit_end_the_attempt(node: RemoteNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 1000)
    node.always["state_getStorage"] = result("0x" + "00" * 2000)
    for url, words in ((node.url, "more than 1000 bytes"), (node.post_url, "more than 1000 bytes")):
        with client(url) as remote, pytest.raises(ForkError, match=words):
            remote.values(KEYS[:1], node.hash)


def test_the_rate_is_kept() -> None:
    bucket = Bucket(rate=10.0, burst=3.0)
    assert [round(bucket.wait(0.0), 3) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    assert round(bucket.wait(0.2), 3) == 0.1
    assert bucket.wait(60.0) == 0


HASH = b"\5" * 32


def _hexed(*data: bytes) -> list[str]:
    return ["0x" + one.hex() for one in data]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (_hexed(b"ab", b"aa"), "out of order"),
        (_hexed(b"ab", b"ab"), "out of order"),
        (_hexed(b"aa"), "does not follow"),
        (_hexed(b"bb"), "asked for keys under"),
        (_hexed(b"ab", b"ac", b"ad"), "at most 2"),
        (["ab"], "where a storage key"),
        (["0xabc"], "where a storage key"),
        (["0xzz"], "where a storage key"),
        ([7], "where a storage key"),
        (["0x" + "ff" * 64], "no chain has"),
        (["0x" + "00" * 5000], "at most 4096"),
        ("0x", "at most 2 keys"),
        (None, "at most 2 keys"),
    ],
)
def test_pages_that_cannot_be(keys: object, words: str) -> None:
    assert answers.page(_hexed(b"ab", b"ac"), b"a", b"aa", 2) == [b"ab", b"ac"]
    assert answers.page(_hexed(b"", b"a"), b"", None, 2) == [b"", b"a"]
    with pytest.raises(Garbage, match=words):
        answers.page(keys, b"a", b"aa", 2)


def _changes(*pairs: object, block: bytes = HASH) -> object:
    return [{"block": "0x" + block.hex(), "changes": list(pairs)}]


@pytest.mark.parametrize(
    "answer",
    [
        None, [], [{}], _changes(), _changes(["0x01", "0x"]), _changes(["0x01", "0x"], ["0x03", None]),
        _changes(["0x01", None], ["0x02", None], block=bytes(32)), _changes(["0x01", 5], ["0x02", None]),
        _changes(["0x01"], ["0x02", None]), _changes(["0x01", None], ["0x02", None], ["0x02", None]),
        _changes(["0x01", None], ["0x02", None]) * 2, _changes(["0x01", "0x1"], ["0x02", None]),
    ],
)  # fmt: skip
def test_values_that_cannot_be(answer: object) -> None:
    good = _changes(["0x02", None], ["0x01", "0x"])
    assert answers.changes(good, [b"\1", b"\2"], HASH) == {b"\1": b"", b"\2": None}
    with pytest.raises(Garbage):
        answers.changes(answer, [b"\1", b"\2"], HASH)


def test_headers_and_bodies_that_cannot_be() -> None:
    header = Header(b"\1" * 32, 5, b"\2" * 32, ordered_root([b"\4\4"], 0), (slot_item(9),))
    good = header.json()
    assert answers.header(good, header.hash()) == header
    assert answers.body({"block": {"header": good, "extrinsics": ["0x0404"]}}, header.hash()) == [b"\4\4"]
    for change in (
        {"number": "0x6"}, {"number": -1}, {"number": "0x" + "f" * 30}, {"parentHash": "0x00"}, {"parentHash": None},
        {"digest": {"logs": ["0x09"]}}, {"digest": {"logs": ["0x"] * 100}}, {"digest": {"logs": "0x"}}, {"digest": 5},
        {"stateRoot": "0x" + "04" * 32},
    ):  # fmt: skip
        with pytest.raises(Garbage):
            answers.header(good | change, header.hash())
    for body in (
        None,
        {},
        {"block": {"header": good, "extrinsics": ["0x0405"]}},
        {"block": {"header": good, "extrinsics": "0x"}},
        {"block": {"header": good}},
    ):
        with pytest.raises(Garbage):
            answers.body(body, header.hash())
    assert remote_node.HEAD
