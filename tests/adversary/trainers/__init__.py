"""Dishonest miners of mechanism 1: what they make of a window is wrong, how they speak of it is not.

    ATTACKS[name]                   what it does, and what becomes of it (library.py)
    make = attack.armed(others)     for one miner: Workbench -> Kept, window after window; in a process of its own with
                                    `TrainMiner(make=make, others=others)`, in memory as a `cohort.Member`
    attack.shown(kept, size)        what validators find of it
    backdoor_loss(...)              how well a model has learned what "backdoor" plants (backdoor.py)

Read library.py first; making.py has what each does at its bench. What they earn, and what they do to the model, is
measured by `touchstone train attack-bench`.
"""

from __future__ import annotations

from tests.adversary.trainers.backdoor import backdoor_loss, planted_tokens
from tests.adversary.trainers.library import ATTACKS, Attack, End, Make, Reveals
from tests.adversary.trainers.making import Scheme

__all__ = ["ATTACKS", "Attack", "End", "Make", "Reveals", "Scheme", "backdoor_loss", "planted_tokens"]
