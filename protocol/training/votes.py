"""How validators agree on a window: each votes for contributions, stake decides, and everybody computes the same model.

    Word(window, uids, record).encode()        what a validator commits in `score`, once a window
    accepted(votes, total)                     the contributions with more than half of all voting stake behind them
    agreed(records, total)                     the record with more than half of it, or None

A word holds two things: the contributions of this window that the validator accepts, and the record of the window
before, with the model that came of it. Two honest validators may differ over a contribution whose effect is close to
nothing, or that one of them could not fetch. So a vote is taken for each contribution, not for the result; and because
votes, stakes and commitments are all read from the chain as of one block, whoever reads them finds the same
contributions and makes the same model. The records then only confirm it.

More than half means of the stake of all who may validate, whether they spoke or not: a few who speak while the others
are away decide nothing, and the window is empty.

Votes name uids, as of the last block of `commit`, because a bit for each of 256 fits a commitment and hotkeys do not;
they are turned into hotkeys at once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from protocol.artifacts import require_artifact
from protocol.errors import MalformedMessage

WORD_PREFIX = "touchstone-word/"
VERSION = 1
MAX_UID = 2047  # 256 bytes of bits, 342 characters; the chain's own bound on a subnet's size is 256 by default
NOTHING = "-"  # in place of a record before the first

_WORD = re.compile(
    rf"{WORD_PREFIX}{VERSION}:(0|[1-9][0-9]{{0,9}}):([A-Za-z0-9_-]*):({NOTHING}|b[a-z2-7]{{58}})", re.ASCII
)


@dataclass(frozen=True)
class Word:
    """`uids`: whose contributions to `window` a validator accepts. `record`: of the window before, None before any."""

    window: int
    uids: frozenset[int]
    record: str | None

    def encode(self) -> str:
        """`touchstone-word/1:<window>:<bits>:<cid>`: bit uid % 8 of byte uid // 8, no trailing zero byte, in base64
        with the URL alphabet and no padding. Raises ValueError for a uid above MAX_UID."""
        if any(not 0 <= uid <= MAX_UID for uid in self.uids):
            raise ValueError(f"uids lie in 0..{MAX_UID}")
        number = sum(1 << uid for uid in self.uids)
        bits = number.to_bytes(-(-number.bit_length() // 8), "little")
        text = base64.urlsafe_b64encode(bits).decode().rstrip("=")
        return f"{WORD_PREFIX}{VERSION}:{self.window}:{text}:{self.record or NOTHING}"

    @staticmethod
    def parse(text: str) -> Word:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        found = _WORD.fullmatch(text)
        if found is None:
            raise MalformedMessage(f"not a validator's word of version {VERSION}")
        try:
            bits = base64.urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4))
        except binascii.Error:
            raise MalformedMessage("the votes are not base64") from None
        number = int.from_bytes(bits[: (MAX_UID + 1) // 8], "little")
        uids = frozenset(uid for uid in range(MAX_UID + 1) if number >> uid & 1)
        word = Word(int(found[1]), uids, None if found[3] == NOTHING else found[3])
        if word.record is not None:
            require_artifact(word.record)
        if word.encode() != text:
            raise MalformedMessage("the votes are not in their one form")
        return word


def accepted(votes: Mapping[str, tuple[int, Collection[str]]], total: int) -> frozenset[str]:
    """What more than half of the stake stands behind. `votes`: by validator, (stake, hotkeys); `total`: of everybody
    who may validate, in the same unit."""
    behind: dict[str, int] = {}
    for stake, hotkeys in votes.values():
        for hotkey in set(hotkeys):
            behind[hotkey] = behind.get(hotkey, 0) + stake
    return frozenset(hotkey for hotkey, stake in behind.items() if 2 * stake > total)


def agreed(records: Mapping[str, tuple[int, str]], total: int) -> str | None:
    """The record that more than half of the stake stands behind. `records`: by validator, (stake, record)."""
    single = {validator: (stake, [record]) for validator, (stake, record) in records.items()}
    return next(iter(accepted(single, total)), None)
