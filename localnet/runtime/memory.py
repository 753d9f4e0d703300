"""The smallest `State`: a dict, its keys in order, and an undo journal for each open transaction. For the runtime on
its own, in tests and simulations."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping

from localnet.node.children import ABOVE, hides_entries, is_entry


class MemoryState:
    def __init__(self, values: Mapping[bytes, bytes | None] | None = None) -> None:
        """`values`: what is there at the start."""
        self._values = {key: value for key, value in (values or {}).items() if value is not None}
        self._order = sorted(self._values)
        self._journals: list[dict[bytes, bytes | None]] = []  # key -> value before its first write

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        if self._journals:
            self._journals[-1].setdefault(key, self._values.get(key))
        self._set(key, value)

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            if key not in self._values:
                insort(self._order, key)
            self._values[key] = value
        elif key in self._values:
            del self._values[key]
            del self._order[bisect_left(self._order, key)]

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Those that are there now; what is deleted before its turn is passed over."""
        low = bisect_left(self._order, prefix)
        high = bisect_left(self._order, True, low, key=lambda key: not key.startswith(prefix))
        hides = hides_entries(prefix)
        return (key for key in self._order[low:high] if key in self._values and not (hides and is_entry(key)))

    def next_key(self, key: bytes) -> bytes | None:
        """Entries of children follow an entry only."""
        place = bisect_right(self._order, key)
        if not is_entry(key) and place < len(self._order) and is_entry(self._order[place]):
            place = bisect_left(self._order, ABOVE, place)
        return self._order[place] if place < len(self._order) else None

    def settled(self, key: bytes) -> bytes | None:
        """There are no blocks here: the value from before the outermost open transaction."""
        for journal in self._journals:
            if key in journal:
                return journal[key]
        return self._values.get(key)

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        """Keys of the same time as `settled`."""
        touched = {key for journal in self._journals for key in journal if key.startswith(prefix)}
        if hides_entries(prefix):
            touched = {key for key in touched if not is_entry(key)}
        candidates = sorted(touched.union(self.keys(prefix)))
        return (key for key in candidates if self.settled(key) is not None)

    def root(self, version: int) -> bytes:
        """The Merkle root, worked out from nothing each time. Raises ConfigError, RuntimeTrap."""
        from localnet.node.roots import Tries  # only a Wasm runtime asks

        tries, written = Tries(version).updated(self._order, self._values.get)
        for key, value in written.items():
            self.put(key, value)
        return tries.digest

    def begin(self) -> None:
        self._journals.append({})

    def commit(self) -> None:
        inner = self._journals.pop()
        if self._journals:
            for key, old in inner.items():
                self._journals[-1].setdefault(key, old)

    def rollback(self) -> None:
        for key, old in self._journals.pop().items():
            self._set(key, old)
