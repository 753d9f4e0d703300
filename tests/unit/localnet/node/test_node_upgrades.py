"""A runtime replaced while its chain goes on: everybody hears of it, and slots are as long as the new one has them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from localnet.abi import State
from localnet.codec.scale import opaque
from localnet.errors import ChainError, RuntimeTrap
from localnet.net import Localnet
from localnet.node.blocks import slot_of
from localnet.node.chain import Chain
from localnet.node.clock import ChainClock
from tests.unit.localnet.node.tiny_runtime import TinyRuntime

START = 1_700_000_000_000


def code(spec: int, slot: int) -> bytes:
    return json.dumps([spec, slot]).encode()


class Replaceable(TinyRuntime):
    """Its code names its version and the length of its slots, and it insists on Aura's rules."""

    def __init__(self, spec: int = 1, slot: int = 1000) -> None:
        super().__init__(code(spec, slot))

    def _code(self, state: State) -> tuple[int, int]:
        spec, slot = json.loads(state.get(b":code") or b"")
        return spec, slot

    def _Core_version(self, data: bytes, state: State) -> bytes:
        spec, _ = self._code(state)
        numbers = b"".join(number.to_bytes(4, "little") for number in (1, spec, 1))
        return opaque(b"tiny") * 2 + numbers + b"\0" + (1).to_bytes(4, "little") + b"\1"

    def _AuraApi_slot_duration(self, data: bytes, state: State) -> bytes:
        _, slot = self._code(state)
        if slot < 0:
            raise RuntimeTrap("no slots here")
        return slot.to_bytes(8, "little")

    def _BlockBuilder_inherent_extrinsics(self, data: bytes, state: State) -> bytes:
        now, slot = (
            int.from_bytes(data.partition(key + b"\x20")[2][:8], "little") for key in (b"timstap0", b"auraslot")
        )
        last = int.from_bytes(state.get(b"slot") or b"", "little")
        if slot <= last or slot != now // self._code(state)[1] or slot != slot_of(self._header(state)):
            raise RuntimeTrap(f"slot {slot} after {last} at {now} ms")
        state.put(b"slot", slot.to_bytes(8, "little"))
        return super()._BlockBuilder_inherent_extrinsics(data, state)


def chain() -> Chain:
    made = Chain(Replaceable(), clock=ChainClock("step", START))
    made.author()
    return made


def test_shorter_slots_are_followed_from_the_next_block_on() -> None:
    going = chain()
    upgraded = going.author({b":code": code(2, 250)})
    assert upgraded.timestamp == START + 1000 and going.slot_ms == 250
    assert [going.author().timestamp for _ in range(2)] == [START + 1250, START + 1500]
    going.revert(1)
    assert going.slot_ms == 1000 and going.author().timestamp == START + 1000


def test_longer_slots_stop_a_chain_with_the_way_out_told() -> None:
    going = chain()
    going.author({b":code": code(2, 12_000)})
    first = (START // 1000 + 2) * 12_000  # the slot after that of block 2, where slots are twelve times as long
    with pytest.raises(ChainError, match=rf"slots are 12000 ms long.* Go on at {first} ms"):
        going.author()
    with pytest.raises(ChainError, match="revert the upgrade"):
        going.author()
    going.clock.travel(first, going.head.timestamp, going.slot_ms)
    assert [going.author().timestamp for _ in range(2)] == [first, first + 12_000]
    going.revert(1)
    assert going.author().number == 2


def test_code_that_makes_no_blocks_is_told_and_can_be_reverted(caplog: pytest.LogCaptureFixture) -> None:
    going = chain()
    assert going.author({b":code": code(2, -1)}).number == 2
    assert "block 2: no blocks can be made with the code that is in place now" in caplog.text
    with pytest.raises(RuntimeTrap):
        going.author()
    going.revert(1)
    assert going.author().number == 2


async def test_a_chain_that_was_upgraded_restarts_with_its_slots(tmp_path: Path) -> None:
    options = {"mining": "manual", "state": tmp_path / "chain.sqlite"}
    async with Localnet(runtime=Replaceable(), **options) as net:  # type: ignore[arg-type]
        await net.mine()
        await net.miner.overwrite(2, 0, {b":code": code(2, 250)})
        assert net.chain.slot_ms == 250
    async with Localnet(runtime=Replaceable(), **options) as net:  # type: ignore[arg-type]
        assert net.chain.slot_ms == 250 and await net.mine() == 3


async def test_who_asked_for_the_version_hears_of_an_upgrade_and_of_its_end() -> None:
    async with (
        Localnet(runtime=Replaceable(), mining="manual") as net,
        aiohttp.ClientSession() as session,
        session.ws_connect(net.url) as socket,
    ):
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "state_subscribeRuntimeVersion", "params": []})
        identifier = (await socket.receive_json())["result"]

        async def told() -> int:
            message = await asyncio.wait_for(socket.receive_json(), 10)
            assert message["method"] == "state_runtimeVersion" and message["params"]["subscription"] == identifier
            return int(message["params"]["result"]["specVersion"])

        assert await told() == 1
        await net.mine(2)  # nothing to tell
        await net.miner.overwrite(3, 0, {b":code": code(7, 1000)})
        assert await told() == 7
        await net.miner.revert(2)
        assert await told() == 1
