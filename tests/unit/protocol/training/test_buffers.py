"""Nothing is lost between windows, and what was trained can be taken out of the buffers again."""

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.buffers import (
    LIMIT,
    accumulate,
    claimed_change,
    distance,
    follows,
    remainder,
    same,
)
from protocol.training.payload import CHUNK, compress
from protocol.training.statement import Statement

SIZE, KEPT = CHUNK + 50, 0.95
CID = Manifest.of(b"one").cid


def vector(seed: int, times: float = 1e-3) -> np.ndarray:
    return (times * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def window(seed: int = 1) -> tuple[np.ndarray, ...]:
    before, change = vector(seed), vector(seed + 100)
    total = accumulate(before, change, KEPT)
    contribution = compress(total)
    return before, change, contribution, remainder(total, contribution)


def test_what_is_sent_and_what_is_kept_are_the_whole() -> None:
    before, change, contribution, after = window()
    whole = KEPT * before.astype(np.float64) + change
    assert np.allclose(contribution.dense().astype(np.float64) + after, whole, atol=1e-9)
    zero = np.setdiff1d(np.arange(SIZE), contribution.places)
    assert np.array_equal(after[zero], accumulate(before, change, KEPT)[zero])


def test_an_audit_gets_the_change_back_and_sees_another() -> None:
    before, change, contribution, after = window()
    claimed = claimed_change(before, after, contribution, KEPT)
    assert distance(claimed, change) < LIMIT / 100
    assert distance(claimed, 1.001 * change) > LIMIT
    assert distance(claimed, vector(7)) > 1.0
    assert same(before, after, contribution, change, KEPT)
    other = change.copy()
    other[5] = np.nextafter(other[5], np.float32(1))
    assert not same(before, after, contribution, other, KEPT)
    assert not same(vector(3), after, contribution, change, KEPT)


def test_numbers_that_are_none_are_infinitely_far() -> None:
    change = vector(1)
    wrong = change.copy()
    wrong[0] = np.nan
    assert distance(wrong, change) == float("inf")
    nothing = np.zeros(SIZE, dtype=np.float32)
    assert distance(nothing, nothing) == 0.0 and distance(change, nothing) == float("inf")
    with pytest.raises(ValueError, match="different sizes"):
        claimed_change(change[:-1], change, compress(change), KEPT)


def statement(number: int, before: str | None, after: str) -> Statement:
    return Statement(
        window=number, miner="5F", base="ab" * 32, payload=CID, profile="tolerant", trace="cd" * 32, states=2,
        before=before, after=after,
    )  # fmt: skip


def test_a_window_starts_with_nothing_or_with_what_the_last_one_left() -> None:
    left, other = Manifest.of(b"two").cid, Manifest.of(b"three").cid
    first = statement(3, None, left)
    assert follows(first, None)
    assert follows(statement(4, left, other), first) and follows(statement(9, left, other), first)
    assert follows(statement(4, None, other), first)
    assert not follows(statement(4, other, left), first)
    assert not follows(statement(4, left, other), None)
    assert not follows(statement(3, left, other), first)
