"""State roots kept in step with blocks, transactions and reverts, and child tries in the state's one key space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from localnet import state_file
from localnet.codec.scale import compact, opaque
from localnet.errors import ChainError, ConfigError, RuntimeApiMissing
from localnet.node.blocks import ZERO, Header, state_digest
from localnet.node.chain import Chain
from localnet.node.children import (
    ENTRIES,
    RESERVED,
    ROOTS,
    entries_prefix,
    entry_key,
    is_entry,
    meets_reserved,
    next_entry,
    next_main_key,
    root_key,
    split_entry,
)
from localnet.node.roots import child_root
from localnet.node.state import VersionedState
from localnet.node.store import Store
from localnet.node.trie import EMPTY_ROOT, root
from localnet.node.view import StateView
from localnet.runtime.memory import MemoryState
from tests.unit.localnet.node.tiny_runtime import TinyRuntime

Values = dict[bytes, bytes]


def rooted(values: Mapping[bytes, bytes], version: int) -> tuple[bytes, Values]:
    """The root by its definition, and the state with the roots of its children in it."""
    main = {key: value for key, value in values.items() if not key.startswith((ENTRIES, ROOTS))}
    children: dict[bytes, Values] = {}
    for flat, value in values.items():
        if is_entry(flat):
            name, key = split_entry(flat)
            children.setdefault(name, {})[key] = value
    main.update({root_key(name): root(entries, version) for name, entries in children.items()})
    return root(main, version), {**main, **{key: value for key, value in values.items() if is_entry(key)}}


def test_public_vector_of_a_child() -> None:
    """sp-state-machine's `overlayed_child_storage_root_works`."""
    for state in (VersionedState(), MemoryState()):
        for n in (10, 20, 30, 40):
            state.put(entry_key(b"Child1", bytes((n,))), bytes((n,)))
        state.put(entry_key(b"Child1", b"\x1e"), None)
        assert state.root(1).hex() == "eafb765909c3ed5afd92a0c564acf4620d0234b31702e8e8e9b48da72a748838"
        digest = "c02965e1df4dc5baf6977390ce67dab1d7a9b27a87c1afe27b50d29cc990e0f5"
        assert (state.get(root_key(b"Child1")) or b"").hex() == digest
        entries = list(state.keys(entries_prefix(b"Child1")))
        assert child_root(entries, b"Child1", state.get, 1).hex() == digest
        assert child_root([], b"other", state.get, 1) == EMPTY_ROOT
        for key in entries:
            state.put(key, None)
        assert state.root(1) == EMPTY_ROOT and state.get(root_key(b"Child1")) is None


def test_entries_of_children_show_to_who_asks_for_them_only() -> None:
    names = (b"", b"a", b"a" * 300)
    for state in (VersionedState(), MemoryState()):
        flat = sorted(entry_key(name, key) for name in names for key in (b"", b"k", b"\xff"))
        main = [b"", RESERVED, ROOTS + b"x", RESERVED + b"f", b":code", b"\xff"]
        for key in (*flat, *main):
            state.put(key, b"v")
        assert list(state.keys(b"")) == main and list(state.keys(b":child")) == main[1:4]
        assert list(state.keys(ENTRIES)) == flat
        walked, key = [], state.next_key(b"")
        while key is not None:
            walked.append(key)
            key = state.next_key(key)
        assert walked == main[1:]
        assert [next_entry(state, b"a", key) for key in (b"", b"k", b"\xfe", b"\xff")] == [b"k", b"\xff", b"\xff", None]
        assert next_main_key(state, flat[-1]) == RESERVED + b"f"
        assert list(state.settled_keys(b"")) == ([] if isinstance(state, VersionedState) else main)
    assert [split_entry(entry_key(name, b"k")) for name in names] == [(name, b"k") for name in names]
    assert meets_reserved(b"") and meets_reserved(b":child_storage:x") and not meets_reserved(b":code")


def test_what_a_developer_writes_among_entries_by_hand_belongs_to_no_child() -> None:
    state = VersionedState()
    state.put(b"k", b"v")
    for broken in (ENTRIES, ENTRIES + b"\0\0", ENTRIES + b"\0\0\0\2n", ENTRIES + b"\xff" * 9):
        state.put(broken, b"v")
        assert state.root(1) == root({b"k": b"v"}, 1)


def test_pages_of_keys_pass_over_children() -> None:
    state = VersionedState()
    for key in (b"9", entry_key(b"n", b"k"), RESERVED + b"z", b"~"):
        state.put(key, b"v")
    state.seal(0)
    state.put(b"~", None)
    state.put(entry_key(b"n", b"k2"), b"v")
    state.seal(1)
    for number in (0, 1):
        shown = [b"9", RESERVED + b"z", b"~"][: 3 - number]
        for size in (1, 2, 3):
            assert state.keys_paged(b"", size, None, number) == shown[:size]
        assert state.keys_paged(b"", 9, b"9", number) == shown[1:]
        assert len(state.keys_paged(ENTRIES, 9, None, number)) == 1 + number


NAMES = (b"", b"n", b"nm")
PLAIN = st.binary(max_size=2).map(lambda key: bytes(b & 0x13 for b in key))
KEYS = st.one_of(PLAIN, st.builds(entry_key, st.sampled_from(NAMES), PLAIN), st.sampled_from((root_key(b"n"), b"\xff")))
VALUES = st.one_of(st.none(), st.sampled_from((b"", b"1", b"2", b"3" * 32, b"4" * 33)))
VERSIONS = st.sampled_from((1, 1, 1, 0))


class AgainstRebuilt(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = VersionedState()
        self.live: list[Values] = [{}]
        self.blocks: list[Values] = []
        self.oldest = 0

    def _put(self, key: bytes, value: bytes | None) -> None:
        self.state.put(key, value)
        if value is None:
            self.live[-1].pop(key, None)
        else:
            self.live[-1][key] = value

    @rule(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=6))
    def put(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            self._put(key, value)

    @rule()
    def begin(self) -> None:
        self.state.begin()
        self.live.append(dict(self.live[-1]))

    @precondition(lambda self: len(self.live) > 1)
    @rule(keep=st.booleans())
    def end(self, keep: bool) -> None:
        top = self.live.pop()
        if keep:
            self.state.commit()
            self.live[-1] = top
        else:
            self.state.rollback()

    @precondition(lambda self: len(self.live) == 1)
    @rule()
    def seal(self) -> None:
        self.state.seal(len(self.blocks))
        self.blocks.append(dict(self.live[0]))

    @precondition(lambda self: self.blocks)
    @rule(back=st.integers(0, 3))
    def revert(self, back: int) -> None:
        number = max(len(self.blocks) - 1 - back, self.oldest)
        self.state.revert(number)
        del self.blocks[number + 1 :]
        self.live = [dict(self.blocks[-1])]

    @precondition(lambda self: self.blocks)
    @rule(keep=st.integers(0, 3))
    def abandon_and_discard(self, keep: int) -> None:
        self.state.abandon()
        self.live = [dict(self.blocks[-1])]
        self.oldest = max(self.oldest, len(self.blocks) - 1 - keep)
        self.state.discard(self.oldest)

    @rule(version=VERSIONS)
    def ask(self, version: int) -> None:
        digest, after = rooted(self.live[-1], version)
        assert self.state.root(version) == digest
        self.live[-1] = after
        assert {key: self.state.get(key) for key in after} == after

    @precondition(lambda self: len(self.live) == 1 and self.blocks and self.live[0] == self.blocks[-1])
    @rule(back=st.integers(0, 3), version=VERSIONS, changes=st.dictionaries(KEYS, VALUES, max_size=4))
    def ask_a_view(self, back: int, version: int, changes: dict[bytes, bytes | None]) -> None:
        number = max(len(self.blocks) - 1 - back, self.oldest)
        model, view = dict(self.blocks[number]), self.state.at(number)
        assert view.root(version) == rooted(model, version)[0]
        view.begin()
        for key, value in changes.items():
            view.put(key, value)
        model = {key: value for key, value in {**model, **changes}.items() if value is not None}
        self._walk(view, model)
        digest, after = rooted(model, version)
        assert view.root(version) == digest
        assert {key: view.get(key) for key in after.keys() | model.keys()} == {
            key: after.get(key) for key in after.keys() | model.keys()
        }
        assert all(view.settled(key) == self.blocks[number].get(key) for key in changes)
        assert list(view.settled_keys(ENTRIES)) == sorted(filter(is_entry, self.blocks[number]))

    def _walk(self, state: VersionedState | StateView, model: Values) -> None:
        main, entries = ([key for key in sorted(model) if is_entry(key) is kind] for kind in (False, True))
        assert list(state.keys(b"")) == main and list(state.keys(ENTRIES)) == entries
        for keys in (main, entries):
            assert [state.next_key(key) for key in keys[:-1]] == keys[1:]
        if main:
            assert state.next_key(main[-1]) is None

    @invariant()
    def same_keys(self) -> None:
        self._walk(self.state, self.live[-1])
        settled = self.blocks[-1] if self.blocks else {}
        assert list(self.state.settled_keys(b"")) == sorted(key for key in settled if not is_entry(key))
        assert all(self.state.settled(key) == settled.get(key) for key in settled.keys() | self.live[-1].keys())


AgainstRebuilt.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestAgainstRebuilt = AgainstRebuilt.TestCase


def test_a_root_without_a_child_is_taken_away() -> None:
    """Written by hand, before the first root is asked for and after it."""
    for asked_before in (False, True):
        state = VersionedState()
        state.put(b"k", b"v")
        if asked_before:
            state.root(1)
        state.put(root_key(b"nobody"), b"r" * 32)
        assert state.root(1) == root({b"k": b"v"}, 1)
        assert state.get(root_key(b"nobody")) is None


def test_a_view_of_a_time_before_a_child_whose_root_nobody_asked_for() -> None:
    """The tries of the head have the child's root already, the head's values do not."""
    state = VersionedState()
    for key in (b"k", b"l", b"m", b"n"):
        state.put(key, b"v")
    before = state.root(1)
    state.seal(0)
    state.put(entry_key(b"child", b"k"), b"v")
    state.seal(1)
    assert state.at(0).root(1) == before
    assert state.get(root_key(b"child")) is None
    assert state.at(0).root(1) == before


def test_roots_through_blocks_reverts_and_transactions() -> None:
    """What every step of a chain leaves behind for the next root, each in a place of its own."""
    state = VersionedState()
    blocks: list[Values] = []

    def same(values: Values, of: Any = state) -> None:
        assert of.root(1) == rooted(values, 1)[0]

    for number in range(6):
        for key in (b"k", b"own%d" % number, entry_key(b"n", b"k")):
            state.put(key, b"%d" % number)
        if number != 3:  # a block whose root nobody asked for
            same(dict(state.head))
            state.put(b"after the root", b"%d" % number)
        state.begin()
        state.put(b"gone again", b"x")
        state.put(entry_key(b"n", b"gone again"), b"x")
        same(dict(state.head))
        state.rollback()
        state.seal(number)
        blocks.append(dict(state.head))
    same(blocks[-1])
    state.abandon()
    for number in range(6):
        view = state.at(number)
        same(blocks[number], view)
        view.begin()
        view.put(b"tried", b"v")
        same({**blocks[number], b"tried": b"v"}, view)
    same(dict(state.head))
    state.abandon()
    state.revert(4)
    same(blocks[4])
    state.abandon()
    state.revert(1)
    state.put(b"own1", None)
    state.seal(2)
    same(dict(state.head))
    state.discard(2)
    assert state.root(0) == rooted(dict(state.head), 0)[0] and state.root(1) == rooted(dict(state.head), 1)[0]
    with pytest.raises(ConfigError):
        state.root(2)


class MerkleRuntime(TinyRuntime):
    """Headers and genesis with the state's own root, as a Wasm runtime has them; a child trie is written in each block.
    `lacks`: a name that it does not export."""

    lacks = ""

    def call(self, method: str, data: bytes, state: Any) -> bytes:
        if method == self.lacks:
            raise RuntimeApiMissing(f"Exported method {method} is not found")
        return super().call(method, data, state)

    def _DevApi_state_root(self, data: bytes, state: Any) -> bytes:
        state.put(entry_key(b"child", b"genesis"), b"v")
        return bytes(state.root(1))

    def _Core_version(self, data: bytes, state: Any) -> bytes:
        return opaque(b"merkle") * 2 + bytes(12) + compact(0) + bytes(4) + b"\1"

    def _BabeApi_configuration(self, data: bytes, state: Any) -> bytes:
        return b""

    def _BlockBuilder_finalize_block(self, data: bytes, state: Any) -> bytes:
        header = Header.decode(super()._BlockBuilder_finalize_block(data, state))
        state.put(entry_key(b"child", bytes((header.number,))), b"v")
        return Header(header.parent_hash, header.number, state.root(1), b"\7" * 32, header.digest).encode()


def _true_roots(chain: Chain) -> None:
    for block in chain.blocks[chain.state.oldest :]:
        view = chain.state.at(block.number)
        values = {key: view.get(key) or b"" for space in (b"", ENTRIES) for key in view.keys(space)}
        assert block.header.state_root == rooted(values, 1)[0] == view.root(1)


def test_genesis_is_what_every_node_makes_of_a_merkle_root() -> None:
    chain = Chain(MerkleRuntime())
    header = chain.blocks[0].header
    assert header == Header(ZERO, 0, rooted(dict(chain.state.head), 1)[0], EMPTY_ROOT)
    for _ in range(3):
        block = chain.author()
        assert block.header.extrinsics_root == b"\7" * 32
    chain.revert(1)
    chain.author()
    _true_roots(chain)


def test_zeros_stand_for_a_digest_of_the_genesis_state() -> None:
    chain = Chain(TinyRuntime())
    assert chain.blocks[0].header.state_root == state_digest(ZERO, dict(chain.state.head))
    assert chain.state._known is None  # nobody asked: nothing is kept


@pytest.mark.parametrize(
    ("lacks", "error", "says"),
    [
        ("DevApi_state_root", RuntimeApiMissing, "DevApi_state_root"),
        ("AuraApi_slot_duration", ChainError, "BABE"),
    ],
)
def test_a_runtime_without_a_root_or_without_aura_makes_no_chain(lacks: str, error: Any, says: str) -> None:
    runtime = MerkleRuntime()
    runtime.lacks = lacks
    with pytest.raises(error, match=says):
        Chain(runtime)
    if lacks.startswith("Aura"):
        runtime._BabeApi_configuration = lambda data, state: b"?"  # type: ignore[method-assign]
        with pytest.raises(ChainError, match="Aura"):
            Chain(runtime)


async def test_a_reopened_chain_goes_on_with_right_roots(tmp_path: Any) -> None:
    path = tmp_path / "chain.db"
    chain = Chain(MerkleRuntime())
    store, stored = Store.open(path)
    assert stored is None
    await store.create(chain.blocks[0], chain.state.head)
    for _ in range(3):
        block = chain.author()
        diff = {key: chain.state.head.get(key) for key in chain.state.changed_in(block.number)}
        await store.write(block, diff, chain.state.before(block.number), 0)
    await store.close()
    store, stored = Store.open(path)
    await store.close()
    assert stored is not None
    again = Chain(MerkleRuntime())
    store.check_genesis(stored, again.genesis_hash)
    again.restore(stored.state, stored.blocks)
    _true_roots(again)
    assert again.author().header.state_root == chain.author().header.state_root
    _true_roots(again)


def test_an_exported_state_carries_children() -> None:
    chain, other = Chain(MerkleRuntime()), Chain(MerkleRuntime())
    for _ in range(3):
        chain.author()
    exported = state_file.check(state_file.export(chain), other)
    assert (
        {key for key in exported.storage if is_entry(key)}
        == {key for key in chain.state.head if is_entry(key)}
        != set()
    )
    other.author()
    other.author(exported.changes)
    assert {key for key in other.state.head if is_entry(key)} == {key for key in chain.state.head if is_entry(key)}
