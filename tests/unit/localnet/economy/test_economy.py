"""Economic experiments: the same figures as the chain, and the classic claims about cheating on a subnet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from localnet.economy import (
    Entrant,
    EpochHyper,
    Miner,
    Scenario,
    Settings,
    Validator,
    World,
    measuring,
    once,
    self_weighting,
    swarm,
)
from localnet.economy.report import draw, experiment, load, names, table
from localnet.economy.running import run
from localnet.economy.scenarios import cabal, copier, lazy, sybils
from localnet.economy.world import Floats, View, Weighing
from localnet.errors import ConfigError
from localnet.rules.epoch import EpochResult
from localnet.rules.errors import RuleError
from localnet.runtime.subtensor import epochs
from tests.support.spec_chain import TAO, Chain, key

PARTS = {"val1": (0, 0, 0, 0, 5, 1), "val2": (0, 0, 0, 0, 2, 3)}  # weights by uid: owner, validators, idle, miners


def fixed(*weights: float) -> Weighing:
    def weigh(view: View) -> Floats:
        return np.array(weights, dtype=np.float64)

    return weigh


@pytest.mark.parametrize("liquid", [False, True])
def test_epochs_and_payouts_are_the_chain_s_to_the_last_unit(liquid: bool) -> None:
    chain = Chain()
    netuid = chain.subnet()
    chain.p.LiquidAlphaOn[netuid] = liquid  # by the consensus of the epoch before, which is the chain's default
    chain.p.OwnerCutEnabled[netuid] = False
    for name, amount in (("val1", 300), ("val2", 200), ("idle", 0), ("miner1", 0), ("miner2", 0)):
        chain.neuron(netuid, name)
        if amount:
            chain.stake(netuid, name, amount * TAO)
    tempo = chain.p.Tempo[netuid]
    chain.next_to(chain.p.LastEpochBlock[netuid] + tempo)  # permits
    for name, weights in PARTS.items():
        dests = [uid for uid, weight in enumerate(weights) if weight]
        chain.do(
            name, "set_weights", netuid=netuid, dests=dests, weights=[weights[uid] for uid in dests], version_key=0
        )
    stake = {name: chain.p.TotalHotkeyAlpha[key(name), netuid] for name in PARTS}

    results: list[EpochResult] = []
    world = World(
        validators=[
            Validator("owner", 0.0, fixed(*[0.0] * 6)),
            *(Validator(name, stake[name] / TAO, fixed(*weights)) for name, weights in PARTS.items()),
        ],
        miners=[Miner("idle"), Miner("miner1"), Miner("miner2")],
        settings=Settings(hyper=dataclasses.replace(epochs.hyperparameters(chain.p, netuid), tempo=tempo), owner_cut=0),
        owner="owner",
    )
    outcome = run(world, 4, watch=lambda epoch, result: results.append(result))
    mined = 0
    for result in results:
        chain.next(tempo)
        p = chain.p
        assert tuple(p.Incentive[netuid]) == result.incentive and any(result.incentive)
        assert tuple(p.Dividends[netuid]) == result.dividends
        assert tuple(p.Consensus[netuid]) == result.consensus
        assert tuple(p.Emission[netuid]) == result.emission
        for name in ("miner1", "miner2"):  # sell what they earned
            mined += (amount := p.TotalHotkeyAlpha[key(name), netuid])
            chain.do("Bob", "remove_stake", hotkey=key(name), netuid=netuid, amount_unstaked=amount)
    for name in PARTS:
        earned = chain.p.TotalHotkeyAlpha[key(name), netuid] - stake[name]
        assert abs(earned - sum(outcome.accounts[name].dividends) * TAO) < 4, name  # floats of the account
    assert mined == pytest.approx(sum(outcome.accounts["miners"].incentive) * TAO, abs=4)


def test_a_copier_earns_less_behind_commit_reveal_and_not_without() -> None:
    report = experiment(copier.SCENARIO, epochs=120)
    for variant, behind in (
        ("open weights", False),
        ("revealed after 1 epoch", True),
        ("revealed after 3 epochs", True),
    ):
        honest, copied = (report.of(variant, party).yield_per_epoch for party in ("honest", "copier"))
        assert honest is not None and copied is not None
        assert (copied < 0.9 * honest) == behind, variant


def test_below_kappa_a_cabal_cannot_pay_itself() -> None:
    report = experiment(cabal.SCENARIO, epochs=40)
    for variant in cabal.SCENARIO.variants:
        paid = report.of(variant, "cabal").incentive
        if float(variant.split("%")[0]) < 50:
            assert paid == 0.0, variant
        else:
            assert paid > 0.0 and report.of(variant, "miners").incentive == 0.0, variant


def test_old_weights_earn_less_and_silence_nothing() -> None:
    report = experiment(lazy.SCENARIO, epochs=120)
    worst = "scores drift by 10% an epoch"
    rates = [report.of(worst, party).yield_per_epoch for party in ("diligent", "every 20th", "never again", "silent")]
    assert all(rate is not None for rate in rates) and sorted(rates, reverse=True) == rates, rates  # type: ignore[type-var]
    silent = report.outcomes[worst].accounts["silent"].dividends
    assert silent[19] > 0 and not any(silent[40:])


def test_an_owner_s_self_weight_is_heard_and_its_incentive_burned() -> None:
    def world(owner: str | None) -> World:
        return World(
            validators=[Validator("selfish", 600, self_weighting()), Validator("other", 400, measuring(0.0))],
            miners=[Miner("a"), Miner("b")],
            owner=owner,
        )

    report = experiment(Scenario("x", {"plain": world(None), "owner": world("selfish")}), epochs=10)
    assert report.burned == {"plain": 0.0, "owner": pytest.approx(147.6 * 10, rel=0.01)}
    assert report.of("owner", "selfish").incentive == 0.0 and report.of("owner", "miners").incentive == 0.0
    assert report.of("plain", "miners").incentive == 0.0  # 40 % of the stake is no majority


def test_places_cost_what_the_chain_charges_and_the_full_subnet_prunes() -> None:
    world = World(
        validators=[Validator("v", 1_000, measuring(0.0))],
        miners=[Miner(f"m{i}", worth=1.0) for i in range(13)] + [Miner("weak", worth=0.1)],
        entrants=[Entrant("late", 1.0, lambda market: 1 if market.epoch == 2 else 0)],
        settings=Settings(EpochHyper(yuma3=True, tempo=100), max_uids=15, immunity=50, price=4.0, min_price=4.0),
    )
    outcome = run(world, 5)
    assert outcome.accounts["late"].paid == [0.0, 0.0, 4.0, 0.0, 0.0]
    assert outcome.accounts["late"].places == [0, 0, 1, 1, 1]
    assert outcome.accounts["miners"].places == [14, 14, 13, 13, 13]
    assert outcome.accounts["late"].incentive[3] > 0.0
    assert 4.0 < outcome.price[2] < 4.0 * 1.26 and outcome.price[1] == 4.0


def test_weights_on_a_replaced_uid_do_not_count_while_older_commits_wait() -> None:
    world = World(
        validators=[Validator("v", 1_000, measuring(0.0))],
        miners=[Miner(f"m{i}") for i in range(13)] + [Miner("weak", worth=0.5)],
        entrants=[Entrant("late", 1.0, lambda market: 1 if market.epoch == 4 else 0)],
        settings=Settings(EpochHyper(yuma3=True, tempo=100), reveal_period=3, max_uids=15, immunity=50),
    )
    late = run(world, 9).accounts["late"]
    assert late.places[4:] == [1] * 5
    assert [paid > 0 for paid in late.incentive] == [False] * 6 + [True] * 3  # two epochs with a place and without pay


def test_collateral_comes_free_with_earnings_and_is_stranded_with_a_lost_place() -> None:
    buys_once = Entrant("late", 1.0, lambda market: 1 if market.epoch == 1 else 0)
    settings = Settings(EpochHyper(yuma3=True, tempo=100), price=80.0, min_price=80.0, lock_share=0.75)
    working = World([Validator("v", 1_000, measuring(0.0))], [Miner("m")], [buys_once], settings=settings)
    late = run(working, 6).accounts["late"]
    assert late.paid[1] == pytest.approx(20.0, abs=0.01)
    earned = 0.0
    for locked, incentive in zip(late.locked[1:], late.incentive[1:], strict=True):
        earned += incentive
        assert locked == pytest.approx(max(60.0 - earned, 0.0), abs=0.01)
    assert 0.0 < late.locked[1] < 60.0 and late.locked[-1] == 0.0

    full = dataclasses.replace(settings, max_uids=14, immunity=10)
    useless = Entrant("late", 0.0, lambda market: 1 if market.epoch in (1, 3) else 0)
    crowd = World(
        [Validator("v", 1_000, measuring(0.0))], [Miner(f"m{i}") for i in range(13)], [useless], settings=full
    )
    lost = run(crowd, 6).accounts["late"]
    assert lost.places[-1] == 1 and lost.locked[-1] == pytest.approx(120.0, abs=0.5)


def test_pay_for_work_makes_a_swarm_worthless() -> None:
    report = experiment(sybils.SCENARIO, epochs=100)
    per_uid, for_work = (report.of(f"pay {how}, places from 5", "swarm") for how in ("per uid", "for work"))
    assert per_uid.net > 10 * max(for_work.net, 1.0)
    assert per_uid.places > 5 * for_work.places
    for one in report.findings:
        assert one.net == pytest.approx(one.dividends + one.incentive - one.paid - one.locked)
    assert per_uid.paid > 0 and report.of("pay per uid, places from 5, 90 % locked", "swarm").locked > 0


def test_the_same_seed_gives_the_same_outcome() -> None:
    world = copier.world(1)
    assert run(world, 12, seed=5) == run(world, 12, seed=5) != run(world, 12, seed=6)


def test_one_lazy_strategy_may_serve_two_validators_and_two_runs() -> None:
    shared = once(measuring(0.3))
    world = World([Validator("a", 10, shared), Validator("b", 10, shared)], [Miner("m"), Miner("n", 3.0)])
    first = run(world, 3)
    assert first.accounts["a"].dividends != first.accounts["b"].dividends  # each measured for itself
    assert run(world, 3) == first


@pytest.mark.parametrize(
    ("world", "problem"),
    [
        (World([Validator("a", 1, fixed(1.0))], [Miner("a")]), "same name"),
        (World([Validator("a", 1, fixed(1.0))], owner="b"), "owner 'b'"),
        (World([Validator("a", 1, fixed(1.0, 2.0))]), "a gave weights that are not 1 numbers"),
        (World([Validator("a", 1, fixed(-1.0))]), "a gave weights"),
        (World([Validator("a", 1, fixed(0.0, 1.0))], [Miner("m")], settings=Settings(max_uids=1)), "do not fit"),
    ],
)
def test_worlds_that_cannot_be_are_refused(world: World, problem: str) -> None:
    with pytest.raises(RuleError, match=problem):
        run(world, 1)


def test_scenarios_load_by_name_and_from_files(tmp_path: Path) -> None:
    assert names() == ["cabal", "copier", "lazy", "self_weighting", "sybils"]
    assert all(isinstance(load(name), Scenario) for name in names())
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from localnet.economy import *\n"
        "SCENARIO = Scenario('Mine', {'one': World([Validator('v', 9, measuring())], [Miner('m')])}, epochs=3)\n"
    )
    report = experiment(load(str(mine)), seeds=2)
    assert report.epochs == 3 and report.of("one", "v").dividends > 0
    assert any("Mine" not in line and line.startswith("one") for line in table(report))
    draw(report, tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    mine.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no SCENARIO"):
        load(str(mine))
    with pytest.raises(ConfigError, match="cannot read"):
        load(str(tmp_path / "none.py"))
    with pytest.raises(ConfigError, match="no scenario 'copyer'"):
        load("copyer")


def test_a_swarm_stops_when_a_place_costs_more_than_it_brings() -> None:
    from localnet.economy.world import Market

    def market(price: float, held: int = 0) -> Market:
        return Market(0, price, held, 1.26, 1.0, np.random.default_rng(0))

    wanted = swarm(horizon=10, at_once=8, most=12)
    assert [wanted(market(price)) for price in (1.0, 8.0, 10.0, 10.1)] == [8, 1, 1, 0]
    assert wanted(market(1.0, held=11)) == 1
