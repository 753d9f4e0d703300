"""The smallest `State`: a dict, a stack of overlays, and all keys in order. For the runtime on its own, in tests and
simulations."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping


class MemoryState:
    def __init__(self, values: Mapping[bytes, bytes | None] | None = None) -> None:
        """`values`: what is there at the start."""
        self._layers: list[dict[bytes, bytes | None]] = [dict(values or {})]
        self._known = set(self._layers[0])  # every key that was ever written
        self._order = sorted(self._known)

    def get(self, key: bytes) -> bytes | None:
        layers = self._layers
        if len(layers) > 1:
            for layer in reversed(layers):
                if key in layer:
                    return layer[key]
            return None
        return layers[0].get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        self._layers[-1][key] = value
        if key not in self._known:
            self._known.add(key)
            insort(self._order, key)

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        found = []
        for at in range(bisect_left(self._order, prefix), len(self._order)):
            key = self._order[at]
            if not key.startswith(prefix):
                break
            if self.get(key) is not None:
                found.append(key)
        return iter(found)

    def begin(self) -> None:
        self._layers.append({})

    def commit(self) -> None:
        top = self._layers.pop()
        self._layers[-1].update(top)

    def rollback(self) -> None:
        self._layers.pop()
