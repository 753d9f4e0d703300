"""The proof of `inference.generate`: a fingerprint of the hidden states that the answer was sampled from.

The last hidden state of every answer token (what the output embedding reads) is projected to a few numbers with a
random sign matrix drawn from the seed. The verifier computes the same from its own prefill, and the distance between
the two estimates how far the miner's model was from the right one: eight-bit weights move hidden states by a percent,
which a token check sees only after hundreds of tokens. It does not see how tokens were chosen; `sampling.margin` does.

    Fingerprinter(seed, width)      the miner's side: add(hidden) for each token, then encode()
    decode(text, tokens)            claimed values, [chunks, DIMENSIONS]; ValueError for anything not promised
    distances(claimed, hidden, seed)    the verifier's side: relative error of each chunk

Tokens are taken CHUNK at a time, the last chunk as long as it is. With uniform signs s and R from SHAKE-256 over the
seed,

    value[c, d] = sum_i s[i, d] * sum_j R[j, d] * hidden[i, j]  /  sqrt(width * tokens in the chunk)

so that E[value^2] is the mean square of the chunk's hidden states (the tug-of-war sketch of Alon, Matias and Szegedy,
STOC 1996). The matrix is known only with the request: a sketch of a model cannot be prepared.

DIMENSIONS, CHUNK and precision were chosen by measurement with SmolLM2-135M (48 chunks of each cheat, 16 of float16;
`benchmarks/verification.py fingerprint` repeats it): weights rounded to float16 are at least 3.7e-4 away, weights with
0.5 % noise at least 0.009, int8 weights at least 0.02; the 6,733 honest chunks of the shipped calibration at most 7e-6.
Half precision on the wire would put 4e-4 of rounding on every answer and
hide the first of these. Fewer dimensions widen the spread (its relative size is about
1 / sqrt(2 * DIMENSIONS)), which matters where honest machines differ more, in bfloat16; longer chunks average one wrong
token away. 16 numbers for 16 tokens are 4 bytes a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]

DIMENSIONS = 16
CHUNK = 16  # tokens
_WIRE = np.dtype("<f4")  # little-endian single precision
LARGEST = float(np.finfo(_WIRE).max)  # a hidden state that projects beyond it cannot be claimed


class Fingerprinter:
    """Projects hidden states as they come. `width`: numbers in one hidden state."""

    def __init__(self, seed: bytes, width: int) -> None:
        self._seed = seed
        self._matrix = _signs(seed, "matrix", width)
        self._width = width
        self._rows: list[npt.NDArray[np.float32]] = []
        self._chunks: list[FloatArray] = []

    def add(self, hidden: npt.NDArray[np.float32]) -> None:
        """The hidden state of the next token, [width]."""
        self._rows.append(hidden)
        if len(self._rows) == CHUNK:
            self._close()

    def encode(self) -> str:
        """Base64 of all values so far, single precision. Call it once, at the end of the answer."""
        if self._rows:
            self._close()
        values = np.concatenate(self._chunks) if self._chunks else np.zeros(0)
        return base64.b64encode(np.clip(values, -LARGEST, LARGEST).astype(_WIRE).tobytes()).decode()

    def _close(self) -> None:
        rows = np.asarray(self._rows, dtype=np.float64)
        self._chunks.append(_project(rows, self._matrix, self._seed, len(self._chunks)))
        self._rows = []


def encoded_size(tokens: int) -> int:
    """Bytes of values for an answer of so many tokens, before base64."""
    return math.ceil(tokens / CHUNK) * DIMENSIONS * _WIRE.itemsize


def decode(text: str, tokens: int) -> FloatArray:
    """Claimed values of an answer of `tokens` tokens, [chunks, DIMENSIONS]. Raises ValueError."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("the fingerprint is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ValueError("the fingerprint is not in the one form that base64 has for it")
    if len(raw) != encoded_size(tokens):
        raise ValueError(f"the fingerprint has {len(raw)} bytes where {tokens} tokens need {encoded_size(tokens)}")
    values = np.frombuffer(raw, dtype=_WIRE).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the fingerprint holds a value that is not finite")
    return values.reshape(-1, DIMENSIONS)


def distances(claimed: FloatArray, hidden: npt.ArrayLike, seed: bytes) -> tuple[float, ...]:
    """Estimated relative error of the claimed hidden states, one figure for each chunk.

    `claimed`: [chunks, DIMENSIONS] as from `decode`. `hidden`: the verifier's own, [tokens, width]. Raises ValueError
    when the verifier's hidden states are not finite, or all zero: then no statement about the miner is possible.
    """
    rows = np.asarray(hidden, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("a hidden state is not finite: the model's output cannot be compared")
    matrix = _signs(seed, "matrix", rows.shape[1])
    found = []
    for index, values in enumerate(claimed):
        chunk = rows[index * CHUNK : (index + 1) * CHUNK]
        size = math.sqrt(float(np.mean(np.square(chunk))))
        if size == 0.0:
            raise ValueError("all hidden states of a chunk are zero: there is nothing to compare with")
        own = _project(chunk, matrix, seed, index)
        found.append(math.sqrt(float(np.mean(np.square(values - own)))) / size)
    return tuple(found)


def _project(rows: FloatArray, matrix: FloatArray, seed: bytes, index: int) -> FloatArray:
    """[tokens, width] -> [DIMENSIONS]."""
    signs = _signs(seed, f"chunk {index}", CHUNK)[: len(rows)]
    return np.asarray((signs * (rows @ matrix)).sum(axis=0) / math.sqrt(rows.size))


def _signs(seed: bytes, label: str, rows: int) -> FloatArray:
    """[rows, DIMENSIONS] of -1 and +1: bits of SHAKE-256, least significant first, row by row."""
    raw = hashlib.shake_256(b"touchstone/fingerprint/v1|" + label.encode() + b"|" + seed).digest(rows * DIMENSIONS // 8)
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")
    return np.where(bits.reshape(rows, DIMENSIONS) == 1, 1.0, -1.0)
