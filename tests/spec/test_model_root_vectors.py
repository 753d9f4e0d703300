"""The model root against its frozen vectors: another implementation that passes these names the same models."""

import dataclasses
import json
from pathlib import Path

import pytest

from protocol.errors import MalformedMessage, ProtocolError
from protocol.model_root import (
    COMMITMENT_BYTES,
    COMMITMENT_PREFIX,
    TENSOR,
    InclusionProof,
    Leaf,
    ModelCommitment,
    document,
    inclusion_proof,
    merkle_root,
    tensor,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parent / "protocol" / "model_root.json").read_text())
LEAVES = {plain["name"]: Leaf(**{**plain, "shape": tuple(plain["shape"])}) for plain in VECTORS["leaves"]}
TREES = VECTORS["trees"]


def given(tree: dict) -> list[Leaf]:
    return [LEAVES[name] for name in tree["leaves"]]


def flipped(digest: str, at: int = 0) -> str:
    return digest[:at] + format(int(digest[at], 16) ^ 1, "x") + digest[at + 1 :]


@pytest.mark.parametrize("case", VECTORS["documents"], ids=lambda case: case["name"])
def test_documents(case):
    assert document(case["name"], case["value"]) == LEAVES[case["name"]]


def test_a_leaf_covers_name_dtype_shape_and_digest():
    case = VECTORS["leaf_data"]
    leaf = LEAVES[case["name"]]
    assert leaf.hash().hex() == case["hash"]
    assert tensor(leaf.name.removeprefix(TENSOR), leaf.dtype, leaf.shape, leaf.digest) == leaf
    for change in (
        {"name": leaf.name + "s"},
        {"dtype": "bfloat16"},
        {"shape": (32, 257)},
        {"digest": flipped(leaf.digest)},
    ):
        assert dataclasses.replace(leaf, **change).hash() != leaf.hash()


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{len(tree['leaves'])}-leaves")
def test_roots_whatever_the_order(tree):
    leaves = given(tree)
    assert sorted(tree["leaves"]) == tree["order"]
    assert merkle_root(leaves) == merkle_root(reversed(leaves)) == tree["root"]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{len(tree['leaves'])}-leaves")
def test_every_leaf_has_its_proof(tree):
    for case in tree["proofs"]:
        proof = InclusionProof(case["index"], case["size"], tuple(case["path"]))
        assert inclusion_proof(given(tree), case["name"]) == proof
        assert verify_inclusion(tree["root"], LEAVES[case["name"]], proof)


@pytest.mark.parametrize("tree", TREES[1:], ids=lambda tree: f"{len(tree['leaves'])}-leaves")
def test_what_was_tampered_with_is_refused(tree):
    root, leaves = tree["root"], given(tree)
    for leaf in leaves:
        proof = inclusion_proof(leaves, leaf.name)
        assert not verify_inclusion(flipped(root, 63), leaf, proof)
        assert not verify_inclusion(root, dataclasses.replace(leaf, digest=flipped(leaf.digest)), proof)
        for other in leaves:
            assert other is leaf or not verify_inclusion(root, other, proof), "a proof holds for another leaf"
        changed = [
            proof.path[:-1],
            proof.path[1:],  # an inner node's way to the root
            (*proof.path, proof.path[-1]),
            *((*proof.path[:at], flipped(step), *proof.path[at + 1 :]) for at, step in enumerate(proof.path)),
        ]
        for path in changed:
            assert not verify_inclusion(root, leaf, dataclasses.replace(proof, path=path))
        elsewhere = dataclasses.replace(proof, index=proof.index ^ 1, size=max(proof.size, (proof.index ^ 1) + 1))
        assert not verify_inclusion(root, leaf, elsewhere)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": ""},
        {"name": "a" * 513},
        {"name": "a\nb"},
        {"name": "tensor/a", "dtype": ""},
        {"name": "tensor/a", "dtype": "float 32"},
        {"name": "config", "dtype": "float32"},
        {"name": "config", "shape": (1,)},
        {"name": "tensor/a", "dtype": "float32", "shape": (-1,)},
        {"name": "tensor/a", "dtype": "float32", "shape": (True,)},
        {"name": "tensor/a", "dtype": "float32", "shape": (1,) * 17},
        {"name": "tensor/a", "dtype": "float32", "shape": [1]},
        {"digest": "0x" + "0" * 62},
        {"digest": "A" * 64},
        {"digest": "0" * 63 + "\n"},
        {"digest": None},
    ],
    ids=str,
)
def test_leaves_that_no_model_has(bad):
    with pytest.raises(MalformedMessage):
        Leaf(**{"name": "config", "digest": "0" * 64, **bad})


@pytest.mark.parametrize("bad", [(-1, 1, ()), (1, 1, ()), (0, 2**21, ()), (0, 2, ("zz",)), (0, 2, ("0" * 64,) * 99)])
def test_proofs_that_do_not_exist(bad):
    with pytest.raises(MalformedMessage):
        InclusionProof(*bad)


def test_no_leaves_two_of_a_name_and_unknown_names_are_refused():
    leaves = list(LEAVES.values())
    for wrong in ([], [*leaves, document("config", {})]):
        with pytest.raises(MalformedMessage):
            merkle_root(wrong)
    with pytest.raises(MalformedMessage, match="no leaf"):
        inclusion_proof(leaves, "tensor/nothing")


@pytest.mark.parametrize("case", VECTORS["commitments"], ids=lambda case: case["dtype"])
def test_commitments(case):
    commitment = ModelCommitment(case["root"], case["dtype"])
    assert commitment.encode() == case["text"] and len(case["text"].encode("ascii")) <= COMMITMENT_BYTES
    assert ModelCommitment.parse(case["text"]) == commitment
    assert case["text"].startswith(COMMITMENT_PREFIX)


@pytest.mark.parametrize("text", VECTORS["refused"], ids=lambda text: repr(text[:24]))
def test_anything_else_is_no_commitment(text):
    with pytest.raises(ProtocolError, match=r"commitment|dtype"):
        ModelCommitment.parse(text)
