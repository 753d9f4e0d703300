"""Default child tries in the state's one key space: where their entries lie, and how they are kept apart.

A child trie is a second key space under a name (pallet-contracts gives each contract one). Substrate keeps it as a trie
of its own, whose root stands in the main state under `:child_storage:default:` + name while it holds anything. A state
here is one flat space (`abi.State`), so an entry of a child lies under

    :child_storage:entries: + length of the name (u32, big-endian) + name + key

No runtime can write a main key that begins like this: Substrate refuses all of `:child_storage:` (`is_reserved`). So
nothing collides, journals, history, storage on disk and exports carry entries like any other key, and one rule keeps
them out of the main space: iteration shows entries only to who asks with a prefix or a key among them.

The roots are brought up to date when a state's `root()` is taken (see trie.py); until then they are those of the last
time, as in sp-state-machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localnet.abi import State

RESERVED = b":child_storage:"
ROOTS = b":child_storage:default:"
ENTRIES = b":child_storage:entries:"
ABOVE = b":child_storage:entries;"  # the smallest key above all entries
NAME_AT = len(ENTRIES) + 4


def root_key(name: bytes) -> bytes:
    """The main key under which a child's root stands."""
    return ROOTS + name


def entries_prefix(name: bytes) -> bytes:
    """What the entries of a child begin with, and nothing else does."""
    return ENTRIES + len(name).to_bytes(4, "big") + name


def entry_key(name: bytes, key: bytes) -> bytes:
    """Where a child's entry lies."""
    return entries_prefix(name) + key


def split_entry(flat: bytes) -> tuple[bytes, bytes]:
    """(name, key) of what `entry_key` made."""
    end = NAME_AT + int.from_bytes(flat[len(ENTRIES) : NAME_AT], "big")
    return flat[NAME_AT:end], flat[end:]


def belongs(flat: bytes) -> bool:
    """Is this a whole entry? What a developer writes by hand may not be; it belongs to no child then."""
    return len(flat) >= NAME_AT + int.from_bytes(flat[len(ENTRIES) : NAME_AT], "big") and len(flat) >= NAME_AT


def is_entry(key: bytes) -> bool:
    """Is this a child's entry, which the main space does not have?"""
    return key.startswith(ENTRIES)


def is_reserved(key: bytes) -> bool:
    """Is this a key that a runtime cannot write in the main space? Substrate ignores the attempt."""
    return key.startswith(RESERVED)


def meets_reserved(prefix: bytes) -> bool:
    """Can a key with this prefix be reserved? Substrate clears nothing under such a prefix, the empty one included."""
    return prefix.startswith(RESERVED) or RESERVED.startswith(prefix)


def hides_entries(prefix: bytes) -> bool:
    """Do keys with this prefix include entries, without the prefix asking for them?"""
    return len(prefix) < len(ENTRIES) and ENTRIES.startswith(prefix)


def every_key(state: State) -> Iterator[bytes]:
    """All keys of a state, entries of children last."""
    yield from state.keys(b"")
    yield from state.keys(ENTRIES)


def next_main_key(state: State, key: bytes) -> bytes | None:
    """The smallest main key above `key`, wherever that lies."""
    return state.next_key(ABOVE if is_entry(key) else key)


def next_entry(state: State, name: bytes, key: bytes) -> bytes | None:
    """The smallest key above `key` in a child."""
    prefix = entries_prefix(name)
    found = state.next_key(prefix + key)
    return found[len(prefix) :] if found is not None and found.startswith(prefix) else None
