"""A chain's state as one JSON document: to keep it, to send it, to go on from it on another chain.

    {"format": "localnet-state", "version": 1, "spec": {..}, "code": "0x..", "block": 120, "timestamp": ms,
     "digest": "0x..", "storage": {"0xkey": "0xvalue", ..}}

What belongs to a chain rather than to its state is left out (`OWN`): block numbers and hashes, the time, events, the
node's shield keys. An import mines up to the exported block number, because the state is full of block numbers, and the
block of that number ends with exactly this storage; the next one goes on from it as the exported chain would have.

Unknown versions, another runtime (`code`), and a document in which code, block, time or storage were changed (`digest`
covers them) are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from localnet.codec.document import twox128
from localnet.codec.scale import opaque
from localnet.errors import StateFileError, StateFileMismatch, StateFileVersion
from localnet.node.chain import Chain
from localnet.node.children import every_key
from localnet.node.clock import LATEST
from localnet.node.runtime_api import CODE, read_version

FORMAT, VERSION = "localnet-state", 1
MAX_BLOCKS = 1_000_000  # that an import mines: some minutes
OWN = (  # pallet, items (none: all): a chain's own, not its state's
    ("System", ("Number", "ParentHash", "BlockHash", "Digest", "Events", "EventCount", "EventTopics", "ExtrinsicCount",
                "AllExtrinsicsLen", "BlockWeight", "BlockSize", "ExtrinsicData", "ExecutionPhase", "InherentsApplied")),
    ("Timestamp", ("Now", "DidUpdate")),
    ("Aura", ("CurrentSlot",)),
    ("MevShield", ()),
)  # fmt: skip


def _own_prefixes() -> Iterator[bytes]:
    yield CODE
    for pallet, items in OWN:
        prefix = twox128(pallet.encode())
        yield from (prefix + twox128(item.encode()) for item in items) if items else (prefix,)


_PREFIXES = tuple(_own_prefixes())


def is_own(key: bytes) -> bool:
    """Does this key belong to the chain rather than to its state?"""
    return key.startswith(_PREFIXES)


def _digest(code: str, block: int, timestamp: int, storage: Mapping[bytes, bytes]) -> str:
    digest = blake2b(f"{VERSION} {code} {block} {timestamp} ".encode(), digest_size=32)
    for key in sorted(storage):
        digest.update(opaque(key) + opaque(storage[key]))
    return "0x" + digest.hexdigest()


def _code(chain: Chain, number: int | None = None) -> str:
    """Hash of the runtime's code after a block (default: the head)."""
    return "0x" + blake2b(chain.storage(CODE, number) or b"", digest_size=32).hexdigest()


def export(chain: Chain, number: int | None = None) -> dict[str, Any]:
    """The state after a block (default: the head). Raises UnknownBlock, StateDiscarded."""
    block = chain.head if number is None else chain.block(number)
    view = chain.state.at(block.number)
    storage = {key: value for key in every_key(view) if not is_own(key) and (value := view.get(key)) is not None}
    version = read_version(chain.call("Core_version", b"", block.number))
    code = _code(chain, block.number)
    return {
        "format": FORMAT,
        "version": VERSION,
        "spec": {"name": version["specName"], "version": version["specVersion"]},
        "code": code,
        "block": block.number,
        "timestamp": block.timestamp,
        "digest": _digest(code, block.number, block.timestamp, storage),
        "storage": {"0x" + key.hex(): "0x" + value.hex() for key, value in storage.items()},
    }


@dataclass(frozen=True)
class Exported:
    """A document that has been checked."""

    block: int
    timestamp: int
    storage: Mapping[bytes, bytes]

    def changes(self, state: Any) -> dict[bytes, bytes | None]:
        """What has to be written so that a state holds this storage and nothing else, beside its own."""
        gone = {key: None for key in every_key(state) if key not in self.storage and not is_own(key)}
        return {**gone, **{key: value for key, value in self.storage.items() if state.get(key) != value}}


def check(document: Any, chain: Chain) -> Exported:
    """Raises StateFileError, StateFileVersion, StateFileMismatch."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StateFileError(f'this is no exported state: "format" must be "{FORMAT}"')
    if document.get("version") != VERSION:
        raise StateFileVersion(
            f"the exported state has version {document.get('version')!r}, this program reads version {VERSION}: "
            "import it with the program that wrote it, or export it again"
        )
    try:
        storage = {bytes.fromhex(key[2:]): bytes.fromhex(value[2:]) for key, value in document["storage"].items()}
        block, timestamp = int(document["block"]), int(document["timestamp"])
        spec, code, digest = document["spec"], document["code"], document["digest"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateFileError(f"the exported state is damaged: {error!r}") from error
    if digest != _digest(code, block, timestamp, storage):
        raise StateFileError("the exported state is damaged: its digest does not fit its code, block, time and storage")
    if not 0 <= timestamp < LATEST:
        raise StateFileError(f"the exported state cannot be used: {timestamp} is no chain time below {LATEST} ms")
    if code != _code(chain):
        raise StateFileMismatch(
            f"the exported state is of another runtime ({spec}), its storage would mean something else here: "
            "start the chain with the runtime and the profile it was exported from"
        )
    if block <= chain.head.number:
        raise StateFileMismatch(
            f"the exported state is of block {block}, this chain is at {chain.head.number} already: "
            "import into a fresh chain, or go back with dev_setHead first"
        )
    if block - chain.head.number > MAX_BLOCKS:
        raise StateFileMismatch(
            f"the exported state is of block {block}, {block - chain.head.number} blocks from here: an import mines up "
            f"to its block, {MAX_BLOCKS} of them at most"
        )
    return Exported(block, timestamp, storage)


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document; whoever sees the file sees all of it. Raises StateFileError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise StateFileError(f"cannot write {path}: {error}") from error


def read(path: Path) -> Any:
    """A document from a file. Raises StateFileError."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise StateFileError(f"cannot read an exported state from {path}: {error}") from error
