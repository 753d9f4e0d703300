"""One runtime, compiled and instantiated, and calls into it.

An instance serves call after call: before each, what the last one left is undone (static memory, mutable globals, the
allocator), which takes a tenth of what a new instance does. Two things stay, and no code that a compiler made looks at
them: how large the memory has grown, and what lies in parts of it that nobody has allocated yet. A call that breaks off
leaves the instance anywhere, so it is thrown away; so is one whose memory has grown large.

    Program     the compiled module and its companion, with the imports that nobody has
    Instance    `call(export, data)`, and what the host functions need to answer
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import _bindings

from localnet.errors import RuntimeCodeError
from localnet.wasm import companion
from localnet.wasm.binary import ENTRY_POINT, MUTABLE, Facts, inspect
from localnet.wasm.bridge import HOST, Bridge, Trapped
from localnet.wasm.cache import CompiledCache
from localnet.wasm.companion import FAULT, FAULTS, RESET, reset_values
from localnet.wasm.engine import Lane, Progress, first_line, load
from localnet.wasm.host.interface import Functions, HostTrap
from localnet.wasm.limits import MAX_ALLOCATION, PAGE, Limits
from localnet.wasm.memory import MASK, WasmHost
from localnet.wasm.watchdog import TICKS

LARGE = 256 * 1024 * 1024  # bytes: an instance that has grown beyond is not kept for the next call
TEXTS = {
    wasmtime.TrapCode.STACK_OVERFLOW: "the call went too deep: the stack is used up",
    wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS: "the runtime accessed memory that it does not have",
    wasmtime.TrapCode.UNREACHABLE: "the runtime panicked",
}
PANIC = "PanicException"  # PyO3's, of a library in Rust that broke; a BaseException, though nobody wants to stop
TOO_LONG = "the call took longer than {:g} seconds and was stopped"


@dataclass
class Program:
    """`functions`: what Python answers, by import; `missing`: imports that trap when they are called."""

    facts: Facts
    module: wasmtime.Module
    companion: wasmtime.Module
    functions: dict[str, Callable[..., int | None]]
    missing: tuple[str, ...]


def load_program(
    code: bytes,
    functions: Functions,
    lane: Lane,
    limits: Limits,
    compiled: CompiledCache | None = None,
    progress: Progress | None = None,
) -> Program:
    """From uncompressed code. Raises RuntimeCodeError."""
    facts = inspect(code)
    if facts.pages > limits.pages or facts.heap_base > limits.memory:
        raise RuntimeCodeError(f"the module wants {facts.pages * PAGE:,} bytes of memory, of {limits.memory:,} allowed")
    missing = tuple(sorted(name for name in facts.imports if name not in companion.OWN and name not in functions))
    bound: dict[str, Callable[..., int | None]] = {}
    for name, signature in facts.imports.items():
        if name in companion.OWN:
            continue
        if not companion.can_cross(signature):
            raise RuntimeCodeError(f"the module imports {name} as a function that no host function is")
        bound[name] = functions[name] if name in functions else _missing(name)
    text = wasmtime.wat2wasm(companion.source(facts.imports, bound))
    return Program(
        facts,
        load(lane.engine, facts.code, limits, compiled, progress, facts.work),
        load(lane.engine, bytes(text), limits, compiled, None, 0),
        bound,
        missing,
    )


def _missing(name: str) -> Callable[..., int | None]:
    def trap(*arguments: int) -> int | None:
        raise HostTrap(f"the runtime called {name}, a host function that is not implemented")

    return trap


class Instance:
    def __init__(self, program: Program, host: WasmHost, bridge: Bridge, lane: Lane, limits: Limits) -> None:
        """Raises RuntimeCodeError when the module cannot be instantiated."""
        self.program, self.host, self.lane = program, host, lane
        self._bridge, self._limits = bridge, limits
        self._facts = program.facts
        self._every = limits.seconds / TICKS
        self._invokes: dict[str, Callable[[int, int], int]] = {}
        self._reset = memoryview(bytearray(8 * len(reset_values(0)))).cast("Q")
        for slot, value in enumerate(reset_values(self._facts.heap_base)):
            self._reset[slot] = value
        self.alive, self.store = True, wasmtime.Store(lane.engine)
        self._context, host.failure = self.store._context(), None
        self.store.set_limits(limits.memory, limits.table, 2, 4, 4)
        try:
            self._guarded(self._instantiate)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            failure = host.failure
            self.close()
            raise RuntimeCodeError(f"the module cannot be instantiated: {failure or first_line(error)}") from error

    # -- making ---------------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        """With the time limit: a module may have a start function."""
        _bindings.wasmtime_context_set_epoch_deadline(self.store._context(), TICKS + 1)
        self.lane.ticker.start(self._every)
        try:
            work()
        finally:
            self.lane.ticker.stop()

    def _instantiate(self) -> None:
        facts, store = self._facts, self.store
        self.memory = self._make_memory(max(facts.pages, -(-facts.heap_base // PAGE)))
        self._desk = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, 1)))
        desk = memoryview((ctypes.c_uint64 * (PAGE // 8)).from_address(_address(store, self._desk))).cast("B").cast("Q")
        self.host.attach(_address(store, self.memory), self._size, self._malloc_first, desk)
        desk[RESET] = self._reset
        linker = wasmtime.Linker(self.lane.engine)
        linker.define(store, "env", "memory", self.memory)
        linker.define(store, HOST, "desk", self._desk)
        self._kept = [
            self._bridge.define(linker, name, function, len(facts.imports[name][0]))
            for name, function in self.program.functions.items()
        ]
        helper = linker.instantiate(store, self.program.companion).exports(store)
        self._linkers = [linker]
        malloc = helper[companion.MALLOC]
        assert isinstance(malloc, wasmtime.Func)
        self._malloc = self._bridge.invoke(store, malloc)
        self.host.attach(_address(store, self.memory), self._size, self._allocate, desk)
        linker = wasmtime.Linker(self.lane.engine)
        linker.define(store, "env", "memory", self.memory)
        for name in facts.imports:
            linker.define(store, "env", name, helper[name])
        self.exports = linker.instantiate(store, self.program.module).exports(store)
        self._linkers.append(linker)
        self._globals = [self._global(index) for index in facts.mutable]
        self._static = slice(facts.low, facts.heap_base)
        self._snapshot = self.host.read_at(facts.low, facts.heap_base - facts.low)

    def _make_memory(self, least: int) -> wasmtime.Memory:
        most = self._limits.pages if self._facts.most is None else min(self._facts.most, self._limits.pages)
        if least > most:
            raise RuntimeCodeError(f"the module's memory of {most} pages does not reach its __heap_base")
        return wasmtime.Memory(self.store, wasmtime.MemoryType(wasmtime.Limits(least, most)))

    def _global(self, index: int) -> tuple[Any, Any]:
        """A mutable global and its first value, as the C interface takes them."""
        found = self.exports[f"{MUTABLE}{index}"]
        assert isinstance(found, wasmtime.Global)
        value = _bindings.wasmtime_val_t()
        place = ctypes.byref(found._global)
        _bindings.wasmtime_global_get(self.store._context(), place, ctypes.byref(value))
        return place, value

    def _size(self) -> int:
        return self.memory.data_len(self.store)

    def _malloc_first(self, size: int) -> int:
        raise HostTrap("memory was allocated before there was an allocator")

    def _allocate(self, size: int) -> int:
        if size > MASK:
            raise HostTrap(f"an answer of {size:,} bytes")
        try:
            return self._malloc(size, 0)
        except Trapped as error:
            raise HostTrap(self._fault() or str(error)) from None

    def _fault(self) -> str:
        return FAULTS.get(self.host.desk[FAULT], "") if len(self.host.desk) else ""

    # -- calling --------------------------------------------------------------------------------------------------

    def call(self, export: str, data: bytes) -> bytes:
        """Run an export of the runtime. Raises KeyError for a name that is not exported, Trapped when it breaks off;
        the instance is closed then."""
        invoke = self._invokes.get(export) or self._invoke(export)
        host = self.host
        try:
            self._renew()
            pointer = host.give(data)
            _bindings.wasmtime_context_set_epoch_deadline(self._context, TICKS + 1)
            self.lane.ticker.start(self._every)
            try:
                span = invoke(pointer, len(data))
            finally:
                self.lane.ticker.stop()
            if span >> 32 > MAX_ALLOCATION:
                raise HostTrap(f"an answer of {span >> 32:,} bytes: more than the runtime can have allocated")
            answer = host.read(span)
        except Trapped as error:
            text = self._explain(error)
            self.close()
            raise Trapped(text, error.code) from None
        except BaseException:
            self.close()
            raise
        if self._size() > LARGE:
            self.close()
        return answer

    def _invoke(self, export: str) -> Callable[[int, int], int]:
        if self._facts.exports.get(export) != ENTRY_POINT:
            raise KeyError(export)
        function = self.exports[export]
        assert isinstance(function, wasmtime.Func)
        invoke = self._invokes[export] = self._bridge.invoke(self.store, function)
        return invoke

    def _renew(self) -> None:
        """As if just instantiated, for compiled code."""
        host = self.host
        host.view[self._static] = self._snapshot
        for place, value in self._globals:
            _bindings.wasmtime_global_set(self._context, place, ctypes.byref(value))
        host.desk[RESET] = self._reset
        host.failure = None

    def _explain(self, error: Trapped) -> str:
        failure = self.host.failure
        if failure is not None and not isinstance(failure, Exception) and type(failure).__name__ != PANIC:
            self.close()
            raise failure  # KeyboardInterrupt and the like are not the runtime's doing
        if isinstance(failure, HostTrap):
            return str(failure)
        if failure is not None:
            return f"{type(failure).__name__}: {failure}"
        if error.code == wasmtime.TrapCode.INTERRUPT:
            return TOO_LONG.format(self._limits.seconds)
        return self._fault() or (TEXTS.get(error.code) if error.code else None) or first_line(error)

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        if self.alive:
            self.alive = False
            self.host.detach()
            self._invokes.clear()
            self.store.close()


def _address(store: wasmtime.Store, memory: wasmtime.Memory) -> int:
    return ctypes.cast(memory.data_ptr(store), ctypes.c_void_p).value or 0
