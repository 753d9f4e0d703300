"""Authoring on a runtime that fails where it is told to: a bad extrinsic costs only itself."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import ChainError, PoolRejected, RuntimeTrap, StateDiscarded, UnknownBlock
from localnet.node.blocks import Header
from localnet.node.chain import Chain
from localnet.node.clock import LATEST, ChainClock
from tests.unit.localnet.node.tiny_runtime import SLOT, TinyRuntime, extrinsic, put

START = 1_700_000_000_000


def _chain(**options: Any) -> Chain:
    return Chain(TinyRuntime(), clock=ChainClock("step", START), **options)


def _statuses(chain: Chain, raw: bytes) -> list[Any]:
    heard: list[Any] = []
    chain.submit(raw, heard.append)
    return heard


def test_genesis_depends_on_the_patch_and_on_the_metadata() -> None:
    hashes = {Chain(TinyRuntime(m), genesis=g).genesis_hash for m in (b"a", b"b") for g in ({}, {"x": 1})}
    assert len(hashes) == 4
    assert Chain(TinyRuntime()).genesis_hash == Chain(TinyRuntime()).genesis_hash
    with pytest.raises(ChainError, match="no such preset"):
        Chain(TinyRuntime(), genesis={"preset": "refuse"})


def test_blocks_follow_each_other() -> None:
    chain = _chain()
    first, second = chain.author(), chain.author()
    assert (first.number, second.number, second.header.parent_hash) == (1, 2, first.hash)
    assert Header.decode(second.header.encode()).hash() == second.hash
    assert chain.storage(b"number") == (2).to_bytes(4, "little")
    assert chain.storage(b"number", 1) == (1).to_bytes(4, "little")
    assert chain.storage(b"number", 0) is None
    assert (first.timestamp, second.timestamp) == (START, START + SLOT)


def test_the_inherent_data_carries_time_slot_and_the_shield_key() -> None:
    chain = _chain()
    chain.author()
    data = chain.storage(b"inherent data") or b""
    assert data[0] == 3 << 2
    assert b"timstap0\x20" + START.to_bytes(8, "little") in data
    assert b"auraslot\x20" + (START // SLOT).to_bytes(8, "little") in data
    assert b"shieldpk" in data and chain.shield.announced(1) in data


def test_extrinsics_are_included_in_nonce_order_and_watched_to_the_end() -> None:
    chain = _chain()
    later = _statuses(chain, extrinsic(1, 1, put(b"k", b"second")))
    first = _statuses(chain, extrinsic(1, 0, put(b"k", b"first")))
    assert later == ["future", "ready"] and first == ["ready"]
    block = chain.author()
    digest = "0x" + block.hash.hex()
    assert first[1:] == [{"inBlock": digest}, {"finalized": digest}]
    assert chain.storage(b"k") == b"second"
    assert len(block.extrinsics or []) == 3 and len(chain.pool) == 0


def test_finality_lags_behind_the_head() -> None:
    chain = _chain(finality_lag=2)
    heard = _statuses(chain, extrinsic(1, 0, put(b"k", b"v")))
    chain.author()
    assert chain.finalized.number == 0 and "inBlock" in heard[-1]
    chain.author()
    chain.author()
    assert chain.finalized.number == 1 and "finalized" in heard[-1]


@pytest.mark.parametrize(("call", "status"), [(b"\xfe", "invalid"), (b"\xff", "dropped")])
def test_an_extrinsic_that_fails_in_the_block_costs_only_itself(call: bytes, status: str) -> None:
    chain = _chain()
    heard = [_statuses(chain, extrinsic(who, 0, put(b"k%d" % who, b"v"))) for who in (1, 2)]
    bad = _statuses(chain, extrinsic(3, 0, call))
    block = chain.author()
    assert len(block.extrinsics or []) == 3
    assert all("finalized" in statuses[-1] for statuses in heard)
    assert bad[-1] == status and len(chain.pool) == 0
    assert (chain.storage(b"half"), chain.storage(b"nonce" + b"\3" * 32)) == (None, None)
    assert chain.state.depth == 0


def test_a_block_that_cannot_be_finished_is_made_without_its_extrinsics() -> None:
    chain = _chain()
    bad = _statuses(chain, extrinsic(1, 0, b"\xfd"))
    block = chain.author()
    assert bad[-1] == "dropped" and len(block.extrinsics or []) == 1
    assert chain.author().number == 2


def test_a_runtime_that_cannot_build_any_block_leaves_the_chain_as_it_was() -> None:
    chain = _chain()
    chain.author({b"poison": b"1"})  # written at the end of its block: the next one breaks
    before = dict(chain.state.head)
    with pytest.raises(RuntimeTrap):
        chain.author()
    assert chain.state.head == before and chain.head.number == 1
    chain.revert(0)
    assert chain.author().number == 1


def test_refusals_of_the_pool() -> None:
    chain = _chain()
    chain.submit(extrinsic(1, 0, put(b"k", b"v")))
    cases = [
        (extrinsic(1, 0, put(b"k", b"v")), 1013),
        (extrinsic(1, 0, put(b"k", b"other")), 1014),
        (extrinsic(2, 0, put(b"k", b"v"), good=False), 1010),
        (b"garbage", 1001),
    ]
    for raw, code in cases:
        with pytest.raises(PoolRejected) as refused:
            chain.submit(raw)
        assert refused.value.code == code
    chain.author()
    with pytest.raises(PoolRejected, match="Transaction is outdated"):
        chain.submit(extrinsic(1, 0, put(b"k", b"late")))


def test_a_mortal_extrinsic_leaves_the_pool_when_its_time_is_over() -> None:
    chain = _chain()
    heard = _statuses(chain, extrinsic(1, 5, put(b"k", b"v"), era=b"\1\0"))  # period 4, and a nonce nobody reaches
    for _ in range(4):
        chain.author()
    assert heard == ["future", "invalid"] and len(chain.pool) == 0


def test_revert_restores_state_blocks_and_what_may_be_sent() -> None:
    chain = _chain()
    chain.author()
    raw = extrinsic(1, 0, put(b"k", b"v"))
    heard = _statuses(chain, raw)
    after = chain.author()
    waiting = _statuses(chain, extrinsic(1, 1, put(b"k", b"w")))
    chain.revert(1)
    assert chain.head.number == 1 and chain.storage(b"k") is None and chain.block_by_hash(after.hash) is None
    assert waiting == ["ready", "future"]  # its predecessor is gone
    assert heard[-1] == {"finalized": "0x" + after.hash.hex()}
    chain.submit(raw)
    chain.author()
    assert chain.storage(b"k") == b"w"
    with pytest.raises(UnknownBlock):
        chain.revert(99)


def test_old_states_and_bodies_are_discarded_and_say_so() -> None:
    chain = _chain(history=10)
    for _ in range(128):
        chain.author()
    assert chain.state.oldest == 118
    assert chain.block(117).extrinsics is None and chain.block(118).extrinsics is not None
    with pytest.raises(StateDiscarded):
        chain.storage(b"number", 117)
    assert chain.storage(b"number", 118) == (118).to_bytes(4, "little")


def test_a_call_leaves_no_trace_even_when_it_breaks_off() -> None:
    chain = _chain()
    chain.author()
    before = dict(chain.state.head)
    for number in (None, 0):
        with pytest.raises(RuntimeTrap):
            chain.call("BlockBuilder_apply_extrinsic", extrinsic(1, 0, b"\xff"), number)
        chain.call("BlockBuilder_apply_extrinsic", extrinsic(1, 0, put(b"k", b"v")), number)
    assert chain.state.head == before and chain.state.depth == 0


def test_raw_changes_have_a_place_in_history() -> None:
    chain = _chain()
    chain.author({b"mine": b"1"})
    chain.author({b"mine": None})
    assert [chain.storage(b"mine", n) for n in (0, 1, 2)] == [None, b"1", None]


class _Wall:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def test_chain_time_follows_the_wall_clock_but_always_moves_a_slot() -> None:
    wall = _Wall()
    chain = Chain(TinyRuntime(), clock=ChainClock("wall", now=wall))
    assert chain.author().timestamp == START
    wall.now += 1
    assert chain.author().timestamp == START + SLOT
    wall.now += 60_000
    assert chain.author().timestamp == START + 60_001


def test_time_travel_lasts_and_goes_forward_only() -> None:
    wall = _Wall()
    clock = ChainClock("wall", now=wall)
    chain = Chain(TinyRuntime(), clock=clock)
    chain.author()
    with pytest.raises(ChainError):
        clock.travel(START + 1, chain.head.timestamp, SLOT)
    for never in (LATEST, 2**64, 10**40):
        with pytest.raises(ChainError, match="9999"):
            clock.travel(never, chain.head.timestamp, SLOT)
    clock.travel(START + 10**9, chain.head.timestamp, SLOT)
    assert chain.author().timestamp == START + 10**9
    wall.now += 5 * SLOT
    assert chain.author().timestamp == START + 10**9 + 5 * SLOT


def test_what_breaks_inside_a_runtime_is_logged_once_in_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chain = _chain()
    monkeypatch.setattr(TinyRuntime, "_Shaky_read", lambda self, data, state: data[99:][0], raising=False)
    for _ in range(3):
        with pytest.raises(RuntimeTrap, match="IndexError"):
            chain.call("Shaky_read", b"")
    assert caplog.text.count("the runtime failed in Shaky_read") == caplog.text.count("Traceback") == 1
