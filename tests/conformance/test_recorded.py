"""What the SDK's authors recorded from a local node at spec 461, against this chain after the same steps.

The recordings are in the `tests` folder of the SDK's source distribution; TOUCHSTONE_SDK_TESTS names that folder:

    pip download --no-deps --no-binary :all: --no-build-isolation bittensor==11.3.0
    tar xzf bittensor-11.3.0.tar.gz
    TOUCHSTONE_SDK_TESTS=bittensor-11.3.0/tests python -m pytest tests/conformance/test_recorded.py

Without it only the figures spelt out here are compared.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bittensor_core
import pytest

from localnet import SyncLocalnet
from localnet.codec.document import Document
from localnet.codec.scale import Registry, compact
from localnet.errors import ScaleError
from localnet.node.blocks import Header
from localnet.rules.accounts import multisig_account
from localnet.runtime import extrinsic
from localnet.runtime.framework import HASHERS
from tests.conformance.clients.base import TAO

VARIABLE = "TOUCHSTONE_SDK_TESTS"
BOB = bytes.fromhex("8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48")
RECORDED_BLOCK = 67  # carries a transfer of 1 TAO from Alice to Bob, the first extrinsic of the chain
WALL_CLOCK = {("Timestamp", "Now")}  # the one recorded value that is another on every run

Recording = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return Document.load()


def recorded(*path: str) -> Recording:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"set {VARIABLE} to the tests folder of the SDK's source distribution")
    content: Recording = json.loads(Path(folder, "fixtures", *path).read_text())
    return content


@pytest.fixture(scope="module")
def golden() -> Recording:
    return recorded("golden.json")


@pytest.fixture(scope="module")
def net() -> Iterator[SyncLocalnet]:
    """The chain at the recorded block."""
    with SyncLocalnet(mining="manual") as chain:
        chain.mine_to(RECORDED_BLOCK - 1)
        chain.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest=("Id", BOB), value=TAO)
        yield chain


def raw(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text.removeprefix("0x"))


def stored(net: SyncLocalnet, key: bytes | None) -> bytes | None:
    assert key is not None
    return net.net.chain.storage(key)


def test_a_block_reports_the_recorded_weights(net: SyncLocalnet) -> None:
    """Recorded at block 67: the clock, the shield's key, and the transfer, each with its class and base weight."""
    infos = [e["fields"]["dispatch_info"] for e in net.events() if e["name"] == "ExtrinsicSuccess"]
    assert infos == [
        {"weight": {"ref_time": 321_973_000, "proof_size": 5691}, "class": "Mandatory", "pays_fee": "Yes"},
        {"weight": {"ref_time": 901_818_000, "proof_size": 9753}, "class": "Normal", "pays_fee": "Yes"},
        {"weight": {"ref_time": 332_208_000, "proof_size": 7791}, "class": "Normal", "pays_fee": "Yes"},
    ]


def test_storage_is_as_recorded(net: SyncLocalnet, golden: Recording) -> None:
    values = [entry for entry in golden["storage_values"] if (entry["pallet"], entry["storage_function"]) not in
              WALL_CLOCK]  # fmt: skip
    assert len(values) > 5
    assert {entry["key_hex"]: stored(net, raw(entry["key_hex"])) for entry in values} == {
        entry["key_hex"]: raw(entry["raw_hex"]) for entry in values
    }


def test_maps_are_as_recorded(net: SyncLocalnet, golden: Recording) -> None:
    """Keys, their order, and values: every account of genesis among them."""
    for entry in golden["query_maps"]:
        prefix = raw(entry["prefix_hex"])
        assert prefix is not None
        keys = net.net.chain.state.keys_at(prefix, net.block)
        assert ["0x" + key.hex() for key in keys] == entry["raw_keys"], entry["storage_function"]
        for key, value in entry["raw_changes"]:
            assert stored(net, raw(key)) == raw(value), f"{entry['storage_function']} {key}"


def test_runtime_calls_answer_as_recorded(net: SyncLocalnet, golden: Recording) -> None:
    assert golden["runtime_calls"]
    for entry in golden["runtime_calls"]:
        name = f"{entry['api']}_{entry['method']}"
        answer = net.net.chain.call(name, bytes.fromhex(entry["encoded_params_hex"]))
        assert answer == raw(entry["raw_hex"]), name


def test_events_are_as_recorded_to_the_byte(net: SyncLocalnet, document: Document, golden: Recording) -> None:
    events = stored(net, document.storage["System", "Events"].prefix)
    assert events == raw(golden["events"]["raw_hex"])
    ours = net.net.chain.head.extrinsics
    assert ours is not None
    theirs = [raw(text) or b"" for text in golden["block"]["raw"]["block"]["extrinsics"]]
    assert [len(xt) for xt in ours] == [len(xt) for xt in theirs]


def test_a_transfer_is_quoted_as_recorded(net: SyncLocalnet, golden: Recording) -> None:
    transfer = raw(golden["block"]["raw"]["block"]["extrinsics"][2])
    assert transfer is not None
    info = net.net.rpc.node.api.fee_info(transfer, net.block)
    assert info["weight"] == golden["payment_info"]["weight"]
    assert int(info["partialFee"]) == golden["receipt"]["total_fee_amount"]


def test_keys_calls_and_constants_are_as_recorded(document: Document, golden: Recording) -> None:
    for entry in golden["storage_keys"]:
        item = document.storage[entry["pallet"], entry["storage_function"]]
        key = item.prefix
        for value, hasher, type_id in zip(entry["params"], item.hashers, item.keys, strict=True):
            plain = account_or_bytes(value) if isinstance(value, str) else value
            key += HASHERS[hasher][0](document.registry.encode(type_id, plain))
        assert key == raw(entry["key_hex"]), entry["storage_function"]
    for entry in golden["calls"]:
        data = raw(entry["data_hex"])
        assert data is not None
        pallet, (function, _) = value = document.registry.decode(document.call_type, data)
        assert (pallet, function) == (entry["module"], entry["function"])
        assert document.registry.encode(document.call_type, value) == data
    for entry in golden["constants"]:
        assert document.constants[entry["module"], entry["name"]] == entry["decoded"]


def account_or_bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:]) if text.startswith("0x") else bytes(bittensor_core.ss58_decode(text))


def test_a_recorded_header_has_the_recorded_hash(golden: Recording) -> None:
    header = golden["block"]["raw"]["block"]["header"]
    digest = tuple(raw(item) or b"" for item in header["digest"]["logs"])
    roots = [raw(header[name]) or b"" for name in ("parentHash", "stateRoot", "extrinsicsRoot")]
    ours = Header(roots[0], int(header["number"], 16), roots[1], roots[2], digest)
    assert ours.json() == header and Header.decode(ours.encode()) == ours
    assert "0x" + ours.hash().hex() == golden["block"]["decoded_header"]["hash"]


def test_recorded_extrinsics_are_taken_apart_and_what_was_signed_is_put_together(golden: Recording) -> None:
    for payload, envelope in zip(golden["signature_payloads"], golden["extrinsics"], strict=True):
        parsed = extrinsic.parse(raw(envelope["extrinsic_hex"]) or b"")
        assert (parsed.who, parsed.signature, parsed.nonce, parsed.tip) == (
            raw(envelope["public_key_hex"]), raw(envelope["signature_hex"]), envelope["nonce"], envelope["tip"],
        )  # fmt: skip
        assert "0x" + parsed.call.hex() == envelope["call_data_hex"]
        mortal = isinstance(envelope["era"], dict)
        assert (parsed.era.period if parsed.era else None) == (envelope["era"]["period"] if mortal else None)
        extra = parsed.extra[: 2 if mortal else 1] + compact(payload["nonce"]) + compact(payload["tip"]) + b"\0"
        asked = replace(parsed, extra=extra)
        genesis = raw(golden["network"]["genesis_hash"]) or b""
        birth = (raw(payload["era_birth_block_hash"]) or b"") if mortal else genesis
        assert "0x" + asked.payload(461, 1, genesis, birth, b"").hex() == payload["payload_hex"]


def test_the_recorded_signature_covers_what_we_say_was_signed(golden: Recording) -> None:
    transfer = extrinsic.parse(raw(golden["block"]["raw"]["block"]["extrinsics"][2]) or b"")
    genesis = raw(golden["network"]["genesis_hash"]) or b""
    assert extrinsic.verify(transfer.payload(461, 1, genesis, genesis, b""), transfer)
    assert not extrinsic.verify(transfer.payload(462, 1, genesis, genesis, b""), transfer)


def test_multisig_accounts_are_as_recorded(golden: Recording) -> None:
    for entry in golden["multisig"]:
        members = sorted(account_or_bytes(address) for address in entry["signatories"])
        assert multisig_account(members, entry["threshold"]) == account_or_bytes(entry["ss58_address"])


# -- the shape corpus -------------------------------------------------------------------------------------------------


def test_every_sample_of_the_shape_corpus_round_trips(document: Document) -> None:
    """All 2899 samples of 797 types come back to the byte.

    Some samples hold a compact integer that is too large for the type it stands for (made at random as 32 bits): no
    chain writes or accepts these bytes. The codec has to refuse exactly those; that they are well-formed otherwise is
    seen by reading them with every compact widened to 128 bits, that they do not fit by writing what was read with
    every compact replaced by its own plain integer.
    """
    corpus = recorded("shape_corpus", "corpus.json")
    wide, plain = Registry(_compacts(document, _widened)), Registry(_compacts(document, _plain))
    samples = [(entry["id"], raw(s["scale_hex"]) or b"") for entry in corpus["types"] for s in entry["samples"]]
    assert len(samples) > 2000 and corpus["types_covered"] > 0.95 * corpus["types_total"]
    problems = []
    for type_id, data in samples:
        value = wide.decode(type_id, data)
        assert wide.encode(type_id, value) == data, f"type {type_id}: {data.hex()}"
        if _fits(plain, type_id, value) != _round_trips(document.registry, type_id, data):
            problems.append(f"type {type_id}: {data.hex()}")
    assert not problems


def _compacts(document: Document, replace: Any) -> list[dict[str, Any]]:
    types = copy.deepcopy(document.tree["types"])
    for entry in types:
        if "compact" in entry["def"]:
            entry["def"] = replace(types, entry["def"]["compact"])
    return types  # type: ignore[no-any-return]


def _widened(types: list[dict[str, Any]], inner: int) -> dict[str, Any]:
    return {"compact": next(i for i, entry in enumerate(types) if entry["def"] == {"primitive": "u128"})}


def _plain(types: list[dict[str, Any]], inner: int) -> dict[str, Any]:
    """The integer itself; for a compact of nothing a type without values."""
    definition: dict[str, Any] = types[inner]["def"]
    return {"variant": []} if definition == {"tuple": []} else definition


def _fits(plain: Registry, type_id: int, value: Any) -> bool:
    try:
        plain.encode(type_id, value)
    except ScaleError:
        return False
    return True


def _round_trips(registry: Registry, type_id: int, data: bytes) -> bool:
    try:
        return registry.encode(type_id, registry.decode(type_id, data)) == data
    except ScaleError:
        return False
