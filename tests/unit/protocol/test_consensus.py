"""The auditor's floats against the chain's integers: two writings of one rule, compared on random subnets."""

import random
from dataclasses import replace

import pytest

from localnet.rules import epoch as exact
from localnet.rules.yuma import EpochHyper
from protocol.consensus import U16, EpochInputs, LiquidAlpha, recompute

N = 9
BLOCK = 5000


def subnet(seed: int, **changes: object) -> EpochInputs:
    draw = random.Random(seed)
    validators = range(4)
    rows = {
        i: {j: float(draw.randint(0, U16)) for j in sorted(draw.sample(range(N), draw.randint(1, N)))}
        for i in validators
    }
    bonds = {i: {j: float(draw.randint(0, U16)) for j in range(N) if draw.random() < 0.6} for i in validators}
    inputs = EpochInputs(
        block=BLOCK,
        tempo=360,
        last_step=BLOCK - 360,
        stake=[float(draw.randint(10**9, 10**12)) if i < 5 else float(draw.randint(0, 10**6)) for i in range(N)],
        last_update=[BLOCK - draw.randint(1, 7000) for _ in range(N)],
        registered_at=[draw.choice((0, 100, BLOCK - 100)) for _ in range(N)],
        permits=[i < 4 for i in range(N)],
        weights=rows,
        bonds=bonds,
        kappa=32767 / U16,
        bonds_rate=0.1,
        bonds_penalty=draw.choice((0.0, 0.5, 1.0)),
        activity_cutoff=5000,
        owner_uid=draw.choice((None, 0, 6)),
    )
    return replace(inputs, **changes)  # type: ignore[arg-type]


def on_chain(inputs: EpochInputs) -> exact.EpochResult:
    hyper = EpochHyper(
        kappa=round(inputs.kappa * U16),
        bonds_moving_average=round((1 - inputs.bonds_rate) * 1e6),
        bonds_penalty=round(inputs.bonds_penalty * U16),
        activity_cutoff=inputs.activity_cutoff,
        tempo=inputs.tempo,
        yuma3=inputs.yuma3,
    )
    if inputs.liquid is not None:
        low, high = round(inputs.liquid.low * U16), round(inputs.liquid.high * U16)
        steepness = int(inputs.liquid.steepness)
        hyper = replace(hyper, liquid_alpha=True, alpha_low=low, alpha_high=high, steepness=steepness)
    return exact.run_epoch(
        exact.EpochInput(
            n=N,
            block=inputs.block,
            emission=10**9,
            stake=[int(weight) << 64 for weight in inputs.stake],
            last_update=inputs.last_update,
            registered_at=inputs.registered_at,
            permits=inputs.permits,
            weights={i: tuple((j, int(w)) for j, w in row.items()) for i, row in inputs.weights.items()},
            bonds={i: tuple((j, int(b)) for j, b in row.items()) for i, row in inputs.bonds.items()},
            hyper=hyper,
            last_step=inputs.last_step,
            owner_uid=inputs.owner_uid,
        )
    )


@pytest.mark.parametrize("rule", ["yuma2", "yuma3", "liquid"])
@pytest.mark.parametrize("seed", range(12))
def test_floats_and_integers_agree_to_two_units(rule: str, seed: int) -> None:
    liquid = LiquidAlpha(45875 / U16, 58982 / U16, 1000.0) if rule == "liquid" else None
    inputs = subnet(seed, yuma3=rule != "yuma2", liquid=liquid)
    ours, chain = recompute(inputs), on_chain(inputs)
    for shares, paid in ((ours.incentive, chain.incentive), (ours.dividends, chain.dividends)):
        off = [abs(int(share * U16) - unit) for share, unit in zip(shares, paid, strict=True)]
        assert max(off) <= 2, off


def test_a_wrong_payment_is_seen() -> None:
    inputs = subnet(3)
    generous = subnet(3, weights={**inputs.weights, 0: {8: 65535.0}})
    assert recompute(inputs).incentive != recompute(generous).incentive


def test_without_weights_nobody_has_incentive_and_stake_decides() -> None:
    shares = recompute(subnet(1, weights={}))
    assert not any(shares.incentive)
    assert sum(shares.combined) == pytest.approx(1.0)
