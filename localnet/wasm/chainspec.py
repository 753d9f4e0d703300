"""Chain specifications: the JSON files that nodes start a chain from, as far as its code and its genesis go.

    genesis.raw              {"top": {key: value}, "childrenDefault": {name: {key: value}}}   state as it is, with code
    genesis.runtimeGenesis   {"code", "patch" | "config"}   what to build it from: over a preset, or all there is
    genesis.runtimeAndCode   {"runtime", "code"}            older, all there is
    genesis.runtime          the oldest; the code stands under "system"

`read` gives code and one of `storage` (raw) and `config` (everything else). A file comes from anywhere: whatever is not
as it should be is named and refused. Code substitutes, which a released node would run from some block on, are not
applied; that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localnet.errors import RuntimeCodeError
from localnet.node.children import entry_key, is_reserved

log = logging.getLogger(__name__)

CODE = b":code"
CHILD_PREFIX = b":child_storage:default:"
BUILDERS = "runtimeGenesis, runtimeAndCode, runtime"


@dataclass(frozen=True)
class ChainSpec:
    """`storage`: the state of a raw one, without the code. `config`: the JSON of any other; with `over_preset` it
    only says where it differs from the runtime's preset, or from the one called `preset`."""

    name: str
    id: str
    chain_type: str
    code: bytes
    storage: Mapping[bytes, bytes] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    over_preset: bool = False

    @property
    def kind(self) -> str:
        return "plain" if self.storage is None else "raw"


def read(document: Mapping[str, Any]) -> ChainSpec:
    """Raises RuntimeCodeError."""
    genesis = _table(document.get("genesis"), "genesis")
    name, identifier, kind = (shown(document.get(entry, "?")) for entry in ("name", "id", "chainType"))
    if document.get("codeSubstitutes"):
        log.warning("chain specification %s has codeSubstitutes: they are not applied here", identifier)
    if "raw" in genesis:
        storage = _raw(_table(genesis["raw"], "genesis.raw"))
        code = storage.pop(CODE, None)
        if code is None:
            raise RuntimeCodeError("the chain specification has no :code in genesis.raw.top: it cannot start a chain")
        return ChainSpec(name, identifier, kind, code, storage)
    code, config, over_preset = _plain(genesis)
    return ChainSpec(name, identifier, kind, code, None, config, over_preset)


def shown(value: Any, size: int = 100) -> str:
    """Text from outside in at most `size` characters, all of which can be printed: none moves a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in str(value)[:size])


def _plain(genesis: Mapping[str, Any]) -> tuple[bytes, Mapping[str, Any], bool]:
    """(code, JSON, whether that goes over a preset)"""
    if "runtimeGenesis" in genesis:
        found = _table(genesis["runtimeGenesis"], "genesis.runtimeGenesis")
        over_preset = "patch" in found
        which = "patch" if over_preset else "config"
        config = _table(found.get(which), f"genesis.runtimeGenesis.{which}")
        return _hex(found.get("code"), "genesis.runtimeGenesis.code"), config, over_preset
    if "runtimeAndCode" in genesis:
        found = _table(genesis["runtimeAndCode"], "genesis.runtimeAndCode")
        config = _table(found.get("runtime"), "genesis.runtimeAndCode.runtime")
        return _hex(found.get("code"), "genesis.runtimeAndCode.code"), config, False
    if "runtime" in genesis:
        config = _table(genesis["runtime"], "genesis.runtime")
        system = {**_table(config.get("system"), "genesis.runtime.system")}
        code = _hex(system.pop("code", None), "genesis.runtime.system.code")
        system.pop("changesTrieConfig", None)  # gone from every runtime that could still build a genesis
        return code, {**config, "system": system}, False
    raise RuntimeCodeError(f"the chain specification's genesis is none of raw, {BUILDERS}: {', '.join(genesis)[:200]}")


def _raw(genesis: Mapping[str, Any]) -> dict[bytes, bytes]:
    """A flat state, children in it as localnet/node/children.py lays them out."""
    storage = _pairs(genesis.get("top"), "genesis.raw.top")
    for key in storage:
        if is_reserved(key):
            raise RuntimeCodeError(f"genesis.raw.top has the key 0x{key[:64].hex()}, which only child tries may have")
    children = _table(genesis.get("childrenDefault", {}), "genesis.raw.childrenDefault")
    for given, entries in children.items():
        what = f"genesis.raw.childrenDefault.{given[:80]}"
        name = _hex(given, what).removeprefix(CHILD_PREFIX)
        for key, value in _pairs(entries, what).items():
            storage[entry_key(name, key)] = value
    return storage


def _pairs(value: Any, what: str) -> dict[bytes, bytes]:
    table = _table(value, what)
    return {_hex(key, f"a key of {what}"): _hex(stored, f"{what}.{key[:80]}") for key, stored in table.items()}


def _table(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RuntimeCodeError(f"this is no chain specification that can be used: {what} is no JSON object")
    return value


def _hex(value: Any, what: str) -> bytes:
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return bytes.fromhex(value[2:])
    except ValueError:
        pass
    raise RuntimeCodeError(f"the chain specification is damaged: {what} is not 0x and hexadecimal digits")
