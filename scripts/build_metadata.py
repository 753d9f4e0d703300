#!/usr/bin/env python3
"""Build localnet/data/metadata_v14.bin.z and metadata_v15.bin.z from the SDK's source distribution.

    pip download --no-deps --no-binary :all: --no-build-isolation bittensor==11.3.0
    python scripts/build_metadata.py bittensor-11.3.0.tar.gz

The distribution's tests carry the metadata of a local node at spec 461 (`tests/fixtures/golden.json`). This script
drops all documentation, writes a sentence made of the error's own name under each error (clients show it), adds the
items that SDK 11.3 asks for and spec 461 does not have yet (ADDITIONS below), and compresses. Nothing else changes:
type ids 0 to N of the original keep their meaning. `--check` compares with the files in the tree and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localnet.codec import metadata  # noqa: E402
from localnet.codec.metadata import Tree  # noqa: E402

DATA = ROOT / "localnet" / "data"
FIXTURE = "tests/fixtures/golden.json"

# What SDK 11.3.0 reads before it sends SetWeights, and a spec-461 chain has not got: which consensus a subnet runs.
ADDITIONS: list[dict[str, Any]] = [
    {
        "pallet": "SubtensorModule",
        "entry": "SubnetEpochConsensus",
        "key_like": "Tempo",  # same key type and hasher as this existing entry
        "enum": ["pallet_subtensor", "pallet", "EpochConsensus"],
        "variants": ["Yuma", "Null"],
    },
]


def read_fixture(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return dict(json.loads(path.read_text()))
    with tarfile.open(path) as archive:
        name = next((n for n in archive.getnames() if n.endswith(FIXTURE)), None)
        if name is None:
            raise SystemExit(f"{path} holds no {FIXTURE}; is it the SDK's source distribution?")
        handle = archive.extractfile(name)
        assert handle is not None
        return dict(json.load(handle))


def sentence(name: str) -> str:
    """HotKeyNotRegisteredInSubNet -> Hot key not registered in sub net."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", name)
    return " ".join(words).capitalize() + "."


# Where a name is not the words that people and programs look for in the message.
SENTENCES = {"NotProxy": "The sender is not a proxy of this account."}


def name_errors(tree: Tree) -> None:
    for pallet in tree["pallets"]:
        if pallet["error"] is not None:
            for variant in tree["types"][pallet["error"]]["def"]["variant"]:
                variant["docs"] = [SENTENCES.get(variant["name"]) or sentence(variant["name"])]


def add_item(tree: Tree, addition: dict[str, Any]) -> None:
    entries = next(p for p in tree["pallets"] if p["name"] == addition["pallet"])["storage"]["entries"]
    if any(entry["name"] == addition["entry"] for entry in entries):
        return
    type_id = len(tree["types"])
    variants = [
        {"name": name, "fields": [], "index": index, "docs": []} for index, name in enumerate(addition["variants"])
    ]
    tree["types"].append(
        {"id": type_id, "path": addition["enum"], "params": [], "def": {"variant": variants}, "docs": []}
    )
    twin = next(entry for entry in entries if entry["name"] == addition["key_like"])
    entries.append({**twin, "name": addition["entry"], "value": type_id, "default": b"\0", "docs": []})


def build(document_hex: str) -> bytes:
    raw = bytes.fromhex(document_hex.removeprefix("0x"))
    tree = metadata.strip_docs(metadata.decode(raw[raw.index(metadata.MAGIC) :]))
    name_errors(tree)
    for addition in ADDITIONS:
        add_item(tree, addition)
    return metadata.encode(tree)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the SDK's sdist (.tar.gz) or its golden.json")
    parser.add_argument("--check", action="store_true", help="compare with the files in the tree instead of writing")
    arguments = parser.parse_args()
    fixture = read_fixture(arguments.source)
    stale = []
    for version in (14, 15):
        target = DATA / f"metadata_v{version}.bin.z"
        document = build(fixture["metadata"][f"v{version}_hex"])
        if arguments.check:
            if not target.exists() or zlib.decompress(target.read_bytes()) != document:
                stale.append(target.name)
        else:
            DATA.mkdir(exist_ok=True)
            target.write_bytes(zlib.compress(document, 9))
            print(f"{target.relative_to(ROOT)}: {len(document)} bytes, {target.stat().st_size} compressed")
    if stale:
        print("out of date:", ", ".join(stale))
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
