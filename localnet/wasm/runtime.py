"""The released runtime behind the runtime ABI: `WasmRuntime` is to a node what `SpecRuntime` is.

    runtime = WasmRuntime(code)                          # as stored under `:code`, compressed or not
    runtime.call("Core_version", b"", state)

Which code runs is in the state: what `:code` held when the last block was finished. So an upgrade takes effect with the
next block, and a call at an old block runs the rules of its time. `code` is what there is before any state is.

Names that a node has of its own (see localnet.abi) are answered here; everything else is an export of the module. A
call that breaks off costs the instance, never the process: see instance.py for what is thrown away and what is kept.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

import wasmtime

from localnet.abi import State
from localnet.codec.scale import opaque
from localnet.errors import (
    ForkError,
    ReadOnlyState,
    RuntimeApiMissing,
    RuntimeCodeError,
    RuntimeTimeout,
    RuntimeTrap,
    StateDiscarded,
)
from localnet.node.blocks import blake2_256
from localnet.wasm import powers, sections
from localnet.wasm.bridge import Trapped, bridge
from localnet.wasm.cache import CompiledCache
from localnet.wasm.engine import Lane, Progress, give_lane, take_lane
from localnet.wasm.host import all_functions
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.host.keystore import Keystore
from localnet.wasm.instance import Instance, Program, load_program
from localnet.wasm.limits import Limits
from localnet.wasm.memory import NO_STATE, WasmHost

log = logging.getLogger(__name__)

CODE = b":code"
LOADED = 4  # codes kept ready: an upgrade, and calls at blocks before it, need two
KERNEL_TIMER = True  # stops runaway calls where there is one; False: a thread, as on systems without
PASSED_ON = (ForkError, ReadOnlyState, StateDiscarded)  # not the runtime's doing, so no trap


class _Loaded:
    """One code, ready to run."""

    def __init__(self, code: bytes, lane: Lane, owner: WasmRuntime) -> None:
        self.host = WasmHost(owner.keystore)
        self.code = code
        self.module = sections.unpack(code)
        self.lane, self.limits = lane, owner.limits
        self.bridge = bridge(self.host, owner.fast, lane.ticker.holds_gil)
        functions = all_functions(self.host)
        self.program: Program = load_program(self.module, functions, lane, owner.limits, owner.compiled, owner.progress)
        self._instance: Instance | None = None
        self.facts = powers.Facts()  # of its metadata, read when they are needed

    @property
    def instance(self) -> Instance:
        if self._instance is None or not self._instance.alive:
            self._instance = Instance(self.program, self.host, self.bridge, self.lane, self.limits)
        return self._instance

    @property
    def state_version(self) -> int:
        """0 or 1. Code without a version section is older than state version 1."""
        try:
            return min(sections.read_version(self.module).system_version, 1)
        except sections.NoVersion:
            return 0

    def close(self) -> None:
        if self._instance is not None:
            self._instance.close()


class WasmRuntime:
    """One instance serves one chain, and one call at a time."""

    def __init__(
        self,
        code: bytes,
        genesis: Mapping[bytes, bytes] | None = None,
        *,
        limits: Limits | None = None,
        compiled: CompiledCache | Literal[False] | None = None,
        progress: Progress | None = None,
        fast: bool = True,
        keystore: Keystore | None = None,
    ) -> None:
        """
        code: as stored under `:code`
        genesis: every key and value that a chain begins with (localnet.wasm.genesis makes them); without it the
            runtime's own GenesisBuilder is called with the node's patch
        compiled: where compiled modules are kept; None: the user's cache directory, False: nowhere
        progress: told before something takes seconds; default: a log line
        fast: False binds host functions by wasmtime's documented interface only, which is slower

        Raises RuntimeCodeError for code that cannot be used.
        """
        self.code, self.genesis = bytes(code), genesis
        self.limits, self.fast = limits or Limits(), fast
        self.compiled = CompiledCache() if compiled is None else compiled or None
        self.progress = progress or (lambda text: log.info("%s", text))
        self.keystore = keystore or Keystore()
        self._lane = take_lane(self.limits.stack, KERNEL_TIMER)
        weakref.finalize(self, give_lane, self._lane)
        self._loaded: OrderedDict[bytes, _Loaded] = OrderedDict()
        self._latest: _Loaded | None = None
        self._refused: OrderedDict[bytes, str] = OrderedDict()  # codes that cannot be used, and why
        self._lock = threading.Lock()
        self._caller: int | None = None
        self._own: dict[str, Callable[[bytes, State], bytes]] = {
            "GenesisBuilder_build_state": self._build_genesis,
            "DevApi_apply_extrinsic": self._apply_impersonated,
            "DevApi_state_root": self._state_root,
        }
        self._load(self.code)

    # -- which code -----------------------------------------------------------------------------------------------

    @property
    def code_hash(self) -> str:
        """BLAKE2b-256 of the code this runtime was made with, as 0x-hex: what `:code` hashes to on chain."""
        return "0x" + blake2_256(self.code).hex()

    @property
    def missing(self) -> tuple[str, ...]:
        """Imports of the latest code that nobody implements; calling one traps with its name."""
        return self._latest.program.missing if self._latest is not None else ()

    def _of(self, state: State) -> _Loaded:
        code = state.settled(CODE) or state.get(CODE) or self.code
        latest = self._latest
        if latest is not None and (latest.code is code or latest.code == code):
            latest.code = code  # the very object, so that the next comparison is free
            return latest
        return self._load(code)

    def _load(self, code: bytes) -> _Loaded:
        digest = blake2_256(code)
        found = self._loaded.get(digest)
        if found is None:
            found = self._make(code, digest)
            if found.program.missing:
                log.warning(
                    "the runtime imports host functions that are not implemented, and breaks off when it calls one: %s",
                    ", ".join(found.program.missing),
                )
            self._loaded[digest] = found
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)[1].close()
        self._loaded.move_to_end(digest)
        self._latest = found
        return found

    def _make(self, code: bytes, digest: bytes) -> _Loaded:
        """Raises RuntimeCodeError, at once for code that was tried before: finding out can take minutes."""
        if digest in self._refused:
            raise RuntimeCodeError(self._refused[digest])
        try:
            return _Loaded(code, self._lane, self)
        except RuntimeCodeError as error:
            if not isinstance(error.__cause__, OSError):  # nothing about the code
                self._refused[digest] = str(error)
                if len(self._refused) > LOADED:
                    self._refused.popitem(last=False)
            raise

    # -- calls ----------------------------------------------------------------------------------------------------

    def call(self, method: str, data: bytes, state: State) -> bytes:
        own = self._own.get(method)
        return self.execute(method, data, state) if own is None else own(data, state)

    def execute(self, method: str, data: bytes, state: State, impersonating: bool = False) -> bytes:
        """An export of the module. `impersonating`: `marks.FAKE_SIGNATURE` passes as anybody's signature.

        Raises RuntimeApiMissing, RuntimeTrap (RuntimeTimeout), RuntimeCodeError (the code in the state cannot be used),
        and what the state raises when it cannot be read or written.
        """
        me = threading.get_ident()
        if self._caller == me:
            raise RuntimeTrap(f"{method}: a runtime cannot be called from inside one of its calls")
        with self._lock:
            self._caller = me
            try:
                return self._run(self._of(state), method, data, state, impersonating)
            finally:
                self._caller = None

    def _run(self, loaded: _Loaded, method: str, data: bytes, state: State, impersonating: bool) -> bytes:
        host, instance = loaded.host, loaded.instance
        host.state, host.transactions, host.impersonating = state, 0, impersonating
        host.room = self.limits.written
        host.lines.clear()
        try:
            return instance.call(method, data)
        except KeyError:
            raise RuntimeApiMissing(f"Exported method {method} is not found") from None
        except Trapped as error:
            if isinstance(host.failure, PASSED_ON):
                raise host.failure from None
            kind = RuntimeTimeout if error.code == wasmtime.TrapCode.INTERRUPT else RuntimeTrap
            raise kind(f"{method}: {error}{_logged(host)}") from host.failure
        except HostTrap as error:  # the arguments do not fit, or the answer is not in the memory
            raise RuntimeTrap(f"{method}: {error}{_logged(host)}") from error
        finally:
            while host.transactions:
                host.transactions -= 1
                state.rollback()
            host.state, host.impersonating = NO_STATE, False

    # -- names of the node's own ----------------------------------------------------------------------------------

    def _build_genesis(self, data: bytes, state: State) -> bytes:
        """JSON -> Result<(), String>."""
        if self.genesis is None:
            answer = self.execute("GenesisBuilder_build_state", data, state)
            if answer[:1] == b"\0" and state.get(CODE) is None:
                state.put(CODE, self.code)
            return answer
        if data not in (opaque(b"{}"), opaque(b"null")):
            return b"\1" + opaque(b"the genesis of this runtime is a state already: it takes no patch")
        for key, value in self.genesis.items():
            state.put(key, value)
        return b"\0"

    def _state_root(self, data: bytes, state: State) -> bytes:
        return state.root(self._of(state).state_version)

    def _apply_impersonated(self, data: bytes, state: State) -> bytes:
        return powers.apply(self, self._of(state).facts, data, state)


def _logged(host: WasmHost) -> str:
    return f": {host.lines[-1]}" if host.lines else ""
