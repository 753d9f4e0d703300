"""dev_*: what a developer may do to a chain and its users may not. Three groups, one file each:

    rpc_dev         blocks, time, snapshots
    rpc_dev_state   storage, money, impersonation, export and import
    rpc_dev_look    dry run, trace, explain, time-line: nothing changes

They answer on the node's own machine, or to whoever has the dev token (see server.py). Names follow chopsticks where it
has the same thing. Everything happens through blocks: writing storage makes a block that carries the change, so it has
a place in history and goes away with a revert; and a block says in its header what a developer did (see marks.py).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from localnet.developer import Developer, origin_of
from localnet.errors import ChainError, MetadataError, RpcError, ScaleError
from localnet.node.connection import Connection
from localnet.node.jsonrpc import INVALID_PARAMS, integer, method
from localnet.node.marks import Origin
from localnet.node.rpc import Group, Node
from localnet.node.runtime_api import hexed

MAX_BLOCKS = 1_000_000  # in one request


def wrong(name: str, error: Exception) -> RpcError:
    """The answer to a parameter that cannot be read."""
    return RpcError(INVALID_PARAMS, "Invalid params", f"{name}: {error}")


UNREADABLE = (ValueError, ScaleError, MetadataError)


class DevGroup(Group):
    """What the groups share."""

    def __init__(self, node: Node, developer: Developer) -> None:
        self.developer = developer
        super().__init__(node)

    def number(self, at: Any) -> int | None:
        """A block as a hash or a number; None for the head. Raises RpcError."""
        if at is None:
            return None
        try:
            return self.block(at).number if isinstance(at, str) and len(at) == 66 else integer(at)
        except ValueError as error:
            raise wrong("at", error) from error

    def origin(self, value: Any) -> Origin:
        """Raises RpcError."""
        if not isinstance(value, str):
            raise wrong("origin", ValueError("root, none, or an account as a string"))
        return origin_of(value)


class DevMethods(DevGroup):
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
            raise wrong("count", error) from error
        if not 1 <= blocks <= MAX_BLOCKS:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"between 1 and {MAX_BLOCKS} blocks, not {blocks}")
        return hexed((await self.node.miner.mine(blocks)).hash)

    @method("dev_mineEpoch", dev=True)
    async def mine_epoch(self, connection: Connection, netuid: int) -> int:
        """Author blocks up to the one in which the subnet's next epoch runs; its number."""
        start = self.developer.next_epoch(netuid)
        blocks = start - self.chain.head.number
        if not 1 <= blocks <= MAX_BLOCKS:
            raise ChainError(f"the next epoch of subnet {netuid} is given as block {start}: cannot mine up to it")
        return (await self.node.miner.mine(blocks)).number

    @method("dev_timeTravel", dev=True)
    async def time_travel(self, connection: Connection, date: Any) -> int:
        """The next block gets this time: milliseconds since 1970, or an ISO 8601 string, in UTC unless it names a zone.
        Makes that block."""
        await self.node.miner.travel(_milliseconds(date))
        return self.chain.head.timestamp

    @method("dev_snapshot", dev=True)
    async def snapshot(self, connection: Connection) -> int:
        """What `dev_revert` takes: a number of its own, no block's. Snapshots nest."""
        return self.developer.snapshots.take()

    @method("dev_revert", dev=True)
    async def revert(self, connection: Connection, snapshot: int) -> str:
        """Back to a snapshot, chain time and pool included; the hash of its block. One whose block is gone is
        refused."""
        return hexed((await self.developer.revert(snapshot)).hash)

    @method("dev_setHead", dev=True)
    async def set_head(self, connection: Connection, block: Any) -> str:
        """Back to any block whose state is kept (number or hash); its hash."""
        number = self.number(block)
        if number is not None:
            await self.node.miner.revert(number)
        return hexed(self.chain.head.hash)


def _milliseconds(date: Any) -> int:
    try:
        if isinstance(date, str) and not date.startswith("0x"):
            moment = datetime.fromisoformat(date.replace("Z", "+00:00"))
            return round((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)
        return integer(date)
    except (ValueError, OverflowError) as error:
        raise wrong("date", error) from error
