"""The off-chain worker of the chain's Drand pallet: the one place in the node that knows a pallet's names.

    follow     start feeding a chain from a source of pulses (`localnet.node.pulses`)
    Feeder     behind every block, puts the pulses that come next into the pool, each in an unsigned extrinsic

The chain takes rounds one after the other, from the first it is given on. What a source has is verified before it is
sent; a source that cannot go on is named in the log, once. Without any source nothing is sent: what is sealed stays
sealed, and can be seen waiting in `SubtensorModule.TimelockedWeightCommits` and `Commitments.TimelockedIndex`.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from localnet.client import Client, keypair, public_key
from localnet.errors import ConfigError, MetadataError, PoolRejected, PulseError, RuntimeApiMissing, ScaleError
from localnet.node.blocks import Block
from localnet.node.extrinsic import frame
from localnet.node.marks import unsigned
from localnet.node.mining import Miner
from localnet.node.pulses import LocalBeacon, Pulse, Source, make_source, verified
from localnet.node.state import Journal

log = logging.getLogger(__name__)


class Feeder:
    """Sends pulses. `signer` is the secret URI of the key that signs the extrinsics' payload, any will do."""

    def __init__(self, client: Client, source: Source, signer: str) -> None:
        self._client, self.source, self._signer = client, source, signer
        self._halted = ""  # why it does not go on

    def on_block(self, block: Block, diff: Journal) -> None:
        """A listener of the chain's: the next pulses into the pool, for the block after this one."""
        try:
            last = self._client.query("Drand", "LastStoredRound")
            key = self._client.query("Drand", "BeaconConfig")["public_key"]
            for pulse in self.source.pulses(last, block.timestamp / 1000):
                if not verified(key, pulse):
                    raise PulseError(f"round {pulse.round} is not signed by the beacon that the chain follows")
                self._send(pulse)
            self._halted = ""
        except (PulseError, ScaleError) as error:  # ScaleError: a developer wrote what is no round, or no beacon
            if str(error) != self._halted:
                log.error("no more drand pulses: %s", error)
            self._halted = str(error)

    def _send(self, pulse: Pulse) -> None:
        try:
            self._client.chain.submit(self._extrinsic(pulse))
        except PoolRejected as error:  # it is there already, or the pool is full: the next block tries again
            log.debug("drand round %d was not taken: %s", pulse.round, error)

    def _extrinsic(self, pulse: Pulse) -> bytes:
        client, pair = self._client, keypair(self._signer)
        fields = {"round": pulse.round, "randomness": pulse.randomness, "signature": pulse.signature}
        payload = {
            "block_number": client.chain.head.number,
            "pulses": [fields],
            "public": ("Sr25519", bytes(pair.public_key)),
        }
        type_id = client.argument_type("Drand", "write_pulse", "pulses_payload")
        proof = ("Sr25519", bytes(pair.sign(client.registry.encode(type_id, payload))))
        call = client.encode_call("Drand", "write_pulse", {"pulses_payload": payload, "signature": proof})
        return frame(bytes((client.document.extrinsic_version,)) + call)


async def follow(client: Client, miner: Miner, choice: str | Path, seed: bytes, signer: str) -> Feeder:
    """Feed the chain from the chosen source, from its next block on. With "local" this first authors a block in which
    root makes the chain follow that beacon, unless it does already. `signer`: a secret URI, see `Feeder`.

    Raises ConfigError: see `make_source`; the chain has no Drand pallet; nobody can be root on it.
    """
    try:
        config = client.query("Drand", "BeaconConfig")
    except MetadataError as error:
        raise ConfigError(f"this chain cannot be fed with drand pulses: {error}") from error
    source = await asyncio.to_thread(make_source, choice, config, seed)
    if isinstance(source, LocalBeacon) and source.config != config:
        await _set_beacon(client, miner, source.config, signer)
    feeder = Feeder(client, source, signer)
    client.chain.listeners.append(feeder.on_block)
    feeder.on_block(client.chain.head, {})
    return feeder


async def _set_beacon(client: Client, miner: Miner, config: dict[str, Any], signer: str) -> None:
    """As root, whoever has the sudo key here: a block that says that nobody signed it."""
    payload = {"block_number": client.chain.head.number, "config": config, "public": ("Sr25519", public_key(signer))}
    call = client.encode_call("Drand", "set_beacon_config", {"config_payload": payload, "signature": None})
    refused = "the call failed"
    try:
        await miner.mine(1, None, [unsigned("root", call, bare=client.document.extrinsic_version)])
    except (PoolRejected, RuntimeApiMissing) as error:
        refused = str(error)
    if client.query("Drand", "BeaconConfig") != config:
        raise ConfigError(f"the chain does not take a beacon of its own from root: {refused}")
