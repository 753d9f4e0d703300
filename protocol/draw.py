"""A deterministic stream of choices from a 32-byte key: SHA-256 in counter mode, without modulo bias.

Used wherever a rule needs randomness that can be replayed: the key is an argument, so the caller decides who can
foresee the choices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Reads the stream from its start; two objects with one key give the same choices."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._block = 0
        self._buffer = b""

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._buffer) < count:
            self._buffer += hashlib.sha256(self._key + self._block.to_bytes(8, "little")).digest()
            self._block += 1
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def below(self, bound: int) -> int:
        """Uniform integer in [0, bound), bound <= 2**32, by rejection of the uneven remainder."""
        if not 0 < bound <= 2**32:
            raise ValueError(f"bound must lie in 1..2**32, not {bound}")
        limit = 2**32 - 2**32 % bound
        while True:
            value = int.from_bytes(self.take(4), "little")
            if value < limit:
                return value % bound

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different positions of `options`, in drawn order (Fisher-Yates)."""
        pool = list(options)
        chosen: list[T] = []
        for _ in range(count):
            chosen.append(pool.pop(self.below(len(pool))))
        return chosen
