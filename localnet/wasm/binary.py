"""What a Wasm module says about itself, read from its bytes, and the same module made ready for its host.

A Substrate runtime imports functions and perhaps its memory, exports `__heap_base` (the host's allocator starts there),
and exports functions of (pointer i32, size i32) -> span i64. `inspect` checks this before anything is compiled, and
rewrites two things, as the released node does for one of them:

    a memory of the module's own becomes the import "env" "memory", so that the allocator can share it
    every mutable global is exported, so that it can be put back before the next call

With no instruction that changes tables or drops segments (the engine refuses those proposals), memory and mutable
globals are all the state an instance has: instance.py puts both back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from localnet.errors import RuntimeCodeError
from localnet.wasm.format import (
    CODE,
    CUSTOM,
    DATA,
    EXPORTS,
    FUNCTIONS,
    GLOBALS,
    IMPORTS,
    MAGIC,
    MEMORIES,
    TYPES,
    Reader,
    leb,
    named,
    sections,
)
from localnet.wasm.limits import MAX_STATIC, PAGE

FUNCTION, TABLE, MEMORY, GLOBAL = range(4)  # kinds of imports and exports
I32, I64 = 0x7F, 0x7E
NAMES = {I32: "i32", I64: "i64", 0x7D: "f32", 0x7C: "f64"}
ENTRY_POINT = ((I32, I32), (I64,))
MUTABLE = "localnet:mutable:"  # our name for an exported global, its index follows
MAX_IMPORTS = 1000  # released runtimes have about 50
MAX_MUTABLE = 1000  # mutable globals; released runtimes have one
SMALL = 64 * 1024  # bytes of code whose functions are looked at, see `Facts.work`
IMPORT_NAME = re.compile("[A-Za-z0-9_]{1,100}")  # the name ends up in the text of the companion
MIN_STACK = PAGE  # bytes: what lies below a smaller "stack pointer" is not taken for a stack

Signature = tuple[tuple[int, ...], tuple[int, ...]]  # value types of parameters and results


@dataclass
class Facts:
    """A module. `code` is the rewritten one, `low` the lowest byte of memory that has to be restored, `pages` and
    `most` its memory's bounds in 64 KiB pages, `mutable` the value types of its mutable globals by index, `work` says
    how long a compiler may take: bytes times variables, over all functions (None: of large code it is not known)."""

    code: bytes = b""
    imports: dict[str, Signature] = field(default_factory=dict)
    exports: dict[str, Signature] = field(default_factory=dict)
    pages: int = 0
    most: int | None = None
    heap_base: int = 0
    low: int = 0
    mutable: dict[int, int] = field(default_factory=dict)
    work: int | None = 0


def inspect(code: bytes) -> Facts:
    """Raises RuntimeCodeError for code that is damaged, or is not a Substrate runtime; the message says why."""
    return _Inspection(code).facts


class _Inspection:
    def __init__(self, code: bytes) -> None:
        self.code, self.facts = code, Facts()
        self.types: list[Signature] = []
        self.functions: list[int] = []  # type of each function, imported ones first
        self.globals: list[tuple[int, bool, int | None]] = []  # value type, mutable, constant
        self.export_count = self.exports_at = 0
        self.memory_at: str = ""  # how the module has its memory
        self.lowest_data: int | None = None
        self.highest_data = 0
        parts = sections(code)
        readers = {
            TYPES: self._types, IMPORTS: self._imports, FUNCTIONS: self._functions, MEMORIES: self._memories,
            GLOBALS: self._globals, EXPORTS: self._exports, CODE: self._bodies, DATA: self._data,
        }  # fmt: skip
        for kind, start, end in parts:
            if kind in readers:
                readers[kind](Reader(code, start, end))
        self._conclude()
        self.facts.code = self._rewritten(parts)

    def _types(self, r: Reader) -> None:
        for _ in range(r.count()):
            if r.byte() != 0x60:
                raise RuntimeCodeError("the Wasm code has types that are not those of functions")
            self.types.append((r.types(), r.types()))

    def _signature(self, index: int) -> Signature:
        if index >= len(self.types):
            raise RuntimeCodeError(f"the Wasm code is damaged: there is no type {index}")
        return self.types[index]

    def _imports(self, r: Reader) -> None:
        for _ in range(r.count()):
            module, name, kind = r.name(), r.name(), r.byte()
            if module != "env" or kind not in (FUNCTION, MEMORY):
                raise RuntimeCodeError(f"this is not a Substrate runtime: it imports {module[:100]}.{name[:100]}")
            if not IMPORT_NAME.fullmatch(name) or len(self.facts.imports) >= MAX_IMPORTS:
                raise RuntimeCodeError(f"this is not a Substrate runtime: it imports {name[:100]!r}")
            if kind == FUNCTION:
                self.functions.append(r.number())
                self.facts.imports[name] = self._signature(self.functions[-1])
            elif name != "memory" or self.memory_at:
                raise RuntimeCodeError("this is not a Substrate runtime: it imports another memory than env.memory")
            else:
                self.memory_at = "imported"
                self.facts.pages, self.facts.most = r.limits()

    def _functions(self, r: Reader) -> None:
        self.functions.extend(r.number() for _ in range(r.count()))

    def _memories(self, r: Reader) -> None:
        count = r.number()
        if count + bool(self.memory_at) > 1:
            raise RuntimeCodeError("the Wasm code has more than one memory")
        if count:
            self.memory_at = "own"
            self.facts.pages, self.facts.most = r.limits()

    def _globals(self, r: Reader) -> None:
        for index in range(r.count()):
            kind, mutable = r.byte(), r.byte()
            self.globals.append((kind, mutable == 1, self._constant(r)))
            if mutable:
                if kind not in NAMES:
                    raise RuntimeCodeError("the Wasm code has a mutable global that is not a number")
                self.facts.mutable[index] = kind
        if len(self.facts.mutable) > MAX_MUTABLE:
            raise RuntimeCodeError(f"the Wasm code has more than {MAX_MUTABLE:,} mutable globals, which no runtime has")

    def _constant(self, r: Reader) -> int | None:
        """A constant expression: its value when it is a plain integer."""
        opcode = r.byte()
        value = None
        if opcode == 0x41:
            value = r.number(32, signed=True) & 0xFFFFFFFF
        elif opcode == 0x42:
            value = r.number(64, signed=True)
        elif opcode in (0x43, 0x44):
            r.take(4 if opcode == 0x43 else 8)
        elif opcode in (0x23, 0xD2):
            r.number()
        elif opcode == 0xD0:
            r.byte()
        else:
            raise RuntimeCodeError(f"the Wasm code has a constant that cannot be read (instruction 0x{opcode:02x})")
        if r.byte() != 0x0B:
            raise RuntimeCodeError("the Wasm code has a constant that has to be computed, which no runtime has")
        return value

    def _exports(self, r: Reader) -> None:
        self.export_count = r.count()
        self.exports_at = r.offset
        for _ in range(self.export_count):
            name, kind, index = r.name(), r.byte(), r.number()
            if kind == FUNCTION:
                if index >= len(self.functions):
                    raise RuntimeCodeError(f"the Wasm code is damaged: there is no function {index}")
                self.facts.exports[name] = self._signature(self.functions[index])
            elif kind == GLOBAL and name == "__heap_base":
                value = self.globals[index][2] if index < len(self.globals) else None
                if value is None or self.globals[index][:2] != (I32, False):
                    raise RuntimeCodeError("this is not a Substrate runtime: its __heap_base is not a constant")
                self.facts.heap_base = value

    def _bodies(self, r: Reader) -> None:
        """How much work a compiler has with them: it keeps track of every variable of a function in all of its blocks,
        so a few kilobytes can take it minutes and gigabytes."""
        if r.end - r.offset > SMALL:
            self.facts.work = None
            return
        work, imported = 0, len(self.facts.imports)
        for at in range(r.count()):
            size = r.number()
            inside = Reader(self.code, r.offset, r.end)
            variables = 1
            for _ in range(inside.count()):
                variables += inside.number()
                inside.byte()
            if imported + at < len(self.functions):
                variables += len(self._signature(self.functions[imported + at])[0])
            work += variables * size
            r.take(size)
        self.facts.work = work

    def _data(self, r: Reader) -> None:
        for _ in range(r.count()):
            if r.number() != 0:
                raise RuntimeCodeError("the Wasm code has passive data, which a released node refuses, too")
            offset, size = self._constant(r), r.number()
            if offset is None:
                raise RuntimeCodeError("the Wasm code has data at no constant place")
            r.take(size)
            self.lowest_data = offset if self.lowest_data is None else min(offset, self.lowest_data)
            self.highest_data = max(self.highest_data, offset + size)

    def _conclude(self) -> None:
        facts = self.facts
        if not self.memory_at:
            raise RuntimeCodeError("this is not a Substrate runtime: it has no memory")
        if not facts.heap_base:
            raise RuntimeCodeError("this is not a Substrate runtime: it does not export __heap_base")
        if facts.heap_base > MAX_STATIC or self.highest_data > facts.heap_base:
            raise RuntimeCodeError(
                f"the module's memory is not laid out as a runtime's: __heap_base is {facts.heap_base:,} and its data "
                f"ends at {self.highest_data:,}"
            )
        facts.low = self._stack_end()

    def _stack_end(self) -> int:
        """Where the stack ends when it is the first thing in memory, as rustc's linker (`--stack-first`) lays it out:
        the first mutable global is its pointer, and no data lies below. What is there after a call no compiled code
        reads before it writes. 0 when the module does not look like that: then everything is restored."""
        facts = self.facts
        first = min(facts.mutable, default=None)
        if first is None or facts.mutable[first] != I32:
            return 0
        top = self.globals[first][2] or 0
        plausible = MIN_STACK <= top <= facts.heap_base and top % 16 == 0
        return top if plausible and (self.lowest_data is None or top <= self.lowest_data) else 0

    # -- rewriting ------------------------------------------------------------------------------------------------

    def _rewritten(self, parts: list[tuple[int, int, int]]) -> bytes:
        out, own = bytearray(MAGIC), self.memory_at == "own"
        if own and not any(kind == IMPORTS for kind, _, _ in parts):
            at = next((i for i, (kind, _, _) in enumerate(parts) if kind not in (CUSTOM, TYPES)), len(parts))
            parts = [*parts[:at], (IMPORTS, 0, 0), *parts[at:]]
        for kind, start, end in parts:
            if (kind == MEMORIES and own) or kind == CUSTOM:
                continue
            body = self.code[start:end]
            if kind == IMPORTS and own:
                body = self._with_memory(body)
            elif kind == EXPORTS and self.facts.mutable:
                extra = [named(f"{MUTABLE}{i}") + bytes((GLOBAL,)) + leb(i) for i in self.facts.mutable]
                body = leb(self.export_count + len(extra)) + self.code[self.exports_at : end] + b"".join(extra)
            out += bytes((kind,)) + leb(len(body)) + body
        return bytes(out)

    def _with_memory(self, body: bytes) -> bytes:
        reader = Reader(body)
        count = reader.number() if body else 0
        bounds = leb(self.facts.pages) if self.facts.most is None else leb(self.facts.pages) + leb(self.facts.most)
        entry = named("env") + named("memory") + bytes((MEMORY, self.facts.most is not None)) + bounds
        return leb(count + 1) + body[reader.offset :] + entry
