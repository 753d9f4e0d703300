"""A forked state against a state that was loaded with everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from localnet.errors import ForkError, ReadOnlyState, StateDiscarded
from localnet.fork.answers import END
from localnet.fork.base import Base, Source
from localnet.fork.cache import Cache, Point
from localnet.fork.reading import above
from localnet.fork.state import GONE, ForkState
from localnet.node.blocks import Header
from localnet.node.children import entry_key
from localnet.node.state import VersionedState
from localnet.wasm.host.storage import clear

KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(b % 3 + (250 if b > 250 else 0) for b in key))
VALUES = st.one_of(st.none(), st.binary(max_size=2), st.just(bytes(GONE)))
REMOTE = {bytes((a, b)): bytes((b,)) for a in (0, 1, 250) for b in (0, 2)} | {b"\2": b"", b":zz": b"z"}
START = 7
ROOT = bytes(32)


class Direct:
    """Stands where `Remote` does, without a wire."""

    def __init__(self, storage: dict[bytes, bytes]) -> None:
        self.storage, self.order, self.asked = storage, sorted(storage), []

    def values(self, keys: list[bytes], at: bytes) -> dict[bytes, bytes | None]:
        self.asked.append(tuple(keys))
        return {key: self.storage.get(key) for key in keys}

    def page(self, prefix: bytes, start: bytes | None, count: int, at: bytes) -> list[bytes]:
        self.asked.append((prefix, start, count))
        return [k for k in self.order if k.startswith(prefix) and (start is None or k > start)][:count]

    def scan(self, prefixes: list[bytes], most: int, at: bytes) -> dict[bytes, tuple[list[bytes], bytes]]:
        return {prefix: (self.page(prefix, None, most, at), above(prefix)) for prefix in prefixes}

    def close(self) -> None:
        pass


def point(number: int = START) -> Point:
    header = Header(bytes(32), number)
    return Point(b"\1" * 32, header.hash(), header, [], b"\2" * 32, "ws://far")


def base_over(storage: dict[bytes, bytes], cache: Cache | None = None) -> Base:
    cache = cache or Cache(Path(":memory:"))
    cache.remember(point())
    return Base(Source(point(), cache, Direct(storage)))  # type: ignore[arg-type]


class AgainstLoaded(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = base_over(REMOTE)
        self.base.page_size = self.base.walk_size = 2
        self.fork = ForkState(self.base, START, ROOT)
        self.whole = VersionedState()
        for key, value in REMOTE.items():
            self.whole.put(key, value)
        self.whole.seal(START)
        self.whole.oldest = START

    def teardown(self) -> None:
        self.base.close()

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes | None) -> None:
        for state in (self.fork, self.whole):
            state.put(key, value)

    @rule(key=KEYS)
    def read(self, key: bytes) -> None:
        assert self.fork.get(key) == self.whole.get(key)
        assert self.fork.settled(key) == self.whole.settled(key)
        assert list(self.fork.settled_keys(key[:1])) == list(self.whole.settled_keys(key[:1]))

    @rule(key=KEYS)
    def walk(self, key: bytes) -> None:
        assert self.fork.next_key(key) == self.whole.next_key(key)

    @rule(prefix=KEYS, wanted=st.integers(1, 4))
    def list_some(self, prefix: bytes, wanted: int) -> None:
        for mine, theirs, _ in zip(self.fork.keys(prefix), self.whole.keys(prefix), range(wanted), strict=False):
            assert mine == theirs

    @rule(key=KEYS)
    def delete_while_listing(self, key: bytes) -> None:
        seen = []
        for state in (self.fork, self.whole):
            listed = state.keys(b"\1")
            first = next(listed, None)
            state.put(key, None)
            seen.append([first, *listed])
        assert seen[0] == seen[1]

    @rule()
    def begin(self) -> None:
        for state in (self.fork, self.whole):
            state.begin()

    @precondition(lambda self: self.whole.depth)
    @rule(keep=st.booleans())
    def end(self, keep: bool) -> None:
        for state in (self.fork, self.whole):
            if keep:
                state.commit()
            else:
                state.rollback()

    @precondition(lambda self: not self.whole.depth)
    @rule()
    def seal(self) -> None:
        number = self.whole.number + 1
        mine, theirs = self.fork.seal(number), self.whole.seal(number)
        assert theirs.items() <= mine.items()  # a value written again is a change here
        assert all(self.whole.get(key) == value for key, value in mine.items())

    @rule(back=st.integers(0, 3))
    def revert(self, back: int) -> None:
        number = max(self.whole.number - back, self.whole.oldest)
        mine, theirs = self.fork.revert(number), self.whole.revert(number)
        assert theirs.keys() <= mine.keys()
        assert all(mine[key] == self.whole.get(key) for key in mine)
        assert dict(mine.items()) == {key: self.whole.get(key) for key in mine}
        assert [*mine.values()] == [mine.get(key) for key in mine] == [self.whole.get(key) for key in mine]

    @rule()
    def abandon(self) -> None:
        for state in (self.fork, self.whole):
            state.abandon()

    @precondition(lambda self: not self.whole.depth and not self.whole._journals[0] and not self.fork._journals[0])
    @rule(keep=st.integers(0, 3))
    def discard(self, keep: int) -> None:
        for state in (self.fork, self.whole):
            state.discard(max(state.oldest, state.number - keep))

    @rule(key=KEYS, data=st.data())
    def look_back(self, key: bytes, data: st.DataObject) -> None:
        if self.whole.depth or self.whole._journals[0] or self.fork._journals[0]:
            return  # the head is looked at as it is, old blocks as they were: only between blocks are they the same
        number = data.draw(st.integers(self.whole.oldest, self.whole.number))
        mine, theirs = self.fork.at(number), self.whole.at(number)
        assert mine.get(key) == theirs.get(key)
        assert mine.next_key(key) == theirs.next_key(key)
        assert list(mine.keys(key[:1])) == list(theirs.keys(key[:1]))
        for start in (None, key):
            assert self.fork.keys_paged(b"", 2, start, number) == self.whole.keys_paged(b"", 2, start, number)
            assert self.fork.keys_paged(key[:1], 2, start, number) == self.whole.keys_paged(key[:1], 2, start, number)

    @invariant()
    def open_changes_have_one_root(self) -> None:
        assert self.fork.oldest == self.whole.oldest and self.fork.number == self.whole.number


AgainstLoaded.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestAgainstLoaded = AgainstLoaded.TestCase


@pytest.fixture
def base() -> Iterator[Base]:
    made = base_over(REMOTE)
    yield made
    made.close()


def asked(base: Base) -> list[object]:
    return base.remote.asked  # type: ignore[union-attr]


def test_reading_an_absent_key_twice_costs_one_request(base: Base) -> None:
    state = ForkState(base, START, ROOT)
    assert state.get(b"\5") is None and state.get(b"\5") is None
    assert asked(base) == [(b"\5",)]


def test_a_key_in_a_listed_stretch_is_absent_without_a_request(base: Base) -> None:
    state = ForkState(base, START, ROOT)
    assert list(state.keys(b"\1")) == [b"\1\0", b"\1\2"]
    before = len(asked(base))
    assert state.get(b"\1\1") is None
    assert state.next_key(b"\1\0") == b"\1\2"
    assert len(asked(base)) == before


def test_values_of_listed_keys_come_together() -> None:
    item = bytes(32)
    base = base_over({item + bytes((n,)): bytes((n,)) for n in range(5)})
    state = ForkState(base, START, ROOT)
    keys = list(state.keys(item))
    before = len(asked(base))
    assert [state.get(key) for key in keys] == [bytes((n,)) for n in range(5)]
    assert len(asked(base)) == before + 1
    base.close()


def test_writing_reads_nothing(base: Base) -> None:
    state = ForkState(base, START, ROOT)
    state.put(b"\1\0", b"new")
    state.put(b"\1\2", None)
    state.seal(START + 1)
    assert (state.get(b"\1\0"), state.get(b"\1\2")) == (b"new", None)
    assert asked(base) == []


def test_a_prefix_is_cleared_of_what_the_remote_block_has_under_it(base: Base) -> None:
    """As `ext_storage_clear_prefix` does it."""
    state = ForkState(base, START, ROOT)
    state.put(b"\1\0", None)
    state.put(b"\1\7", b"new")
    assert list(state.settled_keys(b"\1")) == [b"\1\0", b"\1\2"]
    removal = clear(state, b"\1", None)
    assert (removal.cursor, removal.backend, removal.loops) == (None, 1, 2)
    assert list(state.keys(b"\1")) == [] and state.get(b"\1\2") is None
    with pytest.raises(ForkError, match="cannot be listed"):
        state.settled_keys(b"")


def test_no_value_is_taken_for_a_deletion(base: Base) -> None:
    state, value = ForkState(base, START, ROOT), bytes(GONE)
    state.put(b"\2", None)
    state.seal(START + 1)
    state.put(b"\2", value)
    assert state.get(b"\2") == value
    assert state.seal(START + 2) == {b"\2": value} and state.get(b"\2") == value
    assert state.value_at(b"\2", START + 1) is None
    state.put(b"\2", None)
    assert state.get(b"\2") is None


def test_the_root_follows_the_changes_and_not_what_was_read() -> None:
    roots = []
    for curious in (False, True):
        base = base_over(REMOTE)
        state = ForkState(base, START, ROOT)
        if curious:
            list(state.keys(b"\1"))
        state.put(b"\1\0", b"\0")  # the value it has
        state.put(b"\2", None)
        state.begin()
        state.put(b"\3", b"3")
        opened = state.root(1)
        state.commit()
        assert state.root(1) == opened
        state.seal(START + 1)
        assert state.root(1) != opened  # the next block starts from here
        state.put(b"\3", b"4")
        roots.append((opened, state.root(0)))
        view = state.at(START)
        view.begin()
        for key, value in ((b"\1\0", b"\0"), (b"\2", None), (b"\3", b"3"), (b"\5", b"5"), (b"\5", None)):
            view.put(key, value)
        written = view.take()
        view.begin()
        for key in (b"\1\0", b"\2", b"\3"):
            view.put(key, written[key])
        assert view.root(1) == opened  # a block made again comes out the same
        state.abandon()
        state.revert(START)
        assert state.root(1) != opened
        base.close()
    assert roots[0] == roots[1]


def test_the_fork_block_is_the_lowest(base: Base) -> None:
    state = ForkState(base, START, ROOT)
    state.put(b"a", b"1")
    state.seal(START + 1)
    with pytest.raises(StateDiscarded):
        state.revert(START - 1)
    state.revert(START)
    assert state.get(b"a") is None


def test_all_of_the_state_cannot_be_listed(base: Base) -> None:
    state = ForkState(base, START, ROOT)
    with pytest.raises(ForkError, match="cannot be listed"):
        state.keys(b"")
    with pytest.raises(ForkError, match="cannot be listed"):
        state.at(START).keys(b"")
    with pytest.raises(ReadOnlyState):
        state.at(START).put(b"a", b"b")


def test_entries_of_child_tries_are_shown_to_who_asks_for_them() -> None:
    entries = [entry_key(b"contract", bytes((n,))) for n in range(3)]
    base = base_over(REMOTE | dict.fromkeys(entries, b"v"))
    state = ForkState(base, START, ROOT)
    assert state.next_key(entries[0]) == entries[1]
    assert state.next_key(entries[2]) is None
    assert state.get(entries[1]) == b"v"
    with pytest.raises(ForkError, match="only one by its name"):
        next(state.keys(b":child_storage:entries:"))
    base.close()


def test_bounds_of_prefixes() -> None:
    assert above(b"\1\2") == b"\1\3"
    assert above(b"\1\xff\xff") == b"\2"
    assert above(b"") == above(b"\xff") == END
