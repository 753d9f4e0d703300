"""The smallest `State`: a dict and a stack of overlays. For the runtime on its own, in tests and simulations."""

from __future__ import annotations

from collections.abc import Iterator


class MemoryState:
    def __init__(self) -> None:
        self._layers: list[dict[bytes, bytes | None]] = [{}]

    def get(self, key: bytes) -> bytes | None:
        for layer in reversed(self._layers):
            if key in layer:
                return layer[key]
        return None

    def put(self, key: bytes, value: bytes | None) -> None:
        self._layers[-1][key] = value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        found = sorted({key for layer in self._layers for key in layer if key.startswith(prefix)})
        return iter([key for key in found if self.get(key) is not None])

    def begin(self) -> None:
        self._layers.append({})

    def commit(self) -> None:
        top = self._layers.pop()
        self._layers[-1].update(top)

    def rollback(self) -> None:
        self._layers.pop()
