"""Random subnets, made from a seed: what epochs branch on, in all combinations.

Few and many neurons; equal, dominant, huge and no stakes, and such below the threshold; silent and unpermitted
validators; weights on replaced neurons and on oneself, rows that are empty or out of order; bonds from before a
registration; children, root stake, an owner, commits; every hyperparameter of consensus.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from localnet.rehearsal.subnet_states import BONDS_MAX, Hyper, Pairs, Subnet

SIZES = (1, 2, 3, 5, 8, 13, 24, 40)
TEMPOS = (10, 50, 99, 360)


def random_subnet(seed: int) -> Subnet:
    """The same subnet for the same seed, on every machine."""
    rng = random.Random(f"subnet {seed}")
    n, hyper = rng.choice(SIZES), _random_hyper(rng)
    base = Subnet([], [], [], [], {}, {}, hyper)
    ages = [
        rng.choice((rng.randrange(1, 400), rng.randrange(1, 12_000), hyper.tempo, hyper.tempo + 1)) for _ in range(n)
    ]
    registered = [base.block - age for age in ages]
    updated = [_update_block(rng, base, since) for since in registered]
    return replace(
        base,
        stakes=_random_stakes(rng, n),
        last_update=updated,
        registered_at=registered,
        permits=[rng.random() < 0.7 for _ in range(n)],
        weights={uid: _random_row(rng, n, uid) for uid in range(n) if rng.random() < 0.8},
        bonds={uid: _random_bonds(rng, n) for uid in range(n) if rng.random() < 0.6},
        **_random_root(rng, n),
        children=_random_children(rng, n),
        owner=rng.randrange(n) if rng.random() < 0.3 else None,
        commits=_random_commits(rng, base, n),
        previous_consensus=[rng.randrange(65_536) for _ in range(n)] if rng.random() < 0.5 else [],
        consensus_mode=rng.choice(("Current", "Current", "Previous", "Auto")),
    )


def _random_hyper(rng: random.Random) -> Hyper:
    yuma3 = rng.random() < 0.4
    low = rng.randrange(1_638, 60_000)
    return Hyper(
        tempo=rng.choice(TEMPOS),
        kappa=rng.choice((0, 16_384, 32_767, 32_767, 49_151, 65_535)),
        bonds_moving_average=rng.choice((0, 500_000, 900_000, 975_000, 999_999, 1_000_000)),
        bonds_penalty=rng.choice((0, 65_535, 65_535, rng.randrange(65_536))),
        max_validators=rng.choice((1, 2, 3, 8, 64, 128)),
        activity_tempos=rng.choice((1_000, 2_500, 13_889)),
        stake_threshold=rng.choice((0, 0, 0, 1_000, 10**12)),
        liquid_alpha=rng.random() < 0.5,
        yuma3=yuma3,
        alpha_values=(low, rng.randrange(low, 65_536)),
        steepness=rng.choice((1_000, 1_000, 100, -500, 0, 32_767)),
    )


def _random_stakes(rng: random.Random, n: int) -> list[int]:
    kind = rng.choice(("spread", "equal", "one", "none", "dust", "huge"))
    if kind == "equal":
        return [10**12] * n
    if kind == "one":
        return [10**14 if uid == 0 else rng.randrange(10) for uid in range(n)]
    if kind == "none":
        return [0] * n
    if kind == "dust":
        return [rng.randrange(50) for _ in range(n)]
    top = 21 * 10**15 if kind == "huge" else 10**13
    return [int(rng.paretovariate(0.7) * 10**9) % top if rng.random() < 0.8 else 0 for _ in range(n)]


def _update_block(rng: random.Random, base: Subnet, registered: int) -> int:
    cutoff = base.hyper.activity_cutoff
    return rng.choice((
        base.block - rng.randrange(1, 100), base.block - cutoff, base.block - cutoff - 1, registered, registered - 1, 0,
        min(registered + 1, base.block),
    ))  # fmt: skip


def _random_row(rng: random.Random, n: int, uid: int) -> Pairs:
    """Weights of one validator: sometimes on itself, with zeros, out of order."""
    columns = [column for column in range(n) if rng.random() < rng.choice((0.2, 0.9))]
    if rng.random() < 0.2:
        rng.shuffle(columns)
    kind = rng.choice(("random", "equal", "max-scaled"))
    values = [rng.randrange(65_536) if rng.random() < 0.9 else 0 for _ in columns]
    if kind == "equal":
        values = [65_535] * len(columns)
    elif kind == "max-scaled" and values and max(values):
        values = [value * 65_535 // max(values) for value in values]
    return list(zip(columns, values, strict=True))


def _random_bonds(rng: random.Random, n: int) -> Pairs:
    return [(column, rng.randrange(BONDS_MAX + 1)) for column in range(n) if rng.random() < 0.6]


def _random_root(rng: random.Random, n: int) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {}
    return {
        "root": [rng.randrange(10**13) for _ in range(n)],
        "tao_weight": rng.choice((971_718_665_099_567_868, 0, 1 << 60)),
    }


def _random_children(rng: random.Random, n: int) -> dict[int, Pairs]:
    if n < 3 or rng.random() < 0.6:
        return {}
    parents = rng.sample(range(n), rng.randrange(1, max(2, n // 3)))
    out = {}
    for parent in parents:
        others = [uid for uid in range(n) if uid != parent]
        chosen = rng.sample(others, min(len(others), rng.randrange(1, 4)))
        left, given = (1 << 64) - 1, []
        for child in chosen:
            share = rng.randrange(left // 2 + 1)
            left -= share
            given.append((share, child))
        out[parent] = given
    return out


def _random_commits(rng: random.Random, base: Subnet, n: int) -> dict[int, int]:
    """Of this epoch and the one before, which can still be revealed, and older ones."""
    if rng.random() < 0.75:
        return {}
    epochs = (0, 0, 1, 1, 2, 5)
    return {
        uid: base.block - rng.choice(epochs) * (base.hyper.tempo + 1) - rng.randrange(1, base.hyper.tempo)
        for uid in range(n)
        if rng.random() < 0.4
    }
