"""Released runtimes, when the environment variable TOUCHSTONE_RUNTIME names files of them (code or chain
specifications, separated like a PATH): their memory is laid out as is assumed here, and they make the same blocks
whether an instance is used again or not, and however host functions are bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localnet.errors import ChainError, ConfigError
from localnet.node.chain import Chain
from localnet.node.clock import ChainClock
from localnet.wasm.binary import MIN_STACK, inspect
from localnet.wasm.loading import load
from localnet.wasm.runtime import WasmRuntime
from localnet.wasm.sections import unpack
from localnet.wasm.source import RuntimeSource

FILES = [name for name in os.environ.get("TOUCHSTONE_RUNTIME", "").split(os.pathsep) if name]
pytestmark = pytest.mark.skipif(not FILES, reason="TOUCHSTONE_RUNTIME names no files of released runtimes")


@pytest.mark.parametrize("file", FILES, ids=[Path(file).name for file in FILES])
def test_static_memory_lies_behind_a_stack_that_comes_first(file: str) -> None:
    facts = inspect(unpack(load(file).code.stored))
    assert MIN_STACK <= facts.low < facts.heap_base and len(facts.mutable) == 1


@pytest.mark.parametrize("file", FILES, ids=[Path(file).name for file in FILES])
def test_an_instance_used_again_makes_the_blocks_of_a_new_one(file: str) -> None:
    try:
        made, _ = RuntimeSource(file).make()
    except ConfigError as error:
        pytest.skip(f"no genesis: {error}")
    assert isinstance(made, WasmRuntime)

    class Fresh(WasmRuntime):
        def call(self, method: str, data: bytes, state: object) -> bytes:
            self._of(state).close()  # type: ignore[arg-type]
            return super().call(method, data, state)  # type: ignore[arg-type]

    def hashes(runtime: WasmRuntime) -> list[bytes]:
        chain = Chain(runtime, clock=ChainClock("step", 1_800_000_000_000))
        return [chain.author().hash for _ in range(8)]

    try:
        again = hashes(made)
    except ChainError as error:
        pytest.skip(f"no chain: {error}")
    assert again == hashes(Fresh(made.code, made.genesis)) == hashes(WasmRuntime(made.code, made.genesis, fast=False))
