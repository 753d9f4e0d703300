"""Runtimes that differ in one known thing, and chains on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localnet.abi import State
from localnet.codec import metadata
from localnet.codec.scale import opaque
from localnet.net import Localnet
from localnet.runtime.framework import CallInfo
from localnet.runtime.runtime import SpecRuntime

START = 1_760_000_000_000
OLD_CODE, NEW_CODE = b"the old code", b"the new code"


def chain(runtime: Any) -> Localnet:
    return Localnet(runtime=runtime, mining="manual", clock="step", genesis_time=START)


def with_call(runtime: SpecRuntime, pallet: str, call: str, handler: Callable[..., Any]) -> SpecRuntime:
    """The runtime with another handler for a call: `handler(runtime, before, origin, **arguments)`."""
    before = runtime.calls[pallet, call]

    def changed(origin: Any, **arguments: Any) -> Any:
        return handler(runtime, before, origin, **arguments)

    changed.call_info = before.call_info  # type: ignore[attr-defined]
    runtime.calls[pallet, call] = changed
    return runtime


class AfterHooks(SpecRuntime):
    """A runtime whose hooks do one thing more: `change(runtime)`."""

    def __init__(self, change: Callable[[SpecRuntime], None]) -> None:
        super().__init__()
        self._change = change

    def call(self, method: str, data: bytes, state: State) -> bytes:
        answer = super().call(method, data, state)
        if method == "Core_initialize_block":
            self.state = state
            self._change(self)
        return answer


class Upgradable:
    """The specification's rules under a code that `System.set_code` replaces; after that with other metadata.

    `rewrite` makes the new metadata's tree out of the old one's; `migrate` is what the first new block does.
    """

    def __init__(
        self,
        rewrite: Callable[[dict[str, Any]], None],
        migrate: Callable[[SpecRuntime], None] = lambda runtime: None,
        code: bytes = OLD_CODE,
    ) -> None:
        self._rules, self._migrate, self._code = SpecRuntime(), migrate, code
        self._rules.calls["System", "set_code"] = self._set_code
        tree = metadata.decode(self._rules.document.v15)
        rewrite(tree)
        self._new = metadata.encode(tree)

    def _set_code(self, origin: Any, code: bytes) -> None:
        self._rules.state.put(b":code", code)

    _set_code.call_info = CallInfo()  # type: ignore[attr-defined]

    def call(self, method: str, data: bytes, state: State) -> bytes:
        new = (state.settled(b":code") or self._code) == NEW_CODE
        if method == "GenesisBuilder_build_state":
            answer = self._rules.call(method, data, state)
            state.put(b":code", self._code)
            return answer
        if new and method == "Metadata_metadata_at_version" and data[:1] == b"\x0f":
            return b"\1" + opaque(self._new)
        if new and method == "Core_version":
            return self._version(data, state)
        answer = self._rules.call(method, data, state)
        if new and method == "Core_initialize_block" and state.get(b"migrated") is None:
            state.put(b"migrated", b"\1")
            self._rules.state = state
            self._migrate(self._rules)
        return answer

    def _version(self, data: bytes, state: State) -> bytes:
        version = self._rules.document.constants["System", "Version"]
        return self._rules._encode_version({**version, "spec_version": version["spec_version"] + 1})


def pallet_of(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return next(pallet for pallet in tree["pallets"] if pallet["name"] == name)
