"""State roots: the main trie of a state and its children's, kept in step with what changes.

`Tries` is the pair for one state. It never changes; `updated` gives the pair for another state that differs in some
keys, and what of the children's roots has to be written in the main state (see children.py): a root while the child
holds anything, nothing when it is empty, as sp-state-machine's `full_storage_root` has it.

`Known` is what a `VersionedState` remembers: the tries as of the last time it was asked, and the values they were made
from where those may have changed since. It exists only once somebody has asked for a root.

A change of state version builds the tries anew. Substrate lets a value keep the encoding of the version in which it was
written last; that takes a mark per key through history, exports and restarts, for a change that no release on today's
networks has made: their runtimes have state version 1 from genesis on (0 ended with the networks before them).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from localnet.node.children import ABOVE, ENTRIES, ROOTS, belongs, entries_prefix, root_key, split_entry
from localnet.node.trie import EMPTY_ROOT, Get, Trie

Written = dict[bytes, "bytes | None"]  # key -> value, None for deleted
ABOVE_ROOTS = ROOTS[:-1] + b";"


class Tries:
    """`digest`: the state's root."""

    __slots__ = ("_children", "_main", "digest", "version")

    def __init__(self, version: int) -> None:
        """Of the empty state. Raises ConfigError for an unknown state version."""
        self.version, self._main = version, Trie(version)
        self._children: Mapping[bytes, Trie] = {}
        self.digest = EMPTY_ROOT

    def updated(self, keys: Collection[bytes], get: Get) -> tuple[Tries, Written]:
        """The tries of a state whose values are what `get` says and differ under `keys` at most; and the roots of
        children that have to be written to it. Raises RuntimeTrap (see `Trie.updated`)."""
        flat = sorted(keys)
        low = bisect_left(flat, ENTRIES)
        high = bisect_left(flat, ABOVE, low)
        roots = flat[bisect_left(flat, ROOTS, 0, low) : bisect_left(flat, ABOVE_ROOTS, 0, low)]
        after = Tries(self.version)
        after._children, named = self._children_updated(flat[low:high], get)
        named.update(key[len(ROOTS) :] for key in roots)
        written: Written = {}
        for name in named:
            child, key = after._children.get(name), root_key(name)
            digest = None if child is None else child.root(get)
            if get(key) != digest:
                written[key] = digest
        if low < high:
            del flat[low:high]
        if written:
            flat = sorted({*flat, *written})
            before, get = get, lambda key: written[key] if key in written else before(key)
        after._main = self._main.updated(flat, get)
        after.digest = after._main.root(get)
        return after, written

    def _children_updated(self, entries: list[bytes], get: Get) -> tuple[Mapping[bytes, Trie], set[bytes]]:
        if not entries:
            return self._children, set()
        children, named = dict(self._children), set()
        for name, run in groupby(filter(belongs, entries), key=lambda flat: split_entry(flat)[0]):
            child = children.pop(name, None) or Trie(self.version, start=2 * len(entries_prefix(name)))
            child = child.updated(list(run), get)
            if child.top is not None:
                children[name] = child
            named.add(name)
        return children, named


@dataclass
class Known:
    """`told`: values as `tries` have them, for keys whose present value may be another."""

    tries: Tries
    told: Written = field(default_factory=dict)

    def note(self, before: Mapping[bytes, bytes | None]) -> None:
        """Keys that will not be looked at again by themselves, with the values they had when the tries were made."""
        for key, value in before.items():
            self.told.setdefault(key, value)

    def refresh(self, journals: Sequence[Mapping[bytes, bytes | None]], get: Get) -> Written:
        """Bring the tries up to what `get` says. `journals`: what open transactions replaced, the outermost first.
        Returns the roots of children that have to be written."""
        have: Written = {}
        for journal in reversed(journals):
            have.update(journal)
        have.update(self.told)
        changed = [key for key, value in have.items() if get(key) != value]
        written: Written = {}
        if changed:
            self.tries, written = self.tries.updated(changed, get)
        self.keep(journals, get, written)
        return written

    def keep(self, journals: Iterable[Mapping[bytes, bytes | None]], get: Get, written: Written) -> None:
        """The tries are what `get` says, plus `written`: note what open transactions can still take back."""
        self.told = {key: get(key) for journal in journals for key in journal}
        self.told.update(written)


def child_root(entries: Sequence[bytes], name: bytes, get: Get, version: int) -> bytes:
    """Root of one child, from its entries (flat keys, ascending). Raises ConfigError for an unknown state version,
    RuntimeTrap (see `Trie.updated`)."""
    return Trie.build(entries, get, version, start=2 * len(entries_prefix(name))).root(get)
