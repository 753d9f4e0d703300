"""The remote block's storage, as far as it is known, and asking for the rest.

`get` answers from memory, which the cache filled; what is missing is asked for together with what an advisor expects to
be missed next (see prefetch.py). A key inside a stretch of key space that was listed completely is absent without being
asked for. An absent key is known like any other.

What is used of the block is noted (`touched`), for the next run to fetch ahead. `failure` holds the first error of a
read until somebody takes it: a runtime may swallow the exception, the chain must not go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from localnet.errors import ForkError
from localnet.fork.cache import SCANNED, VALUE, WALKED, Cache, Point
from localnet.fork.ranges import Ranges
from localnet.fork.reading import PAGE, above
from localnet.fork.remote import Remote
from localnet.fork.transport import Stats
from localnet.node.children import NAME_AT, entries_prefix, is_entry, split_entry

log = logging.getLogger(__name__)


class Advisor(Protocol):
    def __call__(self, key: bytes) -> Iterable[bytes]:
        """Keys to fetch with one that is missed."""

    def stretches(self, prefix: bytes) -> Iterable[bytes]:
        """Prefixes to list with one."""


ITEM = 32  # bytes that all keys of a storage item start with: the hashes of its pallet and of its name
WALK_PAGE = 256  # keys asked for when a runtime goes from key to key
AHEAD = 256  # values read beside one that is known to exist: who iterates wants them next
BATCH = 4096  # things learned before they are written to the cache
MOST = 40 * PAGE  # keys listed of one prefix beside another: every neuron of the chain
MAX_TOUCHED = 100_000  # keys noted in a run


@dataclass(frozen=True)
class Source:
    """Where a fork comes from. Without a remote node only what the cache holds is there."""

    point: Point
    cache: Cache
    remote: Remote | None


class Base:
    page_size, walk_size = PAGE, WALK_PAGE

    def __init__(self, source: Source) -> None:
        """Raises ForkError for a damaged cache."""
        self.point, self.cache, self.remote = source.point, source.cache, source.remote
        self.values, stretches = self.cache.load(self.point)
        self.main, self.children = Ranges(), Ranges()  # child tries lie among the main keys and are listed apart
        for lo, hi, keys in stretches:
            self._ranges(lo).add(lo, hi, keys)
        self.advisor: Advisor | None = None
        self.failure: ForkError | None = None
        self.touched: dict[tuple[bytes, int], None] = {}
        self.ready = True  # what was touched is worth fetching ahead: not when a start was broken off
        self._closed = False
        self._saved = 0  # of those, in the cache
        self._begun = self.cache.next_run(self.point.genesis)
        self._given: set[bytes] = set()  # by `next_key`: who asks with one of them goes on with a walk
        self._new_values: dict[bytes, bytes | None] = {}
        self._new_pages: list[tuple[bytes, bytes, list[bytes]]] = []

    def _ranges(self, key: bytes) -> Ranges:
        return self.children if is_entry(key) else self.main

    def take_failure(self) -> ForkError | None:
        failure, self.failure = self.failure, None
        return failure

    def facts(self) -> dict[str, Any]:
        """What a person or a script wants to know of the fork."""
        return {
            "block": self.point.number, "hash": "0x" + self.point.hash.hex(), "offline": self.remote is None,
            "proven": self.point.proven,
            "cache": str(self.cache.path), **asdict(self.stats),
        }  # fmt: skip

    # -- values

    def get(self, key: bytes) -> bytes | None:
        """Raises ForkError."""
        self._touch(key, VALUE)
        try:
            return self.values[key]
        except KeyError:
            return self._miss(key)

    def _touch(self, key: bytes, kind: int) -> None:
        if len(self.touched) < MAX_TOUCHED:
            self.touched[key, kind] = None

    @property
    def stats(self) -> Stats:
        """What the fork has cost so far; nothing when offline."""
        return Stats() if self.remote is None else self.remote.stats

    def _miss(self, key: bytes) -> bytes | None:
        there = self._ranges(key).holds(key)
        if there is False:
            self.values[key] = None
            return None
        more: list[bytes] = []
        if there:
            more = [one for one in self._ranges(key).following(key, AHEAD) if one[:ITEM] == key[:ITEM]]
        if self.remote is not None and self.advisor is not None:
            more += self.advisor(key)
        try:
            self.fetch([key, *more])
        except ForkError as error:
            self.failure = self.failure or error
            raise
        return self.values[key]

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Learn the values that are not known, in as few requests as the node allows. Raises ForkError."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self.values and self._exists(key) is not False]
        if wanted:
            self._learn(self._online(wanted[0]).values(wanted, self.point.hash))

    def _exists(self, key: bytes) -> bool | None:
        return self._ranges(key).holds(key)

    def _online(self, key: bytes) -> Remote:
        if self.remote is None:
            raise ForkError(
                f"offline, and the cache {self.cache.path} does not have 0x{key.hex()} of block {self.point.number}: "
                "run once with the network (without --fork-offline) and do the same there"
            )
        return self.remote

    def _learn(self, found: dict[bytes, bytes | None]) -> None:
        self.values.update(found)
        self._new_values.update(found)
        self._flush(BATCH)

    # -- keys

    def keys(self, prefix: bytes, start: bytes | None = None) -> Iterator[bytes]:
        """Keys with this prefix above `start`, ascending, listed a page at a time as they are wanted.

        Raises ForkError.
        """
        position, end = prefix, above(prefix)
        if start is not None and start >= prefix:
            position = start + b"\0"
        else:
            self._touch(prefix, SCANNED)
        ranges = self._ranges(prefix)
        while position < end:
            known = min(ranges.reach(position), end)
            if known == position:
                known = self._list(prefix, position, self.page_size)
            yield from ranges.between(position, known)
            position = known

    def next_key(self, key: bytes) -> bytes | None:
        """The smallest key above this one; from an entry of a child trie on, of that child only. Raises ForkError."""
        prefix, position = b"", key + b"\0"
        if is_entry(key):
            prefix = entries_prefix(split_entry(key)[0])
        else:
            if key not in self._given:
                self._touch(key, WALKED)
        ranges, end = self._ranges(key), above(prefix)
        while position < end:
            known = min(ranges.reach(position), end)
            if known == position:
                known = self._list(prefix, position, self.walk_size)
            found = ranges.first(position, known)
            if found is not None:
                if len(self._given) < MAX_TOUCHED:
                    self._given.add(found)
                return found
            position = known
        return None

    def _list(self, prefix: bytes, position: bytes, count: int) -> bytes:
        """Learn a page of the keys from `position` on; up to where they are all known now."""
        try:
            return self._listed(prefix, position, count)
        except ForkError as error:
            self.failure = self.failure or error
            raise

    def _listed(self, prefix: bytes, position: bytes, count: int) -> bytes:
        if self.advisor is not None and self.remote is not None:
            if position == prefix:
                self.scan(self.advisor.stretches(prefix), MOST)
            elif not prefix:
                self.walk(self.advisor.stretches(position[:-1]))
            known = min(self._ranges(prefix).reach(position), above(prefix))
            if known > position:
                return known
        if is_entry(prefix) and len(prefix) < NAME_AT + int.from_bytes(prefix[NAME_AT - 4 : NAME_AT], "big"):
            raise ForkError("the child tries of a forked chain cannot be listed across, only one by its name")
        start = None if position == prefix else _below(position)
        page = self._online(position).page(prefix, start, count, self.point.hash)
        end = above(prefix) if len(page) < count else page[-1] + b"\0"
        if end <= position:
            raise ForkError(f"the node lists {count} keys below 0x{position.hex()}, where none can be")
        self._list_known(position, end, [key for key in page if key >= position])
        return end

    def _list_known(self, lo: bytes, hi: bytes, keys: Sequence[bytes]) -> None:
        self._ranges(lo).add(lo, hi, keys)
        self._new_pages.append((lo, hi, list(keys)))
        self._flush(BATCH)

    def listed(self, prefix: bytes) -> bool:
        """Whether all keys with this prefix are known."""
        return self._ranges(prefix).reach(prefix) >= above(prefix)

    def scan(self, prefixes: Iterable[bytes], most: int) -> None:
        """Learn the keys under these prefixes, at the same time; only the first `most` (by pages) of each.

        Raises ForkError.
        """
        wanted = [one for one in dict.fromkeys(prefixes) if not self.listed(one)]
        if wanted:
            found = self._online(wanted[0]).scan(wanted, most, self.point.hash)
            for prefix, (keys, end) in found.items():
                self._list_known(prefix, end, keys)

    def walk(self, prefixes: Iterable[bytes]) -> None:
        """Learn the keys under these prefixes and the first one behind each, at the same time. Raises ForkError."""
        wanted = [one for one in dict.fromkeys(prefixes) if one and self.main.reach(one) <= above(one)]
        if wanted:
            starts = [_below(prefix) for prefix in wanted]
            found = self._online(wanted[0]).walk(wanted, starts, self.walk_size, MOST, self.point.hash)
            for prefix, (keys, end) in zip(wanted, found, strict=True):
                if end > prefix:
                    self._list_known(prefix, end, [key for key in keys if key >= prefix])

    # -- the cache

    def _flush(self, least: int) -> None:
        """Write what was learned. A cache that cannot be written is said so; the chain goes on without it."""
        if len(self._new_values) + len(self._new_pages) < least:
            return
        values, pages, self._new_values, self._new_pages = self._new_values, self._new_pages, {}, []
        try:
            self.cache.keep(self.point, values, pages)
        except ForkError as error:
            log.error("%s; what was learned is not kept", error)

    def save(self) -> None:
        """Write everything that is new, and what was used."""
        self._flush(1)
        used = list(islice(self.touched, self._saved, None)) if self.ready else []
        if used:
            self._saved += len(used)
            try:
                self.cache.touch(self.point.genesis, used, self._begun)
            except ForkError as error:
                log.error("%s; what blocks read is not kept", error)

    def close(self) -> None:
        """Write what is new and hang up. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.save()
            self.cache.close()
            if self.remote is not None:
                self.remote.close()


def _below(position: bytes) -> bytes:
    """A key below `position`, as high as is easily written: what lies between is listed twice, never left out."""
    if position[-1] == 0:
        return position[:-1]
    return position[:-1] + bytes((position[-1] - 1,)) + b"\xff" * 32
