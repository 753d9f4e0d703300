"""A subnet's last epochs, read from the history that a node keeps.

`timeline(client, netuid, epochs)` walks back from epoch to epoch (each block knows when the subnet's previous one ran)
and reads what each of them left: hotkeys, consensus, incentive, dividends, emission, the price, and the weights from
before its block (those that the block itself opened from timelocks count in the epoch, and show in the next one).
`localnet.timeline_svg` draws it. Works on every runtime that has SubtensorModule: what an older one does not store
(stake weights, a price from before subnets had a currency) is null.

Shares are fractions of 1, amounts alpha-rao, prices TAO per alpha.
"""

from __future__ import annotations

from typing import Any

import bittensor_core

from localnet.client import Client
from localnet.errors import ChainError

DEFAULT_EPOCHS, MAX_EPOCHS = 12, 1000
PALLET = "SubtensorModule"
VECTORS = {  # name here -> storage item, all of 65535
    "consensus": "Consensus", "incentive": "Incentive", "dividends": "Dividends",
    "validator_trust": "ValidatorTrust", "stake": "StakeWeight",
}  # fmt: skip


def timeline(client: Client, netuid: int, epochs: int = DEFAULT_EPOCHS) -> dict[str, Any]:
    """The newest `epochs` epochs, oldest first; fewer when there were fewer or their state is not kept any more.

    Raises ChainError when the subnet does not exist.
    """
    chain = client.chain
    if not 0 <= netuid < 1 << 16 or not client.query(PALLET, "NetworksAdded", netuid):
        raise ChainError(f"there is no subnet {netuid}")
    blocks = _epoch_blocks(client, netuid, epochs)
    return {
        "netuid": netuid,
        "block": chain.head.number,
        "oldest_state": chain.state.oldest,
        "hotkeys": _hotkeys(client, netuid, chain.head.number),
        "epochs": [_epoch(client, netuid, block) for block in blocks],
    }


def _hotkeys(client: Client, netuid: int, block: int) -> list[str]:
    """By uid: a uid may have been another hotkey's at the time."""
    hotkeys = client.query_map(PALLET, "Keys", netuid, block=block)
    return [bittensor_core.ss58_encode(hotkeys[uid], 42) for uid in sorted(hotkeys)]


def _epoch_blocks(client: Client, netuid: int, most: int) -> list[int]:
    found: list[int] = []
    block = client.chain.head.number
    while len(found) < most and block >= client.chain.state.oldest:
        ran = client.query(PALLET, "LastMechansimStepBlock", netuid, block=block)
        if not max(1, client.chain.state.oldest) <= ran <= block:
            break
        found.append(ran)
        block = ran - 1
    return found[::-1]


def _epoch(client: Client, netuid: int, block: int) -> dict[str, Any]:
    before = max(block - 1, client.chain.state.oldest)
    known = client.made(block).document.storage
    vectors = {
        name: [value / 65535 for value in client.query(PALLET, item, netuid, block=block)]
        if (PALLET, item) in known
        else None
        for name, item in VECTORS.items()
    }
    moving = (PALLET, "SubnetMovingPrice") in known
    weights = client.query_map(PALLET, "Weights", netuid, block=before)
    return {
        "block": block,
        "timestamp": client.chain.block(block).timestamp,
        "hotkeys": _hotkeys(client, netuid, block),
        "price": _price(client, netuid, block),
        "moving_price": client.query(PALLET, "SubnetMovingPrice", netuid, block=block)["bits"] / (1 << 32)
        if moving
        else None,
        "emission": client.query(PALLET, "Emission", netuid, block=block),
        "permits": client.query(PALLET, "ValidatorPermit", netuid, block=block),
        **vectors,
        "weights": {str(uid): _fractions(row) for uid, row in sorted(weights.items())},
    }


def _price(client: Client, netuid: int, block: int) -> float | None:
    """TAO per alpha. Before the Swap pallet: what is in the subnet's pool, one by the other (`get_alpha_price`)."""
    if "SwapRuntimeApi_current_alpha_price" in client.after(block).document.apis:
        return float(client.call("SwapRuntimeApi", "current_alpha_price", netuid, block=block) / 10**9)
    if not {(PALLET, "SubnetTAO"), (PALLET, "SubnetAlphaIn")} <= set(client.made(block).document.storage):
        return None
    tao, alpha = (client.query(PALLET, item, netuid, block=block) for item in ("SubnetTAO", "SubnetAlphaIn"))
    return float(tao / alpha) if alpha else None


def _fractions(row: list[tuple[int, int]]) -> dict[str, float]:
    total = sum(value for _, value in row)
    return {str(uid): value / total for uid, value in row} if total else {}
