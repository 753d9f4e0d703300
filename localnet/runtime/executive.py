"""Extrinsics: what the pool asks about one, and what a block does with it.

    validate              is this extrinsic acceptable on top of this state? Nothing it does is kept
    apply                 the same checks, then nonce, fee, dispatch, what of the fee comes back, and the closing event
    apply_impersonated    the same for an extrinsic that nobody signed: a developer's

What an extrinsic looks like is in `localnet.runtime.extrinsic`; the dispatch of its call, and of those that this call
carries, in `localnet.runtime.runtime`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from localnet.codec.scale import compact, opaque
from localnet.errors import DispatchError, InvalidTransaction, RuntimeTrap, ScaleError
from localnet.rules.constants import NETWORK
from localnet.rules.fees import BASE_EXTRINSIC_REF_TIME
from localnet.runtime import extrinsic as xt
from localnet.runtime.extrinsic import Extrinsic
from localnet.runtime.framework import FEE_WAIVED, CallInfo, Origin, Root, Signed, Unsigned, Validity
from localnet.runtime.runtime_call import inner_calls
from localnet.runtime.subtensor import guards

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime

log = logging.getLogger("localnet.runtime")

VALIDATED_LIMIT = 4096  # extrinsics whose signature check is remembered between the pool and the block
NOBODY = bytes(32)  # CheckNonZeroSender
INHERENTS = {("Timestamp", "set"), ("MevShield", "announce_next_key")}
LONGEVITY = (1 << 64) - 1  # of an immortal transaction, blocks
PRIORITY = {"Normal": 1, "Operational": NETWORK.operational_priority}  # whatever tip, weight or length

OK = b"\0\0"  # ApplyExtrinsicResult::Ok(Ok(()))
INVALID_INDEX = {
    "Call": 0, "Payment": 1, "Future": 2, "Stale": 3, "BadProof": 4, "AncientBirthBlock": 5, "ExhaustsResources": 6,
    "Custom": 7, "BadMandatory": 8, "MandatoryValidation": 9, "BadSigner": 10,
}  # fmt: skip


class Executive:
    """Checks extrinsics and applies them to a runtime's state."""

    def __init__(self, runtime: SpecRuntime) -> None:
        self.rt = runtime
        self._longest: int = runtime.document.constants["System", "BlockLength"]["max"]["normal"]  # bytes
        self._signatures: dict[bytes, bool] = {}

    # -- checks -----------------------------------------------------------------------------------------------------

    def validate(self, data: bytes) -> bytes:
        """(source u8, extrinsic, block hash) -> TransactionValidity."""
        raw, head = data[1 : len(data) - 32], data[-32:]
        self.rt.state.begin()
        try:
            self.rt.system.look_ahead(head)
            extrinsic = xt.parse(raw)
            pallet, function, arguments = self.rt.decode_call(extrinsic.call)
            if extrinsic.who is None:
                return self._valid_unsigned(extrinsic, pallet, function, arguments)
            self._require_implemented(pallet, function, arguments)
            info = self._check(extrinsic, pallet, function, arguments, in_block=False)
            return self._valid(extrinsic, info)
        except ScaleError as error:
            raise RuntimeTrap(f"the extrinsic does not decode: {error}") from error
        except InvalidTransaction as error:
            return b"\1" + encode_invalid(error)
        finally:
            self.rt.state.rollback()

    def _require_implemented(self, pallet: str, function: str, arguments: dict[str, Any]) -> None:
        """Refuse a call without code at the door, where the answer can name it."""
        if (pallet, function) not in self.rt.calls:
            raise RuntimeTrap(f"{pallet}.{function} is not implemented by the specification runtime")
        for inner in inner_calls(arguments):
            self._require_implemented(*inner)

    def _valid(self, extrinsic: Extrinsic, info: CallInfo) -> bytes:
        who, nonce = extrinsic.who or b"", extrinsic.nonce
        ahead = nonce > self.rt.system.Account[who]["nonce"]
        requires = compact(1) + tag(who, nonce - 1) if ahead else compact(0)
        longevity = extrinsic.era.left(self.rt.number) if extrinsic.era else LONGEVITY
        priority = PRIORITY[info.dispatch_class].to_bytes(8, "little")
        return (b"\0" + priority + requires + compact(1) + tag(who, nonce)
                + longevity.to_bytes(8, "little") + b"\1")  # fmt: skip

    def _valid_unsigned(self, extrinsic: Extrinsic, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        validity = self._check_unsigned(extrinsic, pallet, function, arguments)
        if validity is None:
            return b"\1\1\1"  # Err(Unknown(NoUnsignedValidator)): inherents do not come from outside
        provides = compact(len(validity.provides)) + b"".join(map(opaque, validity.provides))
        return (b"\0" + validity.priority.to_bytes(8, "little") + compact(0) + provides
                + validity.longevity.to_bytes(8, "little") + bytes((validity.propagate,)))  # fmt: skip

    def _check_unsigned(
        self, extrinsic: Extrinsic, pallet: str, function: str, arguments: dict[str, Any]
    ) -> Validity | None:
        """None for a call that is not taken from anybody but its signer. Raises InvalidTransaction."""
        if len(extrinsic.raw) > self._longest:
            raise InvalidTransaction("ExhaustsResources")
        return self.rt.pallets[pallet].validate_unsigned(function, arguments) if pallet in self.rt.pallets else None

    def _check(
        self,
        extrinsic: Extrinsic,
        pallet: str,
        function: str,
        arguments: dict[str, Any],
        *,
        in_block: bool,
        signed: bool = True,
    ) -> CallInfo:
        """All that stands between an extrinsic and its dispatch; with `signed` False all but the signature. Raises
        InvalidTransaction."""
        who = extrinsic.who
        assert who is not None
        if who == NOBODY:  # its key is the neutral element: anybody can make a signature that verifies
            raise InvalidTransaction("BadSigner")
        if len(extrinsic.raw) > self._longest:
            raise InvalidTransaction("ExhaustsResources")
        if signed:
            self._check_signature(extrinsic)
        account, info = self.rt.system.Account[who], self.rt.call_info(pallet, function, arguments)
        if not account["providers"] and not account["sufficients"] and (info.pays or extrinsic.tip):
            raise InvalidTransaction("Payment")
        if extrinsic.nonce < account["nonce"]:
            raise InvalidTransaction("Stale")
        if in_block and extrinsic.nonce > account["nonce"]:
            raise InvalidTransaction("Future")
        if info.dispatch_class == "Mandatory":  # an inherent, which only the author makes
            raise InvalidTransaction("MandatoryValidation")
        payer = self.rt.proxy.fee_payer(who, pallet, function, arguments)
        fee = self.rt.payment.fee(info, len(extrinsic.raw), extrinsic.tip)
        self.rt.payment.check_payable(payer, fee, (pallet, function, arguments))
        if pallet != self.rt.subtensor.name:
            guards.ensure_unbound(self.rt.subtensor, who, pallet, function)
        if pallet in self.rt.pallets:
            self.rt.pallets[pallet].validate(who, function, arguments)
        return info

    def _check_signature(self, extrinsic: Extrinsic) -> None:
        genesis = self.rt.system.BlockHash[0]
        birth = genesis
        if extrinsic.era is not None:
            number = extrinsic.era.birth(self.rt.number)
            if number not in self.rt.system.BlockHash:
                raise InvalidTransaction("AncientBirthBlock")
            birth = self.rt.system.BlockHash[number]
        checked = self.rt.metadata_hash if extrinsic.check_metadata else b""
        payload = extrinsic.payload(self.rt.spec_version, self.rt.transaction_version, genesis, birth, checked)
        signed = payload + extrinsic.signature + (extrinsic.who or b"") + bytes((extrinsic.scheme,))
        key = blake2b(signed, digest_size=32).digest()
        known = self._signatures.pop(key, None)
        good = xt.verify(payload, extrinsic) if known is None else known
        if len(self._signatures) >= VALIDATED_LIMIT:
            self._signatures.clear()
        self._signatures[key] = good
        if not good:
            raise InvalidTransaction("BadProof")

    # -- application ------------------------------------------------------------------------------------------------

    def apply(self, data: bytes, origin: Origin | None = None, signed: bool = True) -> bytes:
        """extrinsic -> ApplyExtrinsicResult. `origin`: what its call is dispatched with, for nothing, in place of its
        signer; `signed` False: its signature is not looked at."""
        try:
            extrinsic = xt.parse(data)
            pallet, function, arguments = self.rt.decode_call(extrinsic.call)
        except ScaleError as error:
            log.debug("extrinsic does not decode: %s", error)
            return b"\1\0" + bytes((INVALID_INDEX["Call"],))
        mark = len(self.rt.events)
        self.rt.phase = ("ApplyExtrinsic", self.rt.system.next_extrinsic())
        try:
            if not signed:
                self._require_implemented(pallet, function, arguments)
            if origin is not None:
                return self._apply_free(origin, pallet, function, arguments)
            if extrinsic.who is None:
                return self._apply_unsigned(extrinsic, pallet, function, arguments)
            info = self._check(extrinsic, pallet, function, arguments, in_block=True, signed=signed)
            return self._apply_signed(extrinsic, info, (pallet, function, arguments))
        except InvalidTransaction as error:
            self.rt.system.drop_extrinsic()
            return b"\1" + encode_invalid(error)
        except BaseException:
            del self.rt.events[mark:]  # the node rolls the state back; events are not in it yet
            raise

    def _apply_signed(self, extrinsic: Extrinsic, info: CallInfo, call: tuple[str, str, dict[str, Any]]) -> bytes:
        who = extrinsic.who
        assert who is not None
        payer = self.rt.proxy.fee_payer(who, *call)
        self.rt.system.bump_nonce(who)
        paid = self.rt.payment.withdraw(payer, self.rt.payment.fee(info, len(extrinsic.raw), extrinsic.tip), call)
        try:
            waived = self.rt.dispatch(Signed(who), *call) == FEE_WAIVED
            outcome = None
            info = replace(info, pays=info.pays and not (info.refunded or waived))
        except DispatchError as error:
            outcome = error
        self.rt.payment.settle(payer, paid, extrinsic.tip, info)
        return self._finish(info, outcome)

    def _apply_unsigned(self, extrinsic: Extrinsic, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        is_inherent = (pallet, function) in INHERENTS
        if not is_inherent and self._check_unsigned(extrinsic, pallet, function, arguments) is None:
            self.rt.system.drop_extrinsic()
            return b"\1\0" + bytes((INVALID_INDEX["BadSigner"],))
        return self._apply_free(Unsigned(), pallet, function, arguments)

    def _apply_free(self, origin: Origin, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        """Dispatch without anybody who pays. An inherent's event has the declared `pays_fee` nevertheless."""
        info = self.rt.call_info(pallet, function, arguments)
        if not isinstance(origin, Unsigned):
            info = replace(info, pays=False)
        try:
            self.rt.dispatch(origin, pallet, function, arguments)
        except DispatchError as error:
            return self._finish(info, error)
        return self._finish(info, None)

    def _finish(self, info: CallInfo, error: DispatchError | None) -> bytes:
        weight = {"ref_time": info.ref_time + BASE_EXTRINSIC_REF_TIME, "proof_size": info.proof_size}
        pays = "Yes" if info.pays else "No"
        details = {"weight": weight, "class": info.dispatch_class, "pays_fee": pays}
        if error is None:
            self.rt.system.emit("ExtrinsicSuccess", dispatch_info=details)
            return OK
        self.rt.system.emit("ExtrinsicFailed", dispatch_error=error.value, dispatch_info=details)
        return b"\0\1" + self.rt.document.registry.encode(self.rt._error_type, error.value)

    def apply_impersonated(self, data: bytes) -> bytes:
        """(kind u8, extrinsic) -> ApplyExtrinsicResult: an extrinsic that nobody signed. Kind 0: as if its signer had,
        fee and nonce included; 1: its call as root; 2: its call as nobody. For developers; the node marks the block.
        """
        kind, raw = data[:1], data[1:]
        if kind not in (b"\0", b"\1", b"\2"):
            raise ScaleError(f"there is no kind {kind.hex()} of impersonated extrinsic")
        return self.apply(raw, (None, Root(), Unsigned())[kind[0]], signed=False)


def tag(who: bytes, nonce: int) -> bytes:
    """What a transaction provides to, or requires from, the pool."""
    return opaque(who + nonce.to_bytes(4, "little"))


@lru_cache(maxsize=64)
def _invalid(reason: str) -> bytes:
    return b"\0" + bytes((INVALID_INDEX[reason],))


def encode_invalid(error: InvalidTransaction) -> bytes:
    """TransactionValidityError::Invalid(..)."""
    if isinstance(error.reason, tuple):
        return _invalid(error.reason[0]) + bytes((error.reason[1],))
    return _invalid(error.reason)
