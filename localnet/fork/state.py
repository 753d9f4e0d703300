"""The state of a forked chain: what was written here, over what the remote block holds (base.py).

`ForkState` is a `VersionedState` of local writes alone. What was never written here is the remote block's, read when it
is needed; what was deleted here holds `GONE`. So a write reads nothing, history and transactions are those of any
state, and the oldest block that one can go back to is the one forked from.

Differences that show: `root` is a digest chained over the changes (most of the state is elsewhere), `seal` counts a
value written again as a change, and listing all of the state is refused: that would fetch it.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from heapq import merge
from itertools import islice
from typing import Any

from localnet.errors import ForkError
from localnet.fork.base import Base
from localnet.node.blocks import state_digest
from localnet.node.state import Journal, VersionedState
from localnet.node.view import StateView


class _Gone(bytes):
    """Equal to itself only: no value can be taken for it, whatever bytes it holds."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:  # else it is that of bytes
        return self is not other

    __hash__ = bytes.__hash__


GONE = _Gone(b"deleted here")


class Undone(Journal):
    """What a revert restored. The remote block's values are read when somebody looks."""

    def __init__(self, base: Base, raw: Mapping[bytes, bytes | None]) -> None:
        self._base = base
        super().__init__(raw)

    def __getitem__(self, key: bytes) -> bytes | None:
        raw = super().__getitem__(key)
        return self._base.get(key) if raw is None else None if raw is GONE else raw

    def get(self, key: bytes, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def items(self) -> ItemsView[bytes, bytes | None]:  # type: ignore[override]
        return ItemsView(self)

    def values(self) -> ValuesView[bytes | None]:  # type: ignore[override]
        return ValuesView(self)


class ForkState(VersionedState):
    """Starts as the state after block `number`. `root`: 32 bytes for that state, from its header."""

    def __init__(self, base: Base, number: int, root: bytes) -> None:
        super().__init__()
        self.base, self.number, self.oldest = base, number, number
        self._roots = {number: root}  # of sealed blocks

    def _shown(self, key: bytes, raw: bytes | None) -> bytes | None:
        if raw is None:
            return self.base.get(key)
        return None if raw is GONE else raw

    # -- abi.State

    def get(self, key: bytes) -> bytes | None:
        raw = self.head.get(key)
        if raw is None:
            return self.base.get(key)
        return None if raw is GONE else raw

    def put(self, key: bytes, value: bytes | None) -> None:
        super().put(key, GONE if value is None else value)

    def settled(self, key: bytes) -> bytes | None:
        return self._shown(key, super().settled(key))

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        self._bounded(prefix)
        return self._joined(self.base.keys(prefix), self._live.under(prefix), super().settled)

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        self._bounded(prefix)
        return self._joined(self.base.keys(prefix), self._live.under(prefix), self.head.get)

    def next_key(self, key: bytes) -> bytes | None:
        return self._next(key, self.head.get)

    def root(self, version: int) -> bytes:
        return state_digest(self._roots[self.number], self._open())

    def _open(self) -> Journal:
        """What was written since the last block."""
        before: Journal = {}
        for journal in reversed(self._journals):
            before.update(journal)
        head = self.head
        return {
            key: None if (new := head.get(key)) is GONE else new for key, old in before.items() if head.get(key) != old
        }

    # -- blocks

    def seal(self, number: int) -> Journal:
        parent = self._roots[self.number]
        raw = super().seal(number)
        diff: Journal = {key: None if value is GONE else value for key, value in raw.items()}
        self._roots[number] = state_digest(parent, diff)
        return diff

    def revert(self, number: int) -> Journal:
        undone = super().revert(number)
        for block in [block for block in self._roots if block > number]:
            del self._roots[block]
        return Undone(self.base, undone)

    def discard(self, number: int) -> None:
        super().discard(number)
        for block in [block for block in self._roots if block < self.oldest]:
            del self._roots[block]

    def before(self, number: int) -> Journal:
        return {key: self._shown(key, raw) for key, raw in super().before(number).items()}

    # -- reading old blocks

    def value_at(self, key: bytes, number: int) -> bytes | None:
        return self._shown(key, super().value_at(key, number))

    def _raw_at(self, number: int) -> Callable[[bytes], bytes | None]:
        if number == self.number:
            return self.head.get
        read = super().value_at
        return lambda key: read(key, number)

    def keys_at(self, prefix: bytes, number: int, start: bytes | None = None) -> Iterator[bytes]:
        if start is None:
            self._bounded(prefix)
        return self._keys_at(prefix, number, start)

    def _keys_at(self, prefix: bytes, number: int, start: bytes | None) -> Iterator[bytes]:
        written = self._live.under(prefix, start)
        return self._joined(self.base.keys(prefix, start), written, self._raw_at(number))

    def keys_paged(self, prefix: bytes, count: int, start: bytes | None, number: int) -> list[bytes]:
        self._check(number)
        return list(islice(self._keys_at(prefix, number, start), count))

    def next_key_at(self, key: bytes, number: int) -> bytes | None:
        return self._next(key, self._raw_at(number))

    def root_like(self, view: StateView, version: int) -> tuple[bytes, Journal]:
        """The root that the open state had, had these writes been made to it."""
        raw, written = self._raw_at(view.number), {key: view.get(key) for key in view.written()}
        changed = {key: value for key, value in written.items() if (GONE if value is None else value) != raw(key)}
        return state_digest(self._roots[view.number], changed), {}

    # -- both key spaces in one order

    def _joined(
        self, stored: Iterator[bytes], written: list[bytes], raw: Callable[[bytes], bytes | None]
    ) -> Iterator[bytes]:
        """Keys of the remote block that are not deleted, and those `written` that have a value."""
        last = b""
        for key, own in merge(((key, False) for key in stored), ((key, True) for key in written)):
            value = raw(key)
            if value is GONE or (own and (value is None or key == last)):
                continue
            last = key
            yield key

    def _next(self, key: bytes, raw: Callable[[bytes], bytes | None]) -> bytes | None:
        stored = self.base.next_key(key)
        while stored is not None and raw(stored) is GONE:
            stored = self.base.next_key(stored)
        own = self._live.after(key)
        while own is not None and (stored is None or own < stored) and raw(own) in (None, GONE):
            own = self._live.after(own)
        return min((one for one in (stored, own) if one is not None), default=None)

    @staticmethod
    def _bounded(prefix: bytes) -> None:
        """Raises ForkError for all of the state at once."""
        if not prefix:
            raise ForkError(
                "all of a forked state cannot be listed or exported: it would be fetched key by key. Name a prefix, or "
                "page through it with state_getKeysPaged"
            )

    @classmethod
    def restore(cls, *arguments: Any, **options: Any) -> VersionedState:
        raise ForkError("a forked chain is not kept in a state file: its cache keeps the remote block")
