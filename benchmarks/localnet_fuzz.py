#!/usr/bin/env python3
"""Tries to break the chain's rules for a while: random extrinsics, blocks and runtime APIs, every step checked.

    python benchmarks/localnet_fuzz.py --minutes 10 [--seed 1] [--steps 500]
    python benchmarks/localnet_fuzz.py --seed 4711 --only      that one chain again, with the way to its finding

Each chain lives for `--steps` steps from a seed of its own, counted up from `--seed`; every fourth has mainnet's
constants. What is checked is listed in tests/support/fuzz_chain.py. Prints one JSON document: how much ran, which
implemented calls never succeeded, and the findings with their seeds. Status 1 when there are any.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from localnet.runtime.profile import FAST, MAINNET
from tests.support.fuzz_chain import Finding, World


def run(seed: int, steps: int) -> tuple[World, dict[str, Any] | None]:
    """One chain from start to its last step or its finding."""
    world = World(seed, MAINNET if seed % 4 == 0 else FAST)
    for step in range(steps):
        try:
            world.step()
        except Finding as finding:
            return world, {"seed": seed, "step": step, "finding": str(finding)}
    return world, None


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--steps", type=int, default=500, help="steps of one chain")
    options.add_argument("--only", action="store_true", help="this seed and no other")
    chosen = options.parse_args()
    logging.disable(logging.CRITICAL)  # a refused call is no news here
    end = time.monotonic() + 60 * chosen.minutes
    seed, findings, outcomes = chosen.seed, [], Counter[str]()
    reached: Counter[tuple[str, str]] = Counter()
    names: set[tuple[str, str]] = set()
    while True:
        world, finding = run(seed, chosen.steps)
        outcomes.update(world.outcomes)
        reached.update(world.reached)
        names.update(world.sampler.names)
        if finding is not None:
            findings.append(finding)
            print(f"seed {seed}: {finding['finding']}", file=sys.stderr, flush=True)
        if chosen.only:
            print("\n".join(world.journal), file=sys.stderr)
        seed += 1
        if chosen.only or time.monotonic() > end:
            break
    report = {
        "seeds": [chosen.seed, seed - 1],
        "steps_per_chain": chosen.steps,
        "outcomes": dict(outcomes.most_common()),
        "calls": len(names),
        "never_succeeded": sorted(".".join(name) for name in names - set(reached)),
        "findings": findings,
        "resident_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(report, indent=2))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
