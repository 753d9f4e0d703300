"""Storage functions: exact results, against a model of Substrate's overlay, and what a runtime may not touch."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.codec.scale import compact
from localnet.node.children import entry_key
from localnet.node.state import VersionedState
from localnet.node.trie import root
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.host.storage import Removal, appended, clear
from tests.support.wasm_memory import MemoryHost

EXT = "ext_storage_"


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


def settled(**values: bytes) -> VersionedState:
    state = VersionedState()
    for key, value in values.items():
        state.put(key.encode(), value)
    state.seal(0)
    return state


def get(host: MemoryHost, key: bytes) -> bytes:
    return host.spans(EXT + "get_version_1", key)


def put(host: MemoryHost, key: bytes, value: bytes) -> None:
    host.call(EXT + "set_version_1", host.span(key), host.span(value))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 255, 256, 16384])
def test_get_returns_an_option_of_bytes(host: MemoryHost, size: int) -> None:
    assert get(host, b"k") == b"\0"
    put(host, b"k", bytes(size))
    assert get(host, b"k") == b"\1" + compact(size) + bytes(size)


def test_set_clear_and_exists(host: MemoryHost) -> None:
    exists = lambda: host.call(EXT + "exists_version_1", host.span(b"k"))  # noqa: E731
    assert exists() == 0
    put(host, b"k", b"")
    assert exists() == 1
    host.call(EXT + "clear_version_1", host.span(b"k"))
    assert exists() == 0


@pytest.mark.parametrize(
    ("offset", "size", "written", "left"),
    [(0, 5, b"hello", 5), (0, 3, b"hel", 5), (2, 9, b"llo", 3), (5, 2, b"", 0), (9, 2, b"", 0), (1, 0, b"", 4)],
)
def test_read_copies_from_an_offset_and_says_what_was_left(
    host: MemoryHost, offset: int, size: int, written: bytes, left: int
) -> None:
    put(host, b"k", b"hello")
    out = host.span(b"." * size)
    result = host.result(EXT + "read_version_1", host.span(b"k"), out, offset | 0xABCD << 32)
    assert result == b"\1" + left.to_bytes(4, "little")
    assert host.read(out) == written.ljust(size, b".")
    assert host.result(EXT + "read_version_1", host.span(b"none"), out, 0) == b"\0"


def test_read_wants_a_buffer_that_is_memory_also_where_it_writes_less(host: MemoryHost) -> None:
    put(host, b"k", b"hello")
    out = host.pointer(b".....") | 1 << 48
    with pytest.raises(HostTrap, match="out of bounds"):
        host.call(EXT + "read_version_1", host.span(b"k"), out, 0)


def test_next_key_is_in_order_and_sees_what_was_just_written() -> None:
    host = MemoryHost(settled(a=b"1", c=b"3"))
    put(host, b"b", b"2")
    host.call(EXT + "clear_version_1", host.span(b"c"))
    put(host, b"d", b"4")
    keys, key = [], b""
    while (found := host.spans(EXT + "next_key_version_1", key)) != b"\0":
        key = found[2:]
        keys.append(key)
    assert keys == [b"a", b"b", b"d"]


# -- append


@pytest.mark.parametrize(
    ("stored", "after"),
    [
        (None, b"\4x"),
        (b"", b"\4x"),
        (b"\0", b"\4x"),
        (b"\4a", b"\x08ax"),
        (compact(62) + b"." * 62, compact(63) + b"." * 62 + b"x"),
        (compact(63) + b"." * 63, compact(64) + b"." * 63 + b"x"),
        (compact((1 << 14) - 1) + b".", compact(1 << 14) + b".x"),
        (compact((1 << 30) - 1) + b".", compact(1 << 30) + b".x"),
        (compact((1 << 32) - 2), compact((1 << 32) - 1) + b"x"),
        (compact((1 << 32) - 1), b"\4x"),  # the length would not fit
        (compact(1 << 32), b"\4x"),  # not a Compact<u32>
        (b"\1", b"\4x"),  # ends inside the length: sp-state-machine's storage_append_works
        (b"\1\0", b"\4x"),  # not the shortest form
        (b"\xff" * 40, b"\4x"),
    ],
)
def test_append_counts_and_replaces_what_is_no_vector(stored: bytes | None, after: bytes) -> None:
    assert appended(stored, b"x") == after


def test_append_of_many_elements_is_the_vector_of_them(host: MemoryHost) -> None:
    elements = [bytes((at % 251,)) * (at % 5) for at in range(300)]
    for one in elements:
        host.call(EXT + "append_version_1", host.span(b"events"), host.span(one))
    assert host.state.get(b"events") == compact(300) + b"".join(elements)


# -- clear_prefix


def test_a_limit_counts_keys_of_the_last_block_only_and_the_same_call_gets_no_further() -> None:
    host = MemoryHost(settled(pa=b"1", pb=b"2", pc=b"3", q=b"4"))
    put(host, b"pb", b"changed")
    put(host, b"pz", b"new")
    clear_prefix = lambda limit: host.spans(EXT + "clear_prefix_version_2", b"p", limit)  # noqa: E731
    assert clear_prefix(b"\1\1\0\0\0") == b"\1\1\0\0\0"  # SomeRemaining(1)
    assert list(host.state.keys(b"")) == [b"pc", b"q"]  # all that this block wrote, and pa
    assert clear_prefix(b"\1\1\0\0\0") == b"\1\1\0\0\0"
    assert list(host.state.keys(b"")) == [b"pc", b"q"]  # pa counted again
    assert clear_prefix(b"\1\3\0\0\0") == b"\0\3\0\0\0"  # AllRemoved(3)
    assert clear_prefix(b"\0") == b"\0\3\0\0\0"
    assert list(host.state.keys(b"")) == [b"q"]


def test_a_limit_of_zero_removes_what_this_block_wrote() -> None:
    host = MemoryHost(settled(pa=b"1"))
    put(host, b"pb", b"2")
    assert host.spans(EXT + "clear_prefix_version_2", b"p", b"\1\0\0\0\0") == b"\1\0\0\0\0"
    assert list(host.state.keys(b"")) == [b"pa"]


def test_version_3_gives_a_cursor_and_three_counts_and_goes_on_from_it() -> None:
    host = MemoryHost(settled(pa=b"1", pb=b"2", pc=b"3"))
    put(host, b"pz", b"new")
    name = EXT + "clear_prefix_version_3"
    numbers = lambda *values: b"".join(n.to_bytes(4, "little") for n in values)  # noqa: E731
    assert host.spans(name, b"p", b"\1" + numbers(2), b"\0") == b"\1\x08pc" + numbers(2, 3, 2)
    assert host.spans(name, b"p", b"\1" + numbers(2), b"\1\x08pc") == b"\0" + numbers(1, 1, 1)


@pytest.mark.parametrize("limit", [b"", b"\1", b"\1\1\0\0", b"\2\0\0\0\0"])
def test_a_limit_that_is_no_number_breaks_off(host: MemoryHost, limit: bytes) -> None:
    put(host, b"p", b"1")
    with pytest.raises(HostTrap, match="Option<u32>"):
        host.spans(EXT + "clear_prefix_version_2", b"p", limit)
    assert host.state.get(b"p") == b"1"


def test_version_1_clears_everything() -> None:
    host = MemoryHost(settled(pa=b"1", pb=b"2", q=b"3"))
    host.call(EXT + "clear_prefix_version_1", host.span(b"p"))
    assert list(host.state.keys(b"")) == [b"q"]


class Overlay:
    """sp-state-machine's rules, written down from ext.rs and changeset.rs: a backend, and changes above it."""

    def __init__(self, backend: dict[bytes, bytes]) -> None:
        self.backend, self.layers = backend, [dict[bytes, "bytes | None"]()]

    @property
    def changes(self) -> dict[bytes, bytes | None]:
        return {key: value for layer in self.layers for key, value in layer.items()}

    def live(self) -> dict[bytes, bytes]:
        merged = {**self.backend, **self.changes}
        return {key: value for key, value in merged.items() if value is not None}

    def clear(self, prefix: bytes, limit: int | None) -> Removal:
        overlay = 0
        for key, value in self.changes.items():
            if key.startswith(prefix):
                overlay += value is not None
                self.layers[-1][key] = None
        deleted = loops = 0
        for key in sorted(key for key in self.backend if key.startswith(prefix)):
            if loops == limit:
                return Removal(key, deleted, overlay + deleted, loops)
            if self.changes.get(key, b"") is not None:
                self.layers[-1][key] = None
                deleted += 1
            loops += 1
        return Removal(None, deleted, overlay + deleted, loops)


KEYS = st.sampled_from([b"a", b"aa", b"ab", b"ab\xff", b"b", b"\xff", b"\xff\xff"])
STEP = st.one_of(
    st.tuples(st.just("set"), KEYS),
    st.tuples(st.just("clear"), KEYS),
    st.tuples(st.just("prefix"), st.sampled_from([b"a", b"ab", b"\xff"]), st.none() | st.integers(0, 3)),
    st.tuples(st.sampled_from(["start", "commit", "rollback"])),
)


@settings(max_examples=80, deadline=None)
@given(st.sets(KEYS), st.lists(STEP, max_size=14))
def test_a_sequence_of_calls_does_what_substrates_overlay_does(backend: set[bytes], steps: list[tuple]) -> None:
    stored = {key: b"old" for key in backend}
    host, model = MemoryHost(VersionedState.restore(dict(stored), 0, {})), Overlay(stored)
    for number, (what, *rest) in enumerate(steps):
        if what == "set":
            put(host, rest[0], b"%d" % number)  # never the value that is there: see `clear`
            model.layers[-1][rest[0]] = b"%d" % number
        elif what == "clear" and rest[0] in model.live():
            host.call(EXT + "clear_version_1", host.span(rest[0]))
            model.layers[-1][rest[0]] = None
        elif what == "prefix":
            assert clear(host.state, *rest) == model.clear(*rest)
        elif what == "start":
            host.call(EXT + "start_transaction_version_1")
            model.layers.append({})
        elif what in ("commit", "rollback") and len(model.layers) > 1:
            host.call(f"{EXT}{what}_transaction_version_1")
            inner = model.layers.pop()
            if what == "commit":
                model.layers[-1].update(inner)
        assert {key: host.state.get(key) for key in host.state.keys(b"")} == model.live()
        assert host.transactions == len(model.layers) - 1


# -- roots and transactions


@pytest.mark.parametrize("version", [0, 1])
def test_the_root_is_that_of_the_live_state_in_a_state_version(version: int) -> None:
    host = MemoryHost(settled(a=b"1", b=b"x" * 40))
    put(host, b"c", b"y" * 40)
    expected = root({b"a": b"1", b"b": b"x" * 40, b"c": b"y" * 40}, version)
    assert host.result(EXT + "root_version_2", version | 0xFF00) == expected
    if not version:
        assert host.result(EXT + "root_version_1") == expected


def test_an_unknown_state_version_breaks_off(host: MemoryHost) -> None:
    with pytest.raises(HostTrap, match="state version 2"):
        host.call(EXT + "root_version_2", 2)


def test_there_is_no_changes_root(host: MemoryHost) -> None:
    assert host.spans(EXT + "changes_root_version_1", bytes(32)) == b"\0"


@pytest.mark.parametrize("what", ["commit", "rollback"])
def test_a_runtime_cannot_close_a_transaction_that_it_did_not_open(host: MemoryHost, what: str) -> None:
    host.state.begin()  # the node's
    put(host, b"k", b"v")
    with pytest.raises(HostTrap, match="no open storage transaction"):
        host.call(f"{EXT}{what}_transaction_version_1")
    assert host.state.get(b"k") == b"v"
    host.state.rollback()
    assert host.state.get(b"k") is None


# -- what is not a runtime's


def test_keys_of_child_tries_are_left_alone(host: MemoryHost) -> None:
    hidden = entry_key(b"name", b"key")
    host.state.put(hidden, b"v")
    for key in (hidden, b":child_storage:default:name", b":child_storage:"):
        put(host, key, b"overwritten")
        host.call(EXT + "append_version_1", host.span(key), host.span(b"x"))
        host.call(EXT + "clear_version_1", host.span(key))
        assert get(host, key) == b"\0"
    assert host.call(EXT + "exists_version_1", host.span(hidden)) == 0
    assert host.result(EXT + "read_version_1", host.span(hidden), host.span(b"..."), 0) == b"\0"
    assert host.spans(EXT + "next_key_version_1", b":child_storage:") == b"\0"
    assert host.spans(EXT + "next_key_version_1", hidden) == b"\0"
    put(host, b":child_storagf", b"no child's")
    for prefix in (b"", b":", b":child_storage:", b":child_storage:entries:", b":child_storage:default:name"):
        assert host.spans(EXT + "clear_prefix_version_2", prefix, b"\0") == b"\0\0\0\0\0"
        host.call(EXT + "clear_prefix_version_1", host.span(prefix))
    assert host.state.get(hidden) == b"v"
    assert host.spans(EXT + "clear_prefix_version_2", b":child_storagf", b"\0") == b"\0\0\0\0\0"
    assert host.state.get(b":child_storagf") is None
