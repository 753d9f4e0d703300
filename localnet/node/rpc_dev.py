"""dev_*: what a developer may do to a chain and its users may not. Answers on the node's own machine only.

Names follow chopsticks where it has the same thing. Everything happens through blocks: writing storage makes a block
that carries the change, so it has a place in history and goes away with a revert.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from localnet.errors import ChainError, RpcError
from localnet.node.connection import Connection
from localnet.node.jsonrpc import INVALID_PARAMS, hex_bytes, integer, method
from localnet.node.rpc import Group
from localnet.node.runtime_api import hexed

MAX_BLOCKS = 1_000_000  # in one request


class DevMethods(Group):
    @method("dev_newBlock", dev=True)
    async def new_block(self, connection: Connection, count: Any = None) -> str:
        """Author `count` blocks (default 1; also {"count": n} or {"to": number}); the hash of the last."""
        head = self.chain.head.number
        try:
            if isinstance(count, dict):
                blocks = integer(count["to"]) - head if "to" in count else integer(count.get("count", 1))
            else:
                blocks = 1 if count is None else integer(count)
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"count: {error}") from error
        if not 1 <= blocks <= MAX_BLOCKS:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"between 1 and {MAX_BLOCKS} blocks, not {blocks}")
        return hexed((await self.node.miner.mine(blocks)).hash)

    @method("dev_snapshot", dev=True)
    async def snapshot(self, connection: Connection) -> int:
        """The number of the head: what `dev_revert` takes."""
        return self.chain.head.number

    @method("dev_revert", "dev_setHead", dev=True)
    async def revert(self, connection: Connection, snapshot: int) -> str:
        """Back to that block; its hash."""
        await self.node.miner.revert(snapshot)
        return hexed(self.chain.head.hash)

    @method("dev_timeTravel", dev=True)
    async def time_travel(self, connection: Connection, date: Any) -> int:
        """The next block gets this time: milliseconds since 1970, or an ISO 8601 string. Makes that block."""
        await self.node.miner.travel(_milliseconds(date))
        return self.chain.head.timestamp

    @method("dev_setStorage", dev=True)
    async def set_storage(self, connection: Connection, pairs: Any) -> str:
        """Write raw storage: [[key, value or null], ..]. Makes a block that carries it; its hash."""
        changes = _pairs(pairs)
        return hexed((await self.node.miner.mine(1, changes)).hash)

    @method("dev_mineEpoch", dev=True)
    async def mine_epoch(self, connection: Connection, netuid: int) -> int:
        """Author blocks up to the one in which the subnet's next epoch runs; its number."""
        start = self.node.api.next_epoch(netuid)
        blocks = start - self.chain.head.number
        if not 1 <= blocks <= MAX_BLOCKS:
            raise ChainError(f"the next epoch of subnet {netuid} is given as block {start}: cannot mine up to it")
        return (await self.node.miner.mine(blocks)).number


def _milliseconds(date: Any) -> int:
    try:
        if isinstance(date, str) and not date.startswith("0x"):
            return round(datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp() * 1000)
        return integer(date)
    except (ValueError, OverflowError) as error:
        raise RpcError(INVALID_PARAMS, "Invalid params", f"date: {error}") from error


def _pairs(pairs: Any) -> dict[bytes, bytes | None]:
    try:
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError("expected a list of [key, value] pairs")
        return {hex_bytes(key): None if value is None else hex_bytes(value) for key, value in pairs}
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, "Invalid params", f"pairs: {error}") from error
