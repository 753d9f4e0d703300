"""Copies are found by what they keep, whatever their values; honest work on other data is none."""

import numpy as np

from protocol.training.copies import COMPARED, COPY, Committed, compared_chunks, copies, overlaps
from protocol.training.payload import CHUNK, KEEP, Contribution, compress

SIZE = 6 * CHUNK
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
    assert off.min() > 2 * KEEP / CHUNK and off.max() < COPY * 0.75
    assert copies({str(seed): Committed(5, contribution(seed)) for seed in range(4)}, CHUNKS) == {}


def test_a_copy_loses_to_whoever_committed_first_however_its_values_were_changed() -> None:
    rng = np.random.default_rng(0)
    noisy = compress(change(1) * (1 + 0.3 * rng.standard_normal(SIZE)).astype(np.float32))
    scaled = compress(-3 * change(1))
    given = {
        "z": Committed(5, contribution(1)), "a": Committed(6, noisy), "b": Committed(7, scaled),
        "c": Committed(6, contribution(2)),
    }  # fmt: skip
    assert copies(given, CHUNKS) == {"a": "z", "b": "z"}


def test_in_one_block_the_order_of_the_hotkeys_decides() -> None:
    same = contribution(3)
    assert copies({"b": Committed(5, same), "a": Committed(5, same)}, CHUNKS) == {"b": "a"}
    assert copies({}, CHUNKS) == {} and copies({"a": Committed(5, same)}, CHUNKS) == {}


def test_large_models_are_compared_at_drawn_chunks() -> None:
    drawn = compared_chunks(b"s" * 32, 10_000 * CHUNK)
    assert len(drawn) == COMPARED and len(set(drawn)) == COMPARED and list(drawn) == sorted(drawn)
    assert drawn != compared_chunks(b"t" * 32, 10_000 * CHUNK)
    assert compared_chunks(b"s" * 32, CHUNK + 1) == (0, 1)
