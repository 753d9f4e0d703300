"""`localnet runtime`: what it says of a module, what it saves; and a chain that is started from a path."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from typer.testing import CliRunner

from localnet.abi import State
from localnet.cli import app
from localnet.codec.scale import opaque
from localnet.errors import ConfigError
from localnet.net import Localnet, RuntimeSource
from localnet.node.state import VersionedState
from localnet.runtime.profile import PROFILES
from localnet.runtime.runtime import SpecRuntime
from localnet.wasm import cache
from localnet.wasm import runtime as wasm_runtime
from localnet.wasm.loading import Code, Loaded, load
from localnet.wasm.report import as_text, report

runner = CliRunner()


def section(name: str, body: bytes) -> bytes:
    content = bytes((len(name),)) + name.encode() + body
    assert len(content) < 128
    return b"\0" + bytes((len(content),)) + content


def code(*exports: str, spec: int = 7) -> bytes:
    """A module that says it is toy 7 with the APIs Core and Unheard, and whose exports all break off."""
    functions = "".join(f'(func (export "{name}") (param i32 i32) (result i64) unreachable)' for name in exports)
    imports = '(import "env" "ext_from_the_future_version_9" (func (param i64) (result i64)))'
    head = '(memory (export "memory") 17) (global (export "__heap_base") i32 (i32.const 1048576))'
    bare = wasmtime.wat2wasm(f"(module {imports} {head} {functions})")
    version = opaque(b"toy") * 2 + b"".join(n.to_bytes(4, "little") for n in (1, spec, 1)) + b"\0" + b"\3\0\0\0\1"
    apis = b"".join(blake2b(name, digest_size=8).digest() + b"\5\0\0\0" for name in (b"Core", b"Unheard"))
    return bytes(bare) + section("runtime_version", version) + section("runtime_apis", apis)


class Stand(SpecRuntime):
    """Stands for a Wasm runtime: rules and metadata of the specification runtime, genesis as storage."""

    missing = ("ext_from_the_future_version_9",)

    def __init__(self, code: bytes = b"", **options: Any) -> None:
        super().__init__(PROFILES["mainnet"])
        self.genesis: Any = None

    def call(self, method: str, data: bytes, state: State) -> bytes:
        if method == "GenesisBuilder_build_state" and self.genesis is not None:
            for key, value in self.genesis.items():
                state.put(key, value)
            return b"\0"
        return super().call(method, data, state)


def test_a_report_names_what_is_missing_on_either_side() -> None:
    module = code("Core_version", "Core_initialize_block")
    facts = report(Loaded(Code(module), "a test"), Stand())  # type: ignore[arg-type]
    assert (facts["spec_name"], facts["spec_version"], facts["transaction_version"]) == ("toy", 7, 3)
    assert facts["apis"] == {"Core": 5, "0x" + blake2b(b"Unheard", digest_size=8).hexdigest(): 5}
    assert (facts["imports"], facts["missing_imports"]) == (1, ["ext_from_the_future_version_9"])
    missed = facts["clients_miss"]
    assert missed["calls"] == missed["storage items"] == []  # its metadata is the shipped one
    assert "Core_execute_block" in missed["runtime APIs"] and "Core_version" not in missed["runtime APIs"]
    text = "\n".join(as_text(facts))
    assert "toy 7" in text and "not here: ext_from_the_future_version_9" in text and "(--json)" in text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "default_directory", lambda: tmp_path / "compiled")
    return tmp_path


def test_the_command_saves_what_it_could_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, saved = home / "toy.hex", home / "toy.wasm"
    path.write_text("0x" + code().hex())
    monkeypatch.setattr(wasm_runtime, "WasmRuntime", Stand)
    done = runner.invoke(app, ["runtime", str(path), "--save", str(saved), "--json"])
    facts = json.loads(done.stdout)
    assert done.exit_code == 0 and facts["saved"] == str(saved)
    assert saved.read_bytes() == code() and facts["hash"] == "0x" + load(saved).code.hash.hex()
    done = runner.invoke(app, ["runtime", str(path), "--runtime-hash", "0x" + "00" * 32])
    assert done.exit_code == 1 and "not the runtime that was asked for" in done.stderr
    done = runner.invoke(app, ["runtime", str(path), "--save", str(home / "no" / "where")])
    assert done.exit_code == 1 and "cannot write" in done.stderr


def test_a_module_that_breaks_off_is_an_error_and_is_not_saved(home: Path) -> None:
    path, saved = home / "toy.wasm", home / "saved.wasm"
    path.write_bytes(code("Metadata_metadata"))
    done = runner.invoke(app, ["runtime", str(path), "--save", str(saved)])
    assert done.exit_code == 1 and "Metadata_metadata" in done.stderr and not saved.exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--runtime-hash", "0x00"], "name one"),
        (["--no-dev-accounts"], "name one"),
        (["--runtime", "x.wasm", "--profile", "mainnet"], "has its own"),
        (["--runtime", "x.wasm"], "cannot be read"),
        (["--genesis", "x.json"], "cannot be read from x.json"),
    ],
)
def test_options_that_make_no_sense_say_so(options: list[str], why: str) -> None:
    done = runner.invoke(app, options)
    assert done.exit_code == 1 and why in done.stderr and "Traceback" not in done.stderr


async def test_a_chain_starts_from_a_path_with_the_slot_as_block_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wasm_runtime, "WasmRuntime", Stand)
    state = VersionedState()
    SpecRuntime().call("GenesisBuilder_build_state", opaque(b"{}"), state)
    top = {"0x" + key.hex(): "0x" + value.hex() for key, value in state.head.items()}
    path = home / "raw.json"
    path.write_text(json.dumps({"genesis": {"raw": {"top": {**top, "0x3a636f6465": "0x" + code().hex()}}}}))
    told: list[str] = []
    async with Localnet(runtime=RuntimeSource(path, progress=told.append), mining="manual") as net:
        assert net.loaded is not None and net.loaded.code.name == "toy 7" and told == [net.loaded.describe()]
        assert net.block_time == net.chain.slot_ms / 1000 == 12.0
        assert net.chain.storage(b":code", 0) == code() and net.balance("//Alice") == 10**15
    with pytest.raises(ConfigError, match="takes no genesis patch"):
        await Localnet(runtime=str(path), genesis={"sudo": {}}).start()
    with pytest.raises(ConfigError, match="leave the runtime out"):
        Localnet(runtime=path, fork="ws://127.0.0.1:9")


def test_names_in_a_report_do_not_move_a_terminals_cursor() -> None:
    facts = {
        "spec_name": "toy", "spec_version": 7, "transaction_version": 1, "metadata": 14, "hash": "0x", "size": 1,
        "module_hash": "0x", "source": "here", "apis": {"\x1b[2J": 1}, "missing_imports": [], "imports": 1,
        "builds_genesis": True, "presets": ["\x1b[31mdev"], "clients_miss": {"spec_version": 461},
    }  # fmt: skip
    text = list(as_text(facts))
    assert "\x1b" not in "".join(text) and any("?[31mdev" in line for line in text)
