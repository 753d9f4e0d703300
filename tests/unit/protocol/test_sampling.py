"""Seeded sampling: it follows the distribution asked for, and its margins tell honest tokens from others."""

import numpy as np
import pytest

from protocol.sampling import (
    COLDEST,
    CUT_MARGIN,
    Sampler,
    Slack,
    candidates,
    choose,
    gumbel,
    margin,
    noise_key,
    shortlist_size,
    uniform,
)

KEY = noise_key(b"k" * 32)
NONE = Slack(logit=0.0, mass=0.0)
IDS = np.arange(200)
LOGITS = np.random.default_rng(1).normal(0, 2, 200).astype(np.float32)


@pytest.mark.parametrize("temperature", [-0.1, 1e-310, 1e-9, 0.0099, 2.1, float("nan"), float("inf")])
def test_a_temperature_that_cannot_be_sampled_at_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        Sampler(temperature=temperature)


def test_the_coldest_temperature_and_the_smallest_top_p_can_be_sampled():
    for sampler in (Sampler(temperature=COLDEST), Sampler(temperature=COLDEST, top_p=5e-324), Sampler(top_p=5e-324)):
        token = choose(IDS, LOGITS * 1000, sampler, KEY, 0)
        assert margin(IDS, LOGITS * 1000, token, sampler, KEY, 0, NONE).margin == 0.0


def test_the_drawn_tokens_follow_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    sampler = Sampler(temperature=0.7, top_k=0, top_p=1.0)
    drawn = [choose(range(4), logits, sampler, KEY, position) for position in range(2500)]
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    counts = np.bincount(drawn, minlength=4) / 2500
    assert np.abs(counts - expected).max() < 0.04  # four standard deviations


def test_noise_is_uniform_and_depends_on_seed_position_and_token():
    u = uniform(KEY, 3, np.arange(20_000))
    assert 0 < u.min() < 1e-3 and 1 - 1e-3 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.005
    assert np.isfinite(gumbel(KEY, 3, np.arange(20_000))).all()
    other = [uniform(noise_key(b"x" * 32), 3, [7]), uniform(KEY, 4, [7]), uniform(KEY, 3, [8])]
    assert len({float(v[0]) for v in [*other, uniform(KEY, 3, [7])]}) == 4
    assert uniform(KEY, 3, [7, 9])[0] == u[7]  # one token's noise does not depend on which others are asked for


@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(temperature=0.0), Sampler(top_k=7, top_p=1.0), Sampler(top_k=0)]
)
def test_the_shortlist_gives_what_the_whole_vocabulary_gives(sampler):
    size = shortlist_size(sampler, len(IDS))
    best = np.argsort(-LOGITS)[:size]
    for position in range(50):
        token = choose(IDS, LOGITS, sampler, KEY, position)
        assert choose(best, LOGITS[best], sampler, KEY, position) == token
        assert margin(best, LOGITS[best], token, sampler, KEY, position, NONE).margin == 0.0


def test_only_the_winner_has_margin_zero_and_outsiders_are_cut():
    sampler = Sampler(temperature=0.9, top_k=5, top_p=1.0)
    allowed = set(candidates(IDS, LOGITS, sampler)[0].tolist())
    for position in range(4):
        winner = choose(IDS, LOGITS, sampler, KEY, position)
        for token in range(200):
            found = margin(IDS, LOGITS, token, sampler, KEY, position, NONE)
            assert found.winner == winner
            assert found.cut == (token not in allowed)
            if found.cut:
                assert found.margin == CUT_MARGIN
            else:
                assert (found.margin == 0.0) == (token == winner)


def test_slack_forgives_a_flip_at_the_boundary_and_nothing_else():
    logits = np.array([3.0, 2.0, 1.0001, 1.0, -4.0])
    sampler = Sampler(temperature=1.0, top_k=3, top_p=1.0)
    flipped = np.array([3.0, 2.0, 1.0, 1.0001, -4.0])  # what a machine with other rounding may have seen
    slack = Slack(logit=0.001, mass=0.0)
    strict, lenient = [], []
    for position in range(300):
        token = choose(range(5), flipped, sampler, KEY, position)
        strict.append(margin(range(5), logits, token, sampler, KEY, position, NONE).margin)
        lenient.append(margin(range(5), logits, token, sampler, KEY, position, slack).margin)
        assert margin(range(5), logits, 4, sampler, KEY, position, slack).cut
    assert max(strict) == CUT_MARGIN and max(lenient) < 0.001


def test_top_p_keeps_the_shortest_prefix_that_reaches_the_mass():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for top_p, kept in ((0.4, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.9, 3), (1.0, 4)):
        sampler = Sampler(temperature=1.0, top_k=0, top_p=top_p)
        assert len(candidates(range(4), logits, sampler)[0]) == kept, top_p


def test_ties_go_to_the_lower_token_and_nan_is_refused():
    assert choose([9, 4, 7], [1.0, 1.0, 0.0], Sampler(temperature=0.0), KEY, 0) == 4
    with pytest.raises(ValueError, match="NaN"):
        choose([0, 1], [1.0, float("nan")], Sampler(), KEY, 0)


@pytest.mark.parametrize(
    "bad", [{"temperature": -0.1}, {"temperature": 2.5}, {"top_p": 0.0}, {"top_k": -1}, {"top_k": 1001}]
)
def test_sampler_settings_have_bounds(bad):
    with pytest.raises(ValueError):
        Sampler(**bad)
