"""A block's storage, as a remote node answers for it: values in bulk, keys by the page, either with proofs if wanted.

Where the node answers state_queryStorageAt, a thousand values cost one request; where it does not, that is said once
and values are read one by one, at the same time. A page that is shorter than asked for ends a list, unless it may be
the node's own limit that ended it.

With a `root` nothing is believed: values and lists of keys are proven against it (proofs.py), or the read fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from localnet.fork import answers, proofs
from localnet.fork.answers import END
from localnet.fork.transport import Refused, Stats
from localnet.node.children import entries_prefix, is_entry, root_key, split_entry
from localnet.node.runtime_api import hexed, hexed_or_none

log = logging.getLogger(__name__)

T = TypeVar("T")

BULK = 1000  # keys in one request
PAGE = 1000  # keys in one answer, as many as nodes give


def above(prefix: bytes) -> bytes:
    """The smallest bytes above everything that starts with `prefix`; END for the empty prefix."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else END


class Reading:
    """`ask(method, *params)` sends one request. Every method raises ForkError, Refused among it, Unproven."""

    def __init__(self, ask: Callable[..., Awaitable[Any]], stats: Stats) -> None:
        self.root: bytes | None = None  # of the state read from, when it is to be proven
        self._ask, self._stats = ask, stats
        self._bulk = True  # until the node refuses
        self._longest = 0  # keys in an answer so far: a shorter one is no limit of the node's

    async def values(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes | None]:
        """A value, or None, for each key after block `at`."""
        main = [key for key in keys if not is_entry(key)]
        chunks = [main[index : index + BULK] for index in range(0, len(main), BULK)]
        chunks += [[key] for key in keys if is_entry(key)]
        found = await self._parts(chunks, at)
        self._stats.values += len(found)
        return found

    async def _chunk(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes | None]:
        if self.root is not None:
            nodes, found = await self._proof(keys, at), {}
            for key in keys:
                root, inner = proofs.trie_of(self.root, key, nodes)
                found[key] = proofs.value(root, inner, nodes)
            return found
        if len(keys) == 1:
            stored = await self._ask(*_read(keys[0]), hexed(at))
            return {keys[0]: answers.raw_or_none(stored, "a storage value")}
        if self._bulk:
            try:
                stored = await self._ask("state_queryStorageAt", [hexed(key) for key in keys], hexed(at))
                return answers.changes(stored, keys, at)
            except Refused as error:
                if error.too_large:
                    half = len(keys) // 2
                    return await self._parts([keys[:half], keys[half:]], at)
                single = await self._chunk(keys[:1], at)  # raises when it is the block that the node does not have
                if self._bulk:
                    self._bulk = False
                    log.warning("%s; values are read one by one from now on, which takes more requests", error)
                return single | await self._parts([[key] for key in keys[1:]], at)
        return await self._parts([[key] for key in keys], at)

    async def _parts(self, parts: Sequence[Sequence[bytes]], at: bytes) -> dict[bytes, bytes | None]:
        found: dict[bytes, bytes | None] = {}
        for part in await together(self._chunk(one, at) for one in parts):
            found.update(part)
        return found

    async def _proof(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes]:
        """Nodes of the tries in which these keys are, or are not; entries of one child at most."""
        method, parameters = "state_getReadProof", [[hexed(key) for key in keys], hexed(at)]
        if is_entry(keys[0]):
            name = split_entry(keys[0])[0]
            method = "state_getChildReadProof"
            parameters = [hexed(root_key(name)), [hexed(split_entry(key)[1]) for key in keys], hexed(at)]
        try:
            return proofs.collect(answers.proof(await self._ask(method, *parameters), at))
        except Refused as error:
            if not error.too_large or len(keys) == 1:
                raise
            half = len(keys) // 2
            first, second = await together(self._proof(part, at) for part in (keys[:half], keys[half:]))
            return first | second

    async def page(self, prefix: bytes, start: bytes | None, count: int, at: bytes) -> list[bytes]:
        """At most `count` keys with this prefix above `start`; fewer only when there are no more."""
        method, flat = "state_getKeysPaged", b""
        parameters: list[Any] = []
        if is_entry(prefix):  # of a child trie, whose keys the node knows without what they have in front here
            name, prefix = split_entry(prefix)
            method, flat, parameters = "childstate_getKeysPaged", entries_prefix(name), [hexed(root_key(name))]
        above_it = None if start is None else start[len(flat) :]
        found: list[bytes] = []
        while len(found) < count:
            last = hexed_or_none(found[-1] if found else above_it)
            got = await self._ask(method, *parameters, hexed(prefix), count - len(found), last, hexed(at))
            self._stats.pages += 1
            more = answers.page(got, prefix, found[-1] if found else above_it, count - len(found))
            found += more
            if len(more) < self._longest or not more:
                break  # the node has given more at once, so it was not its limit that ended this
            self._longest = len(more)
        await self._prove_page(flat, prefix, above_it, found, len(found) < count, at)
        return [flat + key for key in found]

    async def _prove_page(
        self, flat: bytes, prefix: bytes, start: bytes | None, found: Sequence[bytes], whole: bool, at: bytes
    ) -> None:
        """These are all keys with the prefix above `start`, up to the last of them or (`whole`) at all."""
        if self.root is None:
            return
        edge = prefix if start is None else start
        nodes = await self._proof([flat + key for key in dict.fromkeys((edge, *found))], at)
        root, _ = proofs.trie_of(self.root, flat + edge, nodes)
        lo = max(prefix, b"" if start is None else start + b"\0")
        hi = above(prefix) if whole else found[-1] + b"\0"
        if proofs.keys(root, lo, hi, nodes) != list(found):
            raise proofs.Unproven(f"the list of keys under 0x{(flat + prefix).hex()} is another than the state holds")

    async def scan(self, prefix: bytes, most: int, at: bytes) -> tuple[list[bytes], bytes]:
        """The first keys with this prefix, `most` of them at most (at least one page), and up to where they are all:
        `above(prefix)`, or just above the last."""
        keys: list[bytes] = []
        while True:
            got = await self.page(prefix, keys[-1] if keys else None, PAGE, at)
            keys += got
            if len(got) < PAGE:
                return keys, above(prefix)
            if len(keys) >= most:
                return keys, keys[-1] + b"\0"

    async def walk(self, prefix: bytes, start: bytes, count: int, most: int, at: bytes) -> tuple[list[bytes], bytes]:
        """The keys of the main space above `start`, `count` at a time, until they are past the prefix or `most`; and up
        to where they are all."""
        keys: list[bytes] = []
        while True:
            got = await self.page(b"", keys[-1] if keys else start, count, at)
            keys += got
            if len(got) < count:
                return keys, END
            if got[-1] >= above(prefix) or len(keys) >= most:
                return keys, got[-1] + b"\0"


def _read(key: bytes) -> tuple[str, ...]:
    """The request for one value, but for its block."""
    if not is_entry(key):
        return "state_getStorage", hexed(key)
    name, inner = split_entry(key)
    return "childstate_getStorage", hexed(root_key(name)), hexed(inner)


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results. When one fails the others end, too: nobody goes on asking for what nobody waits for."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
