"""Versioned key-value state: the newest values in one dictionary, older ones as an undo history.

`VersionedState` is what a runtime writes to while a block is built (it is an `abi.State`), `StateView` (view.py) is the
same interface on an old block; index.py has the sorted keys. A write goes straight into `head`; what it replaced goes
into the innermost journal, so a read is one dictionary look-up at any depth of nesting, `rollback` replays a journal
and `commit` folds it into the one below.

    seal(number)      ends a block: the outermost journal becomes history, the changed keys are the block's diff
    at(number)        a read-only view of the state after block `number` (its writes are private and never kept)
    revert(number)    undoes every block above `number`: a snapshot is a number, going back is a truncation
    discard(number)   forgets how to go below `number`, to bound memory
    root(version)     the Merkle root; a trie is kept from the first time on that somebody asks (see roots.py)

History keeps, per key, the blocks that changed it and the value from *before* each: the value at block n is the one
recorded by the first change after n, or the head's. Keys that never changed after genesis cost nothing.

Entries of child tries lie among the others and are shown to who asks for them only (see children.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from heapq import merge

from localnet.errors import ReadOnlyState, StateDiscarded
from localnet.node.children import every_key, hides_entries, is_entry
from localnet.node.index import Index
from localnet.node.roots import Known, Tries
from localnet.node.view import StateView as StateView

Journal = dict[bytes, "bytes | None"]  # key -> value before the first write to it


class VersionedState:
    """The state at the head, writable, with its history."""

    def __init__(self) -> None:
        self.head: dict[bytes, bytes] = {}
        self.number = -1  # last sealed block
        self.oldest = 0  # oldest block whose state can still be read
        self._live = Index()  # keys of `head`
        self._gone = Index()  # keys that only old blocks have
        self._past: dict[bytes, tuple[list[int], list[bytes | None]]] = {}
        self._changed: dict[int, tuple[bytes, ...]] = {}  # block -> keys it changed
        self._journals: list[Journal] = [{}]
        self._deleted: set[bytes] = set()  # keys deleted since the last block, some of which may be back
        self._known: Known | None = None  # once a root was asked for

    # -- abi.State

    def get(self, key: bytes) -> bytes | None:
        return self.head.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        head = self.head
        old = head.get(key)
        if old == value:
            return
        journal = self._journals[-1]
        if key not in journal:
            journal[key] = old
        if value is None:
            del head[key]
            self._live.remove(key)
            self._deleted.add(key)
        else:
            if old is None:
                self._live.add(key)
            head[key] = value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        head = self.head
        return (key for key in self._live.under(prefix) if key in head)

    def next_key(self, key: bytes) -> bytes | None:
        return self._live.after(key)

    def settled(self, key: bytes) -> bytes | None:
        for journal in self._journals:
            if key in journal:
                return journal[key]
        return self.head.get(key)

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        keys = self._live.under(prefix)
        deleted = {key for key in self._deleted if key.startswith(prefix)}
        if deleted and hides_entries(prefix):
            deleted = {key for key in deleted if not is_entry(key)}
        if deleted:
            keys = sorted(deleted.union(keys))
        return (key for key in keys if self.settled(key) is not None)

    def root(self, version: int) -> bytes:
        """The Merkle root of the open state; roots of children that it finds changed are written to it.

        Raises ConfigError for an unknown state version, RuntimeTrap for keys nested too deeply.
        """
        known, written = self._refreshed(version)
        for key, value in written.items():
            self.put(key, value)
        return known.tries.digest

    def _refreshed(self, version: int) -> tuple[Known, Journal]:
        known = self._known
        if known is None or known.tries.version != version:
            tries, written = Tries(version).updated(self._live.keys, self.head.get)
            self._known = known = Known(tries)
            known.keep(self._journals, self.head.get, written)
            return known, written
        return known, known.refresh(self._journals, self.head.get)

    def begin(self) -> None:
        self._journals.append({})

    def commit(self) -> None:
        if len(self._journals) == 1:
            raise ReadOnlyState("commit without a transaction")
        inner = self._journals.pop()
        outer = self._journals[-1]
        if outer:
            for key, old in inner.items():
                outer.setdefault(key, old)
        else:
            self._journals[-1] = inner

    def rollback(self) -> None:
        if len(self._journals) == 1:
            raise ReadOnlyState("rollback without a transaction")
        self._restore(self._journals.pop())

    def _restore(self, journal: Mapping[bytes, bytes | None]) -> None:
        head, live = self.head, self._live
        for key, old in journal.items():
            have = key in head
            if old is not None:
                if not have:
                    live.add(key)
                head[key] = old
            elif have:
                del head[key]
                live.remove(key)

    # -- blocks

    @property
    def depth(self) -> int:
        """Open transactions."""
        return len(self._journals) - 1

    def seal(self, number: int) -> Journal:
        """End block `number`; returns what it changed: key -> new value, None for deleted."""
        if self.depth:
            raise ReadOnlyState(f"{self.depth} transactions are still open at the end of block {number}")
        head, journal = self.head, self._journals[0]
        diff: Journal = {}
        for key, old in journal.items():
            new = head.get(key)
            if new != old:
                diff[key] = new
        if self.number >= 0:
            self._remember(number, diff, journal)
        if self._known is not None:
            self._known.note(journal)
        self._journals, self._deleted = [{}], set()
        self.number = number
        return diff

    def _remember(self, number: int, diff: Journal, journal: Journal) -> None:
        past = self._past
        for key, new in diff.items():
            old = journal[key]
            history = past.get(key)
            if history is None:
                past[key] = ([number], [old])
            else:
                history[0].append(number)
                history[1].append(old)
                if old is None:  # it came back
                    self._gone.remove(key)
            if new is None:
                self._gone.add(key)
        self._changed[number] = tuple(diff)

    def abandon(self) -> None:
        """Undo everything since the last `seal`."""
        while self.depth:
            self.rollback()
        self._restore(self._journals[0])
        self._journals, self._deleted = [{}], set()

    def revert(self, number: int) -> Journal:
        """Undo every block above `number`; returns key -> value for all keys this changed."""
        self._check(number)
        self.abandon()
        undone: Journal = {}
        for block in range(self.number, number, -1):
            for key in self._changed.pop(block):
                blocks, values = self._past[key]
                if key not in self.head:
                    self._gone.remove(key)
                blocks.pop()
                if self._known is not None:
                    self._known.note({key: self.head.get(key)})
                undone[key] = old = values.pop()
                self._restore({key: old})
                if not blocks:
                    del self._past[key]
                elif old is None:
                    self._gone.add(key)
        self.number = number
        return undone

    def discard(self, number: int) -> None:
        """Forget the states below block `number`. Between blocks only."""
        if self.depth or self._journals[0]:
            raise ReadOnlyState("history cannot be discarded while a block is open")
        number = min(number, self.number)
        for block in range(self.oldest, number):
            for key in self._changed.pop(block + 1, ()):
                history = self._past.get(key)
                if history is None:  # a later block of the same range was its last change
                    continue
                cut = bisect_right(history[0], number)
                if cut == len(history[0]):
                    del self._past[key]
                    if key not in self.head:
                        self._gone.remove(key)
                elif cut:
                    del history[0][:cut], history[1][:cut]
        self.oldest = max(self.oldest, number)

    def _check(self, number: int) -> None:
        if not self.oldest <= number <= self.number:
            raise StateDiscarded(f"no state for block {number}: kept are blocks {self.oldest} to {self.number}")

    # -- reading old blocks

    def at(self, number: int) -> StateView:
        """The state after block `number`. Raises StateDiscarded."""
        self._check(number)
        return StateView(self, number)

    def value_at(self, key: bytes, number: int) -> bytes | None:
        history = self._past.get(key)
        if history is not None:
            position = bisect_right(history[0], number)
            if position < len(history[0]):
                return history[1][position]
        return self.head.get(key)

    def keys_at(self, prefix: bytes, number: int, start: bytes | None = None) -> Iterator[bytes]:
        """Keys with this prefix that had a value after block `number`, ascending, those above `start` only."""
        if number == self.number:
            return iter(self._live.under(prefix, start))
        candidates = merge(self._live.under(prefix, start), self._gone.under(prefix, start))
        return (key for key in candidates if self.value_at(key, number) is not None)

    def keys_paged(self, prefix: bytes, count: int, start: bytes | None, number: int) -> list[bytes]:
        """At most `count` keys above `start`: one page of `keys_at`."""
        self._check(number)
        if number == self.number:
            return self._live.under(prefix, start, count)
        return [key for _, key in zip(range(count), self.keys_at(prefix, number, start), strict=False)]

    def next_key_at(self, key: bytes, number: int) -> bytes | None:
        """The smallest key above `key` that had a value after block `number`."""
        live = self._live.after(key)
        if number == self.number:
            return live
        gone = self._gone.after(key)
        while live is not None or gone is not None:
            found = min(one for one in (live, gone) if one is not None)
            if self.value_at(found, number) is not None:
                return found
            if found == live:
                live = self._live.after(found)
            else:
                gone = self._gone.after(found)
        return None

    def root_like(self, view: StateView, version: int) -> tuple[bytes, Journal]:
        """Root of an old or a tried-out state, and the roots of children to be written to it: what differs from the
        head is applied to the head's tries, which stay as they are, or all of it to empty ones where that is less."""
        if self._known is None:
            self._refreshed(version)
        known = self._known
        assert known is not None
        if known.tries.version == version:
            known.refresh(self._journals, self.head.get)
            near = {*known.told, *view.written()}
            for block in range(view.number + 1, self.number + 1):
                near.update(self._changed[block])
            near = {key for key in near if key in known.told or view.get(key) != self.head.get(key)}
            if 2 * len(near) <= len(self._live.keys):
                tries, written = known.tries.updated(near, view.get)
                return tries.digest, written
        tries, written = Tries(version).updated([*every_key(view)], view.get)
        return tries.digest, written

    def changed_in(self, number: int) -> tuple[bytes, ...]:
        """Keys block `number` changed (nothing for genesis and discarded blocks)."""
        return self._changed.get(number, ())

    # -- persistence

    @classmethod
    def restore(cls, head: dict[bytes, bytes], number: int, undo: Mapping[int, Journal]) -> VersionedState:
        """A state from storage: the newest values, and for each kept block what it replaced (see `before`)."""
        state = cls()
        state.head, state.number = head, number
        state._live.keys = sorted(head)
        for block in sorted(undo):
            for key, old in undo[block].items():
                blocks, values = state._past.setdefault(key, ([], []))
                blocks.append(block)
                values.append(old)
            state._changed[block] = tuple(undo[block])
        state._gone.keys = sorted(key for key in state._past if key not in head)
        state.oldest = min(undo, default=number + 1) - 1
        return state

    def before(self, number: int) -> Journal:
        """What block `number` replaced: key -> value before it. Only for the newest block."""
        return {key: self._past[key][1][-1] for key in self._changed.get(number, ())}
