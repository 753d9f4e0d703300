"""The specification runtime: the chain's rules in Python behind the runtime ABI.

`SpecRuntime.call(name, data, state)` is all a node needs. Here are the pallets, the table of exported functions and the
dispatch of calls inside a transaction: a call that fails leaves nothing behind but its fee and its nonce.

    localnet.runtime.blocks       the block functions: genesis, initialise, inherents, finalise
    localnet.runtime.executive    extrinsics: checks for the pool, application with nonce and fee in a block
    localnet.runtime.apis         runtime APIs for clients
    dispatch()                    one call with an origin; calls that carry others (Utility, Sudo, Proxy, ...) come back
                                  in through dispatch_inner()

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
from functools import cached_property
from typing import Any

import bittensor_core

from localnet.abi import State
from localnet.codec.document import ApiMethod, Document
from localnet.codec.scale import compact, opaque
from localnet.errors import (
    DispatchError,
    InvalidTransaction,
    MetadataError,
    RuntimeApiMissing,
    RuntimeTrap,
    ScaleError,
)
from localnet.runtime import extrinsic as xt
from localnet.runtime.apis.registry import API_FUNCTIONS
from localnet.runtime.blocks import Blocks
from localnet.runtime.executive import Executive
from localnet.runtime.framework import CallInfo, Origin, Pallet, Signed
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
        self.state: State = MemoryState()
        self.calls: dict[tuple[str, str], Callable[..., Any]] = {}
        self.phase: Any = "Initialization"
        self.events: list[bytes] = []
        self._find_types()
        self._make_pallets()
        blocks, executive = Blocks(self), Executive(self)
        self._exports: dict[str, Callable[[bytes], bytes]] = {
            "Core_version": lambda data: self._encode_version(version),
            "Core_initialize_block": blocks.initialize,
            "BlockBuilder_inherent_extrinsics": blocks.inherents,
            "BlockBuilder_apply_extrinsic": executive.apply,
            "BlockBuilder_finalize_block": blocks.finalize,
            "TaggedTransactionQueue_validate_transaction": executive.validate,
            "Metadata_metadata": lambda data: opaque(self.document.v14),
            "Metadata_metadata_at_version": self._metadata_at_version,
            "Metadata_metadata_versions": lambda data: compact(2) + struct.pack("<II", 14, 15),
            "GenesisBuilder_build_state": blocks.build_genesis,
            "DevApi_apply_extrinsic": executive.apply_impersonated,
            "DevApi_explain": self._explain,
            "DevApi_state_root": lambda data: bytes(32),
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

    def _explain(self, data: bytes) -> bytes:
        from localnet.runtime.explain import explain  # brings numpy

        return opaque(json.dumps(explain(self, data)).encode())

    # -- what pallets ask for ---------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The block being built, or the newest one."""
        return self.system.Number.get()

    def deposit_event(self, event: Any) -> None:
        record = {"phase": self.phase, "event": event, "topics": []}
        self.events.append(self.document.registry.encode(self._event_type, record))

    def encode_call(self, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        value = (pallet, (function, arguments) if arguments else function)
        return self.document.registry.encode(self.document.call_type, value)

    def decode_call(self, data: bytes) -> tuple[str, str, dict[str, Any]]:
        """(pallet, function, arguments) of an encoded call. Raises ScaleError."""
        return split_call(self.document.registry.decode(self.document.call_type, data))

    @cached_property
    def metadata_hash(self) -> bytes:
        return bytes(bittensor_core.metadata_digest(self.document.v15, self.spec_version, SPEC_NAME))

    # -- calls ------------------------------------------------------------------------------------------------------

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
