"""What the rules make of peers over many windows: honest work is paid, and nothing that looks cheaper pays more."""

from collections.abc import Sequence

import numpy as np
import pytest

from protocol.training.simulation.peers import parse_mix, strategy_of
from protocol.training.simulation.setting import Account, Result, Setting, Validator
from protocol.training.simulation.world import honest_drops, simulate
from tests.support.losses import LOSSES

PEERS, WINDOWS = 20, 120


def setting(mix: str, peers: int = PEERS, windows: int = WINDOWS, **given: object) -> Setting:
    return Setting(strategy_of(parse_mix(mix), peers), windows, **given)  # type: ignore[arg-type]


def run(mix: str, seed: int = 0, **given: object) -> Result:
    return simulate(LOSSES, setting(mix, **given), np.random.default_rng(seed))


def of(result: Result, strategy: str) -> list[Account]:
    return [account for account in result.accounts if account.strategy == strategy]


def per_work(accounts: Sequence[Account]) -> float:
    """Alpha for a window's worth of steps, registrations paid."""
    return sum(one.earned - one.fees for one in accounts) / sum(one.work for one in accounts)


@pytest.fixture(scope="module")
def cheats() -> Result:
    return run(
        "honest=0.4,lazy=0.08,rare=0.16,patient=0.12,copier=0.04,noise=0.04,colluder=0.16", peers=25, windows=200
    )


def test_honest_peers_are_never_rejected_and_share_everything() -> None:
    result = run("honest=1", windows=60)
    assert all(one.rejected == 0 and one.entered == one.helped > 0 for one in result.accounts)
    assert all(one.work == one.shown == 60 and one.hotkeys == 1 for one in result.accounts)
    assert sum(one.earned for one in result.accounts) + result.burned == pytest.approx(60 * 12.3)
    assert result.burned == pytest.approx(0.0, abs=1e-9)
    assert len(result.losses) == 61 and result.losses[-1] < result.losses[0] - 1.0


def test_a_seed_gives_the_same_result() -> None:
    first, again, other = (run("honest=0.8,rare=0.1,sybil=0.1", seed, windows=40) for seed in (1, 1, 2))
    assert first == again and first.losses != other.losses


def test_audits_of_honest_peers_fall_with_trust_and_with_collateral() -> None:
    free, bound = (run("honest=1", peers=4, windows=600, collateral=alpha) for alpha in (0.0, 10_000.0))
    for result in (free, bound):
        assert all(one.replayed < 0.4 * 3 * one.helped for one in result.accounts), (
            "three validators audit all at first"
        )
    assert sum(one.replayed for one in bound.accounts) < sum(one.replayed for one in free.accounts)


@pytest.mark.parametrize("strategy", ["lazy", "rare", "patient", "colluder"])
def test_cheating_pays_less_for_the_work_than_honesty(cheats: Result, strategy: str) -> None:
    found, honest = of(cheats, strategy), of(cheats, "honest")
    assert sum(one.rejected for one in found) > 0 and per_work(found) < per_work(honest)
    assert all(one.rejected == 0 for one in honest), "nor do they take anybody honest with them"


def test_what_costs_nothing_earns_nothing(cheats: Result) -> None:
    for one in (*of(cheats, "copier"), *of(cheats, "noise")):
        assert (one.work, one.earned, one.entered) == (0.0, 0.0, 0)
    assert all(one.rejected > 0 for one in of(cheats, "copier"))
    assert all(one.earned == one.entered == 0 for one in of(cheats, "lazy")), "newcomers are always audited"


@pytest.mark.parametrize("price", [0.0, 1.0])
def test_registering_again_does_not_pay(price: float) -> None:
    result = run("honest=0.8,sybil=0.2", price=price)
    sybils = of(result, "sybil")
    assert sum(one.hotkeys for one in sybils) > 3 * len(sybils)
    assert sum(one.fees for one in sybils) == price * sum(one.hotkeys - 1 for one in sybils)
    assert per_work(sybils) < per_work(of(result, "honest"))
    states = result.states[0]
    assert len(states) <= PEERS, "hotkeys that are gone are forgotten"


def test_absence_costs_more_than_the_windows_missed() -> None:
    result = run("honest=0.5,absent=0.5")
    assert 0.0 < per_work(of(result, "absent")) < per_work(of(result, "honest"))
    assert all(one.rejected == 0 for one in result.accounts)


def friendly(share: float) -> tuple[Validator, ...]:
    stake = round(1000 * share)
    return (Validator(500 - stake // 2), Validator(500 - stake // 2), Validator(stake, friendly=True))


@pytest.mark.parametrize("share", [0.2, 0.48])
def test_a_validator_below_half_of_the_stake_gets_its_friends_nothing(share: float) -> None:
    result = run("honest=0.8,friend=0.2", windows=60, validators=friendly(share))
    assert all(one.shown > 0 and one.entered == 0 and one.earned == 0.0 for one in of(result, "friend"))
    assert sum(one.earned for one in of(result, "honest")) == pytest.approx(60 * 12.3)


def test_above_half_it_takes_everything_and_the_model_suffers() -> None:
    few, many = (run("honest=0.8,friend=0.2", windows=60, validators=friendly(share)) for share in (0.2, 0.6))
    assert all(one.entered == one.shown == 60 for one in of(many, "friend"))
    assert sum(one.earned for one in of(many, "friend")) == pytest.approx(60 * 12.3)
    assert many.losses[-1] > few.losses[-1] + 0.02


def test_fewer_honest_peers_learn_more_slowly_than_if_all_were() -> None:
    mixed = setting("honest=0.25,noise=0.75", windows=60)
    best = honest_drops(LOSSES, mixed, np.random.default_rng(1))
    found = simulate(LOSSES, mixed, np.random.default_rng(0))
    assert len(best) == 60 and sum(best) > sum(found.drops) > 0.0
    assert found.losses[0] - found.losses[-1] == pytest.approx(sum(found.drops))


def test_a_held_model_stays_where_it_is() -> None:
    found = run("honest=1", windows=20, hold=6.5)
    assert set(found.losses) == {6.5} and min(found.drops) > 0.0
    assert min(honest_drops(LOSSES, setting("honest=1", windows=20, hold=6.5), np.random.default_rng(0))) > 0.0


def test_the_caller_is_told_of_every_window() -> None:
    told: list[tuple[int, float]] = []
    result = simulate(LOSSES, setting("honest=1", 4, 5), np.random.default_rng(0), lambda *at: told.append(at))
    assert told == list(enumerate(result.losses[:-1]))


@pytest.mark.parametrize(
    "given",
    [
        {"validators": ()},
        {"validators": (Validator(0),)},
        {"windows": 0},
        {"price": -1.0},
        {"emission": float("nan")},
        {"peers": 0},
        {"hold": 0.0},
    ],
)
def test_what_cannot_be_simulated_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        setting("honest=1", **given)  # type: ignore[arg-type]
