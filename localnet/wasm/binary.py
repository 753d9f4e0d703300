"""What a Wasm module says about itself, read from its bytes, and the same module made ready for its host.

A Substrate runtime imports functions and perhaps its memory, exports `__heap_base` (the host's allocator starts there),
and exports functions of (pointer i32, size i32) -> span i64. `inspect` checks this before anything is compiled, and
rewrites two things, as the released node does for one of them:

    a memory of the module's own becomes the import "env" "memory", so that the allocator can share it
    every mutable global is exported, so that it can be put back before the next call

With no instruction that changes tables or drops segments (the engine refuses those proposals), memory and mutable
globals are all the state an instance has: restoring both makes it new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from localnet.errors import RuntimeCodeError
from localnet.wasm.limits import MAX_CODE, MAX_STATIC, PAGE

MAGIC = b"\0asm\1\0\0\0"
CUSTOM, TYPES, IMPORTS, FUNCTIONS, MEMORIES, GLOBALS, EXPORTS, DATA = 0, 1, 2, 3, 5, 6, 7, 11  # sections
FUNCTION, TABLE, MEMORY, GLOBAL = range(4)  # kinds of imports and exports
I32, I64 = 0x7F, 0x7E
NAMES = {I32: "i32", I64: "i64", 0x7D: "f32", 0x7C: "f64"}
ENTRY_POINT = ((I32, I32), (I64,))
MUTABLE = "localnet:mutable:"  # our name for an exported global, its index follows
MAX_ITEMS = 1_000_000  # of a section: wasmparser's MAX_WASM_FUNCTIONS
MAX_IMPORTS = 1000  # released runtimes have about 50
IMPORT_NAME = re.compile("[A-Za-z0-9_]{1,100}")  # the name ends up in the text of the companion
MIN_STACK = PAGE  # bytes: what lies below a smaller "stack pointer" is not taken for a stack

Signature = tuple[tuple[int, ...], tuple[int, ...]]  # value types of parameters and results


@dataclass
class Facts:
    """A module. `code` is the rewritten one, `low` the lowest byte of memory that has to be restored, `pages` and
    `most` its memory's bounds in 64 KiB pages, `mutable` the value types of its mutable globals by index."""

    code: bytes = b""
    imports: dict[str, Signature] = field(default_factory=dict)
    exports: dict[str, Signature] = field(default_factory=dict)
    custom: dict[str, bytes] = field(default_factory=dict)
    pages: int = 0
    most: int | None = None
    heap_base: int = 0
    low: int = 0
    mutable: dict[int, int] = field(default_factory=dict)


class Reader:
    """A cursor that refuses to run past the end. Raises RuntimeCodeError."""

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self.data, self.offset, self.end = data, offset, len(data) if end is None else end

    def take(self, size: int) -> bytes:
        start, self.offset = self.offset, self.offset + size
        if self.offset > self.end:
            raise RuntimeCodeError("the Wasm code is truncated or damaged: a part of it ends too early")
        return self.data[start : self.offset]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self, bits: int = 32, signed: bool = False) -> int:
        """LEB128."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise RuntimeCodeError("the Wasm code is damaged: a number is too long")
        if signed and byte & 0x40:
            value -= 1 << shift
        return value

    def count(self) -> int:
        """How many items follow: no more than an engine takes."""
        count = self.number()
        if count > MAX_ITEMS:
            raise RuntimeCodeError(f"the Wasm code has a section of {count:,} items, more than {MAX_ITEMS:,}")
        return count

    def name(self) -> str:
        try:
            return self.take(self.number()).decode()
        except UnicodeDecodeError as error:
            raise RuntimeCodeError(f"the Wasm code is damaged: a name is not text: {error}") from error

    def limits(self) -> tuple[int, int | None]:
        flags = self.byte()
        if flags > 1:
            raise RuntimeCodeError("the Wasm code uses shared or 64-bit memory, which a runtime cannot have")
        least = self.number()
        return least, self.number() if flags else None

    def types(self) -> tuple[int, ...]:
        return tuple(self.take(self.number()))


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def named(text: str) -> bytes:
    raw = text.encode()
    return leb(len(raw)) + raw


def sections(code: bytes) -> list[tuple[int, int, int]]:
    """(id, start, end) of every section's content. Raises RuntimeCodeError for what is not a whole Wasm module."""
    if len(code) > MAX_CODE:
        raise RuntimeCodeError(f"the code has {len(code):,} bytes; a runtime has at most {MAX_CODE:,}")
    if code[:4] != MAGIC[:4]:
        raise RuntimeCodeError(f"this is not Wasm code: it starts with {code[:8].hex() or 'nothing'}, not 0061736d")
    if code[:8] != MAGIC:
        raise RuntimeCodeError(f"Wasm of version {code[4:8].hex()}: a runtime is a core module of version 1")
    reader, found = Reader(code, 8), []
    while reader.offset < len(code):
        kind, size = reader.byte(), reader.number()
        found.append((kind, reader.offset, reader.offset + size))
        reader.take(size)
    return found


def custom_sections(code: bytes) -> dict[str, bytes]:
    """Custom sections by name, the first of each. Raises RuntimeCodeError."""
    found: dict[str, bytes] = {}
    for kind, start, end in sections(code):
        if kind == CUSTOM:
            reader = Reader(code, start, end)
            name = reader.name()
            found.setdefault(name, code[reader.offset : end])
    return found


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
            GLOBALS: self._globals, EXPORTS: self._exports, DATA: self._data,
        }  # fmt: skip
        for kind, start, end in parts:
            if kind in readers:
                readers[kind](Reader(code, start, end))
        self.facts.custom = custom_sections(code)
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
