"""Read proofs: they show what is, and a node that lies, withholds or adds is found out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from localnet.errors import ForkError
from localnet.fork import proofs
from localnet.fork.answers import END
from localnet.fork.proofs import Unproven, collect, decode
from localnet.fork.reading import above
from localnet.fork.remote import Remote
from localnet.fork.start import Options, open_fork
from localnet.node.children import entry_key
from localnet.node.trie import EMPTY_ROOT, root
from tests.support.remote_node import RemoteNode, error, prove, result

STATES = (
    {},
    {b"a": b"one"},
    {b"": b"at the top", b"a": b"v" * 40, b"ab": b"", b"ab\0": b"\0", b"b" * 40: b"w" * 33, b"b" * 41: b"x"},
    {bytes((a, b)): bytes((a,)) * (b % 50) for a in range(0, 256, 5) for b in range(0, 256, 17)},
)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("state", STATES, ids=len)
def test_a_proof_shows_what_is_or_nothing(state: dict[bytes, bytes], version: int) -> None:
    """Also when items are missing: every answer that is given is right."""
    rng, top = random.Random(version), root(state, version)
    for key in [*sorted(state)[:40], b"\0", b"ac", b"ab\0\0", b"b" * 39, b"b" * 40 + b"c", b"\xff" * 3]:
        items = sorted(prove(state, [key], version))
        assert proofs.value(top, key, collect(items)) == state.get(key)
        if items:
            items.pop(rng.randrange(len(items)))
            with pytest.raises(Unproven):
                proofs.value(top, key, collect(items))


@pytest.mark.parametrize("state", STATES, ids=len)
def test_a_stretch_of_keys_is_shown_whole_or_not_at_all(state: dict[bytes, bytes]) -> None:
    rng, top, order = random.Random(1), root(state, 1), sorted(state)
    for prefix in (b"", b"a", b"ab", b"\x05", b"b" * 20, b"\xff", b"\x0f"):
        for start in (None, prefix + b"\x40"):
            lo = prefix if start is None else start + b"\0"
            for count in (1, 3, 1000):
                found = [key for key in order if key.startswith(prefix) and key >= lo][:count]
                hi = above(prefix) if len(found) < count else found[-1] + b"\0"
                items = prove(state, [prefix if start is None else start, *found])
                assert proofs.keys(top, lo, hi, collect(items)) == found
                if found:  # the proof of a list that leaves one out
                    left = rng.choice(found)
                    items = prove(state, [prefix, *(key for key in found if key != left)])
                    with suppress(Unproven):
                        assert proofs.keys(top, lo, hi, collect(items)) == found
    assert proofs.keys(EMPTY_ROOT, b"", END, {}) == []


def test_items_that_are_no_nodes() -> None:
    good = sorted(prove(STATES[2], STATES[2]))
    rng = random.Random(2)
    for item in good:
        for _ in range(60):
            broken = bytearray(item)
            broken[rng.randrange(len(broken))] = rng.randrange(256)
            for data in (bytes(broken), item[: rng.randrange(len(item))], item + b"\0"):
                try:
                    decode(data)
                except Unproven:
                    continue
    for data in (
        b"",
        b"\0",
        b"\x41",
        b"\x41\x10\0",
        b"\x7f" + b"\xff" * 60,
        b"\x80\1\0\0",
        b"\x80\1\0\x84" + bytes(33),
    ):
        with pytest.raises(Unproven):
            decode(data)
    deep = b"\x41\1\0"  # nodes without end: each refers to itself as far as a short reference can go
    with pytest.raises(Unproven, match="leaves out"):
        proofs.value(bytes(32), b"k", collect([deep]))


# -- a node that has to prove what it answers

STORAGE = {b"item" + n.to_bytes(2, "big"): bytes((n % 251,)) * (n % 60) for n in range(300)} | {b"it": b"v"}
KEYS = sorted(STORAGE)
KEYS_PAGED = "state_getKeysPaged"
ENTRIES = {entry_key(b"child", bytes((n,))): bytes((n,)) * 40 for n in range(5)}


@pytest.fixture(scope="module")
def served() -> Iterator[RemoteNode]:
    with RemoteNode(STORAGE, ENTRIES) as node:
        yield node


@pytest.fixture
def node(served: RemoteNode) -> Iterator[RemoteNode]:
    served.always.clear()
    before = dict(served.storage)
    yield served
    served.storage = before


@contextmanager
def client(node: RemoteNode) -> Iterator[Remote]:
    remote = Remote(node.url, rate=1e6, pause=0.001)
    remote.prove(node.header.state_root)
    try:
        yield remote
    finally:
        remote.close()


def test_what_is_proven_is_believed(node: RemoteNode) -> None:
    with client(node) as remote:
        wanted = [*KEYS, b"absent", b"item\0", entry_key(b"child", b"\3"), entry_key(b"none", b"k")]
        known = {**dict.fromkeys(wanted), **STORAGE, entry_key(b"child", b"\3"): b"\3" * 40}
        assert remote.values(wanted, node.hash) == known
        assert remote.page(b"item", KEYS[9], 20, node.hash) == KEYS[10:30]
        assert remote.page(b"nothing", None, 20, node.hash) == []
        assert remote.page(entry_key(b"child", b""), None, 9, node.hash) == sorted(ENTRIES)
        assert remote.scan([b"item", b"it"], 10_000, node.hash) == {b"item": (KEYS[1:], b"iten"), b"it": (KEYS, b"iu")}
        ((walked, end),) = remote.walk([b"it"], [b"is"], 64, 10_000, node.hash)
        assert walked[: len(KEYS)] == KEYS and end > walked[-1]
    node.seen.clear()
    with client(node) as remote:
        remote.values([b"item\0\1"], node.hash)
    assert node.counts() == {"state_getReadProof": 1}  # nothing else is asked


def test_large_proofs_are_asked_for_in_parts(node: RemoteNode) -> None:
    node.faults += [error(-32008, "Response is too big")] * 3
    with client(node) as remote:
        assert remote.values(KEYS, node.hash) == STORAGE
        node.faults.append(error(-32008, "Response is too big"))
        with pytest.raises(ForkError, match="too big"):  # one key cannot be halved
            remote.values(KEYS[:1], node.hash)


def _keys(change: Callable[[list[str]], list[str]], node: RemoteNode) -> Any:
    """What the node answers to the first page, changed; nothing to the ones behind it."""

    def fault(request: dict[str, Any]) -> bytes:
        keys = change(node.answer(request["method"], request["params"])) if node.counts()[KEYS_PAGED] == 1 else []
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": keys}).encode()

    return fault


@pytest.mark.parametrize("left", [0, 7, -1])
def test_keys_that_are_withheld_are_missed(node: RemoteNode, left: int) -> None:
    node.always[KEYS_PAGED] = _keys(lambda keys: [key for key in keys if key != keys[left]], node)
    with client(node) as remote:
        for ask in (
            lambda: remote.page(b"item", None, 1000, node.hash),
            lambda: remote.scan([b"item"], 10, node.hash),
            lambda: remote.walk([b"item"], [b"is"], 1000, 10, node.hash),
        ):
            node.seen.clear()
            with pytest.raises(ForkError, match=r"does not prove.*--fork-verify"):
                ask()


def test_keys_and_values_that_are_made_up_are_not_proven(node: RemoteNode) -> None:
    made_up = "0x" + b"item\0\0\0".hex()
    node.seen.clear()
    node.always[KEYS_PAGED] = _keys(lambda keys: [*keys, made_up], node)
    with client(node) as remote:
        with pytest.raises(ForkError, match="does not prove"):
            remote.page(b"item\0\0", None, 10, node.hash)
        node.storage[KEYS[50]] = b"another"  # it proves another state
        for keys in (KEYS[50:51], KEYS[51:52], [b"absent"]):
            with pytest.raises(ForkError, match="leaves out"):
                remote.values(keys, node.hash)
        node.always["state_getReadProof"] = error(-32601, "Method not found")
        with pytest.raises(ForkError, match=r"Method not found.*--fork-verify"):
            remote.values(KEYS[:1], node.hash)
        for wrong in (None, {}, {"at": "0x00", "proof": []}, {"at": "0x" + node.hash.hex(), "proof": ["zz"]}):
            node.always["state_getReadProof"] = result(wrong)
            with pytest.raises(ForkError, match="the node answers"):
                remote.values(KEYS[:1], node.hash)


def opened(node: RemoteNode, path: Path, verify: bool, offline: bool = False, url: str = "") -> Any:
    return open_fork(url or node.url, Options(path, offline, 1e6, verify))


def test_a_cache_keeps_what_was_proven_apart(node: RemoteNode, tmp_path: Path) -> None:
    true, path = node.storage[KEYS[50]], tmp_path / "cache"
    liar = opened(node, path, verify=False)
    node.storage[KEYS[50]] = b"a lie"
    assert liar.get(KEYS[50]) == b"a lie" and not liar.facts()["proven"]
    liar.close()
    node.storage[KEYS[50]] = true
    base = opened(node, path, verify=True)
    assert base.get(KEYS[50]) == true and list(base.keys(b"item")) == KEYS[1:] and base.facts()["proven"]
    base.close()
    for verify, value in ((True, true), (False, b"a lie")):
        base = opened(node, path, verify, offline=True)
        assert base.get(KEYS[50]) == value
        base.close()
    other = opened(node, path, False, url=node.post_url)  # another address: its own word
    assert other.get(KEYS[50]) == true
    other.close()


def test_a_genesis_that_the_state_does_not_know(node: RemoteNode, tmp_path: Path) -> None:
    first, node.genesis = node.genesis, b"\7" * 32
    opened(node, tmp_path / "cache", verify=False).close()
    with pytest.raises(ForkError, match="that of a chain with the genesis 0x0101"):
        opened(node, tmp_path / "cache", verify=True)
    node.genesis = first


def test_code_that_the_state_does_not_hold(node: RemoteNode, tmp_path: Path) -> None:
    """Nor is it taken from what an earlier run, which believed, left in the cache."""
    node.storage[b":code"] = b"\7" * 32
    opened(node, tmp_path / "cache", verify=False).close()
    with pytest.raises(ForkError, match="leaves out"):
        opened(node, tmp_path / "cache", verify=True)
    node.storage[b":code"] = bytes(range(32))
    opened(node, tmp_path / "cache", verify=True).close()
    node.seen.clear()
    opened(node, tmp_path / "cache", verify=True).close()
    assert node.counts() == {"chain_getBlockHash": 1, "chain_getFinalizedHead": 1}
