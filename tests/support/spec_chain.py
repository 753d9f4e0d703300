"""The specification runtime driven without a node: open blocks, dispatch calls, read events and errors."""

from __future__ import annotations

from typing import Any

import bittensor_core
import pytest

from localnet.errors import DispatchError, InvalidTransaction
from localnet.runtime.framework import Origin, Root, Signed
from localnet.runtime.memory import MemoryState
from localnet.runtime.profile import FAST, Profile
from localnet.runtime.runtime import SpecRuntime
from localnet.runtime.subtensor.pallet import Subtensor

TAO = 10**9

Saved = tuple[dict[bytes, bytes | None], list[bytes]]


def key(uri: str) -> bytes:
    """Public key of a development key; a plain name stands for `//name`."""
    return bytes(bittensor_core.Keypair.create_from_uri(uri if "//" in uri else f"//{uri}").public_key)


class Chain:
    """A chain at block 1, with the calls of SubtensorModule as `chain.do("Alice", "start_call", netuid=2)`."""

    def __init__(self, profile: Profile = FAST) -> None:
        self.rt = SpecRuntime.in_memory(profile)

    @property
    def p(self) -> Subtensor:
        return self.rt.subtensor

    @property
    def block(self) -> int:
        return self.rt.number

    def save(self) -> Saved:
        """What the chain is now, for `restore`: making a runtime takes longer than most tests do."""
        return {raw: self.rt.state.get(raw) for raw in self.rt.state.keys(b"")}, list(self.rt.events)

    def restore(self, saved: Saved) -> Chain:
        state, events = saved
        self.rt.state, self.rt.events = MemoryState(state), list(events)
        return self

    def next(self, blocks: int = 1) -> int:
        """Close the open block and open the next one, `blocks` times. Returns the number of the open block."""
        for _ in range(blocks):
            number = self.rt.number
            self.rt.call("BlockBuilder_finalize_block", b"", self.rt.state)
            self.rt.open_block(number + 1, number.to_bytes(32, "big"))
        return self.rt.number

    def next_to(self, number: int) -> int:
        return self.next(number - self.rt.number)

    def dispatch(self, origin: Origin, function: str, pallet: str = "SubtensorModule", /, **arguments: Any) -> None:
        """The call as a block would dispatch it: encoded, decoded, all or nothing."""
        encoded = self.rt.encode_call(pallet, function, arguments)
        self.rt.dispatch(origin, *self.rt.decode_call(encoded))

    def do(self, who: str, function: str, pallet: str = "SubtensorModule", /, **arguments: Any) -> None:
        self.dispatch(Signed(key(who)), function, pallet, **arguments)

    def root(self, function: str, pallet: str = "AdminUtils", /, **arguments: Any) -> None:
        self.dispatch(Root(), function, pallet, **arguments)

    def fails(self, error: str, who: str, function: str, /, **arguments: Any) -> None:
        """The call fails with this error, and nothing of it stays."""
        before = len(self.rt.events)
        with pytest.raises(DispatchError) as caught:
            self.do(who, function, **arguments)
        assert caught.value.name == error
        assert len(self.rt.events) == before

    def refused(self, code: int, who: str, function: str, /, **arguments: Any) -> None:
        """The pool refuses the call with this custom code."""
        with pytest.raises(InvalidTransaction) as caught:
            self.p.validate(key(who), function, self._decoded(function, arguments))
        assert caught.value.reason == ("Custom", code)

    def accepted(self, who: str, function: str, /, **arguments: Any) -> None:
        self.p.validate(key(who), function, self._decoded(function, arguments))

    def _decoded(self, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.rt.decode_call(self.rt.encode_call("SubtensorModule", function, arguments))[2]

    def events(self, name: str | None = None) -> list[tuple[str, Any]]:
        """(Pallet.Event, fields) of the open block so far; with a name only those."""
        found = []
        for raw in self.rt.events:
            pallet, event = self.rt.document.registry.decode(self.rt._event_type, raw)["event"]
            full, fields = (event, None) if isinstance(event, str) else event
            found.append((f"{pallet}.{full}", fields))
        return [one for one in found if name is None or one[0] == name]

    # -- journeys ---------------------------------------------------------------------------------------------------

    def subnet(
        self, owner: str = "Alice", hotkey: str = "owner_hot", *, started: bool = True, emits: bool = True
    ) -> int:
        """A new subnet with open weights and no rate limit; its netuid."""
        self.do(owner, "register_network", hotkey=key(hotkey))
        netuid = max(netuid for netuid, _ in self.p.NetworksAdded.items())
        self.p.CommitRevealWeightsEnabled[netuid] = False
        self.p.WeightsSetRateLimit[netuid] = 0
        self.p.SubnetEmissionEnabled[netuid] = emits
        if started:
            self.do(owner, "start_call", netuid=netuid)
        return netuid

    def neuron(self, netuid: int, hotkey: str, coldkey: str = "Bob") -> int:
        """A registered hotkey's uid."""
        self.do(coldkey, "burned_register", netuid=netuid, hotkey=key(hotkey))
        uid = self.p.Uids[netuid, key(hotkey)]
        assert uid is not None
        return uid

    def stake(self, netuid: int, hotkey: str, tao: int, coldkey: str = "Bob") -> None:
        self.do(coldkey, "add_stake", hotkey=key(hotkey), netuid=netuid, amount_staked=tao)


__all__ = ["TAO", "Chain", "Saved", "key"]
