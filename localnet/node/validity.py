"""What a runtime says about an extrinsic, and how clients are told.

`TaggedTransactionQueue_validate_transaction` answers with a `TransactionValidity`, `BlockBuilder_apply_extrinsic`
with an `ApplyExtrinsicResult`; both are read here by their first bytes, so no metadata is needed. A refusal becomes a
`PoolRejected` whose code, message and data are the released node's (rpc-api/src/author/error.rs in polkadot-sdk):
clients decide by these texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from localnet.codec.scale import read_compact
from localnet.errors import LocalnetError, PoolRejected, RpcError, ScaleError

BAD_FORMAT, VERIFICATION, INVALID, UNKNOWN, BANNED, IMPORTED, LOW_PRIORITY, IMMEDIATELY_DROPPED = (
    1001, 1002, 1010, 1011, 1012, 1013, 1014, 1016,
)  # fmt: skip

# sp_runtime::transaction_validity, by variant index
INVALID_TEXT = (
    "Transaction call is not expected",
    "Inability to pay some fees (e.g. account balance too low)",
    "Transaction will be valid in the future",
    "Transaction is outdated",
    "Transaction has a bad signature",
    "Transaction has an ancient birth block",
    "Transaction would exhaust the block limits",
    "InvalidTransaction custom error",
    "A call was labelled as mandatory, but resulted in an Error.",
    "Transaction dispatch is mandatory; transactions must not be validated.",
    "Invalid signing address",
    "The implicit data was unable to be calculated",
    "The transaction extension did not authorize any origin",
)
UNKNOWN_TEXT = (
    "Could not lookup information required to validate the transaction",
    "Could not find an unsigned validator for the unsigned transaction",
    "UnknownTransaction custom error",
)
FUTURE, EXHAUSTS_RESOURCES = 2, 6
INVALID_CUSTOM, UNKNOWN_CUSTOM = 7, 2
FOREVER = 2**64 - 1


@dataclass(frozen=True)
class Validity:
    """A valid transaction: waits for all tags in `requires`, gives those in `provides`, lives `longevity` blocks."""

    priority: int
    requires: tuple[bytes, ...]
    provides: tuple[bytes, ...]
    longevity: int


@dataclass(frozen=True)
class Refusal:
    """A `TransactionValidityError`."""

    unknown: bool
    variant: int
    custom: int = 0

    @property
    def exhausted(self) -> bool:
        """It does not fit this block; the next one may take it."""
        return not self.unknown and self.variant == EXHAUSTS_RESOURCES

    @property
    def future(self) -> bool:
        return not self.unknown and self.variant == FUTURE

    @property
    def text(self) -> str:
        if self.variant == (UNKNOWN_CUSTOM if self.unknown else INVALID_CUSTOM):
            return f"Custom error: {self.custom}"
        texts = UNKNOWN_TEXT if self.unknown else INVALID_TEXT
        return texts[self.variant] if self.variant < len(texts) else f"reason {self.variant}"

    def rejected(self) -> PoolRejected:
        if self.unknown:
            return PoolRejected(UNKNOWN, "Unknown Transaction Validity", self.text)
        return PoolRejected(INVALID, "Invalid Transaction", self.text)


def read_validity(data: bytes) -> Validity | Refusal:
    """Decode a `TransactionValidity`. Raises ScaleError."""
    try:
        if data[0] != 0:
            return read_refusal(data, 1)
        priority = int.from_bytes(data[1:9], "little")
        requires, offset = _tags(data, 9)
        provides, offset = _tags(data, offset)
        if len(data) != offset + 9:
            raise ScaleError("a transaction validity of the wrong length")
        return Validity(priority, requires, provides, int.from_bytes(data[offset : offset + 8], "little"))
    except IndexError as error:
        raise ScaleError("a transaction validity that ends too early") from error


def read_refusal(data: bytes, offset: int) -> Refusal:
    """Decode a `TransactionValidityError`. Raises IndexError when the data ends too early."""
    unknown, variant = data[offset] == 1, data[offset + 1]
    is_custom = variant == (UNKNOWN_CUSTOM if unknown else INVALID_CUSTOM)
    return Refusal(unknown, variant, data[offset + 2] if is_custom else 0)


def read_apply_result(data: bytes) -> tuple[Refusal | None, bool]:
    """Decode an `ApplyExtrinsicResult` as (refusal, dispatched well).

    A refusal means that the extrinsic is not part of the block. Without one it is, whether or not its dispatch
    succeeded.
    """
    if data[:1] == b"\0":
        return None, data[1:2] == b"\0"
    try:
        return read_refusal(data, 1), False
    except IndexError as error:
        raise ScaleError("an apply result that ends too early") from error


def _tags(data: bytes, offset: int) -> tuple[tuple[bytes, ...], int]:
    count, offset = read_compact(data, offset)
    tags = []
    for _ in range(count):
        size, offset = read_compact(data, offset)
        tags.append(data[offset : offset + size])
        offset += size
    return tuple(tags), offset


def bad_format(reason: object) -> RpcError:
    return PoolRejected(BAD_FORMAT, f"Extrinsic has invalid format: {reason}")


def not_verifiable(trap: LocalnetError) -> RpcError:
    """The runtime broke off while it looked at the extrinsic: an undecodable call, most of the time."""
    text = "Runtime error: Execution failed: Execution aborted due to trap"
    return PoolRejected(VERIFICATION, f"Verification Error: {text}", str(trap))


def already_imported(digest: bytes) -> PoolRejected:
    return PoolRejected(IMPORTED, "Transaction is already imported", f"[0x{digest.hex()}]")


def banned() -> PoolRejected:
    return PoolRejected(BANNED, "Transaction is temporarily banned")


def too_low_priority(old: int, new: int) -> PoolRejected:
    detail = "The transaction has too low priority to replace another transaction already in the pool."
    return PoolRejected(LOW_PRIORITY, f"Priority is too low: ({old} vs {new})", detail)


def pool_full() -> PoolRejected:
    return PoolRejected(
        IMMEDIATELY_DROPPED, "Immediately Dropped", "The transaction couldn't enter the pool because of the limit"
    )
