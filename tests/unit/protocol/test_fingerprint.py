"""What the fingerprint shows, what it hides, and what it refuses to read."""

import base64

import numpy as np
import pytest

from protocol.fingerprint import CHUNK, DIMENSIONS, Fingerprinter, decode, distances, encoded_size

SEED = b"\x01" * 32
WIDTH = 576


def states(tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, WIDTH))


def fingerprint(hidden: np.ndarray, seed: bytes = SEED) -> np.ndarray:
    prints = Fingerprinter(seed, hidden.shape[1])
    for row in hidden:
        prints.add(row.astype(np.float32))
    return decode(prints.encode(), len(hidden))


@pytest.mark.parametrize("tokens", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_the_same_states_are_as_near_as_the_wire_allows(tokens: int) -> None:
    found = distances(fingerprint(states(tokens)), states(tokens), SEED)
    assert len(found) == -(-tokens // CHUNK) and max(found) < 1e-6


@pytest.mark.parametrize("error", [0.005, 0.02, 0.3])
def test_the_distance_estimates_the_relative_error(error: float) -> None:
    true = states(64 * CHUNK)
    wrong = true + error * states(64 * CHUNK, seed=1)
    found = np.array(distances(fingerprint(wrong), true, SEED))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(error, rel=0.1)
    assert (found > error / 3).all() and (found < error * 2).all()


def test_another_seed_shows_nothing_of_the_states() -> None:
    found = distances(fingerprint(states(CHUNK), seed=b"\x02" * 32), states(CHUNK), SEED)
    assert found[0] > 0.7


def test_one_wrong_state_in_a_chunk_is_seen_in_that_chunk_only() -> None:
    wrong = states(3 * CHUNK)
    wrong[CHUNK + 5] += 0.2 * states(1, seed=3)[0]
    found = distances(fingerprint(wrong), states(3 * CHUNK), SEED)
    assert found[1] > 0.02 and found[0] < 1e-6 and found[2] < 1e-6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "AAAA",
        base64.b64encode(bytes(encoded_size(2 * CHUNK))).decode(),
        base64.b64encode(bytes(encoded_size(CHUNK)))[:-1].decode(),
        "\u0661" * 44,
        base64.b64encode(np.full(DIMENSIONS, np.inf, dtype="<f4").tobytes()).decode(),
        base64.b64encode(np.full(DIMENSIONS, np.nan, dtype="<f4").tobytes()).decode(),
    ],
)
def test_anything_but_one_answers_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        decode(text, CHUNK)


def test_base64_has_one_form() -> None:
    good = base64.b64encode(bytes(encoded_size(1))).decode()
    assert decode(good, 1).shape == (1, DIMENSIONS)
    with pytest.raises(ValueError, match="one form"):
        decode(good[:-3] + "B==", 1)  # differs in bits that decoding drops


def test_a_verifier_without_finite_states_makes_no_statement() -> None:
    broken = states(CHUNK)
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        distances(fingerprint(states(CHUNK)), broken, SEED)
    with pytest.raises(ValueError, match="zero"):
        distances(fingerprint(states(CHUNK)), np.zeros((CHUNK, WIDTH)), SEED)


def test_states_too_large_for_the_wire_do_not_overflow() -> None:
    assert np.isfinite(fingerprint(states(CHUNK) * 1e9)).all()
