"""A block's state as an `abi.State`, after other blocks have followed: `VersionedState.at` makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from localnet.errors import ReadOnlyState
from localnet.node.index import Index

if TYPE_CHECKING:
    from localnet.node.state import Journal, VersionedState


class StateView:
    """A block's state as an `abi.State`. Writes are allowed inside a transaction and stay in the view."""

    def __init__(self, state: VersionedState, number: int) -> None:
        self._state, self.number = state, number
        self._layers: list[Journal] = []
        self._touched: set[bytes] = set()  # keys that any layer has had
        self._order = Index()  # the same, sorted

    def get(self, key: bytes) -> bytes | None:
        for layer in reversed(self._layers):
            if key in layer:
                return layer[key]
        return self._state.value_at(key, self.number)

    def put(self, key: bytes, value: bytes | None) -> None:
        if not self._layers:
            raise ReadOnlyState(f"block {self.number} is sealed: its state cannot be changed")
        self._layers[-1][key] = value
        if key not in self._touched:
            self._touched.add(key)
            self._order.add(key)

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        stored = self._state.keys_at(prefix, self.number)
        written = self._order.under(prefix)
        if not written:
            return stored
        everything = sorted({*written, *stored})
        return (key for key in everything if self.get(key) is not None)

    def next_key(self, key: bytes) -> bytes | None:
        stored = self._state.next_key_at(key, self.number)
        while stored is not None and self.get(stored) is None:
            stored = self._state.next_key_at(stored, self.number)
        written = self._order.after(key)
        while written is not None and (stored is None or written < stored) and self.get(written) is None:
            written = self._order.after(written)
        return min((one for one in (stored, written) if one is not None), default=None)

    def settled(self, key: bytes) -> bytes | None:
        return self._state.value_at(key, self.number)

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        return self._state.keys_at(prefix, self.number)

    def root(self, version: int) -> bytes:
        """The Merkle root, private writes included. Raises ConfigError, RuntimeTrap."""
        digest, written = self._state.root_like(self, version)
        for key, value in written.items() if self._layers else ():
            self.put(key, value)
        return digest

    def begin(self) -> None:
        self._layers.append({})

    def commit(self) -> None:
        inner = self._layers.pop()
        if self._layers:
            self._layers[-1].update(inner)

    def rollback(self) -> None:
        self._layers.pop()

    def take(self) -> Journal:
        """Close the innermost transaction without keeping it; what it wrote."""
        return self._layers.pop()

    def written(self) -> set[bytes]:
        """Keys with a private value."""
        return {key for layer in self._layers for key in layer}
