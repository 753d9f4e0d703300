"""Keeps the chain's record of where a neuron serves true.

publisher = Publisher(chain, netuid, hotkey, server.port, external_ip="", external_port=0)
await watch.run(stop, publisher.check)        # at the start, and whenever the metagraph says otherwise
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from neurons.runtime import own_address
from protocol.metagraph import HTTP, Metagraph
from template.chain import Chain, ChainRefused
from template.keys import Hotkey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publisher:
    """One axon. `port` is the one listened on; the external ones are what the world sees, when that differs.

    `protocol` says what is served there (protocol/metagraph.py). The serving rate limit may make it wait.
    """

    chain: Chain
    netuid: int
    hotkey: Hotkey
    port: int
    external_ip: str = ""
    external_port: int = 0
    protocol: int = HTTP

    async def check(self, graph: Metagraph) -> None:
        """Publish when the chain holds something else. Raises ChainError, other than the chain's own "no"."""
        me = graph.by_hotkey.get(self.hotkey.ss58)
        ip = self.external_ip or own_address(self.chain)
        port = self.external_port or self.port
        if me is None or (me.ip, me.port, me.protocol) == (ip, port, self.protocol):
            return
        try:
            if await self.chain.serve_axon(self.netuid, self.hotkey, ip, port, protocol=self.protocol):
                log.info("published %s:%d on chain", ip, port)
        except ChainRefused as error:
            log.warning("the chain did not take our address %s:%d yet, trying again: %s", ip, port, error)
