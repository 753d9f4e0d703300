"""The specification runtime: the chain's rules in Python behind the runtime ABI.

`SpecRuntime.call(name, data, state)` is all a node needs. The block functions live here: they keep the order of a block
(initialise, inherents, extrinsics, finalise), check and apply extrinsics, charge fees, and dispatch calls to pallets
inside a transaction, so that a failed call leaves nothing behind but its fee and its nonce. Runtime APIs for clients
are functions in `localnet.runtime.apis`.

    validate()   what the pool asks: is this extrinsic acceptable on top of this state?
    _apply()     what a block does with it: the same checks, then nonce, fee, dispatch, events
    dispatch()   one call with an origin; calls that carry others (Utility, Sudo, Proxy, ...) come back in here

Between calls nothing is kept but caches. Only while a block is open (initialise to finalise) the runtime remembers the
block's events, which it writes to storage at the end.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import bittensor_core

from localnet.abi import State
from localnet.codec.document import ApiMethod, Document
from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import (
    ConfigError,
    DispatchError,
    InvalidTransaction,
    MetadataError,
    RuntimeApiMissing,
    RuntimeTrap,
    ScaleError,
)
from localnet.rules.constants import NETWORK
from localnet.rules.fees import BASE_EXTRINSIC_REF_TIME
from localnet.runtime import extrinsic as xt
from localnet.runtime.apis.registry import API_FUNCTIONS
from localnet.runtime.extrinsic import Extrinsic
from localnet.runtime.framework import FEE_WAIVED, CallInfo, Origin, Pallet, Root, Signed, Unsigned, Validity
from localnet.runtime.memory import MemoryState
from localnet.runtime.pallets.admin_utils import AdminUtils
from localnet.runtime.pallets.alpha_assets import AlphaAssets
from localnet.runtime.pallets.aura import Aura
from localnet.runtime.pallets.balances import Balances
from localnet.runtime.pallets.commitments import Commitments
from localnet.runtime.pallets.crowdloan import Crowdloan
from localnet.runtime.pallets.drand import Drand
from localnet.runtime.pallets.mev_shield import MevShield
from localnet.runtime.pallets.multisig import Multisig
from localnet.runtime.pallets.payment import TransactionPayment
from localnet.runtime.pallets.preimage import Preimage
from localnet.runtime.pallets.proxy import Proxy
from localnet.runtime.pallets.scheduler import Scheduler
from localnet.runtime.pallets.sudo import Sudo
from localnet.runtime.pallets.swap import Swap
from localnet.runtime.pallets.system import System
from localnet.runtime.pallets.timestamp import Timestamp
from localnet.runtime.pallets.utility import Utility
from localnet.runtime.profile import FAST, Profile
from localnet.runtime.runtime_call import inner_calls, nests_batches, split_call
from localnet.runtime.subtensor import guards
from localnet.runtime.subtensor.pallet import Subtensor

log = logging.getLogger("localnet.runtime")

SPEC_NAME = "node-subtensor"
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


class SpecRuntime:
    """The chain's rules. One instance serves one chain at a time (it caches decoded storage)."""

    def __init__(self, profile: Profile = FAST) -> None:
        self.profile = profile
        self.document = Document.load(profile.constants)
        if self.document.extensions != xt.EXTENSIONS:
            raise MetadataError(f"the metadata's extensions {self.document.extensions} are not the ones known here")
        version = self.document.constants["System", "Version"]
        self.spec_version: int = version["spec_version"]
        self.transaction_version: int = version["transaction_version"]
        self._longest: int = self.document.constants["System", "BlockLength"]["max"]["normal"]  # bytes
        self.state: State = MemoryState()
        self.calls: dict[tuple[str, str], Callable[..., Any]] = {}
        self.phase: Any = "Initialization"
        self.events: list[bytes] = []
        self._signatures: dict[bytes, bool] = {}
        self._find_types()
        self._make_pallets()
        self._exports: dict[str, Callable[[bytes], bytes]] = {
            "Core_version": lambda data: self._encode_version(version),
            "Core_initialize_block": self._initialize_block,
            "BlockBuilder_inherent_extrinsics": self._inherent_extrinsics,
            "BlockBuilder_apply_extrinsic": self._apply_extrinsic,
            "BlockBuilder_finalize_block": self._finalize_block,
            "TaggedTransactionQueue_validate_transaction": self._validate_transaction,
            "Metadata_metadata": lambda data: opaque(self.document.v14),
            "Metadata_metadata_at_version": self._metadata_at_version,
            "Metadata_metadata_versions": lambda data: compact(2) + struct.pack("<II", 14, 15),
            "GenesisBuilder_build_state": self._build_genesis,
            "DevApi_apply_extrinsic": self._apply_impersonated,
            "DevApi_explain": self._explain,
        }  # fmt: skip

    @classmethod
    def in_memory(cls, profile: Profile = FAST) -> SpecRuntime:
        """A runtime at genesis on a state of its own, with block 1 open: for tests and simulations."""
        runtime = cls(profile)
        runtime.call("GenesisBuilder_build_state", opaque(b"{}"), runtime.state)
        runtime.open_block(1)
        return runtime

    def open_block(self, number: int, parent: bytes = bytes(32)) -> None:
        """Initialise block `number` directly, without a node."""
        header = parent + compact(number) + bytes(64) + compact(0)
        self.call("Core_initialize_block", header, self.state)

    def _find_types(self) -> None:
        document = self.document
        entry = document.storage["System", "Events"]
        self._event_type = document.tree["types"][entry.value]["def"]["sequence"]["type"]
        self._error_type = document.type_id("sp_runtime", "DispatchError")
        self._digest_type = document.storage["System", "Digest"].value

    def _make_pallets(self) -> None:
        self.system = System(self)
        self.timestamp = Timestamp(self)
        self.aura = Aura(self)
        self.balances = Balances(self)
        self.payment = TransactionPayment(self)
        self.subtensor = Subtensor(self)
        self.utility = Utility(self)
        self.sudo = Sudo(self)
        self.commitments = Commitments(self)
        self.admin_utils = AdminUtils(self)
        self.drand = Drand(self)
        self.swap = Swap(self)
        self.mev_shield = MevShield(self)
        self.proxy = Proxy(self)
        self.multisig = Multisig(self)
        self.preimage = Preimage(self)
        self.scheduler = Scheduler(self)
        self.crowdloan = Crowdloan(self)
        self.alpha_assets = AlphaAssets(self)
        index = self.document.pallet_index
        pallets = [value for value in vars(self).values() if isinstance(value, Pallet)]
        self.pallets = {p.name: p for p in sorted(pallets, key=lambda p: index[p.name])}

    # -- ABI --------------------------------------------------------------------------------------------------------

    def call(self, method: str, data: bytes, state: State) -> bytes:
        """See `localnet.abi.Runtime`. Raises RuntimeApiMissing and RuntimeTrap."""
        before, self.state = self.state, state
        try:
            export = self._exports.get(method)
            return export(data) if export is not None else self._call_api(method, data)
        except (ScaleError, DispatchError, InvalidTransaction) as error:
            raise RuntimeTrap(f"{method}: {error}") from error
        finally:
            self.state = before

    def exports(self) -> set[str]:
        """Names that `call` answers to."""
        return {*self._exports, *API_FUNCTIONS}

    def _call_api(self, name: str, data: bytes) -> bytes:
        method = self.document.apis.get(name)
        if method is None:
            raise RuntimeApiMissing(f"Exported method {name} is not found")
        function = API_FUNCTIONS.get(name)
        if function is None:
            raise RuntimeApiMissing(
                f"Exported method {name} is not found: the specification runtime does not implement it"
            )
        return self.document.registry.encode(method.output, function(self, *self._api_arguments(method, data)))

    def _api_arguments(self, method: ApiMethod, data: bytes) -> list[Any]:
        arguments, offset = [], 0
        for type_id in method.inputs:
            value, offset = self.document.registry.decode_from(type_id, data, offset)
            arguments.append(value)
        if offset != len(data):
            raise ScaleError(f"{len(data) - offset} bytes left over after the arguments")
        return arguments

    def _metadata_at_version(self, data: bytes) -> bytes:
        document = {14: self.document.v14, 15: self.document.v15}.get(int.from_bytes(data[:4], "little"))
        return b"\0" if document is None else b"\1" + opaque(document)

    def _encode_version(self, version: dict[str, Any]) -> bytes:
        types = next(c["type"] for p in self.document.tree["pallets"] if p["name"] == "System"
                     for c in p["constants"] if c["name"] == "Version")  # fmt: skip
        return self.document.registry.encode(types, version)

    # -- blocks -----------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The block being built, or the newest one."""
        return self.system.Number.get()

    def _build_genesis(self, data: bytes) -> bytes:
        from localnet.runtime.subtensor.genesis import build_genesis

        # Clients cache metadata by genesis hash, so it has to be part of the state that the hash covers.
        self.state.put(b":code", blake2b(self.document.v15, digest_size=32).digest())
        patch = json.loads(data[read_compact(data, 0)[1] :])
        try:
            build_genesis(self, patch)
        except ConfigError as error:
            return b"\1" + opaque(str(error).encode())
        return b"\0"

    def _initialize_block(self, data: bytes) -> bytes:
        parent, (number, offset) = data[:32], read_compact(data, 32)
        digest = self.document.registry.decode(self._digest_type, data[offset + 64 :])
        self.events = []
        self.phase = "Initialization"
        self.system.open_block(number, parent, digest)
        for pallet in self._initializing:
            pallet.on_initialize(number)
        return b""

    @cached_property
    def _initializing(self) -> list[Pallet]:
        return [p for p in self.pallets.values() if type(p).on_initialize is not Pallet.on_initialize]

    @cached_property
    def _finalizing(self) -> list[Pallet]:
        return [p for p in self.pallets.values() if type(p).on_finalize is not Pallet.on_finalize]

    def _inherent_extrinsics(self, data: bytes) -> bytes:
        """InherentData: a list of (8-byte identifier, bytes)."""
        count, offset = read_compact(data, 0)
        items = {}
        for _ in range(count):
            identifier = data[offset : offset + 8]
            size, start = read_compact(data, offset + 8)
            items[identifier], offset = data[start : start + size], start + size
        calls = [c for c in (self.timestamp.inherent(items), self.mev_shield.inherent(items)) if c is not None]
        return compact(len(calls)) + b"".join(xt.bare(self.encode_call(*c)) for c in calls)

    def _finalize_block(self, data: bytes) -> bytes:
        self.phase = "Finalization"
        number = self.number
        for pallet in self._finalizing:
            pallet.on_finalize(number)
        self.system.store_events(self.events)
        digest = self.document.registry.encode(self._digest_type, self.system.Digest.get())
        # The node owns state and body: it fills the two roots, which are left as zeros here.
        return self.system.ParentHash.get() + compact(number) + bytes(64) + digest

    def deposit_event(self, event: Any) -> None:
        record = {"phase": self.phase, "event": event, "topics": []}
        self.events.append(self.document.registry.encode(self._event_type, record))

    # -- extrinsics -------------------------------------------------------------------------------------------------

    def encode_call(self, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        value = (pallet, (function, arguments) if arguments else function)
        return self.document.registry.encode(self.document.call_type, value)

    def decode_call(self, data: bytes) -> tuple[str, str, dict[str, Any]]:
        """(pallet, function, arguments) of an encoded call. Raises ScaleError."""
        return split_call(self.document.registry.decode(self.document.call_type, data))

    def _validate_transaction(self, data: bytes) -> bytes:
        """(source u8, extrinsic, block hash) -> TransactionValidity."""
        raw, head = data[1 : len(data) - 32], data[-32:]
        self.state.begin()
        try:
            self.system.look_ahead(head)
            extrinsic = xt.parse(raw)
            pallet, function, arguments = self.decode_call(extrinsic.call)
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
            self.state.rollback()

    def _require_implemented(self, pallet: str, function: str, arguments: dict[str, Any]) -> None:
        """Refuse a call without code at the door, where the answer can name it."""
        if (pallet, function) not in self.calls:
            raise RuntimeTrap(f"{pallet}.{function} is not implemented by the specification runtime")
        for inner in inner_calls(arguments):
            self._require_implemented(*inner)

    def _valid(self, extrinsic: Extrinsic, info: CallInfo) -> bytes:
        who, nonce = extrinsic.who or b"", extrinsic.nonce
        ahead = nonce > self.system.Account[who]["nonce"]
        requires = compact(1) + tag(who, nonce - 1) if ahead else compact(0)
        longevity = extrinsic.era.left(self.number) if extrinsic.era else LONGEVITY
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
        return self.pallets[pallet].validate_unsigned(function, arguments) if pallet in self.pallets else None

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
        account, info = self.system.Account[who], self.call_info(pallet, function, arguments)
        if not account["providers"] and not account["sufficients"] and (info.pays or extrinsic.tip):
            raise InvalidTransaction("Payment")
        if extrinsic.nonce < account["nonce"]:
            raise InvalidTransaction("Stale")
        if in_block and extrinsic.nonce > account["nonce"]:
            raise InvalidTransaction("Future")
        if info.dispatch_class == "Mandatory":  # an inherent, which only the author makes
            raise InvalidTransaction("MandatoryValidation")
        payer = self.proxy.fee_payer(who, pallet, function, arguments)
        fee = self.payment.fee(info, len(extrinsic.raw), extrinsic.tip)
        self.payment.check_payable(payer, fee, (pallet, function, arguments))
        if pallet != self.subtensor.name:
            guards.ensure_unbound(self.subtensor, who, pallet, function)
        if pallet in self.pallets:
            self.pallets[pallet].validate(who, function, arguments)
        return info

    def _check_signature(self, extrinsic: Extrinsic) -> None:
        genesis = self.system.BlockHash[0]
        birth = genesis
        if extrinsic.era is not None:
            number = extrinsic.era.birth(self.number)
            if number not in self.system.BlockHash:
                raise InvalidTransaction("AncientBirthBlock")
            birth = self.system.BlockHash[number]
        checked = self.metadata_hash if extrinsic.check_metadata else b""
        payload = extrinsic.payload(self.spec_version, self.transaction_version, genesis, birth, checked)
        signed = payload + extrinsic.signature + (extrinsic.who or b"") + bytes((extrinsic.crypto,))
        key = blake2b(signed, digest_size=32).digest()
        known = self._signatures.pop(key, None)
        good = xt.verify(payload, extrinsic) if known is None else known
        if len(self._signatures) >= VALIDATED_LIMIT:
            self._signatures.clear()
        self._signatures[key] = good
        if not good:
            raise InvalidTransaction("BadProof")

    @cached_property
    def metadata_hash(self) -> bytes:
        return bytes(bittensor_core.metadata_digest(self.document.v15, self.spec_version, SPEC_NAME))

    def call_info(self, pallet: str, function: str, arguments: dict[str, Any]) -> CallInfo:
        """Weight and fee class. Batches, sudo, proxies and multisigs weigh what they carry."""
        handler = self.calls.get((pallet, function))
        own: CallInfo = handler.call_info if handler is not None else CallInfo()  # type: ignore[attr-defined]
        parts = [self.call_info(*inner) for inner in inner_calls(arguments)]
        if not parts:
            return replace(own, pays=own.pays and "calls" not in arguments)  # a batch of nothing is free
        return CallInfo(
            own.ref_time + sum(part.ref_time for part in parts),
            own.proof_size + sum(part.proof_size for part in parts),
            own.pays and (own.own_fee or any(part.pays for part in parts)),
            parts[0].dispatch_class if pallet == "Sudo" else own.dispatch_class,
            own.refunded,
            own.own_fee,
        )

    def _apply_impersonated(self, data: bytes) -> bytes:
        """(kind u8, extrinsic) -> ApplyExtrinsicResult: an extrinsic that nobody signed. Kind 0: as if its signer had,
        fee and nonce included; 1: its call as root; 2: its call as nobody. For developers; the node marks the block.
        """
        kind, raw = data[:1], data[1:]
        if kind not in (b"\0", b"\1", b"\2"):
            raise ScaleError(f"there is no kind {kind.hex()} of impersonated extrinsic")
        return self._apply_extrinsic(raw, (None, Root(), Unsigned())[kind[0]], signed=False)

    def _explain(self, data: bytes) -> bytes:
        from localnet.runtime.explain import explain  # brings numpy

        return opaque(json.dumps(explain(self, data)).encode())

    def _apply_extrinsic(self, data: bytes, origin: Origin | None = None, signed: bool = True) -> bytes:
        try:
            extrinsic = xt.parse(data)
            pallet, function, arguments = self.decode_call(extrinsic.call)
        except ScaleError as error:
            log.debug("extrinsic does not decode: %s", error)
            return b"\1\0" + bytes((INVALID_INDEX["Call"],))
        mark = len(self.events)
        self.phase = ("ApplyExtrinsic", self.system.next_extrinsic())
        try:
            if not signed:
                self._require_implemented(pallet, function, arguments)
            if origin is not None:
                return self._apply_free(origin, pallet, function, arguments)
            if extrinsic.who is None:
                return self._apply_unsigned(extrinsic, pallet, function, arguments)
            info = self._check(extrinsic, pallet, function, arguments, in_block=True, signed=signed)
            return self._apply(extrinsic, info, (pallet, function, arguments))
        except InvalidTransaction as error:
            self.system.drop_extrinsic()
            return b"\1" + encode_invalid(error)
        except BaseException:
            del self.events[mark:]  # the node rolls the state back; events are not in it yet
            raise

    def _apply(self, extrinsic: Extrinsic, info: CallInfo, call: tuple[str, str, dict[str, Any]]) -> bytes:
        who = extrinsic.who
        assert who is not None
        payer = self.proxy.fee_payer(who, *call)
        self.system.bump_nonce(who)
        paid = self.payment.withdraw(payer, self.payment.fee(info, len(extrinsic.raw), extrinsic.tip), call)
        try:
            waived = self.dispatch(Signed(who), *call) == FEE_WAIVED
            outcome = None
            info = replace(info, pays=info.pays and not (info.refunded or waived))
        except DispatchError as error:
            outcome = error
        self.payment.settle(payer, paid, extrinsic.tip, info)
        return self._finish(info, outcome)

    def _apply_unsigned(self, extrinsic: Extrinsic, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        info = self.call_info(pallet, function, arguments)
        is_inherent = (pallet, function) in INHERENTS
        if not is_inherent and self._check_unsigned(extrinsic, pallet, function, arguments) is None:
            self.system.drop_extrinsic()
            return b"\1\0" + bytes((INVALID_INDEX["BadSigner"],))
        return self._apply_free(Unsigned(), pallet, function, arguments)

    def _apply_free(self, origin: Origin, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        """Dispatch without anybody who pays. An inherent's event has the declared `pays_fee` nevertheless."""
        info = self.call_info(pallet, function, arguments)
        if not isinstance(origin, Unsigned):
            info = replace(info, pays=False)
        try:
            self.dispatch(origin, pallet, function, arguments)
        except DispatchError as error:
            return self._finish(info, error)
        return self._finish(info, None)

    def _finish(self, info: CallInfo, error: DispatchError | None) -> bytes:
        weight = {"ref_time": info.ref_time + BASE_EXTRINSIC_REF_TIME, "proof_size": info.proof_size}
        pays = "Yes" if info.pays else "No"
        details = {"weight": weight, "class": info.dispatch_class, "pays_fee": pays}
        if error is None:
            self.system.emit("ExtrinsicSuccess", dispatch_info=details)
            return OK
        self.system.emit("ExtrinsicFailed", dispatch_error=error.value, dispatch_info=details)
        return b"\0\1" + self.document.registry.encode(self._error_type, error.value)

    def dispatch_inner(self, origin: Origin, call: Any, *, bypass: bool = False) -> None:
        """Dispatch a call that another call carries: what the pool checks of an extrinsic holds for it too, under the
        account it runs for. `bypass`: it passes neither filters nor those checks. Raises DispatchError.
        """
        pallet, function, arguments = split_call(call)
        if isinstance(origin, Signed) and not bypass:
            self._ensure_admitted(origin, pallet, function, arguments)
            guards.check(self.subtensor, origin.who, pallet, function, arguments)
        self.dispatch(origin, pallet, function, arguments, bypass=bypass)

    def _ensure_admitted(self, origin: Signed, pallet: str, function: str, arguments: dict[str, Any]) -> None:
        """Raises CallFiltered (System)."""
        admitted = all(admits(pallet, function, arguments) for admits in origin.filters)
        if not admitted or nests_batches(pallet, function, arguments):
            raise self.system.error("CallFiltered")

    def dispatch(
        self, origin: Origin, pallet: str, function: str, arguments: dict[str, Any], *, bypass: bool = False
    ) -> Any:
        """One call, all or nothing; what it returns. Raises DispatchError; its writes and events are void then."""
        handler = self.calls.get((pallet, function))
        try:
            with self.transaction():
                if handler is None:
                    log.warning("%s.%s is not implemented by the specification runtime", pallet, function)
                    raise DispatchError("Unavailable", f"{pallet}.{function} is not implemented")
                if isinstance(origin, Signed) and not bypass:
                    self._ensure_admitted(origin, pallet, function, arguments)
                return handler(origin, **arguments)
        except DispatchError:
            raise
        except Exception as error:
            # A handler met bytes, numbers or a state it cannot deal with: the call fails, the block goes on. That holds
            # for mistakes in it too, because scheduled calls run where nobody could leave them out.
            log.exception("%s.%s broke off", pallet, function)
            raise DispatchError("Corruption", f"{pallet}.{function}: {type(error).__name__}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: an error that leaves the `with` block takes back what was written and said in it."""
        mark = len(self.events)
        self.state.begin()
        try:
            yield
        except BaseException:
            self.state.rollback()
            del self.events[mark:]
            raise
        self.state.commit()


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
