"""Child storage: spaces that do not touch each other, and their roots in the main trie."""

from __future__ import annotations

import pytest

from localnet.node.state import VersionedState
from localnet.node.trie import EMPTY_ROOT, root
from tests.support.wasm_memory import MemoryHost

EXT = "ext_default_child_storage_"


@pytest.fixture
def host() -> MemoryHost:
    """Two children with the same keys, as a finished block left them, and a main key."""
    host = MemoryHost(VersionedState())
    host.state.put(b"k1", b"main")
    for child in (b"one", b"oneX"):
        for key in (b"k1", b"k2", b"l"):
            put(host, child, key, child + key)
    assert isinstance(host.state, VersionedState)
    host.state.seal(0)
    return host


def put(host: MemoryHost, child: bytes, key: bytes, value: bytes) -> None:
    host.call(EXT + "set_version_1", host.span(child), host.span(key), host.span(value))


def keys(host: MemoryHost, child: bytes) -> list[bytes]:
    found, key = [], b""
    while (answer := host.spans(EXT + "next_key_version_1", child, key)) != b"\0":
        key = answer[2:]
        found.append(key)
    return found


def test_values_belong_to_a_child_and_a_key(host: MemoryHost) -> None:
    assert host.spans(EXT + "get_version_1", b"one", b"k1") == b"\1\x14onek1"
    assert host.spans(EXT + "get_version_1", b"one", b"Xk1") == b"\0"
    assert host.spans(EXT + "get_version_1", b"on", b"ek1") == b"\0"
    assert host.call(EXT + "exists_version_1", host.span(b"oneX"), host.span(b"l")) == 1
    out = host.span(b"...")
    answer = host.result(EXT + "read_version_1", host.span(b"one"), host.span(b"k1"), out, 3)
    assert (answer, host.read(out)) == (b"\1\2\0\0\0", b"k1.")
    host.call(EXT + "clear_version_1", host.span(b"one"), host.span(b"k1"))
    assert host.call(EXT + "exists_version_1", host.span(b"one"), host.span(b"k1")) == 0
    assert keys(host, b"one") == [b"k2", b"l"]
    assert keys(host, b"oneX") == [b"k1", b"k2", b"l"]
    assert host.state.get(b"k1") == b"main"


def test_a_key_may_be_empty(host: MemoryHost) -> None:
    put(host, b"", b"", b"v")
    assert host.spans(EXT + "get_version_1", b"", b"") == b"\1\4v"


def test_a_rolled_back_transaction_takes_children_with_it(host: MemoryHost) -> None:
    host.call("ext_storage_start_transaction_version_1")
    put(host, b"one", b"new", b"v")
    host.call(EXT + "storage_kill_version_1", host.span(b"oneX"))
    host.call("ext_storage_rollback_transaction_version_1")
    assert keys(host, b"one") == keys(host, b"oneX") == [b"k1", b"k2", b"l"]


def test_kill_with_a_limit_says_what_remains(host: MemoryHost) -> None:
    put(host, b"one", b"new", b"v")
    two, none = b"\1\2\0\0\0", b"\0"
    assert host.spans(EXT + "storage_kill_version_3", b"one", two) == b"\1\2\0\0\0"
    assert keys(host, b"one") == [b"l"]
    assert host.call(EXT + "storage_kill_version_2", host.span(b"one"), host.span(two)) == 0
    assert host.call(EXT + "storage_kill_version_2", host.span(b"one"), host.span(none)) == 1
    assert keys(host, b"one") == []
    host.call(EXT + "storage_kill_version_1", host.span(b"oneX"))
    assert keys(host, b"oneX") == []
    assert host.state.get(b"k1") == b"main"


def test_kill_version_4_has_a_cursor_in_the_childs_own_keys(host: MemoryHost) -> None:
    one = b"\1\1\0\0\0"
    counts = b"\1\0\0\0" * 3
    assert host.spans(EXT + "storage_kill_version_4", b"one", one, b"\0") == b"\1\x08k2" + counts
    assert host.spans(EXT + "storage_kill_version_4", b"one", one, b"\1\x08k2") == b"\1\4l" + counts
    assert host.spans(EXT + "storage_kill_version_4", b"one", one, b"\1\4l") == b"\0" + counts
    assert keys(host, b"one") == []


def test_clear_prefix(host: MemoryHost) -> None:
    assert host.spans(EXT + "clear_prefix_version_2", b"one", b"k", b"\1\1\0\0\0") == b"\1\1\0\0\0"
    assert keys(host, b"one") == [b"k2", b"l"]
    answer = host.spans(EXT + "clear_prefix_version_3", b"one", b"k", b"\0", b"\1\x08k2")
    assert answer == b"\0" + b"\1\0\0\0" * 3
    assert keys(host, b"one") == [b"l"]
    host.call(EXT + "clear_prefix_version_1", host.span(b"oneX"), host.span(b"k"))
    assert keys(host, b"oneX") == [b"l"]


@pytest.mark.parametrize("version", [0, 1])
def test_the_root_of_a_child_is_that_of_its_pairs(host: MemoryHost, version: int) -> None:
    put(host, b"one", b"long", b"x" * 50)
    values = {b"k1": b"onek1", b"k2": b"onek2", b"l": b"onel", b"long": b"x" * 50}
    assert host.result(EXT + "root_version_2", host.span(b"one"), version) == root(values, version)
    assert host.spans("ext_storage_get_version_1", b":child_storage:default:one") == b"\1\x80" + root(values, version)
    if not version:
        assert host.result(EXT + "root_version_1", host.span(b"one")) == root(values, 0)
    assert host.result(EXT + "root_version_2", host.span(b"nobody"), version) == EMPTY_ROOT
    assert host.spans("ext_storage_get_version_1", b":child_storage:default:nobody") == b"\0"


def test_the_main_root_has_the_childrens_roots_in_it(host: MemoryHost) -> None:
    host.call(EXT + "storage_kill_version_1", host.span(b"oneX"))
    child = root({b"k1": b"onek1", b"k2": b"onek2", b"l": b"onel"}, 1)
    expected = root({b"k1": b"main", b":child_storage:default:one": child}, 1)
    assert host.result("ext_storage_root_version_2", 1) == expected
    assert host.spans("ext_storage_get_version_1", b":child_storage:default:one") == b"\1\x80" + child
