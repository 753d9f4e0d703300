"""What the code of a runtime says about itself without being run: its version, in two custom sections of the module.

    unpack(code)          the Wasm module, out of the zstd frame that a stored `:code` usually is
    read_version(code)    section `runtime_version` with the runtime APIs of section `runtime_apis` put in

The compiler writes both (sp-version, sp-api), and a node reads them instead of calling `Core_version` in code that it
has not checked. The list of APIs inside `runtime_version` is empty or not meant; the real one is the other section.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b

import zstandard

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import RuntimeCodeError, ScaleError
from localnet.wasm.format import custom_sections
from localnet.wasm.limits import MAX_CODE

COMPRESSED = bytes.fromhex("52bc537646db8e05")  # sp_maybe_compressed_blob's ZSTD_PREFIX
VERSION, APIS = "runtime_version", "runtime_apis"
API_SIZE = 12  # bytes: id and u32 version
CORE = blake2b(b"Core", digest_size=8).digest()
MAX_NAME = 1000  # bytes
MAX_APIS = 1000  # released runtimes have about 30
MAX_WINDOW = 1 << 27  # bytes a frame may look back; what zstd itself takes without being told more
STEP = 1024  # bytes of a frame at once: they unpack to 32 MiB at most (a block of 128 KiB takes 4)


def unpack(code: bytes) -> bytes:
    """The Wasm module in a stored `:code`. Raises RuntimeCodeError for a damaged frame and for more than MAX_CODE."""
    if not code.startswith(COMPRESSED):
        if len(code) > MAX_CODE:
            raise RuntimeCodeError(f"the code has {len(code):,} bytes; a runtime has at most {MAX_CODE:,}")
        return code
    frame, module = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(), bytearray()
    try:
        for at in range(len(COMPRESSED), len(code), STEP):
            module += frame.decompress(code[at : at + STEP])
            if len(module) > MAX_CODE:
                raise RuntimeCodeError(f"the code unpacks to more than {MAX_CODE:,} bytes, which no runtime has")
            if frame.eof and (frame.unused_data or at + STEP < len(code)):
                raise RuntimeCodeError("the code is compressed, and something follows behind it")
    except (zstandard.ZstdError, MemoryError) as error:
        raise RuntimeCodeError(f"the code is compressed, and damaged: {error}") from error
    if not frame.eof:
        raise RuntimeCodeError("the code is compressed, and ends too early")
    return bytes(module)


@dataclass(frozen=True)
class Version:
    """sp_version::RuntimeVersion. `apis`: (8 bytes of the API's hashed name, version)."""

    spec_name: str
    impl_name: str
    authoring_version: int
    spec_version: int
    impl_version: int
    apis: tuple[tuple[bytes, int], ...]
    transaction_version: int
    system_version: int

    def encode(self) -> bytes:
        """SCALE."""
        names = opaque(self.spec_name.encode()) + opaque(self.impl_name.encode())
        numbers = struct.pack("<III", self.authoring_version, self.spec_version, self.impl_version)
        apis = compact(len(self.apis)) + b"".join(name + struct.pack("<I", version) for name, version in self.apis)
        return names + numbers + apis + struct.pack("<IB", self.transaction_version, self.system_version)


class NoVersion(RuntimeCodeError):
    """A whole module, but nobody wrote its version into it."""


def read_version(code: bytes) -> Version:
    """The version of a stored `:code`, compressed or not. Raises NoVersion, and RuntimeCodeError for damaged code."""
    found = custom_sections(unpack(code))
    if VERSION not in found:
        raise NoVersion(f"the code has no section {VERSION}: it was not built as a Substrate runtime since 2021 is")
    try:
        return _parse(found[VERSION], _apis(found[APIS]) if APIS in found else None)
    except (ScaleError, struct.error, UnicodeDecodeError, IndexError) as error:
        raise RuntimeCodeError(f"the code's section {VERSION} is damaged: {error}") from error


def _apis(section: bytes) -> tuple[tuple[bytes, int], ...]:
    if len(section) > MAX_APIS * API_SIZE:
        raise RuntimeCodeError(f"the code's section {APIS} is damaged: it has more than {MAX_APIS} runtime APIs")
    if len(section) % API_SIZE:
        raise RuntimeCodeError(f"the code's section {APIS} is damaged: {len(section)} bytes are not whole entries")
    return tuple((bytes(name), version) for name, version in struct.iter_unpack("<8sI", section))


def _name(data: bytes, offset: int) -> tuple[str, int]:
    size, start = read_compact(data, offset)
    if size > min(MAX_NAME, len(data) - start):
        raise ScaleError(f"a name of {size} bytes")
    text = data[start : start + size].decode()
    if not text.isprintable():
        raise ScaleError(f"a name that cannot be shown: {text[:100]!r}")  # it goes to terminals and logs
    return text, start + size


def _parse(data: bytes, apis: tuple[tuple[bytes, int], ...] | None) -> Version:
    """As sp_version's `decode_with_version_hint`: what Core's version says is not there yet has its default."""
    spec_name, at = _name(data, 0)
    impl_name, at = _name(data, at)
    authoring, spec, impl = struct.unpack_from("<III", data, at)
    count, at = read_compact(data, at + 12)
    if count * API_SIZE > len(data) - at:
        raise ScaleError(f"{count} runtime APIs in {len(data) - at} bytes")
    listed = _apis(data[at : at + count * API_SIZE])
    at += count * API_SIZE
    core = {**dict(listed), **dict(apis or ())}.get(CORE, 0)
    transaction = struct.unpack_from("<I", data, at)[0] if core >= 3 else 1
    system = data[at + 4] if core >= 4 else 0
    return Version(spec_name, impl_name, authoring, spec, impl, listed if apis is None else apis, transaction, system)
