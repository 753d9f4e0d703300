"""Noise for recipes that ask for privacy: Gaussian, and the same whole numbers for everybody.

    noise(seed, size)             int64 [size], deviation DEVIATION; `seed`: 32 bytes, public
    fitted(contribution, privacy) int64 [sent], in steps of `step(privacy)`: what enters the sum

What it is worth (the client-level Gaussian mechanism; McMahan et al., arXiv 1710.06963). A client is a hotkey. Two
trainings are neighbours when all that one client sent is zero in one of them ("zero-out"). One contribution has at most
norm `clip` in a window's sum, and the sum has noise of deviation `noise * clip` in every entry, so n windows are n
Gaussian mechanisms, composed; no amplification is claimed, for anybody may be in every window. What follows for epsilon
and delta is computed by `template.training.privacy`. What it costs: the noise of an update of n contributions to d
parameters has the norm noise * clip * sqrt(d) / n, and the update itself clip at most. With a million parameters and
noise 1 they are alike from a thousand contributions a window on.

Whom it protects, and from whom. Only somebody who sees the models and nothing else of the subnet is kept from telling
what a client sent. It protects nobody from a reader of the chain: contributions are public, because validators score
each alone, and so is the seed, because everybody computes and replays the same model. It does not hide who entered
which window, and the owner of several hotkeys is several clients. A secret seed would not help while contributions are
public, and would end the replay. What protects a client from everybody is a sum of which nobody sees the parts (secure
aggregation); that ends scoring by part, so a training has one or the other. Its masked payload would be an artifact
that a statement names, with another magic than that of `payload`, and the masks' shares would come in the reveal phase.

How it is exact. The sum is of whole numbers, so its noise is too, and nothing of a contribution is left between them.
Entries are rounded toward zero, which makes no norm larger. Of two draws of a discrete Gaussian of deviation BASE,
SPREAD * a + b is, to one part in 2^112, a discrete Gaussian of deviation DEVIATION (Micciancio and Walter, eprint
2017/259); and that is, to the same accuracy, what rounding a continuous Gaussian of deviation sqrt(DEVIATION^2 - 4) at
random gives, so that its accountant holds here. The 4, and the floats of the clipping, are paid for by SPARE. A draw
compares 127 bits with a table made by decimal arithmetic; no library's logarithm or cosine is in it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from protocol.training.payload import Contribution
from protocol.training.recipe import Privacy

BASE = 512  # at least 2 * SPREAD, or the sum of two draws has gaps
SPREAD = 256
DEVIATION = BASE * math.sqrt(SPREAD**2 + 1)  # 131,073: an entry of 1/4000 of the clip still has 33 steps at noise 1
SPARE = 1.0 - 2.0**-30
CONTEXT = "touchstone training v1 noise"
CONTEXT_MORE = "touchstone training v1 noise, bits 63 to 126"

_BITS = 127
_LOW = 64  # bits of a second word, needed once in 2^50 draws
_GUIDE = 16  # bits that settle 97 draws of 100
_BLOCK = 2**20  # entries drawn at a time, 16 bytes each

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class _Table(NamedTuple):
    """`thresholds`: 2^127 times the chance of a magnitude of at most 0, 1, 2, ...; `high`: their upper 63 bits.
    `first`: of each beginning of a word, how many of `high` lie below all words with it."""

    thresholds: list[int]
    high: Words
    first: Ints


def step(privacy: Privacy) -> float:
    """What a whole number of the sum stands for."""
    return privacy.noise * privacy.clip / DEVIATION


def fitted(contribution: Contribution, privacy: Privacy) -> Ints:
    """int64 [sent], in the order of `places`: its entries in steps, of a norm of at most clip / step."""
    factor = SPARE * min(1.0, privacy.clip / contribution.norm) if contribution.norm else SPARE
    entries: Ints = np.trunc(contribution.values().astype(np.float64) * (factor / step(privacy))).astype(np.int64)
    return entries


def noise(seed: bytes, size: int) -> Ints:
    """int64 [size]. Raises ValueError for a seed that has not 32 bytes."""
    if len(seed) != 32:
        raise ValueError("a seed has 32 bytes")
    found = np.empty(size, dtype=np.int64)
    stream = blake3(seed, derive_key_context=CONTEXT)
    for start in range(0, size, _BLOCK):
        count = min(_BLOCK, size - start)
        words = np.frombuffer(stream.digest(length=16 * count, seek=16 * start), "<u8").astype(np.uint64)
        drawn = _drawn(words, seed, 2 * start).reshape(count, 2)
        found[start : start + count] = SPREAD * drawn[:, 0] + drawn[:, 1]
    return found


def _drawn(words: Words, seed: bytes, place: int) -> Ints:
    """A discrete Gaussian of deviation BASE for each word, of which the lowest bit is the sign. `place`: of the first
    word among all."""
    table = _table()
    values = words >> np.uint64(1)
    start = (values >> np.uint64(63 - _GUIDE)).astype(np.int64)
    magnitudes = table.first[start]
    unsure = np.flatnonzero(magnitudes != table.first[start + 1])
    magnitudes[unsure] = np.searchsorted(table.high, values[unsure], side="right")
    even = unsure[table.high[np.maximum(magnitudes[unsure] - 1, 0)] == values[unsure]]
    for one in even:
        more = blake3(seed, derive_key_context=CONTEXT_MORE).digest(length=8, seek=8 * (place + int(one)))
        whole = (int(values[one]) << _LOW) | int.from_bytes(more, "little")
        magnitudes[one] = bisect_right(table.thresholds, whole)
    negative: Ints = (words & np.uint64(1)).astype(np.int64)
    signed: Ints = (1 - 2 * negative) * magnitudes
    return signed


@lru_cache(maxsize=1)
def _table() -> _Table:
    """Weights are exp(-k^2 / 2 BASE^2), one from the other by products; a tenth of a second, once."""
    with localcontext() as context:
        context.prec = 80
        ratio = (Decimal(-1) / (2 * BASE**2)).exp()
        weight, factor = Decimal(1), ratio
        weights = [weight]
        while weight > Decimal(2) ** -(_BITS + 20):
            weight *= factor  # from k^2 to (k + 1)^2 are 2k + 1
            factor *= ratio * ratio
            weights.append(2 * weight)
        total, below = sum(weights), Decimal(0)
        thresholds = []
        for one in weights:
            below += one
            thresholds.append(int((below / total * 2**_BITS).to_integral_value()))
    thresholds = [one for one in thresholds if one < 2**_BITS]
    high = np.array([one >> _LOW for one in thresholds], dtype=np.uint64)
    starts = np.arange(2**_GUIDE, dtype=np.uint64) << np.uint64(63 - _GUIDE)
    first = np.append(np.searchsorted(high, starts, side="left"), len(high)).astype(np.int64)
    return _Table(thresholds, high, first)
