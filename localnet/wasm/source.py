"""What a chain is asked to run: `RuntimeSource`, which `Localnet(runtime=..)` takes and the command's options make.

    RuntimeSource("runtime.wasm")                                   a path, or a node's address: see loading.py
    RuntimeSource("wss://node@4000000", hash="0x..")                refused when the code is another
    RuntimeSource("raw.json", dev_accounts=True)                    genesis: see genesis.py

`make` does everything that takes long and may wait for the network. Nothing of the engine is imported before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localnet.abi import Runtime
    from localnet.wasm.limits import Limits
    from localnet.wasm.loading import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuntimeSource:
    """`where`: file or address. `hash`: BLAKE2b-256 of the code, as stored or unpacked, that it must have. `preset`: a
    preset of the runtime's for the genesis, by name. `dev_accounts`: see `genesis.build`. `progress` is told what was
    loaded and what takes long; by default it goes to the log. `limits`: what a call may use, by default `Limits()`."""

    where: str | Path
    hash: str | None = None
    preset: str | None = None
    dev_accounts: bool | None = None
    progress: Callable[[str], None] = log.info
    limits: Limits | None = None

    def make(self, patch: Mapping[str, Any] | None = None) -> tuple[Runtime, Loaded]:
        """The runtime, with the genesis that a chain on it begins with, and where it came from. `patch` goes over the
        genesis.

        Raises RuntimeCodeError, ConfigError, RuntimeTrap.
        """
        from localnet.wasm.genesis import build
        from localnet.wasm.loading import load
        from localnet.wasm.runtime import WasmRuntime

        loaded = load(self.where, pin=self.hash)
        self.progress(loaded.describe())
        runtime = WasmRuntime(loaded.code.stored, progress=self.progress, limits=self.limits)
        runtime.genesis = build(runtime, loaded, patch=patch, preset=self.preset, dev_accounts=self.dev_accounts)
        return runtime, loaded
