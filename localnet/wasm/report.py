"""What there is to know about a runtime before a chain runs on it: `localnet runtime`.

`report` reads the module (version, runtime APIs, imports) and runs one function of it, for its metadata. What clients
will miss is what the metadata that this package ships has and the runtime has not: the released one that the SDK of
today was made for (`localnet.data`). Names of runtime APIs are those of the exports: a module has only their hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from localnet.codec.document import Document
from localnet.errors import ConfigError
from localnet.node.documents import document_of
from localnet.runtime.memory import MemoryState
from localnet.wasm.binary import inspect
from localnet.wasm.chainspec import shown
from localnet.wasm.genesis import preset_names
from localnet.wasm.loading import Loaded
from localnet.wasm.runtime import WasmRuntime

SHOWN = 6  # names of a kind that the text lists; JSON has all
MAX_LINE = 10_000  # characters


def report(loaded: Loaded, runtime: WasmRuntime) -> dict[str, Any]:
    """`runtime`: made of the loaded code. Raises RuntimeCodeError, RuntimeTrap, MetadataError."""
    module = inspect(loaded.code.module)
    document = document_of(runtime, MemoryState())
    try:
        presets: list[str] | None = preset_names(runtime)
    except ConfigError:
        presets = None  # it cannot build a genesis
    return {
        **loaded.facts(),
        "apis": dict(apis(module.exports, loaded)),
        "imports": len(module.imports),
        "missing_imports": list(runtime.missing),
        "builds_genesis": presets is not None,
        "presets": presets or [],
        "metadata": 15 if document.v15 else 14,
        "clients_miss": {"spec_version": _spec_version(Document.load()), **differences(module.exports, document)},
    }


def apis(exports: Mapping[str, Any], loaded: Loaded) -> Iterator[tuple[str, int]]:
    """Runtime API and version; in hexadecimal where no export tells the name."""
    version = loaded.code.version
    names = {blake2b(name.encode(), digest_size=8).digest(): name for name in {e.partition("_")[0] for e in exports}}
    for digest, number in version.apis if version else ():
        yield names.get(digest, "0x" + digest.hex()), number


def differences(exports: Mapping[str, Any], document: Document) -> dict[str, list[str]]:
    """What the shipped metadata has and this runtime has not, by kind."""
    known = Document.load()
    return {
        "runtime APIs": sorted(name for name in known.apis if name not in exports),
        "calls": sorted(
            f"{pallet}.{call}"
            for pallet, calls in known.calls.items()
            for call in calls
            if call not in document.calls.get(pallet, {})
        ),
        "storage items": sorted(f"{pallet}.{item}" for pallet, item in known.storage.keys() - document.storage.keys()),
    }


def _spec_version(document: Document) -> int:
    return int(document.constants["System", "Version"]["spec_version"])


def as_text(facts: Mapping[str, Any]) -> Iterator[str]:
    """Lines to read. Names in them are the runtime's."""
    return (shown(line, MAX_LINE) for line in _lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    version = f"{facts['spec_name']} {facts['spec_version']}" if facts["spec_name"] else "without a version"
    yield f"runtime   {version}, transaction version {facts['transaction_version']}, metadata {facts['metadata']}"
    yield f"code      {facts['hash']}, {facts['size']:,} bytes"
    if facts["module_hash"] != facts["hash"]:
        yield f"  inside  {facts['module_hash']}, {facts['module_size']:,} bytes of Wasm"
    yield f"source    {facts['source']}"
    yield f"APIs      {', '.join(f'{name} {number}' for name, number in facts['apis'].items())}"
    missing = facts["missing_imports"]
    yield f"imports   {facts['imports']}, " + (f"not here: {', '.join(missing)}" if missing else "all here")
    presets = f"presets: {', '.join(facts['presets']) or 'none but the default'}"
    yield "genesis   " + (
        f"built by the runtime, {presets}" if facts["builds_genesis"] else "from a raw specification only"
    )
    yield from _missed(facts["clients_miss"])


def _missed(found: Mapping[str, Any]) -> Iterator[str]:
    kinds = {kind: names for kind, names in found.items() if isinstance(names, list) and names}
    made_for = f"spec {found['spec_version']}, which the SDK of today was made for"
    if not kinds:
        yield f"clients   find all that {made_for}, has"
        return
    yield f"clients   do not find what {made_for}, has:"
    for kind, names in kinds.items():
        more = f" and {len(names) - SHOWN} more (--json)" if len(names) > SHOWN else ""
        yield f"  {len(names)} {kind}: {', '.join(names[:SHOWN])}{more}"
