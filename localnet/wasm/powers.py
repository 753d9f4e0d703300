"""Extrinsics that nobody signed, on a runtime that checks signatures: `DevApi_apply_extrinsic`.

    an account   its extrinsic has `marks.FAKE_SIGNATURE`, which passes as anybody's for the length of this one call
    root         Sudo.sudo(call) of the present sudo key, with the fake signature
    nobody       the bare extrinsic as it is

What the second one needs of the runtime (indices, storage keys, extensions) is in its metadata, read once per code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localnet.abi import State
from localnet.codec.document import Document
from localnet.codec.scale import compact, read_compact
from localnet.errors import MetadataError, PoolRejected, RuntimeApiMissing, RuntimeTrap, ScaleError
from localnet.node.documents import document_of
from localnet.node.marks import KINDS, Impersonated, unsigned
from localnet.vocabulary import Vocabulary

if TYPE_CHECKING:
    from localnet.wasm.runtime import WasmRuntime

APPLY = "BlockBuilder_apply_extrinsic"
CANNOT_PAY = b"\1\0\1"  # ApplyExtrinsicResult: Err(Invalid(Payment))
INVALID = 1010  # code of a refused extrinsic
SUDO = ("Sudo", "Key")
UNTIPPED = {  # immortal, without a tip and without a metadata hash
    "CheckMortality": b"\0", "CheckEra": b"\0", "CheckMetadataHash": b"\0", "ChargeTransactionPayment": compact(0),
    "ChargeTransactionPaymentWrapper": compact(0),
}  # fmt: skip


@dataclass
class Facts:
    """What is known of one code's metadata."""

    document: Document | None = None


def apply(runtime: WasmRuntime, facts: Facts, data: bytes, state: State) -> bytes:
    """(kind u8, extrinsic) -> ApplyExtrinsicResult. Raises RuntimeTrap, RuntimeApiMissing where a runtime has no way to
    be root, PoolRejected where root is an account that cannot pay."""
    kind, raw = data[:1], data[1:]
    if kind == b"\0":
        return runtime.execute(APPLY, raw, state, impersonating=True)
    if kind == bytes((KINDS["none"],)):
        return runtime.execute(APPLY, raw, state)
    if kind != bytes((KINDS["root"],)):
        raise RuntimeTrap(f"DevApi_apply_extrinsic: there is no kind {kind.hex()} of impersonated extrinsic")
    try:
        one = as_sudo(runtime, facts, _call_of(raw), state)
    except (MetadataError, ScaleError) as error:
        raise RuntimeTrap(f"DevApi_apply_extrinsic: {error}") from error
    answer = runtime.execute(APPLY, one.raw, state, impersonating=True)
    if answer == CANNOT_PAY:
        raise PoolRejected(
            INVALID,
            "Invalid Transaction",
            f"root is the sudo key {one.name} here, and it cannot pay the fee: transfer to it from an account that has "
            "something, or write its System.Account (set_storage, dev_setStorage)",
        )
    return answer


def _call_of(raw: bytes) -> bytes:
    """The call in a bare extrinsic: behind its length and its format."""
    size, start = read_compact(raw, 0)
    if size != len(raw) - start or size < 2:
        raise ScaleError("an extrinsic whose length is not the one it says")
    return raw[start + 1 :]


def as_sudo(runtime: WasmRuntime, facts: Facts, call: bytes, state: State) -> Impersonated:
    """The extrinsic with which the sudo key has a call dispatched as root.

    Raises RuntimeApiMissing when the runtime has no sudo or nobody has its key, MetadataError.
    """
    if facts.document is None:
        facts.document = document_of(runtime, state)
    document = facts.document
    if ("Sudo", "sudo") not in document.call_index or SUDO not in document.storage:
        raise RuntimeApiMissing("this runtime has no Sudo pallet: there is no way to be root")
    key = state.get(document.storage[SUDO].prefix)
    if key is None or len(key) != 32:
        raise RuntimeApiMissing("there is no sudo key on this chain: nobody can be root")
    nonce = int.from_bytes(runtime.execute("AccountNonceApi_account_nonce", key, state), "little")
    sudo = bytes((document.pallet_index["Sudo"], document.call_index["Sudo", "sudo"]))
    return unsigned(
        key, sudo + call, nonce, Vocabulary(document).extension_bytes({**UNTIPPED, "CheckNonce": compact(nonce)})
    )
