"""Log lines that anybody can cause: the first of a kind is shown, the others are for who debugs."""

from __future__ import annotations

import logging
import re

MOST = 100  # kinds
_NUMBER = re.compile("[0-9]+")


class Repeats:
    def __init__(self) -> None:
        self._seen: set[str] = set()

    def level(self, text: str, level: int) -> int:
        """`level` for the first text of a kind, DEBUG for the rest, and for all when there are too many kinds. Texts
        that differ only in their numbers are of a kind."""
        kind = _NUMBER.sub("#", text)
        if level <= logging.DEBUG or kind in self._seen or len(self._seen) >= MOST:
            return min(level, logging.DEBUG)
        self._seen.add(kind)
        return level
