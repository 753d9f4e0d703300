"""The smallest chain behind the runtime ABI: accounts with nonces, and calls that do one thing each.

It exists to show that the node needs nothing of the real runtime, and to fail where a test wants a failure:

    01 k v   write value v under key k       fd   makes finalize_block break off
    fe       refused when applied            ff   breaks off when applied
"""

from __future__ import annotations

from localnet.abi import State
from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import RuntimeApiMissing, RuntimeTrap
from localnet.node.blocks import Header
from localnet.node.extrinsic import parse

SLOT = 1000
BAD_PROOF, STALE, FUTURE, CALL = b"\1\0\4", b"\1\0\3", b"\1\0\2", b"\1\0\0"


def extrinsic(who: int, nonce: int, call: bytes, *, tip: int = 0, era: bytes = b"\0", good: bool = True) -> bytes:
    """Signed by account `who` repeated 32 times; the "signature" is its first byte."""
    signature = bytes((who if good else 0,)) + bytes(63)
    account = bytes((who,)) * 32
    return opaque(b"\x84\0" + account + b"\1" + signature + era + compact(nonce) + compact(tip) + b"\0" + call)


def put(key: bytes, value: bytes) -> bytes:
    return b"\1" + opaque(key) + opaque(value)


class TinyRuntime:
    def __init__(self, metadata: bytes = b"tiny") -> None:
        self.metadata = metadata
        self.log: list[str] = []

    def call(self, method: str, data: bytes, state: State) -> bytes:
        self.log.append(method)
        function = getattr(self, "_" + method, None)
        if function is None:
            raise RuntimeApiMissing(f"Exported method {method} is not found")
        return bytes(function(data, state))

    def _GenesisBuilder_build_state(self, data: bytes, state: State) -> bytes:
        if b'"refuse"' in data:
            return b"\1" + opaque(b"no such preset")
        state.put(b"genesis", data)
        state.put(b":code", self.metadata)
        return b"\0"

    def _DevApi_state_root(self, data: bytes, state: State) -> bytes:
        return bytes(32)

    def _Metadata_metadata_at_version(self, data: bytes, state: State) -> bytes:
        return b"\1" + opaque(self.metadata)

    def _AuraApi_slot_duration(self, data: bytes, state: State) -> bytes:
        return SLOT.to_bytes(8, "little")

    def _Core_initialize_block(self, data: bytes, state: State) -> bytes:
        state.put(b"header", data)
        return b""

    def _BlockBuilder_inherent_extrinsics(self, data: bytes, state: State) -> bytes:
        state.put(b"inherent data", data)
        return compact(1) + opaque(b"\5" + put(b"number", self._header(state).number.to_bytes(4, "little")))

    def _BlockBuilder_finalize_block(self, data: bytes, state: State) -> bytes:
        if state.get(b"poison"):
            raise ZeroDivisionError("the block is poisoned")  # not one of ours: a bug in a runtime
        return self._header(state).encode()

    def _header(self, state: State) -> Header:
        return Header.decode(state.get(b"header") or b"")

    def _AccountNonceApi_account_nonce(self, data: bytes, state: State) -> bytes:
        return state.get(b"nonce" + data) or bytes(4)

    def _check(self, raw: bytes, state: State, *, in_block: bool) -> bytes | None:
        xt = parse(raw)
        assert xt.who is not None
        nonce = int.from_bytes(self._AccountNonceApi_account_nonce(xt.who, state), "little")
        if raw[raw.index(xt.who) + 33] != xt.who[0]:
            return BAD_PROOF
        if xt.nonce < nonce:
            return STALE
        return FUTURE if in_block and xt.nonce > nonce else None

    def _TaggedTransactionQueue_validate_transaction(self, data: bytes, state: State) -> bytes:
        raw = data[1:-32]
        refusal = self._check(raw, state, in_block=False)
        if refusal is not None:
            return refusal
        xt = parse(raw)
        assert xt.who is not None
        nonce = int.from_bytes(self._AccountNonceApi_account_nonce(xt.who, state), "little")
        requires = [xt.who + (xt.nonce - 1).to_bytes(4, "little")] if xt.nonce > nonce else []
        longevity = xt.era.period if xt.era else 2**64 - 1
        tags = [
            compact(len(t)) + b"".join(map(opaque, t)) for t in (requires, [xt.who + xt.nonce.to_bytes(4, "little")])
        ]
        return b"\0" + (1 + xt.tip).to_bytes(8, "little") + tags[0] + tags[1] + longevity.to_bytes(8, "little") + b"\1"

    def _BlockBuilder_apply_extrinsic(self, data: bytes, state: State) -> bytes:
        xt = parse(data)
        if xt.who is None:
            return self._dispatch(data[read_compact(data, 0)[1] + 1 :], state)
        refusal = self._check(data, state, in_block=True)
        if refusal is not None:
            return refusal
        call = data[data.index(xt.who) + 32 + 65 :]
        call = call[1 if call[0] == 0 else 2 :]
        call = call[read_compact(call, 0)[1] :]
        call = call[read_compact(call, 0)[1] + 1 :]
        state.put(b"nonce" + xt.who, (xt.nonce + 1).to_bytes(4, "little"))
        return self._dispatch(call, state)

    def _dispatch(self, call: bytes, state: State) -> bytes:
        if call[0] == 0xFF:
            state.begin()  # and leaves it open
            state.put(b"half", b"done")
            raise RuntimeTrap("this call always breaks off")
        if call[0] == 0xFE:
            return CALL
        if call[0] == 0xFD:
            state.put(b"poison", b"1")
        else:
            size, start = read_compact(call, 1)
            value_size, value_start = read_compact(call, start + size)
            state.put(call[start : start + size], call[value_start : value_start + value_size])
        return b"\0\0"
