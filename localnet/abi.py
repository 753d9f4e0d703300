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
