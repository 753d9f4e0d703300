"""Sorted keys: what a state iterates over. Entries of child tries are shown to who asks for them (see children.py)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from localnet.node.children import ABOVE, ENTRIES, hides_entries


def _bounds(index: list[bytes], prefix: bytes) -> tuple[int, int]:
    """Positions of the keys that start with `prefix` in a sorted list."""
    low = bisect_left(index, prefix)
    stem = prefix.rstrip(b"\xff")  # the smallest key above the whole prefix: its last byte below 255, plus one
    if not stem:
        return low, len(index)
    return low, bisect_left(index, stem[:-1] + bytes((stem[-1] + 1,)), low)


class Index:
    """Sorted keys. Single changes are insertions; many new keys at once are cheaper to append and sort."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def add(self, key: bytes) -> None:
        keys = self.keys
        if not keys or keys[-1] < key:
            keys.append(key)
        else:
            insort(keys, key)

    def remove(self, key: bytes) -> None:
        del self.keys[bisect_left(self.keys, key)]

    def under(self, prefix: bytes, start: bytes | None = None, count: int | None = None) -> list[bytes]:
        """A copy of the first `count` keys with this prefix, those up to and including `start` left out."""
        keys = self.keys
        low, high = _bounds(keys, prefix)
        if start is not None:
            low = max(low, bisect_right(keys, start, low, high))
        if len(prefix) < len(ENTRIES) and hides_entries(prefix):
            cut = bisect_left(keys, ENTRIES, low, high)
            more = bisect_left(keys, ABOVE, cut, high)
            if cut < more:
                return (keys[low : _last(low, cut, count)] + keys[more : _last(more, high, count)])[:count]
        return keys[low:high] if count is None else keys[low : _last(low, high, count)]

    def after(self, key: bytes) -> bytes | None:
        """The smallest key above `key`; entries of children for an entry only."""
        keys = self.keys
        place = bisect_right(keys, key)
        if place == len(keys):
            return None
        found = keys[place]
        if found.startswith(ENTRIES) and not key.startswith(ENTRIES):
            place = bisect_left(keys, ABOVE, place)
            return keys[place] if place < len(keys) else None
        return found


def _last(low: int, high: int, count: int | None) -> int:
    return high if count is None else min(high, low + count)
