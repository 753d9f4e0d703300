"""Scores: honest speed earns, dishonesty earns exactly nothing, absence never helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.inference import Outcome
from protocol.metagraph import Metagraph, Neuron
from protocol.scoring import Observation, ScoreRules, ScoreState, absent, fold_round, qualities, weights

RULES = ScoreRules()


def accepted(hotkey, tokens_per_s, first_token_s=0.2, kind="k"):
    return Observation(hotkey, kind, Outcome.ACCEPT, first_token_s, tokens_per_s)


def rejected(hotkey):
    return Observation(hotkey, "k", Outcome.REJECT)


def failed(hotkey):
    return Observation(hotkey, "k", None)


def run(rounds, states=None, start=1):
    states = states or {}
    for number, observations in enumerate(rounds, start):
        states = fold_round(states, observations, number)
    return states


def test_the_faster_honest_miner_ends_with_clearly_more_and_the_dishonest_with_exactly_zero():
    states = run([[accepted("fast", 30), accepted("slow", 15, 0.4), rejected("cheat"), failed("dead")]] * 20)
    found = weights(states, 21)
    assert set(found) == {"fast", "slow"}
    assert found["fast"] > 3 * found["slow"] > 0
    assert sum(found.values()) == pytest.approx(1.0)


def test_only_the_ratio_to_the_best_of_the_same_kind_counts():
    slow_validator = qualities([accepted("a", 10, 1.0), accepted("b", 5, 2.0)], RULES)
    fast_validator = qualities([accepted("a", 100, 0.1), accepted("b", 50, 0.2)], RULES)
    assert slow_validator == pytest.approx(fast_validator)
    other_kind = qualities([accepted("a", 10), accepted("b", 5, kind="other")], RULES)
    assert other_kind == [1.0, 1.0]


def test_a_reject_takes_everything_and_the_pause_grows():
    states = run([[accepted("m", 10)]] * 10)
    assert states["m"].score > 0.8
    pauses, now = [], 11
    for _ in range(4):
        states = fold_round(states, [rejected("m")], now)
        assert states["m"].score == 0.0 and weights(states, now + 1) == {}
        pauses.append(states["m"].cooldown_until - now - 1)
        now = states["m"].cooldown_until
    assert pauses == [8, 16, 32, 64]


def test_nothing_is_earned_in_a_pause_and_earning_starts_again_after_it():
    states = run([[rejected("m")]])
    until = states["m"].cooldown_until
    for number in range(2, until):
        states = fold_round(states, [accepted("m", 10)], number)
        assert states["m"].score == 0.0
    assert fold_round(states, [accepted("m", 10)], until)["m"].score > 0.0


def test_one_reject_spoils_a_round_of_accepts():
    states = run([[accepted("m", 10), rejected("m"), accepted("m", 10)]])
    assert states["m"].score == 0.0 and states["m"].cooldown_until > 2


def test_inconclusive_counts_for_nothing():
    before = run([[accepted("m", 10)]] * 3)
    after = fold_round(before, [Observation("m", "k", Outcome.INCONCLUSIVE)], 4)
    assert after["m"].score == before["m"].score and after["m"].inconclusive == 1


def test_absence_never_improves_and_silence_costs():
    before = run([[accepted("m", 10), accepted("n", 5)]] * 5)
    assert fold_round(before, [accepted("m", 10)], 6)["n"] == before["n"]
    silent = fold_round(before, [accepted("m", 10)], 6, silent=["n"])
    assert silent["n"].score < before["n"].score and silent["n"].failed == 1
    late = fold_round(before, [accepted("m", 10), failed("n")], 6)
    assert late["n"].score == silent["n"].score


def test_a_fast_cheat_cannot_push_honest_miners_down():
    alone = fold_round({}, [accepted("honest", 10)], 1)
    beside = fold_round({}, [accepted("honest", 10), accepted("cheat", 1000, 0.001), rejected("cheat")], 1)
    assert beside["honest"].score == alone["honest"].score
    paused = {"cheat": ScoreState("cheat", cooldown_until=9)}
    assert fold_round(paused, [accepted("honest", 10), accepted("cheat", 1000)], 2)["honest"].score == pytest.approx(
        alone["honest"].score
    )


def test_half_the_answers_is_half_the_score():
    all_answers = run([[accepted("m", 10), accepted("m", 10)]] * 30)
    half = run([[accepted("m", 10), failed("m")]] * 30)
    assert half["m"].score == pytest.approx(all_answers["m"].score / 2)


def test_a_round_is_folded_once():
    states = run([[accepted("m", 10)]])
    with pytest.raises(ValueError, match="folded before"):
        fold_round(states, [accepted("m", 10)], 1)


def test_good_conduct_is_remembered_slowly():
    rules = ScoreRules(forgive_rounds=3)
    states = fold_round({}, [rejected("m")], 1, rules)
    start = states["m"].cooldown_until
    for number in range(start, start + 3):
        states = fold_round(states, [accepted("m", 10)], number, rules)
    assert states["m"].rejects == 0


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan"), None])
def test_a_nonsensical_measurement_earns_nothing_and_harms_nobody(speed):
    states = fold_round({}, [accepted("odd", speed), accepted("m", 10)], 1)
    assert states["odd"].score == 0.0 and states["m"].score == pytest.approx(RULES.alpha)


outcomes = st.sampled_from([Outcome.ACCEPT, Outcome.REJECT, Outcome.INCONCLUSIVE, None])
observation = st.builds(
    Observation, st.sampled_from("abcd"), st.sampled_from("xy"), outcomes, st.floats(0.01, 9), st.floats(0.1, 99)
)


@given(st.lists(st.lists(observation, max_size=6), max_size=12))
def test_whatever_happens_scores_stay_in_bounds_and_weights_are_a_distribution(rounds):
    states = run(rounds)
    found = weights(states, len(rounds) + 1)
    assert all(0.0 <= state.score <= 1.0 for state in states.values())
    assert all(weight > 0 for weight in found.values())
    assert not found or sum(found.values()) == pytest.approx(1.0)
    backwards = run([list(reversed(seen)) for seen in rounds])
    assert {h: s.score for h, s in backwards.items()} == pytest.approx({h: s.score for h, s in states.items()})
    assert {h: s.cooldown_until for h, s in backwards.items()} == {h: s.cooldown_until for h, s in states.items()}


def test_nobody_keeps_a_score_without_serving():
    def neuron(uid, hotkey, port=0, permit=False):
        return Neuron(uid=uid, hotkey=hotkey, coldkey="c", stake=1.0, validator_permit=permit, active=True,
                      ip="192.0.2.1" if port else "0.0.0.0", port=port, protocol=4, last_update=0, incentive=0.0,
                      dividends=0.0, emission=0, consensus=0.0, validator_trust=0.0, registered_at=0)  # fmt: skip

    neurons = (
        neuron(0, "owner"), neuron(1, "validator", permit=True), neuron(2, "serves", port=1), neuron(3, "hidden"),
        neuron(4, "hidden_with_permit", permit=True),
    )  # fmt: skip
    graph = Metagraph(netuid=1, block=1, block_hash="0x", tempo=1, neurons=neurons, owner_hotkey="owner")
    states = {name: ScoreState(name, score=0.5) for name in ("serves", "hidden_with_permit")}
    assert absent(graph, states) == ["hidden", "hidden_with_permit"]
    assert absent(graph, {}) == ["hidden"]
    after = fold_round(states, [], 1, silent=absent(graph, states))
    assert after["hidden_with_permit"].score < 0.5 == after["serves"].score


def test_a_fast_answer_that_was_not_checked_pushes_nobody_down():
    honest = [accepted("a", 50.0), accepted("b", 25.0)]
    garbage = Observation("c", "k", None, 1e-6, 1e9, unaudited=True)
    alone, beside = qualities(honest, RULES), qualities([*honest, garbage], RULES)
    assert beside[:2] == alone == [1.0, 0.625] and beside[2] == 1.0
    assert qualities([garbage], RULES) == [1.0], "with nothing checked there is no other mark"


def test_what_could_not_be_checked_is_checked_in_full_from_then_on():
    trusted = {"a": ScoreState("a", score=0.5, audits=50, last_round=1, last_answered=1)}
    after = fold_round(trusted, [Observation("a", "k", Outcome.INCONCLUSIVE, 0.2, 50.0)], 2)["a"]
    assert (after.score, after.audits, after.clean) == (0.5, 0, 0)
