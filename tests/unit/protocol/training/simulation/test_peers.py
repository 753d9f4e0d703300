"""Strategies: who works, who does not, and when."""

import numpy as np
import pytest

from protocol.training.simulation.peers import STRATEGIES, Act, Known, What, parse_mix, strategy_of


def known(window: int = 0, place: int = 0, audits: int = 0, barred: bool = False) -> Known:
    return Known(window, place, audits, trusted_from=8, barred=barred)


def test_a_mix_becomes_whole_peers() -> None:
    mix = parse_mix("honest=0.5, lazy=0.25,noise=0.25")
    assert strategy_of(mix, 4) == ["honest", "honest", "lazy", "noise"]
    for count in (1, 7, 10, 301):
        assert len(strategy_of(mix, count)) == count
    assert strategy_of({"honest": 0.9, "lazy": 0.1}, 3) == ["honest"] * 3
    assert strategy_of(parse_mix("honest=1"), 2) == ["honest", "honest"]


@pytest.mark.parametrize(
    "text", ["", "lazy", "honest=0.5", "honest=0.5,honest=0.5", "honest=2,lazy=-1", "honest=nan", "king=1", "honest=x"]
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_mix(text)


def test_work_and_its_cost() -> None:
    dice = np.random.default_rng(0).random(3000)
    work = {
        name: np.mean([STRATEGIES[name].act(known(audits=20), draw).share for draw in dice])
        for name in STRATEGIES
        if name != "colluder"
    }
    assert work == {
        "honest": 1.0,
        "slow": pytest.approx(0.9, abs=0.02),
        "absent": pytest.approx(2 / 3, abs=0.03),
        "lazy": 0.5,
        "rare": pytest.approx(0.95, abs=0.01),
        "patient": 0.5,
        "sybil": 0.5,
        "copier": 0.0,
        "noise": 0.0,
        "friend": 0.0,
    }


def test_patience_ends_when_audits_fall() -> None:
    for name in ("patient", "sybil"):
        act = STRATEGIES[name].act
        assert act(known(audits=8), 0.0) == Act(What.WORK, 1.0) and act(known(audits=9), 0.0) == Act(What.WORK, 0.5)
    assert [name for name, strategy in STRATEGIES.items() if strategy.returns] == ["sybil"]


def test_whoever_cheats_rests_while_it_cannot_earn() -> None:
    acts = {name: strategy.act(known(place=1, barred=True), 0.5).what for name, strategy in STRATEGIES.items()}
    assert {name for name, what in acts.items() if what is What.WORK} == {"honest", "slow", "absent"}
    assert set(acts.values()) == {What.WORK, What.AWAY}


def test_colluders_take_turns() -> None:
    act = STRATEGIES["colluder"].act
    for window in range(8):
        acts = [act(known(window, place, barred=False), 0.0) for place in range(8)]
        assert [one.what for one in acts].count(What.WORK) == 2
        assert {one.source for one in acts[:4]} == {None, window % 4}
        assert {one.source for one in acts[4:]} == {None, 4 + window % 4}
