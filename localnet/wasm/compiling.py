"""The process that compiles: Wasm on stdin, machine code on stdout. Arguments: bytes of stack, and of memory.

A compiler is large and foreign code is hostile: what it makes the compiler do happens here, in a process that may die.
"""

from __future__ import annotations

import sys

import wasmtime

from localnet.wasm.engine import first_line, make_engine
from localnet.wasm.limits import MAX_COMPILED


def main() -> int:
    stack, memory = int(sys.argv[1]), int(sys.argv[2])
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit has to do
        pass
    else:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        machine_code = wasmtime.Module(make_engine(stack), sys.stdin.buffer.read()).serialize()
    except (wasmtime.WasmtimeError, MemoryError) as error:
        print(first_line(error) or type(error).__name__, file=sys.stderr)
        return 1
    if len(machine_code) > MAX_COMPILED:
        print(f"it becomes {len(machine_code):,} bytes of machine code, more than {MAX_COMPILED:,}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(machine_code)
    return 0
