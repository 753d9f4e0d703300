"""What a chain on a Wasm runtime begins with: presets and patches, raw specifications, funding, and real runtimes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bittensor_core
import pytest

from localnet.abi import State
from localnet.codec.scale import compact, opaque
from localnet.errors import ConfigError, RuntimeApiMissing
from localnet.net import Localnet, RuntimeSource
from localnet.node.state import VersionedState
from localnet.rules.constants import EVM_ACCOUNTS, GENESIS_BALANCES
from localnet.runtime.runtime import SpecRuntime
from localnet.vocabulary import Vocabulary, keypair, public_key
from localnet.wasm.chainspec import ChainSpec
from localnet.wasm.genesis import ED25519_ALICE, build, development, funded, merged, preset_names, read_preset
from localnet.wasm.loading import Code, Loaded

STORED = b"\0asm-as-it-was-given"
ALICE, BOB = (str(bittensor_core.ss58_encode(public_key(f"//{name}"), 42)) for name in ("Alice", "Bob"))
ZOE = str(bittensor_core.ss58_encode(public_key("//Zoe"), 42))
PRESET = {
    "system": {}, "aura": {"authorities": []}, "grandpa": {"authorities": []}, "balances": {"balances": []},
    "sudo": {"key": None}, "evmChainId": {"chainId": 0}, "senateMembers": {"members": []},
}  # fmt: skip


class Builder:
    """A runtime that builds a genesis by `api`: it keeps the configuration, and refuses pallets that it has not."""

    NEW = ("GenesisBuilder_build_state", "GenesisBuilder_get_preset", "GenesisBuilder_preset_names")
    OLD = ("GenesisBuilder_build_config", "GenesisBuilder_create_default_config")

    def __init__(self, api: tuple[str, ...] = NEW, preset: bytes = json.dumps(PRESET).encode()) -> None:
        self.api, self.preset = api, preset

    def call(self, method: str, data: bytes, state: State) -> bytes:
        if method not in self.api:
            raise RuntimeApiMissing(method)
        if method.endswith("preset_names"):
            return compact(1) + opaque(b"benchmark")
        if method.endswith("get_preset"):
            known = {b"\0": self.preset, b"\1" + opaque(b"benchmark"): b'{"system": {}}'}.get(data)
            return b"\0" if known is None else b"\1" + opaque(known)
        if method.endswith("create_default_config"):
            return opaque(self.preset)
        if method == "AuraApi_authorities":
            return compact(len(json.loads(state.get(b"config") or b"")["aura"]["authorities"]))
        config = json.loads(data[len(data) - data[::-1].rindex(b"{") - 1 :])
        unknown = config.keys() - PRESET.keys()
        if unknown:
            return b"\1" + opaque(f"unknown field `{unknown.pop()}`".encode())
        state.put(b"config", json.dumps(config).encode())
        return b"\0"


def loaded(spec: ChainSpec | None = None) -> Loaded:
    return Loaded(Code(STORED), "a test", spec)


def plain(config: dict[str, Any], over_preset: bool) -> ChainSpec:
    return ChainSpec("Toy", "toy", "Local", STORED, None, config, over_preset)


def config_of(runtime: Any, *arguments: Any, **options: Any) -> Any:
    storage = build(runtime, *arguments, **options)
    assert storage.keys() == {b"config", b":code"} and storage[b":code"] == STORED
    return json.loads(storage[b"config"])


# -- building ---------------------------------------------------------------------------------------------------------


def test_a_genesis_without_an_author_is_refused() -> None:
    runtime = Builder((*Builder.NEW, "AuraApi_authorities"))
    assert build(runtime, loaded())
    with pytest.raises(ConfigError, match="nobody could make a block"):
        build(runtime, loaded(), dev_accounts=False)


@pytest.mark.parametrize("api", [Builder.NEW, Builder.OLD])
def test_a_runtime_builds_its_preset_with_the_development_patch(api: tuple[str, ...]) -> None:
    config = config_of(Builder(api), loaded())
    assert config["aura"]["authorities"] == [ALICE] and config["sudo"]["key"] == ALICE
    assert config["grandpa"]["authorities"] == [[ED25519_ALICE, 1]] and config["evmChainId"] == {"chainId": 42}
    assert len(config["senateMembers"]["members"]) == 3 and "triumvirateMembers" not in config
    balances = dict(config["balances"]["balances"])
    assert (balances[ALICE], balances[EVM_ACCOUNTS["Alith"]]) == (10**15, 2 * 10**12)
    assert len(balances) == len(GENESIS_BALANCES)


def test_the_users_patch_comes_last_and_adds_accounts() -> None:
    patch = {"sudo": {"key": ZOE}, "balances": {"balances": [[ZOE, 5], [ALICE, 7]]}, "evmChainId": None}
    config = config_of(Builder(), loaded(), patch=patch)
    assert config["sudo"] == {"key": ZOE} and "evmChainId" not in config
    balances = config["balances"]["balances"]
    assert len(balances) == len(GENESIS_BALANCES) + 1
    assert (dict(balances)[ZOE], dict(balances)[ALICE], dict(balances)[BOB]) == (5, 7, 10**15)


def test_without_development_accounts_the_preset_is_as_it_is() -> None:
    assert config_of(Builder(), loaded(), dev_accounts=False) == PRESET


def test_presets_go_by_name() -> None:
    assert preset_names(Builder()) == ["benchmark"] and preset_names(Builder(Builder.OLD)) == []
    assert config_of(Builder(), loaded(), preset="benchmark") == {"system": {}}
    with pytest.raises(ConfigError, match="no preset staging; it has: benchmark"):
        build(Builder(), loaded(), preset="staging")
    with pytest.raises(ConfigError, match="cannot build a genesis"):
        build(Builder(Builder.OLD), loaded(), preset="benchmark")


def test_a_plain_specification_says_who_is_who() -> None:
    patch = {"sudo": {"key": BOB}, "aura": {"authorities": [BOB]}}
    over = config_of(Builder(), loaded(plain(patch, True)))
    assert over == {**PRESET, **patch}
    assert config_of(Builder(), loaded(plain(patch, False)), patch={"system": {}}) == {**patch, "system": {}}
    funded_too = config_of(Builder(), loaded(plain(patch, True)), dev_accounts=True)
    assert funded_too["aura"] == {"authorities": [BOB]} and funded_too["sudo"] == {"key": ALICE}
    with pytest.raises(ConfigError, match="takes no preset"):
        build(Builder(), loaded(plain(patch, False)), preset="benchmark")


def test_what_is_wrong_the_runtime_says() -> None:
    with pytest.raises(ConfigError, match="refuses the genesis: unknown field `contracts`"):
        build(Builder(), loaded(), patch={"contracts": {}})


def test_an_exported_state_is_no_genesis() -> None:
    with pytest.raises(ConfigError, match="localnet import"):
        build(Builder(), loaded(), patch={"format": "localnet-state", "version": 1})


def test_a_runtime_without_a_builder_needs_a_raw_specification() -> None:
    for runtime in (Builder(()), Builder(("GenesisBuilder_get_preset",))):
        with pytest.raises(ConfigError, match="raw chain specification"):
            build(runtime, loaded())


@pytest.mark.parametrize("preset", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_preset_is_refused(preset: bytes) -> None:
    with pytest.raises(ConfigError, match="preset is damaged"):
        read_preset(Builder(preset=preset))


def test_the_development_patch_fills_only_what_is_there_and_empty() -> None:
    assert development({"system": {}, "aura": {}, "evmChainId": {"chainId": 945}}) == {}


def test_patches_merge_as_rfc_7396() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5}
    assert merged(base, {"a": {"b": None, "x": {"y": None}}, "d": [3], "e": {"f": 1}}) == {
        "a": {"c": 2, "x": {}}, "d": [3], "e": {"f": 1},
    }  # fmt: skip
    odd = {"balances": {"balances": "all"}}
    assert merged(odd, {"balances": {"balances": [[ZOE, 1]]}}) == {"balances": {"balances": [[ZOE, 1]]}}
    assert merged({"balances": {"balances": [[ZOE, 1]]}}, odd) == odd  # for the runtime to refuse


# -- storage that is there already ----------------------------------------------------------------------------------


def spec_storage() -> dict[bytes, bytes]:
    state = VersionedState()
    SpecRuntime().call("GenesisBuilder_build_state", opaque(b"{}"), state)
    return dict(state.head)


def test_a_raw_specification_is_taken_as_it_is() -> None:
    raw = ChainSpec("Toy", "toy", "Local", STORED, {b"k": b"v"})
    assert build(Builder(()), loaded(raw)) == {b"k": b"v", b":code": STORED}
    for options in ({"patch": {"sudo": {}}}, {"preset": "benchmark"}):
        with pytest.raises(ConfigError, match="a state, not a configuration"):
            build(Builder(()), loaded(raw), **options)  # type: ignore[arg-type]


def test_a_raw_specification_can_be_funded() -> None:
    runtime, storage = SpecRuntime(), spec_storage()
    words = Vocabulary(runtime.document)

    def key(pallet: str, item: str, *keys: Any) -> bytes:
        return words.storage_key(pallet, item, *keys)

    def read(pallet: str, item: str, *keys: Any) -> Any:
        entry = words.entry(pallet, item)
        return words.registry.decode(entry.value, storage[key(pallet, item, *keys)])

    issued = read("Balances", "TotalIssuance")
    del storage[key("System", "Account", "//Alice")], storage[key("Sudo", "Key")]
    raw = ChainSpec("Toy", "toy", "Local", STORED, dict(storage))
    storage = build(runtime, loaded(raw), dev_accounts=True)
    assert storage[b":code"] == STORED
    alice = read("System", "Account", "//Alice")
    assert (alice["providers"], alice["data"]["free"]) == (1, 10**15)
    assert read("Sudo", "Key") == keypair("//Alice").public_key
    assert read("Balances", "TotalIssuance") == issued + 10**15
    assert funded(runtime, storage) == storage  # who has enough gets nothing


# -- real runtimes --------------------------------------------------------------------------------------------------

REAL = [path for path in os.environ.get("TOUCHSTONE_RUNTIME", "").split(os.pathsep) if path]


@pytest.mark.skipif(not REAL, reason="no real runtime: TOUCHSTONE_RUNTIME names files (runtimes, raw chain specs)")
@pytest.mark.parametrize("path", REAL, ids=lambda path: Path(path).name)
async def test_a_real_runtime_starts_and_carries_a_transfer(path: str) -> None:
    async with Localnet(runtime=RuntimeSource(path, dev_accounts=True), mining="manual") as net:
        assert net.block_time == net.chain.slot_ms / 1000
        await net.mine(5)
        before = net.balance("//Bob")
        call = "transfer_keep_alive"
        assert (await net.extrinsic("//Alice", "Balances", call, dest="//Bob", value=10**9)).success
        assert net.balance("//Bob") == before + 10**9
        assert net.query("Sudo", "Key") == keypair("//Alice").public_key


def test_what_a_runtime_says_against_a_genesis_is_shown_safely() -> None:
    class Refusing(Builder):
        def call(self, method: str, data: bytes, state: State) -> bytes:
            if method == "GenesisBuilder_build_state":
                return b"\1" + opaque(b"\x1b[2Jno" + b"!" * 10_000)
            if method == "GenesisBuilder_preset_names":
                return compact(1 << 20) + bytes(1 << 20)
            return super().call(method, data, state)

    with pytest.raises(ConfigError, match=r"refuses the genesis: \?\[2Jno!+$") as caught:
        build(Refusing(), loaded())
    assert len(str(caught.value)) < 3000
    with pytest.raises(ConfigError, match="1048576 names"):
        preset_names(Refusing())
