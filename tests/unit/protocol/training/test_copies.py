"""Who keeps the same entries is found, whatever the values; honest work on other data is not alike."""

import numpy as np

from protocol.training.copies import COMPARED, alike, compared_chunks, overlaps
from protocol.training.payload import CHUNK, KEEP, Contribution, compress

SIZE = 6 * CHUNK
ALIKE = 0.15
CHUNKS = compared_chunks(b"s" * 32, SIZE)


def change(seed: int) -> np.ndarray:
    """Changes of one window have a little in common, as honest ones have."""
    common = np.random.default_rng(999).standard_normal(SIZE)
    own = np.random.default_rng(seed).standard_normal(SIZE)
    return (0.8 * common + own).astype(np.float32)


def contribution(seed: int) -> Contribution:
    return compress(change(seed))


def test_honest_contributions_share_little() -> None:
    shared = overlaps([contribution(seed) for seed in range(4)], CHUNKS)
    assert np.allclose(np.diag(shared), 1.0) and np.array_equal(shared, shared.T)
    off = shared[~np.eye(4, dtype=bool)]
    assert off.min() > 2 * KEEP / CHUNK and off.max() < ALIKE * 0.75
    assert alike({str(seed): contribution(seed) for seed in range(4)}, CHUNKS, ALIKE) == {}


def test_copies_and_whom_they_copy_are_suspects_however_the_values_were_changed() -> None:
    rng = np.random.default_rng(0)
    noisy = compress(change(1) * (1 + 0.3 * rng.standard_normal(SIZE)).astype(np.float32))
    given = {"z": contribution(1), "a": noisy, "b": compress(-3 * change(1)), "c": contribution(2)}
    assert alike(given, CHUNKS, ALIKE) == {"a": ("b", "z"), "b": ("a", "z"), "z": ("a", "b")}
    assert alike({}, CHUNKS, ALIKE) == {} and alike({"a": noisy}, CHUNKS, ALIKE) == {}


def test_large_models_are_compared_at_drawn_chunks() -> None:
    drawn = compared_chunks(b"s" * 32, 10_000 * CHUNK)
    assert len(drawn) == COMPARED and len(set(drawn)) == COMPARED and list(drawn) == sorted(drawn)
    assert drawn != compared_chunks(b"t" * 32, 10_000 * CHUNK)
    assert compared_chunks(b"s" * 32, CHUNK + 1) == (0, 1)
