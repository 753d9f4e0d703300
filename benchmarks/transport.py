"""Signed round trips and fan-out: this transport beside bittensor 10.5.0 and taowire 0.1.0a2, in one run.

    python benchmarks/transport.py                       # all three, about three minutes once installed
    python benchmarks/transport.py --only touchstone     # seconds
    python benchmarks/transport.py --json out.json

Every peer gets the same arrangement on this machine, one after the other, nothing pinned:

* round trips: one miner process, one caller process with one hotkey that keeps `--in-flight` requests of a
  `--body-bytes` JSON body in work for `--seconds` after `--warmup`. The handler returns the payload's length.
  Only correct answers count; time is from before signing to after checking.
* fan-out: `--miners` miners, each with its own hotkey and port, in `--hosts` processes; one caller asks all of them
  once, `--rounds` times with one client, so the first round opens every connection and later ones reuse them (where
  the client does). The slowest round counts. Client concurrency is each client's own default (ours 256, taowire 64,
  dendrite unbounded above aiohttp's 100 connections).

What differs and cannot be made equal: Touchstone and taowire sign both ways, v10 signs requests only. `taowire bench`
does not check the response signature in its round trips (it does in its fan-out) and is run with one worker and its
memory stores, since more need Redis; Touchstone checks it and journals nonces to disk. v10 refuses a request that
overtook a later one (its nonce must grow); such failures are counted in `failed`.

The peers live in virtual environments below $TOUCHSTONE_CACHE (default ~/.cache/touchstone), made on first use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import environments

PEERS = {"bittensor": "bittensor==10.5.0", "taowire": "taowire==0.1.0a2"}
TARGETS = {"round_trips_per_second": 1500, "fanout_slowest_s": 0.25}


def script(python: Path, name: str, a: argparse.Namespace) -> dict[str, Any]:
    """Run one of benchmarks/peers under the load of `a`."""
    return environments.script(python, name, [f"--{o.replace('_', '-')}={getattr(a, o)}" for o in SHARED])


def touchstone(a: argparse.Namespace) -> dict[str, Any]:
    return {"signed": "both ways", **script(Path(sys.executable), "touchstone_peer.py", a)}


def bittensor(a: argparse.Namespace) -> dict[str, Any]:
    python = environments.environment("bittensor", PEERS["bittensor"]) / "python"
    return {"version": "10.5.0", "signed": "requests", **script(python, "bittensor_v10.py", a)}


def taowire(a: argparse.Namespace) -> dict[str, Any]:
    """`taowire bench` with our arrangement; its report in our words."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [str(environments.environment("taowire", PEERS["taowire"]) / "taowire"), "bench", "--skip", "auth"]
        command += ["--workers", "1", "--clients", "1"]
        command += ["--duration", str(a.seconds), "--warmup", str(a.warmup), "--concurrency", str(a.in_flight)]
        command += ["--body-bytes", str(a.body_bytes), "--fanout-miners", str(a.miners)]
        command += ["--fanout-hosts", str(a.hosts), "--fanout-rounds", str(a.rounds), "--miner-cpus", "none"]
        command += ["--client-cpus", "none", "--log-level", "WARNING", "--json", str(report)]
        environments.run(command)
        found = json.loads(report.read_text())
    through, fan = found["throughput"], found["fanout"]
    return {
        "version": found["environment"]["taowire"],
        "signed": "both ways",
        "throughput": {
            "per_second": through["rps"],
            "p50_ms": through["latency_ms"]["p50"],
            "p99_ms": through["latency_ms"]["p99"],
            "ok": through["ok"],
            "failed": {k: v for k, v in through["statuses"].items() if k != "200"},
        },
        "fanout": {
            "rounds_s": fan["round_s"],
            "first_s": fan["first_round_s"],
            "slowest_s": fan["slowest_round_s"],
            "ok": fan["n_ok_verified"],
        },
    }


SHARED = ("seconds", "warmup", "in_flight", "body_bytes", "miners", "hosts", "rounds")
SUBJECTS = {"touchstone": touchstone, "bittensor": bittensor, "taowire": taowire}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--body-bytes", type=int, default=1024)
    parser.add_argument("--miners", type=int, default=256)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="may be given more than once")
    parser.add_argument("--json", type=Path, help="also write the result here")
    a = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "transport",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "arrangement": {o: getattr(a, o) for o in SHARED},
        "targets": TARGETS,
        "results": {},
    }
    for name in a.only or SUBJECTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        started = time.perf_counter()
        measured = SUBJECTS[name](a)
        result["results"][name] = {
            **measured,
            "load_average_before": round(load, 2),  # what else this machine was doing
            "took_s": round(time.perf_counter() - started, 1),
        }
    text = json.dumps(result, indent=2)
    print(text)
    if a.json:
        a.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
