"""Where the code of a runtime comes from: a file, a chain specification, or a node.

    FILE                          Wasm, compressed (as releases and chains have it) or not, or either in hexadecimal;
                                  or its text format, (module ..)
    CHAINSPEC.json                raw or plain; its genesis comes with it
    ws(s)://node, http(s)://node  what the node's chain runs now, or @block (number or hash); see fetching.py

`load` gives the code with what it says about itself, and `Loaded.describe` the line that a start prints. Code has two
hashes: of the bytes as a chain stores them (what `System.set_code`, explorers and release notes show), and of the Wasm
inside. A pin is either of them. Nothing is run here, and nothing is trusted but the pin: sizes are bounded, what is
compressed is unpacked up to a limit, and what is not Wasm is refused.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localnet.errors import RuntimeCodeError
from localnet.node.blocks import blake2_256
from localnet.wasm.chainspec import ChainSpec, read
from localnet.wasm.sections import COMPRESSED, NoVersion, Version, read_version, unpack

if TYPE_CHECKING:
    from localnet.wasm.fetching import Origin

MAX_FILE = 256 * 1024 * 1024  # bytes; the raw specification of mainnet's genesis has a tenth of that
SCHEMES = ("ws", "wss", "http", "https")
ACCEPTED = "a Wasm file (compressed or not), one in hexadecimal, a chain specification, or a node's address"


@dataclass(frozen=True)
class Code:
    """Code as a chain has it under `:code`."""

    stored: bytes

    @cached_property
    def module(self) -> bytes:
        """The Wasm in it. Raises RuntimeCodeError."""
        return unpack(self.stored)

    @cached_property
    def version(self) -> Version | None:
        """What it says it is; None for runtimes from before 2021, which do not. Raises RuntimeCodeError."""
        try:
            return read_version(self.module)
        except NoVersion:
            return None

    @cached_property
    def hash(self) -> bytes:
        """BLAKE2b-256 of the bytes as stored."""
        return blake2_256(self.stored)

    @cached_property
    def module_hash(self) -> bytes:
        return blake2_256(self.module)

    @property
    def name(self) -> str:
        version = self.version
        return "a runtime without a version" if version is None else f"{version.spec_name} {version.spec_version}"


@dataclass(frozen=True)
class Loaded:
    """`source`: where it came from, in words. `spec`: when that was a chain specification, `origin`: a node."""

    code: Code
    source: str
    spec: ChainSpec | None = None
    origin: Origin | None = None

    def describe(self) -> str:
        code = self.code
        inside = "" if code.module is code.stored else f" (Wasm inside: 0x{code.module_hash.hex()})"
        return f"runtime {code.name}, code 0x{code.hash.hex()}{inside}, from {self.source}"

    def facts(self) -> dict[str, Any]:
        """The same for JSON."""
        code, version = self.code, self.code.version
        facts: dict[str, Any] = {
            "source": self.source, "hash": "0x" + code.hash.hex(), "size": len(code.stored),
            "module_hash": "0x" + code.module_hash.hex(), "module_size": len(code.module),
            "spec_name": version and version.spec_name, "spec_version": version and version.spec_version,
            "transaction_version": version and version.transaction_version,
        }  # fmt: skip
        if self.spec is not None:
            facts["chain_spec"] = {"id": self.spec.id, "name": self.spec.name, "kind": self.spec.kind}
        if self.origin is not None:
            facts["origin"] = self.origin.facts()
        return facts


def load(source: str | Path, *, pin: str | None = None, directory: Path | None = None) -> Loaded:
    """The code that `source` names. A node's is kept in `directory` (None: the user's cache) and fetched once.

    Blocks while a node is asked. Raises RuntimeCodeError, which says what was expected; also when the code has not the
    hash `pin`.
    """
    text = str(source)
    wanted = None if pin is None else read_pin(pin)
    if "://" in text:
        loaded = _from_node(text, directory)
    else:
        path = Path(source)
        loaded = from_bytes(_read(path), str(path))
    loaded.describe()  # raises where the code is not whole, or its version cannot be read
    if wanted not in (None, loaded.code.hash, loaded.code.module_hash):
        raise RuntimeCodeError(f"this is not the runtime that was asked for, 0x{wanted.hex()}: {loaded.describe()}")
    return loaded


def read_pin(pin: str) -> bytes:
    """Raises RuntimeCodeError for what is no hash."""
    try:
        digest = bytes.fromhex(pin.removeprefix("0x"))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise RuntimeCodeError(f"{pin!r} is no hash of code: BLAKE2b-256, as 0x and 64 hexadecimal digits")
    return digest


def from_bytes(data: bytes, where: str) -> Loaded:
    """What a file with this content stands for. Raises RuntimeCodeError."""
    if _is_code(data):
        return Loaded(Code(data), f"file {where}")
    text = data.strip()
    if text.startswith(b"{"):
        return _from_json(text, where)
    code = _from_text(text, where) if text.startswith(b"(module") else _from_hex(text)
    if code is None:
        raise RuntimeCodeError(f"{where} is no runtime: it starts with 0x{data[:8].hex()}. Give {ACCEPTED}")
    return Loaded(Code(code), f"file {where}")


def _is_code(data: bytes) -> bool:
    return data.startswith((b"\0asm", COMPRESSED))


def _from_hex(text: bytes) -> bytes | None:
    try:
        code = bytes.fromhex(text.strip(b"\"'").removeprefix(b"0x").decode("ascii"))
    except ValueError:
        return None
    return code if _is_code(code) else None


def _from_text(text: bytes, where: str) -> bytes:
    import wasmtime  # for who writes a runtime by hand

    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise RuntimeCodeError(f"{where} is no Wasm in text format: {str(error)[:500]}") from error


def _from_json(text: bytes, where: str) -> Loaded:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuntimeCodeError(f"{where} looks like a chain specification, but is not JSON: {error}") from error
    if "genesis" not in document:
        code = _from_hex(str(document.get("result", "")).encode())  # the answer of a node's state_getStorage, saved
        if code is None:
            raise RuntimeCodeError(f"{where} is no chain specification: it has no genesis. Give {ACCEPTED}")
        return Loaded(Code(code), f"file {where}")
    spec = read(document)
    return Loaded(Code(spec.code), f"{spec.kind} chain specification {where} ({spec.name}, {spec.id})", spec)


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe could wait for ever
            raise RuntimeCodeError(f"{path} is no file: give {ACCEPTED}")
        if found.st_size > MAX_FILE:
            raise RuntimeCodeError(f"{path} has {found.st_size:,} bytes; what holds a runtime has at most {MAX_FILE:,}")
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except OSError as error:
        raise RuntimeCodeError(f"the runtime cannot be read: {error}. Give {ACCEPTED}") from error


def _from_node(text: str, directory: Path | None) -> Loaded:
    if text.partition("://")[0] not in SCHEMES:
        raise RuntimeCodeError(f"{text} is no node's address: {', '.join(f'{one}://' for one in SCHEMES)}")
    from localnet.wasm.fetching import fetch  # a file needs no network

    code, origin = fetch(text, directory)
    return Loaded(
        Code(code), f"{origin.url}, block {origin.number} of the chain 0x{origin.genesis.hex()}", None, origin
    )
