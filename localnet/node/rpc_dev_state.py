"""dev_*: changing the state past the chain's rules, and taking it elsewhere. Each change makes a block, marked."""

from __future__ import annotations

from typing import Any

from localnet.node.connection import Connection
from localnet.node.jsonrpc import hex_bytes, method
from localnet.node.rpc_dev import UNREADABLE, DevGroup, wrong
from localnet.node.runtime_api import hexed


class DevStateMethods(DevGroup):
    @method("dev_setStorage", dev=True)
    async def set_storage(self, connection: Connection, values: Any) -> str:
        """Write storage at the end of a new block; its hash. Raw pairs [[key, value or null], ..], or by name:
        {"Pallet": {"Item": value, "Map": [[keys, value], ..]}}; null removes, fields left out stay as they are."""
        try:
            changes = _pairs(values) if isinstance(values, list) else self.developer.typed(values)
        except UNREADABLE as error:
            raise wrong("values", error) from error
        return hexed((await self.developer.write(changes)).hash)

    @method("dev_fund", dev=True)
    async def fund(self, connection: Connection, account: str, rao: int) -> str:
        """Add to an account's free balance, as root; the new balance in rao, as a decimal string."""
        try:
            return str(await self.developer.fund(account, rao))
        except ValueError as error:
            raise wrong("account", error) from error

    @method("dev_impersonate", dev=True)
    async def impersonate(self, connection: Connection, origin: Any, call: Any) -> Any:
        """A call of any origin, unsigned, in a new block; what the block says about it. What an account has waiting in
        the pool under the same nonce becomes invalid.

        origin: "root", "none", an address or "//Name". call: "0x..", or {"pallet", "call", "arguments"}.
        """
        try:
            encoded = self.developer.client.read_call(call)
        except UNREADABLE as error:
            raise wrong("call", error) from error
        outcome = (await self.developer.impersonate([(self.origin(origin), encoded)]))[0]
        return {
            "success": outcome.success, "error": outcome.error, "block": outcome.block, "hash": outcome.block_hash,
            "index": outcome.index, "events": self.developer.client.show_events(outcome.events, outcome.block),
        }  # fmt: skip

    @method("dev_exportState", dev=True)
    async def export_state(self, connection: Connection, at: Any = None) -> Any:
        """The state after a block (default: the head) as a document that `dev_importState` takes."""
        return self.developer.export(self.number(at))

    @method("dev_importState", dev=True)
    async def import_state(self, connection: Connection, document: Any) -> str:
        """Go on from an exported state: mines up to its block number; the hash of the block that holds it. A large one
        comes by POST (512 MiB at most)."""
        return hexed((await self.developer.restore(document)).hash)


def _pairs(pairs: list[Any]) -> dict[bytes, bytes | None]:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("expected a list of [key, value] pairs, or an object of pallets")
    return {hex_bytes(key): None if value is None else hex_bytes(value) for key, value in pairs}
