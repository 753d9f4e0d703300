"""The state that a chain on a Wasm runtime begins with.

    build(runtime, loaded, ..)     from a chain specification's storage, or by the runtime's own GenesisBuilder
    development(config)            what a chain for developers needs, in the terms that a runtime's preset has
    funded(runtime, storage)       the same for storage that is built already

A runtime builds from JSON: its preset (the default one, or one by name), over that the chain specification's patch, the
development patch, and the user's. Each is a JSON merge patch (RFC 7396), as the released node applies them; only the
entries of `balances.balances` are put together by address, as the specification runtime does. What is wrong with it the
runtime says itself. Runtimes from before GenesisBuilder (spec 185) can only start from a raw chain specification.

The development patch is the public localnet's (`localnet.rules.constants`): who owns what, //Alice as the sudo key. It
fills only what the preset leaves empty, and only what the preset has: an entry that a runtime does not know is an error
to it. Block authors are //Alice; nobody checks seals here.

The result is all of the state, `:code` in the form it was given.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import bittensor_core

from localnet.abi import Runtime
from localnet.codec.scale import opaque, read_compact
from localnet.errors import ConfigError, RuntimeApiMissing, ScaleError
from localnet.node.documents import document_of
from localnet.node.state import VersionedState
from localnet.rules.constants import EVM_ACCOUNTS, GENESIS_BALANCES, SS58_PREFIX, SUDO
from localnet.runtime.memory import MemoryState
from localnet.state_file import FORMAT as STATE_FORMAT
from localnet.vocabulary import Vocabulary, public_key
from localnet.wasm.chainspec import CODE, shown
from localnet.wasm.loading import Loaded

Storage = dict[bytes, bytes]
Config = dict[str, Any]

MAX_PRESETS = 1000
MAX_REASON = 2000  # characters of a runtime's error
MAX_PRESET = 16 * 1024 * 1024  # bytes of JSON that a runtime may give for one
ED25519_ALICE = "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu"  # sp_keyring's Ed25519Keyring::Alice
EVM_CHAIN_ID = 42  # of the public localnet
COUNCILS = {  # gone from newer runtimes; without members nothing could be voted on
    "triumvirateMembers": ("Alice", "Bob", "Charlie"),
    "senateMembers": ("Dave", "Eve", "Ferdie"),
}


def build(
    runtime: Runtime,
    loaded: Loaded,
    *,
    patch: Mapping[str, Any] | None = None,
    preset: str | None = None,
    dev_accounts: bool | None = None,
) -> Storage:
    """`dev_accounts`: fund them and make //Alice sudo; by default for everything but a chain specification, which
    says who is who itself.

    Raises ConfigError for what the runtime refuses (in its words) or what does not go together, RuntimeTrap.
    """
    spec, patch = loaded.spec, patch or {}
    if patch.get("format") == STATE_FORMAT:
        raise ConfigError(
            "an exported state is no genesis: it is full of the numbers of blocks that a new chain has not. Start the "
            "chain without it, then go on from there: localnet --import FILE, or localnet import FILE for a chain that "
            "runs (Python: import_state)"
        )
    dev = spec is None if dev_accounts is None else dev_accounts
    if spec is not None and spec.storage is not None:
        if patch or preset:
            raise ConfigError(
                "a raw chain specification is a state, not a configuration: it takes no genesis patch and no preset. "
                "Give the plain one, or write storage after the start (dev_setStorage)"
            )
        storage = {**spec.storage, CODE: loaded.code.stored}
        return funded(runtime, storage) if dev else storage
    if spec is not None and not spec.over_preset:
        if preset:
            raise ConfigError("the chain specification says all of its genesis: it takes no preset")
        config = dict(spec.config)
    else:
        config = merged(read_preset(runtime, preset), {} if spec is None else spec.config)
    if dev:
        config = merged(config, development(config))
    return _built(runtime, merged(config, patch), loaded.code.stored)


# -- the runtime's own builder ----------------------------------------------------------------------------------------


def preset_names(runtime: Runtime) -> list[str]:
    """The presets that a runtime has beside its default. Raises ConfigError when it cannot build a genesis."""
    methods = {"GenesisBuilder_preset_names": b"", "GenesisBuilder_create_default_config": b""}
    method, answer = _ask(runtime, methods)
    if method != "GenesisBuilder_preset_names":
        return []
    try:
        count, offset = read_compact(answer, 0)
        if count > MAX_PRESETS:
            raise ScaleError(f"{count} names")
        names = []
        for _ in range(count):
            size, start = read_compact(answer, offset)
            offset = start + size
            names.append(answer[start:offset].decode())
        return names
    except (ScaleError, UnicodeDecodeError) as error:
        raise ConfigError(f"the runtime does not list its presets as it should: {error}") from error


def read_preset(runtime: Runtime, name: str | None = None) -> Config:
    """The JSON of a preset, None for the default one. Raises ConfigError."""
    wanted = b"\0" if name is None else b"\1" + opaque(name.encode())
    methods = {"GenesisBuilder_get_preset": wanted}
    if name is None:
        methods["GenesisBuilder_create_default_config"] = b""
    method, answer = _ask(runtime, methods)
    if method == "GenesisBuilder_get_preset":
        if answer[:1] != b"\1":
            known = ", ".join(preset_names(runtime)) or "none"
            raise ConfigError(f"the runtime has no preset {name or 'by default'}; it has: {known}")
        answer = answer[1:]
    return _read_json(answer)


def _read_json(answer: bytes) -> Config:
    try:
        size, start = read_compact(answer, 0)
        if size != len(answer) - start or size > MAX_PRESET:
            raise ScaleError(f"{len(answer) - start} bytes instead of {size}")
        config = json.loads(answer[start:])
    except (ScaleError, ValueError, RecursionError) as error:
        raise ConfigError(f"the runtime's preset is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError("the runtime's preset is damaged: it is no JSON object")
    return config


def _built(runtime: Runtime, config: Mapping[str, Any], code: bytes) -> Storage:
    text = opaque(json.dumps(config).encode())
    state = VersionedState()
    _, answer = _ask(runtime, {"GenesisBuilder_build_state": text, "GenesisBuilder_build_config": text}, state)
    if answer[:1] != b"\0":
        try:
            size, start = read_compact(answer, 1)
            reason = answer[start : start + size].decode(errors="replace")
        except ScaleError:
            reason = f"0x{answer[:64].hex()}"
        raise ConfigError(f"the runtime refuses the genesis: {shown(reason, MAX_REASON)}")
    with contextlib.suppress(RuntimeApiMissing):  # whose consensus is not Aura is told by the node
        if runtime.call("AuraApi_authorities", b"", state) == b"\0":
            raise ConfigError(
                "nobody could make a block of this genesis: it names no Aura authority. Start with development "
                "accounts (--dev-accounts), or name one in the genesis patch: aura.authorities"
            )
    return {**state.head, CODE: code}


def _ask(runtime: Runtime, methods: Mapping[str, bytes], state: VersionedState | None = None) -> tuple[str, bytes]:
    """The first of these functions that the runtime has, and what it answers. Raises ConfigError."""
    state = VersionedState() if state is None else state
    for method, data in methods.items():
        try:
            return method, runtime.call(method, data, state)
        except RuntimeApiMissing:
            continue
    raise ConfigError(
        f"the runtime cannot build a genesis: it has no {' and no '.join(methods)}. Runtimes before spec 185 have no "
        "GenesisBuilder; start from a raw chain specification of theirs (build-spec --raw)"
    )


# -- patches ----------------------------------------------------------------------------------------------------------


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Config:
    """A JSON merge patch: objects are merged, null removes, everything else replaces; balances are put together."""
    out = _merged(base, patch)
    before, after = _balances(base), _balances(patch)
    if before and after:
        everyone = {str(entry[0]): entry for entry in (*before, *after)}
        out["balances"] = {**out["balances"], "balances": list(everyone.values())}
    return out


def _merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Config:
    out = dict(base)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping):
            under = out.get(key)
            out[key] = _merged(under if isinstance(under, Mapping) else {}, value)
        else:
            out[key] = value
    return out


def _balances(config: Mapping[str, Any]) -> list[Any]:
    """The entries of balances.balances that have an address; what is not such a list is left to the runtime."""
    pallet = config.get("balances")
    found = pallet.get("balances") if isinstance(pallet, Mapping) else None
    entries = found if isinstance(found, list) else []
    return entries if all(isinstance(entry, (list, tuple)) and entry for entry in entries) else []


def _address(name: str) -> str:
    """SS58 of a development account."""
    return EVM_ACCOUNTS.get(name) or str(bittensor_core.ss58_encode(_account(name), SS58_PREFIX))


def _account(name: str) -> bytes:
    return public_key(EVM_ACCOUNTS.get(name) or f"//{name}")


def development(config: Mapping[str, Any]) -> Config:
    """The development patch for a configuration with these pallets: only what is there and empty."""
    alice = _address(SUDO)
    wanted: list[tuple[str, str, Any]] = [
        ("aura", "authorities", [alice]),
        ("grandpa", "authorities", [[ED25519_ALICE, 1]]),
        ("evmChainId", "chainId", EVM_CHAIN_ID),
        *((pallet, "members", [_address(name) for name in names]) for pallet, names in COUNCILS.items()),
    ]
    patch: Config = {}
    for pallet, field, value in wanted:
        fields = config.get(pallet)
        if isinstance(fields, Mapping) and field in fields and not fields[field]:
            patch[pallet] = {field: value}
    if "sudo" in config:
        patch["sudo"] = {"key": alice}
    if "balances" in config:
        patch["balances"] = {"balances": [[_address(name), free] for name, free in GENESIS_BALANCES.items()]}
    return patch


# -- storage that is built already ------------------------------------------------------------------------------------


def funded(runtime: Runtime, storage: Mapping[bytes, bytes]) -> Storage:
    """Storage in which the development accounts have at least what they have on the public localnet, and //Alice is
    sudo. Types are those of the runtime's metadata. Raises ConfigError, MetadataError."""
    words = Vocabulary(document_of(runtime, MemoryState(storage)))
    out, issued = dict(storage), 0
    for name, least in GENESIS_BALANCES.items():
        issued += _fund(words, out, _account(name), least)
    _change(words, out, ("Balances", "TotalIssuance"), lambda total: int(total) + issued)
    if ("Sudo", "Key") in words.document.storage:
        _change(words, out, ("Sudo", "Key"), lambda _: _account(SUDO))
    return out


def _fund(words: Vocabulary, out: Storage, who: bytes, least: int) -> int:
    """Raise an account's free balance to `least`; by how much."""
    given = 0

    def change(account: Any) -> Any:
        nonlocal given
        data = dict(account["data"])
        given = max(0, least - int(data["free"]))
        data["free"] = max(least, int(data["free"]))
        return {**account, "providers": max(1, int(account["providers"])), "data": data}

    try:
        _change(words, out, ("System", "Account", who), change)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the runtime's accounts are not of a kind that can be funded here: {error!r}") from error
    return given


def _change(words: Vocabulary, out: Storage, item: tuple[Any, ...], change: Callable[[Any], Any]) -> None:
    """Rewrite a storage value. `item`: pallet, name, keys."""
    pallet, name, *keys = item
    entry = words.entry(pallet, name)
    key = words.storage_key(pallet, name, *keys)
    raw = out.get(key, entry.default)
    value = None if entry.optional and key not in out else words.registry.decode(entry.value, raw)
    out[key] = words.registry.encode(entry.value, change(value))
