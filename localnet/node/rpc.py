"""The JSON-RPC interface of the node: names and answers as a released node's.

Each group of methods is a class below; `Rpc` joins their tables. Aliases are those clients really send (the SDK asks
for `chain_getHead` and `state_getStorageAt`, polkadot.js for `chain_subscribeNewHead`). Developer methods are in
rpc_dev.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import bittensor_core
import orjson

from localnet.errors import RpcError, RuntimeApiMissing, UnknownBlock
from localnet.node.blocks import Block, blake2_256
from localnet.node.chain import Chain
from localnet.node.connection import Connection, Subscriptions
from localnet.node.documents import CODE
from localnet.node.jsonrpc import CLIENT_ERROR, INVALID_PARAMS, Methods, Parser, hex_bytes, integer, method
from localnet.node.mining import Miner
from localnet.node.runtime_api import RuntimeApi, hexed, hexed_or_none
from localnet.node.state import Journal

MAX_KEYS = 1000  # per page, and keys per query
MAX_RANGE = 4096  # blocks in one queryStorage
MAX_ANSWER = 16 * 2**20  # characters of storage in one answer
KEY_OVERHEAD = 48  # bytes that a key takes in memory beside its own
PROPERTIES = {"isEthereum": False, "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO"}
PEER_ID = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"  # well-known development identity: there are no peers


@dataclass
class Node:
    """What the method groups work on."""

    chain: Chain
    miner: Miner
    subscriptions: Subscriptions
    api: RuntimeApi
    name: str = "Bittensor"
    version: str = "localnet"


class Group(Methods):
    """Parameters all groups understand."""

    def __init__(self, node: Node) -> None:
        self.node, self.chain = node, node.chain
        super().__init__()

    def block(self, value: Any) -> Block:
        """A block by its hash. Raises RpcError 4003 for one that does not exist."""
        block = self.chain.block_by_hash(hex_bytes(value))
        if block is None:
            shown = value if len(value) <= 66 else value[:66] + ".."
            raise RpcError(CLIENT_ERROR, f"Client error: UnknownBlock: Header was not found in the database: {shown}")
        return block

    def stated(self, block: Block | None) -> int:
        """The number of a block whose state is kept (None: the head). Raises RpcError 4003."""
        if block is None:
            return self.chain.head.number
        if block.number < self.chain.state.oldest:
            text = f"State already discarded for {hexed(block.hash)}"
            raise RpcError(CLIENT_ERROR, f"Client error: UnknownBlock: {text}")
        return block.number

    def key_list(self, value: Any) -> list[bytes]:
        if not isinstance(value, list) or len(value) > MAX_KEYS * 10:
            raise ValueError("expected a list of storage keys")
        return [hex_bytes(item) for item in value]

    @staticmethod
    def text(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("expected a string")
        return value

    @staticmethod
    def flag(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value

    PARSERS: ClassVar[Mapping[str, Parser]] = {
        "bytes": lambda api, value: hex_bytes(value),
        "int": lambda api, value: integer(value),
        "str": lambda api, value: api.text(value),
        "bool": lambda api, value: api.flag(value),
        "Block": lambda api, value: api.block(value),
        "list[bytes]": lambda api, value: api.key_list(value),
        "Any": lambda api, value: value,
    }


class Room:
    """What is left of the largest answer: keys may be named more than once, and values be large."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER

    def take(self, characters: int) -> None:
        """Raises RpcError -32008 when there is no room."""
        self._left -= characters
        if self._left < 0:
            raise RpcError(-32008, "Response is too big", f"Exceeded max limit of {MAX_ANSWER}")


class ChainMethods(Group):
    """chain_*: blocks and heads."""

    @method("chain_getBlockHash", "chain_getHead")
    def get_block_hash(self, connection: Connection, number: Any = None) -> Any:
        if number is None:
            return hexed(self.chain.head.hash)
        if isinstance(number, list) and len(number) <= MAX_KEYS:
            return [self._hash_of(item) for item in number]
        return self._hash_of(number)

    def _hash_of(self, number: Any) -> str | None:
        try:
            return hexed(self.chain.hash_of(integer(number)))
        except UnknownBlock:
            return None
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"number: {error}") from error

    @method("chain_getFinalizedHead", "chain_getFinalisedHead")
    def get_finalized_head(self, connection: Connection) -> str:
        return hexed(self.chain.finalized.hash)

    @method("chain_getHeader")
    def get_header(self, connection: Connection, digest: bytes | None = None) -> Any:
        block = self.chain.head if digest is None else self.chain.block_by_hash(digest)
        return None if block is None else block.header.json()

    @method("chain_getBlock")
    def get_block(self, connection: Connection, digest: bytes | None = None) -> Any:
        block = self.chain.head if digest is None else self.chain.block_by_hash(digest)
        return None if block is None or block.extrinsics is None else block.json()

    @method("chain_subscribeNewHeads", "chain_subscribeNewHead", "subscribe_newHead")
    def subscribe_new_heads(self, connection: Connection) -> str:
        return self._subscribe(connection, "chain_newHead", self.chain.head)

    @method("chain_subscribeAllHeads")
    def subscribe_all_heads(self, connection: Connection) -> str:
        return self._subscribe(connection, "chain_allHead", self.chain.head)

    @method("chain_subscribeFinalizedHeads", "chain_subscribeFinalisedHeads")
    def subscribe_finalized_heads(self, connection: Connection) -> str:
        return self._subscribe(connection, "chain_finalizedHead", self.chain.finalized)

    def _subscribe(self, connection: Connection, kind: str, block: Block) -> str:
        identifier = self.node.subscriptions.add(connection, kind)
        connection.notify(kind, identifier, orjson.dumps(block.header.json()))
        return identifier

    @method(
        "chain_unsubscribeNewHeads", "chain_unsubscribeNewHead", "unsubscribe_newHead", "chain_unsubscribeAllHeads",
        "chain_unsubscribeFinalizedHeads", "chain_unsubscribeFinalisedHeads", "chain_unsubscribeRuntimeVersion",
        "state_unsubscribeStorage", "state_unsubscribeRuntimeVersion", "author_unwatchExtrinsic",
    )  # fmt: skip
    def unsubscribe(self, connection: Connection, subscription: str) -> bool:
        return self.node.subscriptions.remove(connection, subscription)

    def on_block(self, block: Block) -> None:
        header = block.header.json()
        self.node.subscriptions.publish("chain_newHead", "chain_newHead", header)
        self.node.subscriptions.publish("chain_allHead", "chain_allHead", header)
        if block.number >= self.chain.finality_lag:
            finalized = self.chain.finalized.header.json()
            self.node.subscriptions.publish("chain_finalizedHead", "chain_finalizedHead", finalized)


class StateMethods(Group):
    """state_*: storage, runtime calls, metadata. Without a block they answer for the head."""

    @method("state_getStorage", "state_getStorageAt")
    def get_storage(self, connection: Connection, key: bytes, at: Block | None = None) -> str | None:
        return hexed_or_none(self.chain.storage(key, self.stated(at)))

    @method("state_getStorageHash", "state_getStorageHashAt")
    def get_storage_hash(self, connection: Connection, key: bytes, at: Block | None = None) -> str | None:
        value = self.chain.storage(key, self.stated(at))
        return None if value is None else hexed(blake2_256(value))

    @method("state_getStorageSize", "state_getStorageSizeAt")
    def get_storage_size(self, connection: Connection, key: bytes, at: Block | None = None) -> int | None:
        value = self.chain.storage(key, self.stated(at))
        return None if value is None else len(value)

    @method("state_getKeysPaged", "state_getKeysPagedAt")
    def get_keys_paged(
        self,
        connection: Connection,
        prefix: bytes | None = None,
        count: int | None = None,
        start_key: bytes | None = None,
        at: Block | None = None,
    ) -> list[str]:
        count = MAX_KEYS if count is None else count
        if count > MAX_KEYS:
            raise RpcError(4002, f"count exceeds maximum value. value: {count}, max: {MAX_KEYS}")
        keys = self.chain.state.keys_paged(prefix or b"", count, start_key, self.stated(at))
        return ["0x" + key.hex() for key in keys]

    @method("state_getKeys", dev=True)
    def get_keys(self, connection: Connection, prefix: bytes, at: Block | None = None) -> list[str]:
        return ["0x" + key.hex() for key in self.chain.state.keys_at(prefix, self.stated(at))]

    @method("state_getPairs", dev=True)
    def get_pairs(self, connection: Connection, prefix: bytes, at: Block | None = None) -> list[list[str | None]]:
        number = self.stated(at)
        keys = self.chain.state.keys_at(prefix, number)
        return [["0x" + key.hex(), hexed_or_none(self.chain.storage(key, number))] for key in keys]

    @method("state_queryStorageAt")
    def query_storage_at(self, connection: Connection, keys: list[bytes], at: Block | None = None) -> Any:
        values = self._pairs(keys, self.stated(at), Room())
        return [{"block": hexed((at or self.chain.head).hash), "changes": values}]

    def _pairs(self, keys: list[bytes], number: int, room: Room) -> list[list[str | None]]:
        pairs: list[list[str | None]] = []
        for key in keys:
            value = self.chain.storage(key, number)
            room.take(2 * (len(key) + len(value or b"")))
            pairs.append(["0x" + key.hex(), hexed_or_none(value)])
        return pairs

    @method("state_queryStorage")
    def query_storage(self, connection: Connection, keys: list[bytes], start: Block, end: Block | None = None) -> Any:
        """All keys at `start`, then for each block up to `end` those it changed."""
        first, last = self.stated(start), self.stated(end)
        if not first <= last < first + MAX_RANGE:
            raise RpcError(
                4001, f"Cannot resolve a block range ['{first}' ... '{last}']", f"at most {MAX_RANGE} blocks"
            )
        out, wanted, room = self.query_storage_at(connection, keys, start), set(keys), Room()
        for number in range(first + 1, last + 1):
            changed = [key for key in self.chain.state.changed_in(number) if key in wanted]
            if changed:
                values = self._pairs(changed, number, room)
                out.append({"block": hexed(self.chain.block(number).hash), "changes": values})
        return out

    @method("state_call", "state_callAt")
    def call(self, connection: Connection, name: str, data: bytes, at: Block | None = None) -> str:
        if name.startswith("DevApi_") and not connection.local:
            raise RuntimeApiMissing(f"Exported method {name} is not found")
        return self.node.api.call_hex(name, data, self.stated(at))

    @method("state_getMetadata")
    def get_metadata(self, connection: Connection, at: Block | None = None) -> str:
        return self.node.api.metadata_hex(self.stated(at))

    @method("state_getRuntimeVersion", "chain_getRuntimeVersion")
    def get_runtime_version(self, connection: Connection, at: Block | None = None) -> Any:
        return self.node.api.version(self.stated(at))

    @method("state_subscribeRuntimeVersion", "chain_subscribeRuntimeVersion")
    def subscribe_runtime_version(self, connection: Connection) -> str:
        identifier = self.node.subscriptions.add(connection, "state_runtimeVersion")
        version = self.node.api.version(self.chain.head.number)
        connection.notify("state_runtimeVersion", identifier, orjson.dumps(version))
        return identifier

    @method("state_subscribeStorage")
    def subscribe_storage(self, connection: Connection, keys: list[bytes] | None = None) -> str:
        if not keys and not connection.local:
            raise RpcError(-32600, "Invalid request", "name the keys: all of storage is for this machine only")
        first = self.query_storage_at(connection, keys or [])[0]
        size = sum(len(key) + KEY_OVERHEAD for key in keys or ())
        identifier = self.node.subscriptions.add(connection, "state_storage", keys or [], size)
        connection.notify("state_storage", identifier, orjson.dumps(first))
        return identifier

    def on_block(self, block: Block, diff: Journal) -> None:
        for identifier, connection, keys in self.node.subscriptions.of("state_storage"):
            changed = [key for key in keys if key in diff] if keys else list(diff)
            if changed:
                values = [["0x" + key.hex(), hexed_or_none(diff[key])] for key in changed]
                connection.notify(
                    "state_storage", identifier, orjson.dumps({"block": hexed(block.hash), "changes": values})
                )
        if CODE in diff:  # an upgrade, or one undone
            version = self.node.api.version(self.chain.head.number)
            self.node.subscriptions.publish("state_runtimeVersion", "state_runtimeVersion", version)


class AuthorMethods(Group):
    """author_*, account_* and payment_*: sending extrinsics and what one needs to know before."""

    LAST = ("invalid", "dropped")  # statuses after which nothing follows, beside finalized and usurped

    @method("author_submitExtrinsic")
    def submit(self, connection: Connection, extrinsic: bytes) -> str:
        entry = self.chain.submit(extrinsic)
        self.node.miner.poke()
        return hexed(entry.xt.hash)

    @method("author_submitAndWatchExtrinsic")
    def submit_and_watch(self, connection: Connection, extrinsic: bytes) -> str:
        subscriptions = self.node.subscriptions
        identifier = subscriptions.add(connection, "author_extrinsicUpdate")

        def watcher(status: Any) -> None:
            connection.notify("author_extrinsicUpdate", identifier, orjson.dumps(status))
            if status in self.LAST or (isinstance(status, dict) and ("finalized" in status or "usurped" in status)):
                subscriptions.remove(connection, identifier)

        try:
            self.chain.submit(extrinsic, watcher)
        except BaseException:
            subscriptions.remove(connection, identifier)
            raise
        self.node.miner.poke()
        return identifier

    @method("author_pendingExtrinsics")
    def pending(self, connection: Connection) -> list[str]:
        return ["0x" + entry.xt.raw.hex() for entry in self.chain.pool.entries.values()]

    @method("system_accountNextIndex", "account_nextIndex")
    def next_index(self, connection: Connection, account: str) -> int:
        try:
            who = bytes(bittensor_core.ss58_decode(account))
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"account: {error}") from error
        return self.node.api.next_nonce(who)

    @method("payment_queryInfo")
    def query_info(self, connection: Connection, extrinsic: bytes, at: Block | None = None) -> Any:
        return self.node.api.fee_info(extrinsic, self.stated(at))

    @method("payment_queryFeeDetails")
    def query_fee_details(self, connection: Connection, extrinsic: bytes, at: Block | None = None) -> Any:
        return self.node.api.fee_details(extrinsic, self.stated(at))


class SystemMethods(Group):
    """system_* and rpc_methods: what node is this?"""

    @method("system_chain")
    def system_chain(self, connection: Connection) -> str:
        return self.node.name

    @method("system_chainType")
    def system_chain_type(self, connection: Connection) -> str:
        return "Local"

    @method("system_name")
    def system_name(self, connection: Connection) -> str:
        return "Subtensor Node"

    @method("system_version")
    def system_version(self, connection: Connection) -> str:
        return self.node.version

    @method("system_properties")
    def system_properties(self, connection: Connection) -> Any:
        return PROPERTIES

    @method("system_health")
    def system_health(self, connection: Connection) -> Any:
        return {"peers": 0, "isSyncing": False, "shouldHavePeers": False}

    @method("system_peers")
    def system_peers(self, connection: Connection) -> list[Any]:
        return []

    @method("system_nodeRoles")
    def system_node_roles(self, connection: Connection) -> list[str]:
        return ["Authority"]

    @method("system_localPeerId")
    def system_local_peer_id(self, connection: Connection) -> str:
        return PEER_ID

    @method("system_localListenAddresses")
    def system_listen_addresses(self, connection: Connection) -> list[str]:
        return []

    @method("system_syncState")
    def system_sync_state(self, connection: Connection) -> Any:
        head = self.chain.head.number
        return {"startingBlock": 0, "currentBlock": head, "highestBlock": head}


class Rpc(Methods):
    """All groups as one table, fed by the chain's blocks."""

    def __init__(self, node: Node, *extra: Group) -> None:
        super().__init__()
        self.node = node
        self._chain, self._state = ChainMethods(node), StateMethods(node)
        for group in (self._chain, self._state, AuthorMethods(node), SystemMethods(node), *extra):
            self.methods.update(group.methods)
        node.chain.listeners.append(self._on_block)
        node.chain.reverted.append(self._on_block)

    def _on_block(self, block: Block, diff: Journal) -> None:
        self.node.api.new_head()
        self._chain.on_block(block)
        self._state.on_block(block, diff)

    @method("rpc_methods")
    def rpc_methods(self, connection: Connection) -> Any:
        names = sorted(name for name, entry in self.methods.items() if connection.local or not entry.dev)
        return {"methods": names}

    def disconnect(self, connection: Connection) -> None:
        self.node.subscriptions.forget(connection)
