"""Compression keeps the largest entries, and its bytes have one meaning only."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MalformedMessage
from protocol.training.payload import CHUNK, KEEP, Contribution, compress, decode, encoded_size

SIZES = [1, 2, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 100]


def change(size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, size) * 1e-3).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_decoded_is_what_was_encoded(size: int) -> None:
    found = compress(change(size))
    data = found.encode()
    assert len(data) == encoded_size(size)
    again = decode(data, size)
    assert again.encode() == data
    assert np.array_equal(again.dense(), found.dense()) and again.norm == found.norm


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_entries_of_every_chunk_are_kept_with_their_signs(size: int) -> None:
    given_change = change(size)
    dense = compress(given_change).dense()
    for start in range(0, size, CHUNK):
        chunk, kept = given_change[start : start + CHUNK], dense[start : start + CHUNK] != 0
        assert kept.sum() == -(-len(chunk) * KEEP // CHUNK)
        left = np.abs(chunk[~kept])
        assert not left.size or np.abs(chunk[kept]).min() >= left.max()
        assert np.array_equal(np.sign(dense[start : start + CHUNK][kept]), np.sign(chunk[kept]))
        assert len(set(np.abs(dense[start : start + CHUNK][kept]))) <= 2


def test_the_two_magnitudes_are_the_best_two() -> None:
    kept = np.sort(np.abs(change(KEEP, seed=3)))
    rest = np.zeros(CHUNK - KEEP, dtype=np.float32)
    found = compress(np.concatenate([kept, rest]).astype(np.float32))
    error = float(np.sum((found.values().astype(np.float64) - kept) ** 2))
    for split in range(1, KEEP):
        parts = kept[:split].astype(np.float64), kept[split:].astype(np.float64)
        other = sum(float(np.sum((part - part.mean()) ** 2)) for part in parts)
        assert error <= other * (1 + 1e-5)


def test_of_equal_entries_the_first_are_kept() -> None:
    level = np.full(CHUNK, 0.5, dtype=np.float32)
    level[-1] = 2.0
    found = compress(level)
    assert list(found.places) == [*range(KEEP - 1), CHUNK - 1]
    assert list(found.values()) == [0.5] * (KEEP - 1) + [2.0]
    nothing = compress(np.zeros(CHUNK + 7, dtype=np.float32))
    assert nothing.norm == 0.0 and not nothing.dense().any()


@pytest.mark.parametrize("kind", ["spread", "equal", "together", "rising", "few", "tiny"])
def test_what_is_kept_is_what_sorting_everything_gives(kind: str) -> None:
    rng, size = np.random.default_rng(8), 130 * CHUNK + 2 * KEEP
    given_change = {
        "spread": lambda: rng.standard_t(4, size),
        "equal": lambda: rng.integers(-3, 4, size),
        "together": lambda: rng.standard_normal(size) + 100.0 * (np.arange(size) % (4 * KEEP) < 3),
        "rising": lambda: np.arange(size) % CHUNK - 7.0,
        "few": lambda: rng.standard_normal(size) * (rng.random(size) < 0.01),
        "tiny": lambda: rng.standard_normal(size) * 1e-42,
    }[kind]().astype(np.float32)
    expected = []
    for start in range(0, size, CHUNK):
        chunk = np.abs(given_change[start : start + CHUNK])
        kept = np.argsort(-chunk, kind="stable")[: -(-len(chunk) * KEEP // CHUNK)]
        expected.append(start + np.sort(kept))
    assert np.array_equal(compress(given_change).places, np.concatenate(expected))


def test_the_norm_is_that_of_the_dense_change() -> None:
    found = compress(change(3 * CHUNK))
    assert found.norm == pytest.approx(float(np.linalg.norm(found.dense().astype(np.float64))), rel=1e-12)
    huge = compress(np.full(CHUNK, np.finfo(np.float32).max, dtype=np.float32))
    assert np.isfinite(huge.norm) and np.isfinite(huge.dense()).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_finite_changes_are_compressed(bad: float) -> None:
    wrong = change(100)
    wrong[50] = bad
    with pytest.raises(ValueError, match="finite"):
        compress(wrong)
    with pytest.raises(ValueError, match="finite"):
        compress(np.zeros(0, dtype=np.float32))


def altered(found: Contribution, **changes: np.ndarray) -> bytes:
    return Contribution(
        **{**{k: getattr(found, k) for k in ("size", "low", "high", "places", "codes")}, **changes}
    ).encode()


def test_contributions_that_no_change_gives_are_refused() -> None:
    size = CHUNK + 100
    found = compress(change(size))
    data = found.encode()
    swapped, doubled = found.places.copy(), found.places.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    doubled[4] = doubled[3]
    outside = found.places.copy()
    outside[-1] = 2 * CHUNK - 1  # a place of the second chunk, which has only 100
    nan, endless = found.high.copy(), found.high.copy()
    nan[1], endless[0] = np.nan, np.inf
    bad = [
        data[:-1], data + b"\x00", b"", b"XXXX" + data[4:], data[:4] + (size + 1).to_bytes(8, "little") + data[12:],
        altered(found, places=swapped), altered(found, places=doubled), altered(found, places=outside),
        altered(found, high=nan), altered(found, high=endless), altered(found, low=found.high, high=found.low),
        altered(found, low=-found.low), altered(found, low=np.full_like(found.low, -0.0)),
    ]  # fmt: skip
    for wrong in bad:
        with pytest.raises(MalformedMessage):
            decode(wrong, size)
    spare = compress(change(65)).encode()  # two entries: 24 bits of places and 4 of codes
    with pytest.raises(MalformedMessage, match="bits beyond"):
        decode(spare[:-1] + bytes([spare[-1] | 0x80]), 65)
    for other in (size - 1, size + CHUNK):
        with pytest.raises(MalformedMessage):
            decode(data, other)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.binary(max_size=200))
def test_bytes_of_strangers_are_refused_or_have_one_form(size: int, data: bytes) -> None:
    framed = b"TSC1" + size.to_bytes(8, "little") + data
    framed = framed[: encoded_size(size)].ljust(encoded_size(size), b"\x00")
    try:
        found = decode(framed, size)
    except MalformedMessage:
        return
    assert found.encode() == framed and np.isfinite(found.dense()).all()


def test_another_process_with_another_number_of_threads_gives_the_same_bytes() -> None:
    program = (
        "import hashlib, numpy as np; from protocol.training.payload import compress;"
        "x = (np.random.default_rng(5).standard_t(4, 20000) * 1e-3).astype(np.float32);"
        "print(hashlib.sha256(compress(x).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"OMP_NUM_THREADS": threads, "PYTHONPATH": "."},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
