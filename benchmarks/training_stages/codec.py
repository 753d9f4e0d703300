"""How fast a change becomes a contribution and comes back, in GB/s of float32 of the whole change.

    total       before and change added, as a miner does before it compresses
    compress    the largest entries of every chunk, and their two magnitudes
    encode      bytes of it
    left        the error buffer after it
    decode      bytes of a stranger, every rule checked
    aggregate   one more contribution in the update of everybody

CPU time of one thread; the best of `TURNS`, because what else runs on a machine only slows down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from benchmarks.training_stages.common import Figures, Journal, say
from protocol.training import buffers
from protocol.training.aggregation import aggregate
from protocol.training.payload import Contribution, compress, decode

T = TypeVar("T")

SIZES = (1_053_824, 10_000_000, 100_000_000)
TURNS = 5


def measure(journal: Journal, sizes: tuple[int, ...] = SIZES) -> list[Figures]:
    return [journal.once("codec", {"parameters": size}, lambda size=size: _one(size)) for size in sizes]


def _one(size: int) -> Figures:
    rng = np.random.default_rng(0)
    before, change = ((rng.standard_t(4, size) * 1e-3).astype(np.float32) for _ in range(2))
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        found = work()
        seconds.setdefault(name, []).append(time.process_time() - started)
        return found

    data = b""
    for turn in range(TURNS):
        say(f"codec: {size:,} parameters, turn {turn + 1} of {TURNS}")
        total = timed("total", lambda: buffers.accumulate(before, change, 0.95))
        contribution: Contribution = timed("compress", lambda total=total: compress(total))
        data = timed("encode", contribution.encode)
        timed("left", lambda total=total, one=contribution: buffers.remainder(total, one))
        again = timed("decode", lambda data=data: decode(data, size))
        timed("aggregate", lambda one=again: aggregate({"miner": one}))
    rates = {name: round(4e-9 * size / min(found), 2) for name, found in seconds.items()}
    miner = sum(min(seconds[name]) for name in ("total", "compress", "encode", "left"))
    return {
        "parameters": size,
        "bytes": len(data),
        "smaller": round(4 * size / len(data), 1),
        "gb_per_s": rates,
        "miner_s": round(miner, 4),
        "decode_s": round(min(seconds["decode"]), 4),
    }
