#!/usr/bin/env python3
"""SIGKILL at random moments, again and again, against one chain with a state file that makes a block every 10 ms.

    python benchmarks/localnet_crash.py --times 200 [--seed 1] [--longest 1.0]

Transfers come in all the time. After every kill the file is opened and checked (tests/support/crash.py says how), and
the next round goes on with it. Prints one JSON document; status 1 when the chain was not what clients had seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from localnet.errors import LocalnetError
from tests.support.crash import Inconsistent, rounds


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--longest", type=float, default=1.0, help="seconds of load before a kill, at most")
    options.add_argument("--retrace", type=int, default=20, help="newest blocks that are made again after each kill")
    chosen = options.parse_args()
    rng, began = random.Random(chosen.seed), time.monotonic()
    lines, failure = [], None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.sqlite"
        for _ in range(chosen.times):
            try:
                lines += asyncio.run(rounds(file, 1, rng, chosen.longest, chosen.retrace))
            except (Inconsistent, LocalnetError) as error:
                failure = f"{type(error).__name__} after {len(lines)} kills: {error}"
                break
            if len(lines) % 20 == 0:
                print(f"{len(lines)} kills, block {lines[-1]['stored']}", file=sys.stderr, flush=True)
        size = file.stat().st_size if file.exists() else 0
    report = {
        "kills": len(lines),
        "seed": chosen.seed,
        "before_the_node_answered": sum(not line["ready"] for line in lines),
        "blocks": lines[-1]["stored"] if lines else 0,
        "transfers_taken": sum(line["transfers"] for line in lines),
        "announced_blocks_lost": dict(Counter(line["lost"] for line in lines)),
        "file_mib": round(size / 2**20, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "failure": failure,
    }
    print(json.dumps(report, indent=2))
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
