"""`touchstone status`: the subnet as the chain sees it, with the scores from validators' ledgers on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from neurons.output import print_json, print_table
from protocol.inference import MECHANISM
from protocol.metagraph import Metagraph, Neuron
from template.chain import Chain
from template.ledger import Ledger

ALPHA = 10**9  # alpha-rao per alpha


async def status(network: str, netuid: int, *, ledgers: list[Path] | None, data_dir: Path, as_json: bool) -> int:
    """Print the table. Raises TemplateError."""
    files = list(ledgers) if ledgers else sorted(data_dir.expanduser().glob("*/ledger.sqlite"))
    async with Chain(network) as chain:
        graph = await chain.metagraph(netuid)
        weights = {v.uid: await chain.weights_of(netuid, v.uid) for v in graph.validators}
    scores = _scores(files)
    rows = [_row(graph, neuron, weights, scores) for neuron in graph.neurons]
    if as_json:
        print_json({"network": network, "netuid": netuid, "block": graph.block, "tempo": graph.tempo, "neurons": rows})
        return 0
    columns = [
        "uid>", "role", "hotkey", "stake>", "score>", "weight>", "incentive>", "dividends>", "emission>", "axon",
    ]  # fmt: skip
    table = [
        [
            str(row["uid"]),
            row["role"],
            row["hotkey"][:10] + "...",
            f"{row['stake']:,.1f}",
            "" if row["score"] is None else f"{row['score']:.3f}",
            "" if row["weight"] is None else f"{row['weight']:.3f}",
            f"{row['incentive']:.4f}",
            f"{row['dividends']:.4f}",
            f"{row['emission'] / ALPHA:.4f}",
            row["axon"] or "-",
        ]
        for row in rows
    ]
    print_table(f"subnet {netuid} of {network}, block {graph.block}, tempo {graph.tempo}", columns, table)
    return 0


def _row(
    graph: Metagraph, neuron: Neuron, weights: dict[int, dict[int, float]], scores: dict[str, list[float]]
) -> dict[str, Any]:
    role = "owner" if neuron.hotkey == graph.owner_hotkey else "miner" if neuron.serves_work else "idle"
    if neuron.validator_permit and role != "owner":
        role = "validator" if not neuron.serves_work else "miner+permit"
    own = scores.get(neuron.hotkey)
    return {
        "uid": neuron.uid,
        "role": role,
        "hotkey": neuron.hotkey,
        "coldkey": neuron.coldkey,
        "stake": neuron.stake,
        "score": sum(own) / len(own) if own else None,
        "weight": _weight(graph, neuron.uid, weights),
        "incentive": neuron.incentive,
        "dividends": neuron.dividends,
        "emission": neuron.emission,
        "axon": f"{neuron.ip}:{neuron.port}" if neuron.is_serving else None,
    }


def _weight(graph: Metagraph, uid: int, weights: dict[int, dict[int, float]]) -> float | None:
    """Mean share over the validators that have set weights, by stake; None when none has."""
    stakes = {validator: graph.neurons[validator].stake for validator, row in weights.items() if row}
    total = sum(stakes.values())
    return sum(weights[v].get(uid, 0.0) * stake for v, stake in stakes.items()) / total if total else None


def _scores(files: list[Path]) -> dict[str, list[float]]:
    """hotkey -> score in each ledger. Raises LedgerError for a file that is no ledger."""
    found: dict[str, list[float]] = {}
    for file in files:
        with contextlib.closing(Ledger(file.expanduser(), create=False)) as ledger:
            for hotkey, state in ledger.scores(MECHANISM).items():
                found.setdefault(hotkey, []).append(state.score)
    return found
