"""Arguments and results of host functions, between integers, memory and SCALE.

    argument                  what it is
    pointer (i32)             where something of a known size starts
    span (i64)                pointer in the low half, size in the high half
    Option<u32>, Option<Vec>  SCALE in a span

Results go back as SCALE in a span that the host allocates. Integers may arrive signed or with garbage above their
width, so a function masks what it does not hand to `Host` unchanged.
"""

from __future__ import annotations

from localnet.codec.scale import compact, read_compact
from localnet.errors import ScaleError
from localnet.wasm.host.interface import HostTrap

U8, U32, U64 = 0xFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
NONE = b"\0"
_SOME = tuple(b"\1" + compact(size) for size in range(256))  # most storage values are shorter


def split(span: int) -> tuple[int, int]:
    """Pointer and size of a span."""
    return span & U32, (span >> 32) & U32


def some_bytes(data: bytes) -> bytes:
    """Some(Vec<u8>)."""
    size = len(data)
    return (_SOME[size] if size < 256 else b"\1" + compact(size)) + data


def option_bytes(data: bytes | None) -> bytes:
    """Option<Vec<u8>>."""
    return NONE if data is None else some_bytes(data)


def read_option_u32(data: bytes) -> int | None:
    """Option<u32> as an argument. Bytes behind it are not looked at, as in Substrate. Raises HostTrap."""
    if data[:1] == b"\0":
        return None
    if data[:1] != b"\1" or len(data) < 5:
        raise HostTrap(f"{data[:8].hex() or 'nothing'} is not an Option<u32>")
    return int.from_bytes(data[1:5], "little")


def read_vector(data: bytes, offset: int = 0) -> tuple[bytes, int]:
    """Vec<u8> in an argument, and where it ends. Raises HostTrap."""
    try:
        size, start = read_compact(data, offset)
    except ScaleError as error:
        raise HostTrap(f"an argument is not a byte vector: {error}") from error
    end = start + size
    if end > len(data):
        raise HostTrap(f"an argument has {len(data) - start} bytes where it says {size}")
    return data[start:end], end


def read_option_bytes(data: bytes) -> bytes | None:
    """Option<Vec<u8>> as an argument. Raises HostTrap."""
    if data[:1] == b"\0":
        return None
    if data[:1] != b"\1":
        raise HostTrap(f"{data[:8].hex() or 'nothing'} is not an Option<Vec<u8>>")
    return read_vector(data, 1)[0]
