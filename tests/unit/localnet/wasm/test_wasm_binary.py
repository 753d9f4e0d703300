"""What is looked at before code is compiled, and what becomes of code that is not a runtime."""

from __future__ import annotations

import random

import pytest
import wasmtime

from localnet.errors import LocalnetError, RuntimeCodeError
from localnet.runtime.memory import MemoryState
from localnet.wasm import binary
from localnet.wasm.binary import inspect
from localnet.wasm.limits import MAX_CODE, Limits
from localnet.wasm.runtime import WasmRuntime
from tests.support import wat_runtime as wat

HEAP = '(global (export "__heap_base") i32 (i32.const 70000))'
MEMORY = '(import "env" "memory" (memory 2))'


def module(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"", "not Wasm code: it starts with nothing"),
        (b"\x7fELF" + bytes(100), "not Wasm code: it starts with 7f454c46"),
        (b"\0asm\x0d\0\1\0", "version 0d000100"),
        (b"\0asm\1\0\0\0" + bytes(MAX_CODE), "has at most 52,428,800"),
        (module(HEAP), "it has no memory"),
        (module(MEMORY), "does not export __heap_base"),
        (module(MEMORY + '(global (export "__heap_base") (mut i32) (i32.const 70000))'), "not a constant"),
        (module(MEMORY + HEAP + '(data (i32.const 70000) "x")'), "not laid out"),
        (module(MEMORY + '(global (export "__heap_base") i32 (i32.const 0x70000000))'), "not laid out"),
        (module(MEMORY + HEAP) + b"\6\1\0", "a section comes twice"),
        (module(MEMORY + HEAP) + b"\0\1\0" * 1000, "there are too many"),
        (b"\0asm\1\0\0\0\1\5\1\x60\xe9\7" + b"\x7f", "a function of 1,001 values"),
        (module(MEMORY + HEAP + "(global (mut i32) (i32.const 0))" * 1001), "1,000 mutable globals"),
        (module('(import "wasi" "exit" (func))' + MEMORY + HEAP), "imports wasi.exit"),
        (module('(import "env" "x\\22)) (func" (func))' + MEMORY + HEAP), "imports 'x"),
        (module('(import "env" "g" (global i32))' + MEMORY + HEAP), "imports env.g"),
        (module('(import "env" "memory" (memory 1)) (memory 1)' + HEAP), "more than one memory"),
        (module('(import "env" "memory" (memory i64 1))' + HEAP), "64-bit memory"),
        (module(MEMORY + HEAP + '(data "passive")'), "passive data"),
        (module('(import "env" "f" (func (param f64)))' + MEMORY + HEAP), "a function that no host function is"),
        (module('(import "env" "memory" (memory 20000))' + HEAP), "1,310,720,000 bytes of memory"),
        (module('(import "env" "memory" (memory 1 1))' + HEAP), "does not reach its __heap_base"),
        (module(MEMORY + HEAP + "(table 2000000 funcref)"), "cannot be instantiated"),
        (module(MEMORY + HEAP + "(func (drop (v128.const i64x2 0 0)))"), "SIMD"),
        (module(MEMORY + HEAP + "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 1)))"), "bulk memory"),
        (module(MEMORY + HEAP + "(func $start unreachable) (start $start)"), "cannot be instantiated"),
    ],
)
def test_what_is_no_runtime_is_refused_with_the_reason(code: bytes, said: str) -> None:
    with pytest.raises(RuntimeCodeError) as caught:
        made = WasmRuntime(code, compiled=False, limits=Limits(seconds=5))
        made.call("Core_version", b"", MemoryState())
    assert said in str(caught.value)


def test_the_layout_of_a_runtime_is_read_from_it() -> None:
    facts = inspect(wat.code())
    assert (facts.low, facts.heap_base) == (wat.STATIC, wat.HEAP)  # the stack is not restored, everything else is
    assert facts.exports["Core_version"] == binary.ENTRY_POINT and set(facts.imports) == set(wat.IMPORTS)
    assert len(facts.mutable) == 2


@pytest.mark.parametrize(
    "extra",
    [
        '(global $sp (mut i32) (i32.const 69632)) (data (i32.const 100) "below")',  # data in the "stack"
        "(global $sp (mut i32) (i32.const 0))",  # a counter, not a stack pointer
        "(global $sp (mut i64) (i64.const 69632))",
        "",
    ],
)
def test_where_no_stack_is_certain_all_memory_is_restored(extra: str) -> None:
    assert inspect(module(MEMORY + HEAP + extra)).low == 0


def test_rewritten_code_is_valid_and_has_what_the_host_needs() -> None:
    for own in (True, False):
        made = wasmtime.Module(wasmtime.Engine(), inspect(wat.code(own_memory=own)).code)
        assert [i.name for i in made.imports].count("memory") == 1
        assert {f"{binary.MUTABLE}0", f"{binary.MUTABLE}1"} <= {e.name for e in made.exports}


def test_damaged_code_never_does_worse_than_an_error() -> None:
    """Bytes changed, cut off, put in. Most of it does not validate; what does runs within its limits."""
    rng, code = random.Random(7), wat.code()
    outcomes = set()
    for turn in range(150):
        damaged = bytearray(code if turn % 4 else code[: rng.randrange(len(code))])
        for _ in range(1 + turn % 3):
            at = rng.randrange(len(damaged) or 1)
            damaged[at : at + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        try:
            made = WasmRuntime(bytes(damaged), compiled=False, limits=Limits(seconds=0.2, memory=1 << 25))
            made.call("Core_initialize_block", bytes(100), MemoryState())
            outcomes.add("ran")
        except LocalnetError as error:
            outcomes.add(type(error).__name__)
    assert {"ran", "RuntimeCodeError"} <= outcomes
