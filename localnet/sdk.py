"""The bittensor SDK in tests: wallets without key files, and weights under a timelock that this chain's beacon opens.

    client = bt.Subtensor(net.url)
    client.execute(bt.BurnedRegister(netuid=2), Wallet("//Zoe"))                       # any secret URI
    with timelocks(net):                                                               # a chain with drand="local"
        client.execute(bt.SetWeights(netuid=2, weights={3: 1.0}), subnet.validators[0].wallet)

The SDK seals weights to drand's own beacon, whose key is compiled into it, for a round counted by the wall clock. A
chain without network cannot have that beacon's pulses, and a chain that mines in tests is ahead of the wall clock.
Inside `timelocks` the SDK of this process seals to the chain's beacon and counts by the chain's clock; the SDK of other
processes does not: start those chains with `--drand network`, or set commit_reveal_weights_enabled to False.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bittensor_core

from localnet.client import keypair
from localnet.errors import ConfigError
from localnet.node.pulses import QUICKNET
from localnet.rules import timelock
from localnet.rules.weights import TimelockPayload, timelock_payload

if TYPE_CHECKING:
    from localnet.net import Localnet
    from localnet.sync import SyncLocalnet

SEALS = "get_encrypted_commit_v2"  # what the SDK calls, by this name, on the module


@dataclass(frozen=True)
class Wallet:
    """What the SDK takes for a wallet, from secret URIs. Default of `hot`: "//hot" behind `cold`, as on subnets that
    `Localnet.subnet` makes."""

    cold: str
    hot: str | None = None

    @property
    def coldkey(self) -> bittensor_core.Keypair:
        return keypair(self.cold)

    @property
    def coldkeypub(self) -> bittensor_core.Keypair:
        return self.coldkey

    @property
    def hotkey(self) -> bittensor_core.Keypair:
        return keypair(self.hot or f"{self.cold}//hot")


@contextmanager
def timelocks(net: Localnet | SyncLocalnet) -> Iterator[None]:
    """Let the SDK of this process seal weights so that `net` opens them. One chain at a time.

    The round is that of the SDK in chain time or the one before it, and never one that is out already. An epoch has to
    be longer than a round of 3 s: a tempo of 20 or more with the fast profile's blocks of 0.25 s.

    Raises ConfigError for a chain that follows drand's beacon.
    """
    config = net.query("Drand", "BeaconConfig")
    if config["metadata"]["beacon_id"] == QUICKNET:
        raise ConfigError('this chain follows drand\'s own beacon, which the SDK seals to: start it with drand="local"')
    original = getattr(bittensor_core, SEALS)

    def sealed(**arguments: Any) -> tuple[bytes, int]:
        _, by_wall = original(**arguments)
        now, genesis, period = net.next_timestamp / 1000, config["genesis_time"], config["period"]
        out = timelock.round_at(now, genesis, period)
        reveal_round = max(by_wall + int((now - time.time()) // period), out + 1)
        payload = TimelockPayload(
            arguments["hotkey"], tuple(arguments["uids"]), tuple(arguments["weights"]), arguments["version_key"]
        )
        return net.seal(timelock_payload(payload), reveal_round), reveal_round

    setattr(bittensor_core, SEALS, sealed)
    try:
        yield
    finally:
        setattr(bittensor_core, SEALS, original)
