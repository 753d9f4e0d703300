"""Storage of default child tries: the functions of storage.py, in the key space of a child's name.

A child's entries lie in the state's one key space (localnet/node/children.py), so a transaction, a snapshot or a
rollback holds them as it holds the rest.
"""

from __future__ import annotations

from localnet.node.children import entries_prefix, entry_key, next_entry, root_key
from localnet.node.roots import child_root
from localnet.wasm.host.interface import Functions, Host
from localnet.wasm.host.storage import Removal, clear, copy_out, rooted, spend, state_version
from localnet.wasm.host.wire import NONE, option_bytes, read_option_bytes, read_option_u32, some_bytes

GROUP = "ext_default_child_storage"


def functions(host: Host) -> Functions:
    """`ext_default_child_storage_*`."""
    return {f"{GROUP}_{name}": one for name, one in {**_values(host), **_clears(host), **_whole(host)}.items()}


def _values(host: Host) -> Functions:
    read, give_span, copy = host.read, host.give_span, copy_out(host)

    def stored(child: int, key: int) -> bytes | None:
        return host.state.get(entry_key(read(child), read(key)))

    def get(child: int, key: int) -> int:
        found = stored(child, key)
        return give_span(NONE if found is None else some_bytes(found))

    def put(child: int, key: int, data: int) -> None:
        flat, value = entry_key(read(child), read(key)), read(data)
        spend(host, len(flat) + len(value))
        host.state.put(flat, value)

    def remove(child: int, key: int) -> None:
        host.state.put(entry_key(read(child), read(key)), None)

    return {
        "get_version_1": get,
        "read_version_1": lambda child, key, out, offset: copy(stored(child, key), out, offset),
        "exists_version_1": lambda child, key: int(stored(child, key) is not None),
        "set_version_1": put,
        "clear_version_1": remove,
    }


def _clears(host: Host) -> Functions:
    read, give_span = host.read, host.give_span

    def run(child: int, prefix: bytes, limit: int | None, cursor: bytes | None = None) -> tuple[Removal, int]:
        """The removal, and how many bytes of its cursor are not the runtime's."""
        space = entries_prefix(read(child))
        start = None if cursor is None else space + cursor
        return clear(host.state, space + prefix, limit, start), len(space)

    def limited(limit: int) -> int | None:
        return read_option_u32(read(limit))

    def kill_1(child: int) -> None:
        run(child, b"", None)

    def prefix_1(child: int, prefix: int) -> None:
        run(child, read(prefix), None)

    def kill_2(child: int, limit: int) -> int:
        """Is all of it gone?"""
        return int(run(child, b"", limited(limit))[0].cursor is None)

    def kill_3(child: int, limit: int) -> int:
        return give_span(run(child, b"", limited(limit))[0].kill_result())

    def prefix_2(child: int, prefix: int, limit: int) -> int:
        return give_span(run(child, read(prefix), limited(limit))[0].kill_result())

    def kill_4(child: int, limit: int, cursor: int) -> int:
        removal, own = run(child, b"", limited(limit), read_option_bytes(read(cursor)))
        return give_span(removal.encode(own))

    def prefix_3(child: int, prefix: int, limit: int, cursor: int) -> int:
        removal, own = run(child, read(prefix), limited(limit), read_option_bytes(read(cursor)))
        return give_span(removal.encode(own))

    return {
        "storage_kill_version_1": kill_1,
        "storage_kill_version_2": kill_2,
        "storage_kill_version_3": kill_3,
        "storage_kill_version_4": kill_4,
        "clear_prefix_version_1": prefix_1,
        "clear_prefix_version_2": prefix_2,
        "clear_prefix_version_3": prefix_3,
    }


def _whole(host: Host) -> Functions:
    read, give_span = host.read, host.give_span

    def next_key(child: int, key: int) -> int:
        return give_span(option_bytes(next_entry(host.state, read(child), read(key))))

    def root(child: int, version: int) -> int:
        """Written to the main trie, too, as sp-state-machine's `child_storage_root` does."""
        name, number, state = read(child), state_version(version), host.state
        entries = list(state.keys(entries_prefix(name)))
        digest = rooted(lambda: child_root(entries, name, state.get, number))
        state.put(root_key(name), digest if entries else None)
        return give_span(digest)

    return {
        "next_key_version_1": next_key,
        "root_version_1": lambda child: root(child, 0),
        "root_version_2": root,
    }
