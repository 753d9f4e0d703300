"""Reading and writing the binary format of Wasm: numbers, names, sections. Bounded, for code comes from anywhere."""

from __future__ import annotations

from localnet.errors import RuntimeCodeError
from localnet.wasm.limits import MAX_CODE

MAGIC = b"\0asm\1\0\0\0"
CUSTOM, TYPES, IMPORTS, FUNCTIONS, MEMORIES, GLOBALS, EXPORTS, CODE, DATA = 0, 1, 2, 3, 5, 6, 7, 10, 11  # sections
MAX_ITEMS = 1_000_000  # of a section: wasmparser's MAX_WASM_FUNCTIONS
MAX_SECTIONS = 1000  # released runtimes have about 15
MAX_VALUES = 1000  # parameters or results: wasmparser's MAX_WASM_FUNCTION_PARAMS


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
        count = self.number()
        if count > MAX_VALUES:
            raise RuntimeCodeError(f"the Wasm code has a function of {count:,} values, more than {MAX_VALUES:,}")
        return tuple(self.take(count))


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
    reader = Reader(code, 8)
    found: list[tuple[int, int, int]] = []
    once: set[int] = set()
    while reader.offset < len(code):
        kind, size = reader.byte(), reader.number()
        if kind in once or len(found) >= MAX_SECTIONS:
            raise RuntimeCodeError("the Wasm code is damaged: a section comes twice, or there are too many")
        if kind != CUSTOM:
            once.add(kind)
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
