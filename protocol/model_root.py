"""What a model is: one hash over everything that determines its answers, and the owner's word for it on chain.

    root = merkle_root(leaves)                       # 64 hex digits, in every request and every verdict
    proof = inclusion_proof(leaves, name)            # one leaf, a tensor say, can be disputed without the others
    verify_inclusion(root, leaf, proof)              # from the root, the leaf and the proof alone
    ModelCommitment(root, dtype).encode()            # the text the subnet's owner commits on chain

    Leaf                 a name and the digest of what it stands for; a tensor's also carries its dtype and shape
    document             the leaf of a JSON value (configuration, tokenizer, chat template, dtype, EOS ids)
    tensor               the leaf of one weight tensor
    InclusionProof       a leaf's place and the hashes beside its way to the root
    ModelCommitment      root and dtype; `parse` takes exactly what `encode` gives

The tree is that of merkle.py. Leaves are ordered by the code points of their names, and no two share a name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from protocol import merkle
from protocol.errors import MalformedMessage
from protocol.generation import DType

LEAF_TAG = b"touchstone/model/v2\x00"  # before every leaf's data, so that no other tree of SHA-256 has the same leaves
TENSOR = "tensor/"  # before a tensor's name, so that none can take the name of a document
MAX_LEAVES = 2**20  # a model of a trillion parameters has some ten thousand tensors
MAX_NAME = 512  # characters
MAX_RANK = 16  # dimensions of a tensor
COMMITMENT_PREFIX = "touchstone-model/"  # of every version
COMMITMENT_VERSION = 1
COMMITMENT_BYTES = 128  # the largest Raw field of the Commitments pallet; ours takes 92 at most

_HASH = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9_.]{1,32}")
_COMMITMENT = re.compile(rf"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:([0-9a-f]{{64}}):([a-z0-9]{{1,16}})", re.ASCII)


@dataclass(frozen=True)
class Leaf:
    """`digest` is 64 hex digits. `dtype` and `shape` are a tensor's; documents leave them empty.

    Raises MalformedMessage for values that no model has, so that a leaf taken from a dispute is checked too.
    """

    name: str
    digest: str
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise MalformedMessage(f"a leaf's name has 1 to {MAX_NAME} printable characters")
        if not _is_hash(self.digest):
            raise MalformedMessage("a leaf's digest has 64 hex digits")
        if not isinstance(self.shape, tuple) or len(self.shape) > MAX_RANK or not all(map(_is_size, self.shape)):
            raise MalformedMessage(f"a tensor's shape has at most {MAX_RANK} sizes, none negative")
        if self.name.startswith(TENSOR):
            if not isinstance(self.dtype, str) or not _WORD.fullmatch(self.dtype):
                raise MalformedMessage("a tensor's leaf names its dtype")
        elif self.dtype != "" or self.shape != ():
            raise MalformedMessage("only a tensor's leaf has a dtype and a shape")

    def hash(self) -> bytes:
        """The leaf's node in the tree, 32 bytes."""
        return merkle.leaf_hash(LEAF_TAG + canonical([self.name, self.dtype, self.shape, self.digest]))


@dataclass(frozen=True)
class InclusionProof:
    """`index` of `size` leaves; `path` holds the sibling hashes from the leaf upwards, 64 hex digits each.

    Raises MalformedMessage for values that no proof has.
    """

    index: int
    size: int
    path: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.index) is not int or type(self.size) is not int or not 0 <= self.index < self.size <= MAX_LEAVES:
            raise MalformedMessage(f"a proof's index lies below its size, and that is at most {MAX_LEAVES}")
        longest = MAX_LEAVES.bit_length()
        if not isinstance(self.path, tuple) or len(self.path) > longest or not all(map(_is_hash, self.path)):
            raise MalformedMessage(f"a proof's path has at most {longest} hashes of 64 hex digits")


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only, floats as Python writes them (1e-05): the bytes that are hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def document(name: str, value: Any) -> Leaf:
    """The leaf of a JSON value; its digest is SHA-256 over the canonical JSON."""
    return Leaf(name, hashlib.sha256(canonical(value)).hexdigest())


def tensor(name: str, dtype: str, shape: Sequence[int], digest: str) -> Leaf:
    """The leaf of a tensor: `digest` is BLAKE3 over its bytes, little-endian in row-major order; `dtype` in the names
    of safetensors' torch side ("float32", "bfloat16")."""
    return Leaf(TENSOR + name, digest, dtype, tuple(shape))


def merkle_root(leaves: Iterable[Leaf]) -> str:
    """The root, 64 hex digits. Raises MalformedMessage for no leaves, too many, or two of one name."""
    return merkle.root([leaf.hash() for leaf in _ordered(leaves)]).hex()


def inclusion_proof(leaves: Iterable[Leaf], name: str) -> InclusionProof:
    """The proof for the leaf called `name` (RFC 6962, section 2.1.1). Raises MalformedMessage when there is none."""
    ordered = _ordered(leaves)
    for index, leaf in enumerate(ordered):
        if leaf.name == name:
            path = merkle.path(index, [other.hash() for other in ordered])
            return InclusionProof(index, len(ordered), tuple(node.hex() for node in path))
    raise MalformedMessage("no leaf has that name")


def verify_inclusion(root: str, leaf: Leaf, proof: InclusionProof) -> bool:
    """Whether `leaf` is one of those under `root`."""
    siblings = [bytes.fromhex(step) for step in proof.path]
    return _is_hash(root) and merkle.follows(bytes.fromhex(root), leaf.hash(), proof.index, proof.size, siblings)


@dataclass(frozen=True)
class ModelCommitment:
    """What the subnet's owner commits on chain: every neuron of mechanism 0 holds this model. Raises MalformedMessage
    for a root or dtype that does not exist."""

    root: str  # 64 hex digits
    dtype: DType

    def __post_init__(self) -> None:
        if not _is_hash(self.root):
            raise MalformedMessage("a model root has 64 hex digits")
        if self.dtype not in get_args(DType):
            raise MalformedMessage(f"the dtype is none of {', '.join(get_args(DType))}")

    def encode(self) -> str:
        """`touchstone-model/1:<root>:<dtype>`, ASCII."""
        return f"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:{self.root}:{self.dtype}"

    @staticmethod
    def parse(text: str) -> ModelCommitment:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        found = _COMMITMENT.fullmatch(text) if len(text) <= COMMITMENT_BYTES else None
        if found is None:
            raise MalformedMessage(
                f"not a model commitment of version {COMMITMENT_VERSION}; one reads "
                f"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:<64 hex digits>:<dtype>"
            )
        return ModelCommitment(found[1], cast(DType, found[2]))


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _ordered(leaves: Iterable[Leaf]) -> list[Leaf]:
    ordered = sorted(leaves, key=lambda leaf: leaf.name)
    if not 0 < len(ordered) <= MAX_LEAVES:
        raise MalformedMessage(f"a model has 1 to {MAX_LEAVES} leaves")
    if len({leaf.name for leaf in ordered}) != len(ordered):
        raise MalformedMessage("two leaves have the same name")
    return ordered
