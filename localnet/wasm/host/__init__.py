"""The host functions of a Substrate runtime, by group. See interface.py for how a group is written."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localnet.wasm.host.interface import Functions, Host

GROUPS = ("storage", "child", "trie", "hashing", "crypto", "bls", "log", "misc", "offchain")


def all_functions(host: Host) -> Functions:
    """Every host function there is: import name -> function."""
    functions: dict[str, object] = {}
    for group in GROUPS:
        mine = import_module(f"localnet.wasm.host.{group}").functions(host)
        twice = functions.keys() & mine.keys()
        if twice:
            raise ValueError(f"host functions {sorted(twice)} are defined twice, the second time in {group}")
        functions.update(mine)
    return functions  # type: ignore[return-value]
