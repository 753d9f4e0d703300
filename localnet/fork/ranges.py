"""Which keys of the remote block are all known: intervals [lo, hi) of key space, and the keys in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


class Ranges:
    """`keys` are sorted; outside the intervals nothing is known and none are held."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._lo: list[bytes] = []
        self._hi: list[bytes] = []

    def add(self, lo: bytes, hi: bytes, keys: Sequence[bytes]) -> None:
        """From `lo` up to but without `hi` there are these keys and no others."""
        first, last = bisect_left(self.keys, lo), bisect_left(self.keys, hi)
        self.keys[first:last] = keys
        i, j = bisect_left(self._hi, lo), bisect_right(self._lo, hi)  # the intervals that touch this one
        if i < j:
            lo, hi = min(lo, self._lo[i]), max(hi, self._hi[j - 1])
        self._lo[i:j], self._hi[i:j] = [lo], [hi]

    def reach(self, position: bytes) -> bytes:
        """Up to where all keys from `position` on are known; `position` itself when not even its own key is."""
        index = bisect_right(self._lo, position) - 1
        return self._hi[index] if index >= 0 and position < self._hi[index] else position

    def holds(self, key: bytes) -> bool | None:
        """Whether there is such a key; None when that is not known."""
        if self.reach(key) == key:
            return None
        index = bisect_left(self.keys, key)
        return index < len(self.keys) and self.keys[index] == key

    def between(self, lo: bytes, hi: bytes) -> list[bytes]:
        return self.keys[bisect_left(self.keys, lo) : bisect_left(self.keys, hi)]

    def first(self, lo: bytes, hi: bytes) -> bytes | None:
        """The smallest known key from `lo` up to but without `hi`."""
        index = bisect_left(self.keys, lo)
        return self.keys[index] if index < len(self.keys) and self.keys[index] < hi else None

    def following(self, key: bytes, count: int) -> list[bytes]:
        """The known keys above `key`, `count` at most."""
        index = bisect_right(self.keys, key)
        return self.keys[index : index + count]
