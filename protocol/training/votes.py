"""How validators agree on a window: each votes for contributions, stake decides, and everybody computes the same model.

    Votes(window, uids).encode()               what a validator commits in `score`: the contributions it accepts
    accepted({validator: (stake, hotkeys)})    the contributions with more than half of the voting stake behind them
    RootCommitment(window, root, record)       what it commits in `aggregate`: the next model's root, and the record
    agreed({validator: (stake, root)})         the root with more than half of that stake, or None

Two honest validators may differ over a contribution whose effect is close to nothing, or that one of them could not
fetch. So a vote is taken for each contribution, not for the result; and because votes, stakes and commitments are all
read from the chain as of one block, whoever reads them finds the same contributions and makes the same model. The roots
then only confirm it: a validator that committed another one is seen by everybody.

Votes name uids, as of the first block of `reveal`, because a bit for each of 256 fits a commitment and hotkeys do not;
they are turned into hotkeys at once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from protocol.errors import MalformedMessage

VOTES_PREFIX = "touchstone-votes/"
ROOT_PREFIX = "touchstone-root/"
VERSION = 1
MAX_UID = 2047  # 256 bytes of bits, 344 characters; the chain's own bound on a subnet's size is 256 by default

_NUMBER = r"(0|[1-9][0-9]{0,9})"
_VOTES = re.compile(rf"{VOTES_PREFIX}{VERSION}:{_NUMBER}:([A-Za-z0-9_-]*)", re.ASCII)
_ROOT = re.compile(rf"{ROOT_PREFIX}{VERSION}:{_NUMBER}:([0-9a-f]{{64}}):(b[a-z2-7]{{58}})", re.ASCII)


@dataclass(frozen=True)
class Votes:
    """The uids whose contributions to `window` a validator accepts."""

    window: int
    uids: frozenset[int]

    def encode(self) -> str:
        """`touchstone-votes/1:<window>:<bits>`: bit uid % 8 of byte uid // 8, no trailing zero byte, in base64 with
        the URL alphabet and no padding. Raises ValueError for a uid above MAX_UID."""
        if any(not 0 <= uid <= MAX_UID for uid in self.uids):
            raise ValueError(f"uids lie in 0..{MAX_UID}")
        number = sum(1 << uid for uid in self.uids)
        bits = number.to_bytes(-(-number.bit_length() // 8), "little")
        return f"{VOTES_PREFIX}{VERSION}:{self.window}:{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"

    @staticmethod
    def parse(text: str) -> Votes:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        found = _VOTES.fullmatch(text)
        try:
            bits = base64.urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4)) if found else b""
        except binascii.Error:
            found, bits = None, b""
        number = int.from_bytes(bits, "little")
        votes = Votes(
            int(found[1]) if found else 0, frozenset(uid for uid in range(len(bits) * 8) if number >> uid & 1)
        )
        if found is None or len(bits) > (MAX_UID + 1) // 8 or votes.encode() != text:
            raise MalformedMessage(f"not votes of version {VERSION}")
        return votes


@dataclass(frozen=True)
class RootCommitment:
    """The model after `window`, and the CID of the record of how it came about."""

    window: int
    root: str  # 64 hex digits
    record: str  # CID

    def encode(self) -> str:
        """`touchstone-root/1:<window>:<root>:<cid>`, ASCII, at most 155 characters."""
        return f"{ROOT_PREFIX}{VERSION}:{self.window}:{self.root}:{self.record}"

    @staticmethod
    def parse(text: str) -> RootCommitment:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        found = _ROOT.fullmatch(text)
        if found is None:
            raise MalformedMessage(f"not the root of a window, version {VERSION}")
        return RootCommitment(int(found[1]), found[2], found[3])


def accepted(votes: Mapping[str, tuple[int, Collection[str]]]) -> frozenset[str]:
    """Accepted by more than half of the stake that voted. `votes`: by validator, (stake in rao, hotkeys)."""
    total = sum(stake for stake, _ in votes.values())
    behind: dict[str, int] = {}
    for stake, hotkeys in votes.values():
        for hotkey in set(hotkeys):
            behind[hotkey] = behind.get(hotkey, 0) + stake
    return frozenset(hotkey for hotkey, stake in behind.items() if 2 * stake > total)


def agreed(roots: Mapping[str, tuple[int, str]]) -> str | None:
    """What more than half of the stake that committed says. `roots`: by validator, (stake in rao, root)."""
    return next(iter(accepted({validator: (stake, [root]) for validator, (stake, root) in roots.items()})), None)
