"""Whose work a contribution is: two that keep the same entries are suspects, and a replay decides.

    shared = overlaps([contribution, ...], chunks)        [n, n] share of kept entries that two have in common
    alike({hotkey: contribution}, chunks, alike_from)     {hotkey: those that keep what it keeps}

Which entries are the largest depends on the data. Honest miners of one window share 4.5 % of them, 5.1 % at most (8
miners of a 0.92 M parameter model; 1.6 % by chance). Young models, smaller ones and poorer data leave less to choose
from (six miners of the shipped corpus: 25 % at most in window 0, 15 % in window 2), so the recipe says from where on it
is too much. Perturbed values do not hide a copy: the places are what is compared, and a
contribution with other places is another contribution.

An overlap alone is no verdict. Everybody's data and start are public, so whoever has the time can train on somebody
else's data and commit first; the order of commitments proves nothing. But of two that are alike at most one is what its
own data gives, and a replay tells which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from protocol.draw import Draw
from protocol.training.payload import CHUNK, Contribution

COMPARED = 256  # chunks at most: 16,384 entries tell 5 % from 15 % with no error worth naming


def compared_chunks(seed: bytes, size: int) -> tuple[int, ...]:
    """The chunks that are compared: all of a small model, else COMPARED, drawn by the seed of `reveal`."""
    chunks = range(-(-size // CHUNK))
    if len(chunks) <= COMPARED:
        return tuple(chunks)
    draw = Draw(seed)
    chosen: set[int] = set()
    while len(chosen) < COMPARED:
        chosen.add(draw.below(len(chunks)))
    return tuple(sorted(chosen))


def overlaps(contributions: Sequence[Contribution], chunks: Sequence[int]) -> npt.NDArray[np.float64]:
    """[n, n]: share of the entries kept in `chunks` that two contributions to one model have in common."""
    common = np.zeros((len(contributions), len(contributions)))
    total = 0
    for chunk in chunks:
        kept = np.zeros((len(contributions), CHUNK), dtype=np.float32)
        for row, contribution in zip(kept, contributions, strict=True):
            first, end = np.searchsorted(contribution.places, (chunk * CHUNK, (chunk + 1) * CHUNK))
            row[contribution.places[first:end] - chunk * CHUNK] = 1.0
        common += kept @ kept.T  # counts of at most CHUNK: exact in float32, in whatever order
        total += int(kept[0].sum()) if len(contributions) else 0
    return common / max(total, 1)


def alike(
    contributions: Mapping[str, Contribution], chunks: Sequence[int], alike_from: float
) -> dict[str, tuple[str, ...]]:
    """Everybody whose contribution shares at least `alike_from` of its entries with others, and those others."""
    order = sorted(contributions)
    shared = overlaps([contributions[hotkey] for hotkey in order], chunks)
    np.fill_diagonal(shared, 0.0)
    found = {hotkey: np.flatnonzero(row >= alike_from) for hotkey, row in zip(order, shared, strict=True)}
    return {hotkey: tuple(order[other] for other in others) for hotkey, others in found.items() if len(others)}
