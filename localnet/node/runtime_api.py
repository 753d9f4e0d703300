"""Runtime calls the node makes for its clients, and what it remembers of their answers.

Answers at the head are kept until the next block, metadata until the code changes (the value under `:code`). What a
call returns is read here without metadata: these types are fixed parts of the runtime interface.
"""

from __future__ import annotations

from typing import Any

from localnet.codec.scale import read_compact
from localnet.errors import ChainError, RuntimeTrap, ScaleError
from localnet.node.chain import Chain
from localnet.node.documents import CODE as CODE

MAX_REMEMBERED = 512  # answers at the head
CLASSES = ("normal", "operational", "mandatory")


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def hexed_or_none(value: bytes | None) -> str | None:
    return None if value is None else "0x" + value.hex()


class RuntimeApi:
    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._answers: dict[tuple[str, bytes], str] = {}
        self._fixed: dict[tuple[str, bytes], tuple[bytes | None, Any]] = {}  # valid for one code

    def new_head(self) -> None:
        self._answers.clear()

    def call_hex(self, name: str, data: bytes, number: int) -> str:
        """A runtime call's answer as hex. Raises RuntimeApiMissing, RuntimeTrap, StateDiscarded."""
        if name.startswith("Metadata_"):
            return str(self._once(name, data, number, lambda raw: "0x" + raw.hex()))
        if number != self.chain.head.number:
            return "0x" + self.chain.call(name, data, number).hex()
        known = self._answers.get((name, data))
        if known is None:
            known = "0x" + self.chain.call(name, data).hex()
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            self._answers[name, data] = known
        return known

    def _once(self, name: str, data: bytes, number: int, read: Any) -> Any:
        """An answer that depends on the runtime's code only."""
        code = self.chain.storage(CODE, number)
        known = self._fixed.get((name, data))
        if known is None or known[0] != code:
            known = (code, read(self.chain.call(name, data, number)))
            if len(self._fixed) >= MAX_REMEMBERED:
                self._fixed.clear()
            self._fixed[name, data] = known
        return known[1]

    def metadata_hex(self, number: int) -> str:
        """Metadata in the version old clients know (14), without its length."""

        def read(raw: bytes) -> str:
            size, offset = read_compact(raw, 0)
            return "0x" + raw[offset : offset + size].hex()

        return str(self._once("Metadata_metadata", b"", number, read))

    def version(self, number: int) -> Any:
        """`RuntimeVersion` as JSON-RPC shows it."""
        return self._once("Core_version", b"", number, read_version)

    def next_nonce(self, who: bytes) -> int:
        """The nonce of an account's next extrinsic, those waiting in the pool counted."""
        raw = self.chain.call("AccountNonceApi_account_nonce", who)
        nonce = int.from_bytes(raw, "little")
        while self.chain.pool.provides(who + nonce.to_bytes(len(raw), "little")):
            nonce += 1
        return nonce

    def next_epoch(self, netuid: int) -> int:
        """The block of a subnet's next epoch. Raises ChainError when it has none."""
        if netuid >= 1 << 16:
            raise ChainError(f"{netuid} is not the number of a subnet")
        raw = self.chain.call("SubnetInfoRuntimeApi_get_next_epoch_start_block", netuid.to_bytes(2, "little"))
        if raw[:1] != b"\1":
            raise ChainError(f"subnet {netuid} has no next epoch: it does not exist, or its tempo is 0")
        return int.from_bytes(raw[1:], "little")

    def fee_info(self, extrinsic: bytes, number: int) -> Any:
        """Weight, class and fee of an extrinsic. Balances are as wide as the runtime writes them."""
        data = extrinsic + len(extrinsic).to_bytes(4, "little")
        raw = self.chain.call("TransactionPaymentApi_query_info", data, number)
        try:
            ref_time, offset = read_compact(raw, 0)
            proof_size, offset = read_compact(raw, offset)
            kind, fee = CLASSES[raw[offset]], int.from_bytes(raw[offset + 1 :], "little")
        except (ScaleError, IndexError) as error:
            raise RuntimeTrap(f"TransactionPaymentApi_query_info gave no dispatch info: {error}") from error
        return {"weight": {"ref_time": ref_time, "proof_size": proof_size}, "class": kind, "partialFee": str(fee)}

    def fee_details(self, extrinsic: bytes, number: int) -> Any:
        """Base, length and weight part of the fee. The answer is Option<[balance; 3]>, then the tip as one more."""
        data = extrinsic + len(extrinsic).to_bytes(4, "little")
        raw = self.chain.call("TransactionPaymentApi_query_fee_details", data, number)
        if raw[:1] == b"\0":
            return {"inclusionFee": None}
        width = (len(raw) - 1) // 4
        parts = [int.from_bytes(raw[1 + i * width : 1 + (i + 1) * width], "little") for i in range(3)]
        names = ("baseFee", "lenFee", "adjustedWeightFee")
        return {"inclusionFee": {name: hex(part) for name, part in zip(names, parts, strict=True)}}


def read_version(raw: bytes) -> Any:
    """Decode a `RuntimeVersion` (state version last). Raises ScaleError."""
    offset = 0

    def text() -> str:
        nonlocal offset
        size, offset = read_compact(raw, offset)
        offset += size
        return raw[offset - size : offset].decode(errors="replace")

    def number() -> int:
        nonlocal offset
        offset += 4
        return int.from_bytes(raw[offset - 4 : offset], "little")

    spec, implementation = text(), text()
    authoring, spec_version, implementation_version = number(), number(), number()
    count, offset = read_compact(raw, offset)
    if offset + 12 * count > len(raw):
        raise ScaleError("a runtime version that ends inside its list of APIs")
    apis, state = [], 0
    for _ in range(count):
        name, offset = "0x" + raw[offset : offset + 8].hex(), offset + 8
        apis.append([name, number()])
    transaction = number()
    if offset < len(raw):  # not there before version 4 of the Core API
        state, offset = raw[offset], offset + 1
    if offset != len(raw):
        raise ScaleError("a runtime version of the wrong length")
    return {
        "specName": spec,
        "implName": implementation,
        "authoringVersion": authoring,
        "specVersion": spec_version,
        "implVersion": implementation_version,
        "apis": apis,
        "transactionVersion": transaction,
        "systemVersion": state,
        "stateVersion": state,
    }
