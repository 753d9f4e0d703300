"""Storage of the main trie.

Key and value are what `abi.State` has; a call is a read of the arguments, one method of the state, and a result. These
functions run thousands of times in a block, so they are closures over what they need.

What a runtime may not touch, as in sp-state-machine: keys below `:child_storage:`, which `set` and `clear` leave alone,
and prefixes that meet it, which `clear_prefix` does not clear. Child entries (localnet/node/children.py) do not exist
in the main trie.

A key cleared with a limit counts by where it comes from, see `clear`. Open transactions are counted in
`Host.transactions`: a runtime can only close its own, and whoever called it rolls back those that it left open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import dropwhile, islice
from typing import NamedTuple

from localnet.abi import State
from localnet.codec.scale import compact, read_compact
from localnet.errors import RuntimeTrap, ScaleError
from localnet.node.children import ENTRIES, RESERVED, meets_reserved, next_main_key
from localnet.wasm.host.interface import Functions, Host, HostTrap
from localnet.wasm.host.wire import (
    NONE,
    U8,
    U32,
    option_bytes,
    read_option_bytes,
    read_option_u32,
    some_bytes,
)
from localnet.wasm.limits import MAX_TRANSACTIONS

log = logging.getLogger("localnet.runtime.wasm")

MAX_LENGTH = U32  # elements of a vector: sp-state-machine reads its length as Compact<u32>


# -- rules, without memory --------------------------------------------------------------------------------------------


def appended(stored: bytes | None, element: bytes) -> bytes:
    """A stored vector with one more element, encoded already. What does not start with a length is replaced."""
    if not stored:
        return b"\4" + element
    first = stored[0]
    if first & 3 == 0 and first < 0xFC:  # fewer than 63 elements: the length keeps its width
        return b"".join((bytes((first + 4,)), memoryview(stored)[1:], element))
    try:
        length, start = read_compact(stored, 0)
    except ScaleError:
        return b"\4" + element
    if length >= MAX_LENGTH:
        return b"\4" + element
    return b"".join((compact(length + 1), memoryview(stored)[start:], element))  # one copy, not two


class Removal(NamedTuple):
    """What a clear did. Its field `loops` is what old versions of the functions report."""

    cursor: bytes | None  # where to go on; None when nothing is left
    backend: int  # removed keys that the last block left
    unique: int  # the same plus the keys that this block wrote
    loops: int  # keys of the last block that were looked at, removed before or not

    def kill_result(self) -> bytes:
        """KillStorageResult: AllRemoved(u32) or SomeRemaining(u32)."""
        return (b"\0" if self.cursor is None else b"\1") + self.loops.to_bytes(4, "little")

    def encode(self, stripped: int = 0) -> bytes:
        """MultiRemovalResults. `stripped`: bytes of the cursor that are no part of the runtime's key."""
        cursor = None if self.cursor is None else self.cursor[stripped:]
        return option_bytes(cursor) + b"".join(n.to_bytes(4, "little") for n in self[1:])


NOTHING = Removal(None, 0, 0, 0)


def clear(state: State, prefix: bytes, limit: int | None, cursor: bytes | None = None) -> Removal:
    """Remove keys with this prefix, ascending: all that the open block wrote, and as many as `limit` looks at of those
    that the last block left, from `cursor` on.

    The rule of sp-state-machine (`limit_remove_from_backend`): a key of the last block counts even if this block has
    removed it already, so that the same call twice in one block gets no further. A key to which this block wrote the
    very value that it had counts as untouched here; sp-state-machine removes it beyond the limit.
    """
    unique = 0
    for key in list(state.keys(prefix)):
        if state.get(key) != state.settled(key):
            state.put(key, None)
            unique += 1
    settled = state.settled_keys(prefix)
    if cursor is not None:
        settled = dropwhile(lambda key: key < cursor, settled)
    found = list(settled if limit is None else islice(settled, limit + 1))
    rest = None if limit is None or len(found) <= limit else found.pop()
    backend = 0
    for key in found:
        if state.get(key) is not None:
            state.put(key, None)
            backend += 1
    return Removal(rest, backend, unique + backend, len(found))


def spend(host: Host, size: int) -> None:
    """Before `size` bytes are written. Raises HostTrap when the call has written more than it may."""
    host.room -= size
    if host.room < 0:
        raise HostTrap("the call writes more to storage than is allowed here (`Limits.written`)")


def state_version(version: int) -> int:
    """StateVersion as an argument. Raises HostTrap."""
    number = version & U8
    if number > 1:
        raise HostTrap(f"state version {number} is not known")
    return number


def rooted(root: Callable[[], bytes]) -> bytes:
    """A root, with what a trie cannot hold as the runtime's fault. Raises HostTrap."""
    try:
        return root()
    except RuntimeTrap as error:
        raise HostTrap(str(error)) from error


def copy_out(host: Host) -> Callable[[bytes | None, int, int], int]:
    """The second half of every `read`: value, where to, from which byte on -> Option<u32> of what was left there."""
    read_at, poke, give_span = host.read_at, host.poke, host.give_span

    def copy(value: bytes | None, out: int, offset: int) -> int:
        if value is None:
            return give_span(NONE)
        pointer, size = out & U32, (out >> 32) & U32
        offset &= U32
        left = max(len(value) - offset, 0)
        if size > left:
            read_at(pointer + size, 0)  # the buffer is memory, also where nothing is written
        if left and size:
            poke(pointer, value[offset : offset + size])
        return give_span(b"\1" + left.to_bytes(4, "little"))

    return copy


# -- functions --------------------------------------------------------------------------------------------------------


def functions(host: Host) -> Functions:
    """`ext_storage_*`."""
    return {**_values(host), **_keys(host), **_transactions(host)}


def _values(host: Host) -> Functions:
    read, give_span, copy = host.read, host.give_span, copy_out(host)

    def get(key: int) -> int:
        raw = read(key)
        value = None if raw.startswith(ENTRIES) else host.state.get(raw)
        return give_span(NONE if value is None else some_bytes(value))

    def read_into(key: int, out: int, offset: int) -> int:
        raw = read(key)
        return copy(None if raw.startswith(ENTRIES) else host.state.get(raw), out, offset)

    def exists(key: int) -> int:
        raw = read(key)
        return 0 if raw.startswith(ENTRIES) or host.state.get(raw) is None else 1

    def put(key: int, value: int) -> None:
        raw, data = read(key), read(value)
        if raw.startswith(RESERVED):
            _refuse(raw)
            return
        spend(host, len(raw) + len(data))
        host.state.put(raw, data)

    def remove(key: int) -> None:
        raw = read(key)
        if raw.startswith(RESERVED):
            _refuse(raw)
            return
        host.state.put(raw, None)

    def append(key: int, element: int) -> None:
        raw, data, state = read(key), read(element), host.state
        if raw.startswith(RESERVED):
            _refuse(raw)
            return
        longer = appended(state.get(raw), data)
        spend(host, len(longer) if host.transactions else len(data))  # a transaction keeps the shorter one
        state.put(raw, longer)

    return {
        "ext_storage_get_version_1": get,
        "ext_storage_read_version_1": read_into,
        "ext_storage_exists_version_1": exists,
        "ext_storage_set_version_1": put,
        "ext_storage_clear_version_1": remove,
        "ext_storage_append_version_1": append,
    }


def _refuse(key: bytes) -> None:
    log.warning("the runtime tried to write to %s, below which child tries are kept: ignored", key[:64].hex())


def _keys(host: Host) -> Functions:
    read, give_span = host.read, host.give_span

    def next_key(key: int) -> int:
        found = next_main_key(host.state, read(key))
        return give_span(NONE if found is None else some_bytes(found))

    def remove(prefix: bytes, limit: int | None, cursor: bytes | None = None) -> Removal:
        if meets_reserved(prefix):
            log.warning("the runtime tried to clear %s, which child tries meet: ignored", prefix[:64].hex() or "all")
            return NOTHING
        return clear(host.state, prefix, limit, cursor)

    def clear_prefix_1(prefix: int) -> None:
        remove(read(prefix), None)

    def clear_prefix_2(prefix: int, limit: int) -> int:
        return give_span(remove(read(prefix), read_option_u32(read(limit))).kill_result())

    def clear_prefix_3(prefix: int, limit: int, cursor: int) -> int:
        arguments = read(prefix), read_option_u32(read(limit)), read_option_bytes(read(cursor))
        return give_span(remove(*arguments).encode())

    def root(version: int) -> int:
        number, state = state_version(version), host.state
        return give_span(rooted(lambda: state.root(number)))

    def changes_root(parent: int) -> int:
        read(parent)
        return give_span(NONE)  # changes tries are gone

    return {
        "ext_storage_next_key_version_1": next_key,
        "ext_storage_clear_prefix_version_1": clear_prefix_1,
        "ext_storage_clear_prefix_version_2": clear_prefix_2,
        "ext_storage_clear_prefix_version_3": clear_prefix_3,
        "ext_storage_root_version_1": lambda: root(0),
        "ext_storage_root_version_2": root,
        "ext_storage_changes_root_version_1": changes_root,
    }


def _transactions(host: Host) -> Functions:
    def start() -> None:
        if host.transactions >= MAX_TRANSACTIONS:
            raise HostTrap(f"more than {MAX_TRANSACTIONS:,} storage transactions in each other")
        host.state.begin()
        host.transactions += 1

    def close(what: str) -> None:
        if not host.transactions:
            raise HostTrap(f"the runtime has no open storage transaction to {what}")
        host.transactions -= 1

    def commit() -> None:
        close("commit")
        host.state.commit()

    def rollback() -> None:
        close("roll back")
        host.state.rollback()

    return {
        "ext_storage_start_transaction_version_1": start,
        "ext_storage_commit_transaction_version_1": commit,
        "ext_storage_rollback_transaction_version_1": rollback,
    }
