"""The engine (wasmtime) as runtimes are compiled with it, and compiled modules.

The proposals are those of the released node's executor (sc-executor-wasmtime with its defaults): what a node refuses is
refused here. The memory's address never changes (4 GiB of address space are set aside), execution is interrupted when
the engine's epoch advances (see watchdog.py), and floating point is deterministic.

A `Lane` is an engine and what stops the calls on it. Calls that may overlap need lanes of their own; a runtime takes
one, and whoever comes after it takes it over, since an engine is never freed: a timer may still hold its address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version

import wasmtime
from wasmtime import _bindings

from localnet.errors import RuntimeCodeError
from localnet.wasm import cache
from localnet.wasm.cache import CompiledCache
from localnet.wasm.limits import Limits
from localnet.wasm.watchdog import ticker

log = logging.getLogger(__name__)

WASMTIME = version("wasmtime")
RESERVED = 4 * 1024 * 1024 * 1024  # bytes of address space for a memory
LITTLE = 1 << 17  # `binary.Facts.work` up to which compiling in this process is bounded: 0.2 s at worst
REFUSED = (  # the first ones are not for runtimes at all, but ask for some of the others
    "wasm_component_model_async", "wasm_component_model_more_async_builtins", "wasm_component_model_async_stackful",
    "wasm_component_model", "wasm_threads", "wasm_tail_call", "wasm_function_references", "wasm_gc",
    "wasm_reference_types", "wasm_relaxed_simd", "wasm_simd", "wasm_bulk_memory", "wasm_multi_value",
    "wasm_exceptions", "wasm_custom_page_sizes", "wasm_wide_arithmetic", "wasm_stack_switching",
)  # fmt: skip

Progress = Callable[[str], None]


class Lane:
    def __init__(self, stack: int, kernel_timer: bool) -> None:
        self.stack, self.kernel_timer = stack, kernel_timer
        self.engine = make_engine(stack)
        self.ticker = ticker(self.engine, kernel_timer)


_free_lanes: list[Lane] = []


def take_lane(stack: int, kernel_timer: bool) -> Lane:
    """A lane nobody else has. Give it back with `give_lane`."""
    for lane in list(_free_lanes):
        if (lane.stack, lane.kernel_timer) == (stack, kernel_timer):
            with contextlib.suppress(ValueError):  # another thread was faster
                _free_lanes.remove(lane)
                return lane
    lane = Lane(stack, kernel_timer)
    _kept.append(lane)
    return lane


def give_lane(lane: Lane) -> None:
    _free_lanes.append(lane)


_kept: list[Lane] = []  # every lane, for good


def make_engine(stack: int) -> wasmtime.Engine:
    """`stack`: bytes of Wasm stack."""
    config = wasmtime.Config()
    for proposal in REFUSED:
        getattr(_bindings, f"wasmtime_config_{proposal}_set")(config.ptr(), False)
    config.wasm_multi_memory = True  # the companion has two; a runtime with two is refused before
    config.strategy = "cranelift"
    config.epoch_interruption = True
    # A trap is a return instead of a signal: whoever else handles signals in this process (faulthandler, which pytest
    # starts and stops) could take wasmtime's handlers away, and the next trap would end the process.
    _bindings.wasmtime_config_signals_based_traps_set(config.ptr(), False)
    config.cranelift_nan_canonicalization = True
    config.max_wasm_stack = stack
    config.memory_may_move = False
    config.memory_reservation = RESERVED
    return wasmtime.Engine(config)


def settings(stack: int) -> bytes:
    """Everything but the code that machine code depends on."""
    parts = (WASMTIME, platform.machine(), sys.platform, str(stack), str(RESERVED), ",".join(REFUSED), "no signals")
    return "\n".join(parts).encode()


def load(
    on: wasmtime.Engine,
    code: bytes,
    limits: Limits,
    compiled: CompiledCache | None,
    progress: Progress | None,
    work: int | None,
) -> wasmtime.Module:
    """A module from its (rewritten) code, out of the cache or compiled into it. `work`: `binary.Facts.work`.

    Raises RuntimeCodeError for code that does not validate, or cannot be compiled within the limits.
    """
    name = cache.key(code, settings(limits.stack)) if compiled is not None else ""
    stored = compiled.load(name) if compiled is not None else None
    if compiled is not None and stored is not None:
        try:
            return wasmtime.Module.deserialize(on, stored)
        except wasmtime.WasmtimeError as error:
            log.warning("a compiled runtime is made again: %s", error)
            compiled.drop(name)
    machine_code = compile_code(code, limits, progress, work)
    if compiled is not None:
        compiled.store(name, machine_code)
    return wasmtime.Module.deserialize(on, machine_code)


def compile_code(code: bytes, limits: Limits, progress: Progress | None = None, work: int | None = None) -> bytes:
    """Machine code of a module. Unless it is known to be little work, it is compiled in a process of its own, bounded
    in time and memory: a compiler takes whatever hostile code makes it take.

    Raises RuntimeCodeError.
    """
    if work is not None and work <= LITTLE:
        return _compile_here(code, limits.stack)
    if progress is not None:
        progress(f"compiling a runtime of {len(code) / 1e6:.1f} MB, once; this takes some seconds")
    here = repr([path or os.getcwd() for path in sys.path])  # -I: nothing is imported from where the user happens to be
    start = f"import sys; sys.path[:] = {here}; from localnet.wasm.compiling import main; sys.exit(main())"
    command = [sys.executable, "-I", "-c", start, str(limits.stack), str(limits.compile_memory)]
    try:
        done = subprocess.run(command, input=code, capture_output=True, timeout=limits.compile_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeCodeError(
            f"the code does not compile within {limits.compile_seconds:g} seconds; where that is too little for this "
            "machine, give it more: RuntimeSource(.., limits=Limits(compile_seconds=..))"
        ) from error
    except OSError as error:
        raise RuntimeCodeError(f"the compiler's process cannot be started: {error}") from error
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()[-500:] or f"its process ended with {done.returncode}"
        raise RuntimeCodeError(f"the code cannot be compiled: {said}")
    return done.stdout


@lru_cache(maxsize=4)  # the companions of the runtimes that are in use
def _compile_here(code: bytes, stack: int) -> bytes:
    try:
        return bytes(wasmtime.Module(make_engine(stack), code).serialize())
    except wasmtime.WasmtimeError as error:
        raise RuntimeCodeError(f"the code cannot be compiled: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """An engine's message without its backtrace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines[:4] if not line.startswith("Caused by"))[:500]
