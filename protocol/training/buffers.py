"""The error buffer: what a contribution left out is not lost, and what a miner says it trained can be taken apart.

    total = accumulate(before, change, kept)                   what is compressed: kept * before + change
    after = remainder(total, contribution)                     what is left for the next window
    change = claimed_change(before, after, contribution, kept) back from what an audit opens to what was trained
    distance(claimed, replayed)                                relative distance of two changes; LIMIT for "tolerant"
    sent_distance(after, contribution)                         whether what was sent is what should have been
    same(before, after, contribution, replayed, kept)          whether a replay gives the same bits, for "exact"
    follows(statement, earlier)                                whether a window starts with a buffer it may start with

All vectors are float32 [size]; arithmetic is elementwise in float64, rounded to float32. A miner commits to both
buffers in its statement. An audit asks for them, which with the payload give the change that the
miner says its training made, and repeats the training.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protocol.training.payload import NEGATIVE, Contribution, Floats, compress
from protocol.training.statement import Statement

# Largest relative distance of an honest change, unless the recipe says otherwise. Across instruction sets honest
# changes in float32 were 8.3e-6 apart at most (CPUs, 10 steps), a learning rate 0.1 % off 9.8e-4, one step of six left
# out 0.17.
LIMIT = 1e-4
# In "exact" the states are the same to the bit nearly always; where float64 rounds to another float32 after all (25 of
# a million parameters in one step of 24, between instruction sets of one CPU), changes are less than this apart.
EXACT_LIMIT = 1e-6
# What is sent may differ by so much of its norm from what the opened buffers say it should be: entries that are equal
# to the last bits may change places, which in a model of a few chunks is some percent.
PAYLOAD_LIMIT = 0.1
WINDOWS = 16  # a buffer is carried on from a contribution at most so many windows old


def accumulate(before: Floats, change: Floats, kept: float) -> Floats:
    found: Floats = (kept * before.astype(np.float64) + change).astype(np.float32)
    return found


def remainder(total: Floats, contribution: Contribution) -> Floats:
    found: Floats = total.copy()
    found[contribution.places] -= contribution.values()
    return found


def claimed_change(before: Floats, after: Floats, contribution: Contribution, kept: float) -> Floats:
    """Raises ValueError for vectors of another size."""
    if not before.shape == after.shape == (contribution.size,):
        raise ValueError("buffers and contribution belong to models of different sizes")
    total = after.astype(np.float64)
    total[contribution.places] += contribution.values()
    found: Floats = (total - kept * before.astype(np.float64)).astype(np.float32)
    return found


def distance(claimed: Floats, replayed: Floats) -> float:
    """|claimed - replayed| / |replayed|; infinite when a claimed number is not finite, or nothing was to be learned."""
    if not np.isfinite(claimed).all():
        return float("inf")
    true = np.linalg.norm(replayed.astype(np.float64))
    apart = np.linalg.norm(claimed.astype(np.float64) - replayed)
    return float(apart / true) if true > 0.0 else 0.0 if apart == 0.0 else float("inf")


def sent_distance(after: Floats, contribution: Contribution) -> float:
    """Relative distance of what was sent from what should have been: the largest entries of what buffer and
    contribution are together. Without this anything could be sent, and the buffer after it made to fit."""
    total = remainder(after, _negative(contribution))
    if not np.isfinite(total).all():
        return float("inf")
    return distance(contribution.dense(), compress(total).dense())


def same(before: Floats, after: Floats, contribution: Contribution, replayed: Floats, kept: float) -> bool:
    """Whether the replayed change gives this payload and this buffer, to the bit."""
    total = accumulate(before, replayed, kept)
    if not np.isfinite(total).all():  # numbers that are none, in a buffer that was promised in an unaudited window
        return False
    if compress(total).encode() != contribution.encode():
        return False
    return remainder(total, contribution).tobytes() == after.tobytes()


def follows(statement: Statement, earlier: Statement | None) -> bool:
    """Whether the window starts with nothing, or with what the miner's last one that entered the model left, if that
    is not too old: a buffer from elsewhere would be a contribution that nobody trained."""
    if statement.before is None:
        return True
    if earlier is None or statement.before != earlier.after:
        return False
    return 0 < statement.window - earlier.window <= WINDOWS


def _negative(contribution: Contribution) -> Contribution:
    return replace(contribution, codes=contribution.codes ^ np.uint8(NEGATIVE))
