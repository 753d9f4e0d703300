"""The chain pays what more than half of the stake stands behind."""

import pytest

from protocol.training.simulation.chain import incentive_of


def test_validators_who_agree_pay_what_they_say() -> None:
    row = {3: 0.75, 4: 0.25}
    assert incentive_of([2, 1], {1: row, 2: row}, 5) == pytest.approx([0.0, 0.0, 0.0, 0.75, 0.25])


def test_what_less_than_half_of_the_stake_says_is_cut_off() -> None:
    honest, friends = {3: 1.0}, {4: 1.0}
    assert incentive_of([55, 45], {1: honest, 2: friends}, 5) == pytest.approx([0.0, 0.0, 0.0, 1.0, 0.0])
    assert incentive_of([45, 55], {1: honest, 2: friends}, 5) == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0])


def test_nothing_said_pays_nothing_and_the_owner_can_be_named() -> None:
    assert sum(incentive_of([1], {1: {}}, 3)) == 0.0
    assert incentive_of([1], {1: {0: 1.0}}, 3) == pytest.approx([1.0, 0.0, 0.0])
