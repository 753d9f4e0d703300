"""From Wasm to Python and back: how host functions are bound and exports called.

The public interface of wasmtime costs 10-20 us a crossing, so both directions go through its C functions for callers
that know the types (`*_unchecked`), by ctypes: 0.2-0.7 us. They are not part of the Python package's interface, which
is why it is pinned exactly; where one of them is missing, or `fast` is False, `PublicBridge` does the same slower.

`FastBridge` calls through PyDLL, which keeps the GIL: handing it over at every crossing makes a block 100 times slower
beside one busy thread.

A host function has neither parameters nor results here (companion.py): they are on the desk. What it raises is kept in
`host.failure` and traps.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import wasmtime
from wasmtime import _bindings
from wasmtime._ffi import dll

from localnet.errors import RuntimeCodeError
from localnet.wasm.memory import WasmHost

log = logging.getLogger(__name__)

HOST = "host"  # module name of the functions that the companion imports
UNCHECKED = (
    "wasmtime_func_call_unchecked", "wasmtime_linker_define_func_unchecked", "wasmtime_trap_new",
    "wasmtime_memory_data_size",
)  # fmt: skip
SLOT = 16  # bytes of a wasmtime_val_raw_t
TRAPPED = b"a host function failed"

Failed = Callable[[BaseException], int]
Invoke = Callable[[int, int], int]


class Trapped(Exception):
    """A call broke off. The text is the engine's."""

    def __init__(self, text: str, code: wasmtime.TrapCode | None = None) -> None:
        self.code = code
        super().__init__(text)


class Bridge(Protocol):
    holds_gil: bool

    def define(self, linker: wasmtime.Linker, name: str, function: Callable[..., int | None], arity: int) -> Any:
        """Bind a host function to an import of the companion; the result must be kept as long as the linker lives."""

    def invoke(self, store: wasmtime.Store, function: wasmtime.Func) -> Invoke:
        """An export of two i32 parameters and one result, as a Python function; a second parameter that the export
        does not have is ignored. It raises Trapped."""


class FastBridge:
    """Raises RuntimeCodeError when the C functions are not there."""

    holds_gil = True

    def __init__(self, host: WasmHost, hold_gil: bool = True) -> None:
        self._host, self.holds_gil = host, hold_gil
        name = dll._name
        library = ctypes.PyDLL(name) if hold_gil else ctypes.CDLL(name)
        missing = [symbol for symbol in UNCHECKED if not hasattr(library, symbol)]
        if missing:
            raise RuntimeCodeError(f"wasmtime has no {', '.join(missing)}")
        pointer = ctypes.c_void_p
        self._call = library.wasmtime_func_call_unchecked
        self._call.restype, self._call.argtypes = pointer, [pointer, pointer, pointer, ctypes.c_size_t, pointer]
        self._define = library.wasmtime_linker_define_func_unchecked
        self._define.restype = pointer
        self._define.argtypes = [
            pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, pointer, pointer, pointer,
            pointer,
        ]  # fmt: skip
        self._trap = library.wasmtime_trap_new
        self._trap.restype, self._trap.argtypes = ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t]
        self._type = wasmtime.FuncType([], [])

    def define(self, linker: wasmtime.Linker, name: str, function: Callable[..., int | None], arity: int) -> Any:
        callback = _CALLBACK(turns(self._host.desk, function, arity, self._failed).__next__)
        raw, module = name.encode(), HOST.encode()
        error = self._define(linker.ptr(), module, len(module), raw, len(raw), self._type.ptr(), callback, None, None)
        if error:
            raise RuntimeCodeError(f"{name} cannot be bound: {_error_text(error)}")
        return callback

    def _failed(self, error: BaseException) -> int:
        self._host.failure = error
        return int(self._trap(TRAPPED, len(TRAPPED)))

    def invoke(self, store: wasmtime.Store, function: wasmtime.Func) -> Invoke:
        values = (ctypes.c_uint64 * (2 * SLOT // 8))()
        trap = ctypes.c_void_p()
        context = ctypes.cast(store._context(), ctypes.c_void_p).value
        fixed = (context, ctypes.addressof(function._func), ctypes.addressof(values), 2, ctypes.addressof(trap))
        call = self._call

        def run(first: int, second: int) -> int:
            values[0], values[SLOT // 8] = first, second
            error = call(*fixed)
            if error or trap.value:
                _raise(error, trap)
            return int(values[0])

        run.keep = (function, trap, store)  # type: ignore[attr-defined]
        return run


# Declared without parameters: on every calling convention of the supported platforms (System V and Microsoft x86-64,
# AAPCS64) the caller cleans up, and arguments that nobody reads cost nothing.
_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_size_t)


def turns(
    desk: memoryview, function: Callable[..., int | None], arity: int, failed: Callable[[BaseException], int]
) -> Iterator[int]:
    """The function as a generator, started: each turn takes the arguments from the desk, leaves the result there, and
    yields 0, or what `failed` makes of the exception.

    A generator, because whatever is raised must stop here: above are frames of another language. A signal handler that
    raises breaks off a plain function before its first `try`, and ctypes then returns whatever was in the register.
    """
    kind = (_no_argument, _one_argument, _two_arguments)[arity] if arity < 3 else partial(_arguments, arity=arity)
    turning = kind(desk, function, failed)
    next(turning)
    return turning


# These are the most travelled lines of a block, so they are spelled out by number of arguments.


def _no_argument(desk: memoryview, function: Callable[..., int | None], failed: Failed) -> Iterator[int]:
    answer = 0
    while True:
        try:
            while True:
                yield answer
                result = function()
                if result is not None:
                    desk[0] = result
                answer = 0
        except GeneratorExit:
            return
        except BaseException as error:
            answer = failed(error)


def _one_argument(desk: memoryview, function: Callable[..., int | None], failed: Failed) -> Iterator[int]:
    answer = 0
    while True:
        try:
            while True:
                yield answer
                result = function(desk[0])
                if result is not None:
                    desk[0] = result
                answer = 0
        except GeneratorExit:
            return
        except BaseException as error:
            answer = failed(error)


def _two_arguments(desk: memoryview, function: Callable[..., int | None], failed: Failed) -> Iterator[int]:
    answer = 0
    while True:
        try:
            while True:
                yield answer
                result = function(desk[0], desk[1])
                if result is not None:
                    desk[0] = result
                answer = 0
        except GeneratorExit:
            return
        except BaseException as error:
            answer = failed(error)


def _arguments(desk: memoryview, function: Callable[..., int | None], failed: Failed, arity: int) -> Iterator[int]:
    answer = 0
    while True:
        try:
            while True:
                yield answer
                result = function(*desk[:arity])
                if result is not None:
                    desk[0] = result
                answer = 0
        except GeneratorExit:
            return
        except BaseException as error:
            answer = failed(error)


class PublicBridge:
    """The same by the documented interface only. Calls release the GIL."""

    holds_gil = False

    def __init__(self, host: WasmHost) -> None:
        self._host = host
        self._type = wasmtime.FuncType([], [])

    def define(self, linker: wasmtime.Linker, name: str, function: Callable[..., int | None], arity: int) -> Any:
        turning = turns(self._host.desk, function, arity, self._failed)

        def run() -> None:
            if next(turning):
                raise wasmtime.WasmtimeError(TRAPPED.decode())

        linker.define_func(HOST, name, self._type, run)
        return run

    def _failed(self, error: BaseException) -> int:
        self._host.failure = error
        return 1

    def invoke(self, store: wasmtime.Store, function: wasmtime.Func) -> Invoke:
        kinds = [str(kind) for kind in function.type(store).params]
        bits = 64 if [str(kind) for kind in function.type(store).results] == ["i64"] else 32

        def run(first: int, second: int) -> int:
            try:
                result = function(store, *(_signed(value, 32) for value in (first, second)[: len(kinds)]))
            except wasmtime.Trap as error:
                raise Trapped(str(error), error.trap_code) from None
            except wasmtime.WasmtimeError as error:
                raise Trapped(str(error)) from None
            return int(result) % (1 << bits)

        return run


def _signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def bridge(host: WasmHost, fast: bool = True, hold_gil: bool = True) -> Bridge:
    """The fast one where wasmtime is as expected."""
    if fast:
        try:
            return FastBridge(host, hold_gil)
        except RuntimeCodeError as error:
            log.warning("host functions are bound the slow way: %s", error)
    return PublicBridge(host)


def _raise(error: int | None, trap: ctypes.c_void_p) -> None:
    """Raises Trapped; what the engine gave is freed."""
    if trap.value:
        pointer = ctypes.cast(trap, ctypes.POINTER(_bindings.wasm_trap_t))
        trap.value = None
        found = wasmtime.Trap._from_ptr(pointer)
        raise Trapped(str(found), found.trap_code)
    raise Trapped(_error_text(error))


def _error_text(error: int | None) -> str:
    pointer = ctypes.cast(ctypes.c_void_p(error), ctypes.POINTER(_bindings.wasmtime_error_t))
    return str(wasmtime.WasmtimeError._from_ptr(pointer))
