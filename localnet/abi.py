"""The seam between node and runtime: a name, SCALE bytes in, SCALE bytes out, against a state.

The node (`localnet.node`) knows blocks, the pool, state versions and JSON-RPC; it knows no pallet. Whatever belongs to
the chain goes through `Runtime.call` with the names the released chain uses for its own runtime:

    Core_version                                     -> RuntimeVersion
    Core_initialize_block(header)                    -> ()
    BlockBuilder_inherent_extrinsics(InherentData)   -> Vec<Extrinsic>
    BlockBuilder_apply_extrinsic(extrinsic)          -> ApplyExtrinsicResult
    BlockBuilder_finalize_block()                    -> Header
    TaggedTransactionQueue_validate_transaction(..)  -> TransactionValidity
    Metadata_metadata_at_version(u32)                -> Option<OpaqueMetadata>
    GenesisBuilder_build_state(json)                 -> Result<(), String>
    SubnetInfoRuntimeApi_get_metagraph(..) and every other runtime API

Three names are this node's own; a runtime that has no use for one does not export it:

    DevApi_apply_extrinsic(origin, extrinsic)        -> ApplyExtrinsicResult    of an extrinsic that nobody signed
    DevApi_explain(netuid, uid, preview, header)     -> JSON                    why a neuron has what it has
    DevApi_state_root()                              -> [u8; 32]                zeros: the node digests changes itself

A runtime keeps nothing between calls that is not in `state` (caches keyed by the bytes they were computed from are
fine). So two runtimes are interchangeable, and a call at an old block is the same call against an old state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class State(Protocol):
    """Key-value storage as a runtime sees it: live values plus nested transactions."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write; None deletes. Outside a transaction, on a read-only view, raises `ReadOnlyState`."""

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Live keys with this prefix, ascending, uncommitted writes included. Writing while iterating is allowed."""

    def next_key(self, key: bytes) -> bytes | None:
        """The smallest live key above `key`, uncommitted writes included."""

    def settled(self, key: bytes) -> bytes | None:
        """The value as of the last finished block: what `get` gave before the open block wrote to the key."""

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        """Keys with this prefix that had a value as of the last finished block, ascending, those that the open block
        deleted included. Writing while iterating is allowed."""

    def root(self, version: int) -> bytes:
        """32 bytes that bind everything live: the Merkle root in a state version (0 or 1) where all of the state is
        at hand, a digest of the changes where most of it is elsewhere (a fork)."""

    def begin(self) -> None:
        """Open a nested transaction."""

    def commit(self) -> None:
        """Fold the innermost transaction into the one around it."""

    def rollback(self) -> None:
        """Drop the innermost transaction."""


class Runtime(Protocol):
    """One chain's rules behind one function."""

    def call(self, method: str, data: bytes, state: State) -> bytes:
        """Run an exported runtime function. Raises `localnet.errors.RuntimeApiMissing` for a name that is not exported
        and `localnet.errors.RuntimeTrap` when the call itself fails."""
