"""The record of a prepared model: what it is, and the hash of every file. Read without torch.

    write_manifest(made, identity, leaves)   the last step of preparing
    is_prepared(path)                        whether `path` holds a model of this release's form
    read_prepared(path)                      every file checked against its hash -> PreparedModel
    find_prepared(settings)                  the same for what the settings name, None when nothing is prepared

`manifest.json` lies in the model's directory. It carries the leaves of the model root, so that the root can be checked
and a proof for one tensor made without reading the weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blake3 import blake3

from protocol.challenges import ModelIdentity
from protocol.errors import MalformedMessage
from protocol.model_root import Leaf, merkle_root
from template.inference.sources import ModelSettings, ModelUnavailable

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2  # a directory of another version is made anew


@dataclass(frozen=True)
class PreparedModel:
    """A verified directory on this machine. `leaves` are those of the model root."""

    path: Path
    identity: ModelIdentity
    leaves: tuple[Leaf, ...] = field(repr=False)


def write_manifest(made: Path, identity: ModelIdentity, leaves: Sequence[Leaf]) -> None:
    """Record what lies in `made`, and bring all of it to the disk."""
    files = {file.name: hash_file(file) for file in sorted(made.iterdir())}
    manifest = {
        "version": MANIFEST_VERSION,
        "identity": asdict(identity),
        "leaves": [asdict(leaf) for leaf in leaves],
        "files": files,
    }
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for file in made.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def is_prepared(path: Path) -> bool:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("version") == MANIFEST_VERSION


def read_prepared(path: Path) -> PreparedModel:
    """Check every file against the manifest (0.2 s for 540 MB), and the root against its leaves.

    A strange file is refused too, because transformers might read it. Raises ModelUnavailable.
    """
    manifest = json.loads((path / MANIFEST).read_text())
    remedy = f"remove {path} and start again"
    present = {file.name for file in path.iterdir()} - {MANIFEST}
    if present != set(manifest["files"]):
        raise ModelUnavailable(f"{path} has missing or additional files", remedy=remedy)
    for name, expected in manifest["files"].items():
        if hash_file(path / name) != expected:
            raise ModelUnavailable(f"{path / name} is not the file that was prepared", remedy=remedy)
    identity = ModelIdentity(**{**manifest["identity"], "eos_ids": tuple(manifest["identity"]["eos_ids"])})
    try:
        leaves = tuple(Leaf(**{**plain, "shape": tuple(plain["shape"])}) for plain in manifest["leaves"])
        root = merkle_root(leaves)
    except MalformedMessage as error:
        raise ModelUnavailable(f"{path / MANIFEST}: {error}", remedy=remedy) from None
    if root != identity.root:
        raise ModelUnavailable(f"the leaves in {path / MANIFEST} give another root", remedy=remedy)
    return PreparedModel(path, identity, leaves)


def find_prepared(settings: ModelSettings) -> PreparedModel | None:
    """What `prepare_model` would find ready, without the network. Raises ModelUnavailable when it was damaged."""
    sources = ("hub", "package") if settings.source == "auto" else (settings.source,)
    for source in sources:
        path = settings.directory(source)
        if is_prepared(path):
            return read_prepared(path)
    return None


def hash_file(path: Path) -> str:
    """BLAKE3, 64 hex digits."""
    hasher = blake3()
    hasher.update_mmap(path)
    return str(hasher.hexdigest())
