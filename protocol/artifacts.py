"""Artifacts: files of any size, each with one address that its bytes determine.

    manifest = Manifest.of(data)            of whole bytes, or Manifest(size, chunks) from the CIDs of its chunks
    manifest.cid                            the artifact's address: what is committed, listed and asked for
    manifest.encode()                       DAG-CBOR, the one form in bytes; `parse_manifest` takes nothing else
    manifest.chunk_bytes(index)             how long a chunk is
    chunk_cid(data), manifest_cid(data)     addresses of bytes at hand
    require_artifact(cid), require_object(cid)      raise MalformedMessage for a text that is no such address
    is_object(name)                         the same as an answer
    manifest_limit(max_bytes)               the longest manifest of an artifact of at most that size

An artifact is cut into chunks of 4 MiB, the last one shorter; an empty one has none. The manifest holds the size and
the chunks' CIDs in order, so that every chunk can be checked when it arrives, from wherever it comes. Addresses are
CIDv1 (multiformats) in base32 with BLAKE3-256: codec `raw` for a chunk, `dag-cbor` for a manifest. Version, chunk size
and form are fixed, so the same bytes have the same address everywhere, and no two artifacts share one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeAlias, cast

from blake3 import blake3
from cbrrr import CID, DagCborTypes, decode_dag_cbor, encode_dag_cbor
from pydantic import AfterValidator, Field

from protocol.errors import MalformedMessage
from protocol.synapse import MIB

VERSION = 1
CHUNK_BYTES = 4 * MIB  # changing it changes every address
MAX_CHUNKS = 2**16
MAX_BYTES = MAX_CHUNKS * CHUNK_BYTES  # 256 GiB; the weights of a model of 100 billion parameters fit

# CIDv1, codec, multihash BLAKE3-256 of 32 bytes; numbers of the multicodec table.
RAW = bytes([0x01, 0x55, 0x1E, 32])
DAG_CBOR = bytes([0x01, 0x71, 0x1E, 32])
_TEXT = re.compile(r"b[a-z2-7]{58}")

# One link: tag 42, a byte string of 37, the zero before every CID in CBOR, the CID.
_LINK = re.escape(b"\xd8\x2a\x58\x25\x00" + RAW) + rb".{32}"
_LINK_BYTES = 41
_FRAME_BYTES = 64  # everything around the links has 40 to 52 bytes
_UINT = rb"(?:[\x00-\x17]|\x18.|\x19.{2}|\x1a.{4}|\x1b.{8})"
_LENGTH = rb"(?:[\x80-\x97]|\x98.|\x99.{2}|\x9a.{4})"
# The order of the keys is DAG-CBOR's: by length. No list but the one of links, nothing inside it but links.
_FORM = re.compile(
    rb"\xa4\x64size" + _UINT + rb"\x66chunks" + _LENGTH + rb"(?:" + _LINK + rb")*"
    rb"\x67version" + _UINT + rb"\x6achunk_size" + _UINT,
    re.DOTALL,
)


@dataclass(frozen=True)
class Manifest:
    """What an artifact consists of: its `size` in bytes, and the CIDs of its chunks in order.

    Raises MalformedMessage for values that no artifact has.
    """

    size: int
    chunks: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 0 <= self.size <= MAX_BYTES:
            raise MalformedMessage(f"an artifact has 0 to {MAX_BYTES} bytes")
        if not isinstance(self.chunks, tuple) or len(self.chunks) != chunk_count(self.size):
            raise MalformedMessage("the number of chunks is not that of the size")
        for cid in self.chunks:
            _read_cid(cid, RAW, "a chunk")

    @staticmethod
    def of(data: bytes | memoryview) -> Manifest:
        """The manifest of an artifact that is whole in memory."""
        view = memoryview(data)
        starts = range(0, len(view), CHUNK_BYTES)
        return Manifest(len(view), tuple(chunk_cid(view[start : start + CHUNK_BYTES]) for start in starts))

    @cached_property
    def cid(self) -> str:
        """The artifact's address."""
        return manifest_cid(self.encode())

    def chunk_bytes(self, index: int) -> int:
        """The length of a chunk, in bytes."""
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    def encode(self) -> bytes:
        """DAG-CBOR: a map of version, size, chunk size and links."""
        links: list[DagCborTypes] = [CID.decode(cid) for cid in self.chunks]
        return encode_dag_cbor({"version": VERSION, "size": self.size, "chunk_size": CHUNK_BYTES, "chunks": links})


def parse_manifest(data: bytes) -> Manifest:
    """Inverse of `Manifest.encode`. Raises MalformedMessage for anything else, the same values in another form too."""
    if len(data) > manifest_limit(MAX_BYTES):
        raise MalformedMessage(f"a manifest has at most {manifest_limit(MAX_BYTES)} bytes")
    # The decoder makes room for as many entries as a list claims; nested lists that claim much would take all memory.
    if _FORM.fullmatch(data) is None:
        raise MalformedMessage("not the manifest of an artifact")
    try:
        fields = cast(dict[str, Any], decode_dag_cbor(data))
    except ValueError as error:
        raise MalformedMessage(f"the manifest is not DAG-CBOR: {error}") from None
    if fields["version"] != VERSION or fields["chunk_size"] != CHUNK_BYTES:
        raise MalformedMessage(f"the manifest is not of version {VERSION}, which has chunks of {CHUNK_BYTES} bytes")
    manifest = Manifest(fields["size"], tuple(link.encode() for link in fields["chunks"]))
    if manifest.encode() != data:
        raise MalformedMessage("the manifest is not in canonical DAG-CBOR")
    return manifest


def manifest_limit(max_bytes: int) -> int:
    """Bytes of the longest manifest that an artifact of at most `max_bytes` may have."""
    return _FRAME_BYTES + _LINK_BYTES * chunk_count(min(max_bytes, MAX_BYTES))


def chunk_count(size: int) -> int:
    """Chunks of an artifact of `size` bytes."""
    return -(-size // CHUNK_BYTES)


def chunk_cid(data: bytes | memoryview) -> str:
    """The address of a chunk's bytes, 59 characters."""
    return CID(RAW + blake3(data).digest()).encode()


def manifest_cid(data: bytes) -> str:
    """The address of an encoded manifest, and so of its artifact, 59 characters."""
    return CID(DAG_CBOR + blake3(data).digest()).encode()


def require_artifact(cid: str) -> None:
    """Raises MalformedMessage unless `cid` is the address of an artifact in its one form."""
    _read_cid(cid, DAG_CBOR, "an artifact")


def _artifact(cid: str) -> str:
    try:
        require_artifact(cid)
    except MalformedMessage as error:
        raise ValueError(str(error)) from None  # the only error that pydantic takes for a refusal
    return cid


Cid: TypeAlias = Annotated[str, Field(max_length=59), AfterValidator(_artifact)]
"""An artifact's address as a field of a message."""


def require_object(cid: str) -> None:
    """Raises MalformedMessage unless `cid` is the address of a chunk or of a manifest: what a store has objects of."""
    if isinstance(cid, str) and cid.startswith(_RAW_TEXT):
        _read_cid(cid, RAW, "a chunk")
    else:
        require_artifact(cid)


def is_object(name: str) -> bool:
    """Whether a name is the address of a chunk or of a manifest."""
    try:
        require_object(name)
    except MalformedMessage:
        return False
    return True


def _read_cid(cid: object, prefix: bytes, what: str) -> None:
    if isinstance(cid, str) and _TEXT.fullmatch(cid):
        link = CID.decode(cid)
        if link.cid_bytes.startswith(prefix) and link.encode() == cid:  # 58 letters hold two bits more than 36 bytes
            return
    raise MalformedMessage(f"not the address of {what}: that is a CIDv1 in base32 with BLAKE3-256")


_RAW_TEXT = CID(RAW).encode()[:7]  # the letters that the four bytes determine, but for the last
