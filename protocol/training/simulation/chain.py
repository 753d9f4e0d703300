"""What the chain pays for a window: Yuma consensus (protocol/consensus.py), as if every window ended an epoch.

incentive_of(stakes, rows, count)      shares of 1 by uid; uids are the owner, the validators, the miners
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.consensus import EpochInputs, recompute

KAPPA = 0.5  # of the stake has to stand behind a weight; the chain's default


def incentive_of(stakes: Sequence[int], rows: Mapping[int, Mapping[int, float]], count: int) -> Sequence[float]:
    """`stakes`: of the validators, who have the uids from 1 on and permits; `rows`: their weights, all of them new;
    `count`: of all uids, none of which was registered since."""
    validators = range(1, 1 + len(stakes))
    inputs = EpochInputs(
        block=2,
        tempo=1,
        last_step=1,
        stake=[0.0, *map(float, stakes), *[0.0] * (count - 1 - len(stakes))],
        last_update=[1] * count,
        registered_at=[0] * count,
        permits=[uid in validators for uid in range(count)],
        weights=rows,
        bonds={},
        kappa=KAPPA,
        bonds_rate=0.0,
        bonds_penalty=0.0,
        activity_cutoff=1,
    )
    return recompute(inputs).incentive
