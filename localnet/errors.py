"""Everything that can go wrong in the local Subtensor.

    LocalnetError
    ├── ScaleError            bytes or values that do not fit their type
    ├── MetadataError         the metadata document is damaged, or the runtime and the document disagree
    ├── ReadOnlyState         a write to a state that only answers reads
    ├── RuntimeApiMissing     a runtime function that is not exported (or not implemented, the message says which)
    ├── RuntimeTrap           a runtime call that broke off
    │   └── RuntimeTimeout    ... because it took longer than it may
    ├── RuntimeCodeError      the Wasm code of a runtime cannot be had or cannot be used; the message says why
    ├── ForkError             the node that a chain is forked from does not answer, or what it answers cannot be
    ├── DispatchError         a call that failed on chain: part of the protocol, it ends up in an event
    ├── InvalidTransaction    a transaction the pool or the block refuses: part of the protocol too
    ├── StateFileError        a state file that cannot be used
    │   ├── StateFileVersion  written in a format this program does not know
    │   └── StateFileMismatch written by a chain with another genesis (other metadata included)
    ├── ChainError            the node was asked for something it cannot do
    │   ├── UnknownBlock      no block with this hash or number
    │   ├── StateDiscarded    the block is known, its state is older than the kept history
    │   ├── PulseError        what a drand source gave is not a pulse of the beacon the chain follows, or not there
    │   └── ExtrinsicFormat   bytes that do not have the envelope of an extrinsic
    ├── RpcError              an error answer on the wire: code, message and data as clients match them
    │   └── PoolRejected      ... because the pool refuses an extrinsic
    ├── CallFailed            an extrinsic sent with `Localnet.extrinsic` failed; `name` is the chain's error name
    └── ConfigError           an argument or option that makes no sense

`DispatchError.value` and `InvalidTransaction.value` are SCALE values of the types of the same name, ready to encode.
"""

from __future__ import annotations

from typing import Any


class LocalnetError(Exception):
    """Root of the tree."""


class ScaleError(LocalnetError):
    """Bytes or values that do not fit their SCALE type."""


class MetadataError(LocalnetError):
    """The metadata document is damaged, or it and the runtime's code disagree."""


class ReadOnlyState(LocalnetError):
    """A write reached a state that only answers reads."""


class RuntimeApiMissing(LocalnetError):
    """The runtime does not export this function."""


class RuntimeTrap(LocalnetError):
    """A runtime call broke off; its writes are void."""


class RuntimeTimeout(RuntimeTrap):
    """A runtime call took longer than it may and was stopped."""


class RuntimeCodeError(LocalnetError):
    """The Wasm code of a runtime cannot be had, is not what it was said to be, or cannot be used."""


class ForkError(LocalnetError):
    """The node that a chain is forked from does not answer, refuses, or answers what cannot be."""


class DispatchError(LocalnetError):
    """A call failed. `value` is the SCALE value of sp_runtime's DispatchError; `name` is what people call it."""

    def __init__(self, value: Any, name: str | None = None) -> None:
        self.value = value
        self.name = name or (value if isinstance(value, str) else str(value))
        super().__init__(self.name)


class InvalidTransaction(LocalnetError):
    """A transaction is refused before it is applied. `value` is the SCALE value of TransactionValidityError."""

    def __init__(self, reason: Any) -> None:
        """`reason`: a variant of InvalidTransaction: "Stale", "Payment", ("Custom", 6), ..."""
        self.reason = reason
        self.value = ("Invalid", reason)
        super().__init__(reason if isinstance(reason, str) else f"{reason[0]}({reason[1]})")


class StateFileError(LocalnetError):
    """A state file is unreadable, damaged, or in use by another process."""


class StateFileVersion(StateFileError):
    """The format version of the state file is not one this program knows."""


class StateFileMismatch(StateFileError):
    """The state file belongs to a chain with another genesis."""


class ChainError(LocalnetError):
    """The node cannot do what was asked."""


class UnknownBlock(ChainError):
    """No block with this hash or number."""


class StateDiscarded(ChainError):
    """The block is known, but its state is older than the history the node keeps."""


class PulseError(ChainError):
    """What a drand source gave is not a pulse of the beacon the chain follows, or the source gave nothing."""


class ExtrinsicFormat(ChainError):
    """Bytes that do not have the envelope of an extrinsic: length prefix, version, signer, signature, era, nonce."""


class RpcError(LocalnetError):
    """An error answer. What is in here reaches the client: stable, safe to show, never a stack trace."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        self.code, self.message, self.data = code, message, data
        super().__init__(f"{message}: {data}" if data else message)


class PoolRejected(RpcError):
    """The pool refuses an extrinsic."""


class CallFailed(LocalnetError):
    """An extrinsic was refused or failed. `name` is the chain's error name, or the pool's text."""

    def __init__(self, name: str, detail: str = "") -> None:
        self.name, self.detail = name, detail
        super().__init__(f"{name}: {detail}" if detail else name)


class ConfigError(LocalnetError):
    """An argument or option that makes no sense; the message says which, and what is accepted."""
