"""Transactions that wait for a block.

A transaction is *ready* when nothing it requires is missing, *future* otherwise. What it requires and provides are
opaque tags from the runtime (for a signed one: account and nonce), so the pool orders by tags and knows no accounts:

    add()        a newcomer that provides a tag already in the pool must have more priority than the one it replaces
    ordered()    the ready ones by priority, then age, each behind those it requires
    included()   its tags are on chain now: those that waited for them become ready
    drop()       invalid, expired or unwanted: those that waited for it become future again

The pool is bounded by count and bytes. Whoever watches a transaction hears a status for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from localnet.node.extrinsic import Envelope
from localnet.node.validity import Validity, already_imported, banned, pool_full, too_low_priority

Status = Any  # "ready", "future", "invalid", "dropped", {"inBlock": "0x.."}, {"finalized": "0x.."}, {"usurped": "0x.."}
Watcher = Callable[[Status], None]

MAX_COUNT = 8192  # the released node's default for ready transactions
MAX_BYTES = 20 * 2**20
FUTURE_SHARE = 4  # at most one in four may be future
BAN_BLOCKS = 64  # blocks for which a transaction found invalid is not taken again


@dataclass(eq=False)
class Entry:
    """A transaction in the pool. `expires` is the last block that may still carry it."""

    xt: Envelope
    validity: Validity
    expires: int
    order: int = 0
    missing: set[bytes] = field(default_factory=set)
    watchers: list[Watcher] = field(default_factory=list)

    def tell(self, status: Status) -> None:
        for watcher in self.watchers:
            watcher(status)


class Pool:
    def __init__(self, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self.max_count, self.max_bytes = max_count, max_bytes
        self.entries: dict[bytes, Entry] = {}  # by extrinsic hash, oldest first
        self.size = 0  # bytes
        self._futures = 0
        self._providers: dict[bytes, Entry] = {}  # tag -> the entry that provides it, ready or future
        self._waiting: dict[bytes, list[Entry]] = {}  # tag -> entries that require it
        self._banned: dict[bytes, int] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def has_ready(self) -> bool:
        return len(self.entries) > self._futures

    def provides(self, tag: bytes) -> bool:
        """Whether a ready transaction provides this tag."""
        entry = self._providers.get(tag)
        return entry is not None and not entry.missing

    def check_new(self, digest: bytes, head: int) -> None:
        """Cheap refusals before the runtime is asked. Raises PoolRejected (1012, 1013)."""
        if digest in self.entries:
            raise already_imported(digest)
        until = self._banned.get(digest)
        if until is not None:
            if head < until:
                raise banned()
            del self._banned[digest]

    def add(self, xt: Envelope, validity: Validity, head: int, watcher: Watcher | None = None) -> Entry:
        """Take a transaction validated on top of block `head`. Raises PoolRejected (1013, 1014, 1016)."""
        if xt.hash in self.entries:
            raise already_imported(xt.hash)
        rivals = {id(e): e for tag in validity.provides if (e := self._providers.get(tag)) is not None}
        strength = sum(rival.validity.priority for rival in rivals.values())
        if rivals and validity.priority <= strength:
            raise too_low_priority(strength, validity.priority)
        entry = Entry(xt, validity, head + validity.longevity, next(self._order))
        entry.missing = {tag for tag in validity.requires if not self.provides(tag)}
        full = len(self.entries) >= self.max_count or self.size + len(xt.raw) > self.max_bytes
        crowded = entry.missing and self._futures >= self.max_count // FUTURE_SHARE
        if (full and not rivals) or crowded:
            raise pool_full()
        if watcher is not None:
            entry.watchers.append(watcher)
        for rival in rivals.values():
            self._remove(rival)
            if not rival.missing:
                self._lack(rival.validity.provides)
            rival.tell({"usurped": "0x" + xt.hash.hex()})
        self._insert(entry)
        return entry

    def _insert(self, entry: Entry) -> None:
        self.entries[entry.xt.hash] = entry
        self.size += len(entry.xt.raw)
        for tag in entry.validity.provides:
            self._providers[tag] = entry
        for tag in entry.validity.requires:
            self._waiting.setdefault(tag, []).append(entry)
        entry.tell("future" if entry.missing else "ready")
        if entry.missing:
            self._futures += 1
        else:
            self._satisfy(entry.validity.provides)

    def _satisfy(self, tags: tuple[bytes, ...]) -> None:
        """These tags are available now: promote what waited for them, and what waits for those in turn."""
        stack = list(tags)
        while stack:
            tag = stack.pop()
            for waiter in self._waiting.get(tag, ()):
                if tag in waiter.missing:
                    waiter.missing.discard(tag)
                    if not waiter.missing:
                        self._futures -= 1
                        waiter.tell("ready")
                        stack.extend(waiter.validity.provides)

    def _lack(self, tags: tuple[bytes, ...]) -> None:
        """These tags are not available any more."""
        stack = list(tags)
        while stack:
            tag = stack.pop()
            for waiter in self._waiting.get(tag, ()):
                if not waiter.missing:
                    self._futures += 1
                    waiter.tell("future")
                    stack.extend(waiter.validity.provides)
                waiter.missing.add(tag)

    def _remove(self, entry: Entry) -> None:
        del self.entries[entry.xt.hash]
        self.size -= len(entry.xt.raw)
        self._futures -= bool(entry.missing)
        for tag in entry.validity.provides:
            if self._providers.get(tag) is entry:
                del self._providers[tag]
        for tag in entry.validity.requires:
            waiting = self._waiting[tag]
            waiting.remove(entry)
            if not waiting:
                del self._waiting[tag]

    def included(self, entry: Entry) -> None:
        """The transaction is in a block: what it provides is on chain."""
        self._remove(entry)
        self._satisfy(entry.validity.provides)

    def drop(self, entry: Entry, status: Status, ban_until: int | None = None) -> None:
        """Take a transaction out and tell its watchers; with `ban_until` it is refused up to that block."""
        self._remove(entry)
        if not entry.missing:
            self._lack(entry.validity.provides)
        if ban_until is not None:
            self._ban(entry.xt.hash, ban_until)
        entry.tell(status)

    def _ban(self, digest: bytes, until: int) -> None:
        while len(self._banned) >= self.max_count:
            del self._banned[next(iter(self._banned))]
        self._banned[digest] = until

    def forgive(self) -> None:
        """Forget all bans (after a revert: what was invalid may be valid again)."""
        self._banned.clear()

    def expired(self, head: int) -> list[Entry]:
        """Those that no block after `head` may carry."""
        return [entry for entry in self.entries.values() if entry.expires <= head]

    def futures(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.missing] if self._futures else []

    def ordered(self) -> Iterator[Entry]:
        """Ready transactions: higher priority first, then older ones, each behind those it requires."""
        ready = [entry for entry in self.entries.values() if not entry.missing]
        ready.sort(key=lambda entry: (-entry.validity.priority, entry.order))
        held: dict[bytes, list[Entry]] = {}
        done: set[bytes] = set()
        for first in ready:
            stack = [first]
            while stack:
                entry = stack.pop()
                blocker = next((t for t in entry.validity.requires if t in self._providers and t not in done), None)
                if blocker is not None:
                    held.setdefault(blocker, []).append(entry)
                    continue
                yield entry
                for tag in entry.validity.provides:
                    done.add(tag)
                    stack.extend(reversed(held.pop(tag, ())))

    def renew(self, entry: Entry, validity: Validity, head: int) -> None:
        """Replace what is known about a transaction by a new answer of the runtime."""
        self._remove(entry)
        if not entry.missing:
            self._lack(entry.validity.provides)
        entry.validity, entry.expires = validity, head + validity.longevity
        entry.missing = {tag for tag in validity.requires if not self.provides(tag)}
        self._insert(entry)
