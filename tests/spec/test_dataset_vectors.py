"""Dataset manifests against frozen vectors: another implementation that passes these names the same data."""

import json
from pathlib import Path

import pytest

from protocol.dataset import DatasetManifest, Shard, dataset_id, decode_manifest, decode_shard, encode_manifest
from protocol.errors import MalformedMessage

VECTORS = json.loads((Path(__file__).parent / "protocol" / "dataset.json").read_text())
MANIFESTS = VECTORS["manifests"]


def manifest_for(case: dict, count: int) -> tuple[DatasetManifest, Shard]:
    """A manifest with one shard of `count` tokens."""
    plain = {**MANIFESTS[0]["manifest"], "token_bytes": case["token_bytes"], "vocabulary": case["vocabulary"]}
    plain["training"] = [{**plain["training"][0], "tokens": count}]
    manifest = DatasetManifest.model_validate_json(json.dumps(plain))
    return manifest, manifest.training[0]


@pytest.mark.parametrize("case", MANIFESTS, ids=lambda case: case["name"])
def test_a_manifest_has_one_form_and_one_id(case):
    manifest = decode_manifest(case["file"].encode())
    assert manifest == DatasetManifest.model_validate_json(json.dumps(case["manifest"]))
    assert encode_manifest(manifest) == case["file"].encode()
    assert dataset_id(manifest) == case["id"]


def test_the_id_covers_every_field():
    case = MANIFESTS[1]
    manifest = decode_manifest(case["file"].encode())
    changes = {
        "name": "other",
        "vocabulary": 2**24 - 1,
        "eos": 3,
        "tokenizer": "1" * 64,
        "training": manifest.training[::-1],
        "validation": (),
        "sources": ("elsewhere",),
        "licences": (),
    }
    smaller = {"token_bytes": 2, "vocabulary": 300, "eos": 3}
    others = [{"eos": 3, field: value} for field, value in changes.items()] + [smaller]
    ids = {dataset_id(DatasetManifest(**{**dict(manifest), **change})) for change in others}
    assert len(ids) == len(others) and case["id"] not in ids


@pytest.mark.parametrize("why", VECTORS["refused"])
def test_anything_else_is_no_manifest(why):
    with pytest.raises(MalformedMessage):
        decode_manifest(VECTORS["refused"][why].encode())


def test_a_manifest_beyond_the_limit_is_not_parsed():
    with pytest.raises(MalformedMessage, match="more than a manifest may have"):
        decode_manifest(b"[" * (4 * 2**20 + 1))


@pytest.mark.parametrize("case", VECTORS["shards"], ids=lambda case: case["data"])
def test_shards_are_little_endian_tokens(case):
    manifest, shard = manifest_for(case, len(case["tokens"]))
    data = bytes.fromhex(case["data"])
    assert decode_shard(data, manifest, shard).tolist() == case["tokens"]
    assert decode_shard(memoryview(data), manifest, shard).itemsize == case["token_bytes"]


@pytest.mark.parametrize("case", VECTORS["refused_shards"], ids=lambda case: case["why"])
def test_a_shard_that_is_not_what_the_manifest_says(case):
    manifest, shard = manifest_for(case, case["count"])
    with pytest.raises(MalformedMessage, match="shard has"):
        decode_shard(bytes.fromhex(case["data"]), manifest, shard)
