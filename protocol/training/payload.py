"""A contribution on the wire: the few largest entries of a miner's change to the model, at two bits each.

    found = compress(change)                 float32 [size] -> Contribution; the rest stays in the error buffer
    found.encode() / decode(data, size)      its one canonical form, and back; decode raises MalformedMessage
    found.dense()                            float32 [size], zero where nothing was sent
    found.norm                               its Euclidean norm, the same float on every machine

The change (the model before minus the model after local training, plus what earlier windows left in the error buffer)
is cut into chunks of CHUNK entries. Of each chunk the KEEP largest in magnitude are sent: their places, a sign, and
which of the chunk's two magnitudes is meant. The two magnitudes are the means of the better of all ways to split the
kept entries by size (two-means, solved exactly). A shorter last chunk keeps its share, rounded up. After SparseLoCo
(Sarfi et al., arXiv 2508.15706), which has the two bits and the error feedback.

    magic, 4 bytes | size, 8 bytes | low, float32 a chunk | high, the same | places, 12 bits each | codes, 2 bits each

All little-endian; bit fields fill bytes from the low end, and what is left of the last byte is zero. Places rise within
a chunk. A code's low bit is the sign, the other one says high. KEEP of CHUNK are 14 bits for an entry sent and 64 for a
chunk: 120 bytes instead of 16,384, 1 to 136.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import MalformedMessage

CHUNK = 4096  # entries: a place fits 12 bits
KEEP = 64  # of each chunk, 1.6 %
MAX_SIZE = 2**40  # parameters
_AT_ONCE = 128  # chunks that are compressed together: 2 MB, which stay in a processor's cache
_GROUPS = 4  # times KEEP: in so many groups a chunk's largest entries rarely meet
_MAGIC = b"TSC1"
_PLACE_BITS = 12
_CODE_BITS = 2
NEGATIVE, HIGH = 1, 2  # bits of a code

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Contribution:
    """`size` entries in all. `low`, `high`: float32 [chunks]. `places`: int64 [sent], positions among all entries,
    rising. `codes`: uint8 [sent]."""

    size: int
    low: Floats
    high: Floats
    places: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint8]

    def values(self) -> Floats:
        """float32 [sent], in the order of `places`."""
        chunk = self.places // CHUNK
        magnitude = np.where(self.codes & HIGH, self.high[chunk], self.low[chunk])
        return np.where(self.codes & NEGATIVE, -magnitude, magnitude).astype(np.float32)

    def dense(self) -> Floats:
        found = np.zeros(self.size, dtype=np.float32)
        found[self.places] = self.values()
        return found

    @cached_property
    def norm(self) -> float:
        """Exactly rounded before the root, so that it does not depend on the order of summing. Finite: a product of
        float32 values fits a float64."""
        is_high = (self.codes & HIGH) != 0
        chunks = len(self.low)
        highs = np.bincount(self.places[is_high] // CHUNK, minlength=chunks)
        lows = np.bincount(self.places[~is_high] // CHUNK, minlength=chunks)
        parts = [*(highs * np.square(self.high, dtype=np.float64)), *(lows * np.square(self.low, dtype=np.float64))]
        return math.sqrt(math.fsum(parts))

    def encode(self) -> bytes:
        header = _MAGIC + self.size.to_bytes(8, "little")
        scales = self.low.astype("<f4").tobytes() + self.high.astype("<f4").tobytes()
        return header + scales + _pack(self.places % CHUNK, _PLACE_BITS) + _pack(self.codes, _CODE_BITS)


def compress(change: Floats) -> Contribution:
    """The contribution for a change, float32 [size]. Of equal magnitudes the first places win. Raises ValueError for
    anything but finite numbers."""
    flat = np.ascontiguousarray(change, dtype=np.float32).reshape(-1)
    if not 0 < flat.size <= MAX_SIZE or not np.isfinite(flat).all():
        raise ValueError("a change has at least one entry, and all are finite")
    parts = []
    for start in range(0, flat.size, CHUNK * _AT_ONCE):
        block = flat[start : start + CHUNK * _AT_ONCE]
        whole = block.size // CHUNK * CHUNK
        rows = [block[:whole].reshape(-1, CHUNK), block[whole:].reshape(1, -1)]
        parts += [(start, rows[0], 0), (start, rows[1], whole)]
    found = [_chunks(rows, start + offset) for start, rows, offset in parts if rows.size]
    low, high, places, codes = (np.concatenate(column) for column in zip(*found, strict=True))
    return Contribution(flat.size, low, high, places, codes)


def decode(data: bytes, size: int) -> Contribution:
    """The contribution in `data`, for a model of `size` parameters. Raises MalformedMessage for anything that `encode`
    does not give. The length is checked first, so that nothing is unpacked that should not be."""
    chunks, sent = -(-size // CHUNK), _sent(size)
    scales, places_end = 12, 12 + 8 * chunks + -(-sent * _PLACE_BITS // 8)
    if len(data) != places_end + -(-sent * _CODE_BITS // 8):
        raise MalformedMessage(f"a contribution to {size} parameters has another length")
    if data[:12] != _MAGIC + size.to_bytes(8, "little"):
        raise MalformedMessage("not a contribution to a model of this size")
    low, high = np.frombuffer(data, "<f4", 2 * chunks, scales).reshape(2, chunks).astype(np.float32)
    if not (np.isfinite(high).all() and (low >= 0).all() and (low <= high).all() and not np.signbit(low).any()):
        raise MalformedMessage("a chunk's magnitudes are not two rising finite numbers")
    within = _unpack(data[scales + 8 * chunks : places_end], _PLACE_BITS, sent).astype(np.int64)
    codes = _unpack(data[places_end:], _CODE_BITS, sent).astype(np.uint8)
    places = within + np.minimum(np.arange(sent) // KEEP, chunks - 1) * CHUNK
    if places[-1] >= size or (np.diff(places) <= 0).any():
        raise MalformedMessage("places do not rise within the model")
    return Contribution(size, low, high, places, codes)


def encoded_size(size: int) -> int:
    """Bytes of a contribution to a model of `size` parameters."""
    sent = _sent(size)
    return 12 + 8 * -(-size // CHUNK) + -(-sent * _PLACE_BITS // 8) + -(-sent * _CODE_BITS // 8)


def _sent(size: int) -> int:
    """Entries sent of `size`: KEEP of each chunk, and of a shorter last one the same share, rounded up."""
    if not 0 < size <= MAX_SIZE:
        raise ValueError(f"a model has 1 to {MAX_SIZE} parameters")
    return size // CHUNK * KEEP + -(-(size % CHUNK) * KEEP // CHUNK)


def _chunks(rows: Floats, start: int) -> tuple[Floats, Floats, npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(low, high, places, codes) of chunks of one width, the first of which starts at entry `start`."""
    count, width = rows.shape
    keep = -(-width * KEEP // CHUNK)
    size, within = _candidates(np.abs(rows), keep)
    least = np.partition(size, size.shape[1] - keep, axis=1)[:, size.shape[1] - keep, None]
    above, level = size > least, size == least
    missing = keep - above.sum(axis=1, keepdims=True)
    within = within[above | (level & (np.cumsum(level, axis=1) <= missing))].reshape(count, keep)
    kept = np.take_along_axis(rows, within, axis=1)
    low, high, threshold = _two_means(np.abs(kept))
    codes = (kept < 0) * NEGATIVE + (np.abs(kept) > threshold[:, None]) * HIGH
    places = within + (start + CHUNK * np.arange(count, dtype=np.int64))[:, None]
    return low, high, places.ravel(), codes.astype(np.uint8).ravel()


def _candidates(size: Floats, keep: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """What may be among the `keep` largest of each row: magnitudes [rows, widest] and their places in the row, rising.
    All that equal the least of those are there; rows that have fewer than the widest are filled up with -1.

    Of the largest entries of some groups, the `keep`-th largest has at least `keep` entries of the row that are no
    smaller, so whatever is smaller than it is not among them. That leaves some 75 of 4,096, and compressing is six
    times as fast as with a selection among all.
    """
    count, width = size.shape
    groups = _GROUPS * keep
    if width % groups:
        return size, np.broadcast_to(np.arange(width), size.shape)
    largest = size.reshape(count, width // groups, groups).max(axis=1)
    bound = np.partition(largest, groups - keep, axis=1)[:, groups - keep, None]
    flat = np.flatnonzero(size >= bound)
    row, place = np.divmod(flat, width)
    counts = np.bincount(row, minlength=count)
    there = np.arange(counts.max()) < counts[:, None]
    found, places = np.full(there.shape, -1.0, dtype=np.float32), np.zeros(there.shape, dtype=np.int64)
    found[there], places[there] = size.reshape(-1)[flat], place
    return found, places


def _two_means(sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """(low, high, largest that is low) of each row, such that the squared error of saying low or high is least."""
    ordered = np.sort(sizes, axis=1)
    count = ordered.shape[1]
    if count == 1:
        return ordered[:, 0], ordered[:, 0], ordered[:, 0]
    sums = np.cumsum(ordered, axis=1, dtype=np.float64)
    total, below = sums[:, -1:], np.arange(1, count)
    left, right = sums[:, :-1], total - sums[:, :-1]
    # The squared error is the sum of squares, the same for all splits, less this.
    split = np.argmax(left**2 / below + right**2 / (count - below), axis=1)[:, None]
    low = np.take_along_axis(left, split, 1) / (split + 1)
    high = np.take_along_axis(right, split, 1) / (count - split - 1)
    narrow = (low.astype(np.float32)[:, 0], high.astype(np.float32)[:, 0])
    # Equal sizes: rounding may leave high a bit below low.
    return np.minimum(*narrow), np.maximum(*narrow), np.take_along_axis(ordered, split, 1)[:, 0]


def _pack(values: npt.NDArray[Any], bits: int) -> bytes:
    spread = (values[:, None] >> np.arange(bits, dtype=values.dtype)) & 1
    return np.packbits(spread.astype(np.uint8), bitorder="little").tobytes()


def _unpack(data: bytes, bits: int, count: int) -> npt.NDArray[np.int64]:
    """`count` numbers of `bits` bits. Raises MalformedMessage when the rest of the last byte is not zero."""
    spread = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if spread[count * bits :].any():
        raise MalformedMessage("bits beyond the last entry are set")
    weights = (1 << np.arange(bits)).astype(np.int64)
    found: npt.NDArray[np.int64] = spread[: count * bits].reshape(count, bits).astype(np.int64) @ weights
    return found
