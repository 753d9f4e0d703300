"""The code that a chain runs, asked from one of its nodes and kept.

`ws://node` asks for the finalized block, `ws://node@1234567` and `ws://node@0x..` for another (which must be one whose
state the node still has). The node is first asked for the code's hash: what is kept under it is not fetched again. The
answer is some 4 MB of hexadecimal. Connections, retries and limits are those of `localnet.fork.remote`.

What comes must have the hash that was announced, and say of itself what the node says of its runtime.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localnet.errors import ForkError, RuntimeCodeError
from localnet.fork.answers import block_hash
from localnet.fork.remote import Remote
from localnet.fork.transport import Refused
from localnet.node.blocks import blake2_256
from localnet.wasm.cache import default_directory, trim, write
from localnet.wasm.chainspec import shown
from localnet.wasm.limits import MAX_CODE
from localnet.wasm.sections import read_version

log = logging.getLogger(__name__)

CODE = b":code"
AT_BLOCK = re.compile(r"(?P<url>.+)@(?P<block>\d{1,10}|0x[0-9a-fA-F]{64})")
KEPT = 8  # codes; the least recently used go first
REMEDY = "or save the code in a file once (localnet runtime URL --save FILE) and give that"


@dataclass(frozen=True)
class Origin:
    """A block of a chain, and what its node says of the runtime there."""

    url: str
    genesis: bytes
    block: bytes
    number: int
    spec_name: str
    spec_version: int

    def facts(self) -> dict[str, Any]:
        return {
            "url": self.url, "genesis": "0x" + self.genesis.hex(), "block": "0x" + self.block.hex(),
            "number": self.number, "spec_name": self.spec_name, "spec_version": self.spec_version,
        }  # fmt: skip


def fetch(address: str, directory: Path | None = None) -> tuple[bytes, Origin]:
    """The code after a block, as stored, and where it is from. Raises RuntimeCodeError."""
    match = AT_BLOCK.fullmatch(address)
    url, block = (match["url"], match["block"]) if match else (address, None)
    kept = Kept(directory)
    try:
        remote = Remote(url)
    except ForkError as error:
        raise RuntimeCodeError(f"the runtime cannot be fetched: {error}") from error
    try:
        origin = _origin(remote, block)
        code = _code(remote, origin, kept)
    except ForkError as error:
        raise RuntimeCodeError(f"the runtime cannot be fetched from {url}: {error}; {REMEDY}") from error
    finally:
        remote.close()
    _agree(code, origin)
    kept.put(code)
    return code, origin


def _origin(remote: Remote, block: str | None) -> Origin:
    genesis = remote.block_hash(0)
    if block is None:
        at: bytes | None = remote.finalized()
    else:
        at = bytes.fromhex(block[2:]) if block.startswith("0x") else remote.block_hash(int(block))
    if genesis is None or at is None:
        raise RuntimeCodeError(f"{remote.url} has no block {block}: name one that its chain has reached")
    number = remote.header(at).number
    (version,) = remote.ask(("state_getRuntimeVersion", "0x" + at.hex()))
    try:
        return Origin(remote.url, genesis, at, number, shown(version["specName"]), int(version["specVersion"]))
    except (TypeError, KeyError, ValueError) as error:
        raise RuntimeCodeError(f"{remote.url} does not say what runtime it has: {str(version)[:100]}") from error


def _code(remote: Remote, origin: Origin, kept: Kept) -> bytes:
    announced = _announced(remote, origin)
    code = kept.get(announced) if announced is not None else None
    if code is not None:
        return code
    log.info("fetching the runtime %s %d from %s", origin.spec_name, origin.spec_version, origin.url)
    code = remote.values([CODE], origin.block)[CODE]
    if code is None:
        raise RuntimeCodeError(f"{origin.url} has nothing under :code at block {origin.number}: is this a node?")
    if announced not in (None, blake2_256(code)):
        raise RuntimeCodeError(
            f"{origin.url} announces code 0x{announced.hex()} and sends 0x{blake2_256(code).hex()}: use another node"
        )
    return code


def _announced(remote: Remote, origin: Origin) -> bytes | None:
    """The hash of the code; None when the node does not tell hashes."""
    try:
        (found,) = remote.ask(("state_getStorageHash", "0x" + CODE.hex(), "0x" + origin.block.hex()))
    except ForkError as error:
        if isinstance(error.__cause__, Refused):
            return None
        raise
    return None if found is None else block_hash(found)


def _agree(code: bytes, origin: Origin) -> None:
    version = read_version(code)
    if (version.spec_name, version.spec_version) != (origin.spec_name, origin.spec_version):
        raise RuntimeCodeError(
            f"{origin.url} says that it runs {origin.spec_name} {origin.spec_version}, the code that it gives is "
            f"{version.spec_name} {version.spec_version}: use another node"
        )


class Kept:
    """Code by hash, in files. Whatever happened to a file, what does not hash to its name is not used."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = default_directory() if directory is None else directory

    def _path(self, digest: bytes) -> Path:
        return self._directory / f"{digest.hex()}.code"

    def get(self, digest: bytes) -> bytes | None:
        path = self._path(digest)
        try:
            if path.stat().st_size > MAX_CODE:
                return None
            code = path.read_bytes()
            if blake2_256(code) != digest:
                log.warning("%s is damaged: the code is fetched again", path)
                return None
            os.utime(path)
        except OSError:
            return None
        return code

    def put(self, code: bytes) -> None:
        """Atomically; a failure is logged and costs a download."""
        digest = blake2_256(code)
        if self.get(digest) is not None:
            return
        path = self._path(digest)
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(path, code)
        except OSError as error:
            log.warning("the fetched runtime is not kept: %s", error)
            return
        trim(self._directory, "*.code", KEPT)
