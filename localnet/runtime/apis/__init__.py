"""Runtime APIs: what clients read through `state_call`, computed from the state of one block.

    registry      @api("SubnetInfoRuntimeApi_get_metagraph") and the table the runtime looks names up in
    common        helpers that several of the modules below share
    names         the name a subnet has before its owner gives it one
    metagraph     metagraphs: whole, selective, per mechanism
    subnets       dynamic info, subnet info, subnet state, epochs, accounts
    hyperparams   the three generations of hyperparameters
    neurons       neurons with and without weights
    stakes        stake positions, availability, fees, locks, delegates
    markets       prices and simulated swaps
    baskets       validators' baskets: worth, holdings, owners, comparable prices, room to trade
    payments      fees and nonces
    proxies       what proxies of each type may call
    chain         slot duration, author
    shield        what an author asks about sealed extrinsics

A function gets the runtime and decoded arguments and returns a plain value; the runtime encodes it by the metadata's
output type. An API that has no function here is answered with an error that names it.
"""

from __future__ import annotations

from localnet.runtime.apis import (
    baskets,
    chain,
    hyperparams,
    markets,
    metagraph,
    neurons,
    payments,
    proxies,
    shield,
    stakes,
    subnets,
)
from localnet.runtime.apis.registry import API_FUNCTIONS, api

__all__ = [
    "API_FUNCTIONS",
    "api",
    "baskets",
    "chain",
    "hyperparams",
    "markets",
    "metagraph",
    "neurons",
    "payments",
    "proxies",
    "shield",
    "stakes",
    "subnets",
]
