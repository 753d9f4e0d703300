"""A runtime in memory with one started subnet of Alice's, and short ways to call it: for stake and settings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from localnet.errors import DispatchError
from localnet.runtime.framework import Origin, Root, Signed
from localnet.runtime.memory import MemoryState
from localnet.runtime.runtime import SpecRuntime
from localnet.runtime.subtensor.pallet import Subtensor
from tests.support.extrinsics import account

TAO = 10**9
ALICE, BOB, CHARLIE = (account(f"//{name}") for name in ("Alice", "Bob", "Charlie"))
HOT, BOB_HOT = account("//AliceHot"), account("//BobHot")  # Alice's subnet hotkey; Bob's neuron


@lru_cache(maxsize=1)
def _template() -> tuple[Market, dict[bytes, bytes | None], list[bytes]]:
    """Making a runtime takes longer than a test does: one is made, and its state handed out again and again."""
    market = Market(SpecRuntime.in_memory())
    return market, market.contents(), list(market.rt.events)


def fresh() -> Market:
    """A market as at its start. There is one at a time."""
    market, state, events = _template()
    market.rt.state = MemoryState(state)
    market.rt.events = list(events)
    return market


class Market:
    """`net` is a started subnet of Alice (hotkey HOT, uid 0) where Bob registered BOB_HOT (uid 1)."""

    def __init__(self, runtime: SpecRuntime) -> None:
        self.rt = runtime
        self.p: Subtensor = self.rt.subtensor
        self.root("AdminUtils", "sudo_set_admin_freeze_window", window=0)
        self.net = self.subnet(ALICE, HOT)
        self.call(BOB, "burned_register", netuid=self.net, hotkey=BOB_HOT)

    def subnet(self, owner: bytes, hotkey: bytes) -> int:
        before = set(self.p.NetworksAdded.keys())
        self.call(owner, "register_network", hotkey=hotkey)
        (netuid,) = set(self.p.NetworksAdded.keys()) - before
        self.call(owner, "start_call", netuid=netuid)
        return int(netuid)

    def dispatch(self, origin: Origin, pallet: str, function: str, **arguments: Any) -> None:
        self.rt.dispatch(origin, pallet, function, arguments)

    def call(self, who: bytes, function: str, **arguments: Any) -> None:
        self.dispatch(Signed(who), "SubtensorModule", function, **arguments)

    def admin(self, who: bytes, function: str, **arguments: Any) -> None:
        self.dispatch(Signed(who), "AdminUtils", function, **arguments)

    def root(self, pallet: str, function: str, **arguments: Any) -> None:
        self.dispatch(Root(), pallet, function, **arguments)

    def contents(self) -> dict[bytes, bytes | None]:
        """Everything the chain holds."""
        return {raw: self.rt.state.get(raw) for raw in self.rt.state.keys(b"")}

    def at(self, number: int) -> None:
        """Pretend that it is block `number`, without the hooks of the blocks between."""
        self.rt.system.Number.put(number)

    def events(self, pallet: str = "SubtensorModule") -> list[tuple[str, Any]]:
        """(name, value) of the block's events of a pallet."""
        registry = self.rt.document.registry
        decoded = [registry.decode(self.rt._event_type, raw)["event"] for raw in self.rt.events]
        return [event if isinstance(event, tuple) else (event, None) for name, event in decoded if name == pallet]

    def last(self, name: str, pallet: str = "SubtensorModule") -> Any:
        """Value of the newest event of that name."""
        return [value for event, value in self.events(pallet) if event == name][-1]

    def refusal(self, who: bytes | None, function: str, pallet: str = "SubtensorModule", **arguments: Any) -> str:
        """Name of the error the call fails with; the state stays as it was."""
        before = self.contents()
        events = len(self.rt.events)
        try:
            self.dispatch(Root() if who is None else Signed(who), pallet, function, **arguments)
        except DispatchError as error:
            assert self.contents() == before, "a failed call left something behind"
            assert len(self.rt.events) == events
            return error.name
        raise AssertionError(f"{function} succeeded")
