"""What no sequence of calls, blocks and reads may break: money, alpha, failed calls, stored bytes, block production.

The chain and its checks are tests/support/fuzz_chain.py; `benchmarks/localnet_fuzz.py` runs the same for as long as one
likes. Hypothesis chooses the steps, and leaves out those that are not needed when a check fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support.fuzz_chain import Finding, World
from tests.support.fuzz_values import UNCHECKED

SEEDS = st.integers(0, 2**32 - 1)


class ChainMachine(RuleBasedStateMachine):
    """Extrinsics, reads and blocks in any order; every step checks the whole chain."""

    @initialize()
    def start(self) -> None:
        self.world = World(0)

    def _draw_from(self, seed: int) -> None:
        self.world.rng.seed(seed)

    @rule(seed=SEEDS)
    def extrinsic(self, seed: int) -> None:
        self._draw_from(seed)
        self.world.extrinsic()

    @rule(seed=SEEDS, burst=st.integers(2, 12))
    def extrinsics(self, seed: int, burst: int) -> None:
        self._draw_from(seed)
        for _ in range(burst):
            self.world.extrinsic()

    @rule(seed=SEEDS)
    def read(self, seed: int) -> None:
        self._draw_from(seed)
        self.world.read()

    @rule(count=st.integers(1, 8))
    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.world.block()


def test_no_sequence_of_calls_and_blocks_breaks_the_chain() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ChainMachine,
        settings=settings(max_examples=4, stateful_step_count=14, derandomize=True, deadline=None, database=None),
    )


@pytest.fixture
def world() -> World:
    return World(1)


def test_every_implemented_call_is_drawn(world: World) -> None:
    """A call that somebody adds to the runtime is fuzzed without being named anywhere, and its arguments encode."""
    assert set(world.sampler.names) == set(world.rt.calls) - UNCHECKED
    for pallet, function in world.sampler.names:
        value = world.sampler.fill(pallet, function)
        encoded = world.rt.document.registry.encode(world.rt.document.call_type, value)
        assert world.rt.decode_call(encoded)[:2] == (pallet, function)


# -- the checks can fail --------------------------------------------------------------------------------------------


def dishonest(world: World, effect: Callable[[World], Any]) -> None:
    """Make System.remark do what no call may do."""

    def remark(origin: object, remark: bytes) -> None:
        effect(world)

    remark.call_info = world.rt.calls["System", "remark"].call_info  # type: ignore[attr-defined]
    world.rt.calls["System", "remark"] = remark


def print_money(world: World) -> None:
    account = world.rt.system.Account
    bob = world.sampler.accounts["//Bob"]
    account[bob] = {**account[bob], "data": {**account[bob]["data"], "free": 10**17}}


def print_alpha(world: World) -> None:
    p = world.rt.subtensor
    position = next(key for key in p.TotalHotkeyAlpha.keys() if key[1] == 2)
    p.TotalHotkeyAlpha[position] = 10**17


DISHONEST: list[tuple[Callable[[World], Any], str]] = [
    (print_money, "accounts hold"),
    (print_alpha, "alpha appeared"),
    (lambda world: world.rt.balances.TotalIssuance.put(1), "accounts hold"),
    (lambda world: world.state.put(b"\1" * 40, b"x"), "no storage item"),
    (lambda world: world.state.put(world.rt.subtensor.Tempo.key(2), b"\1\2\3"), "does not decode"),
    (lambda world: world.state.begin(), "transactions left open"),
    (lambda world: 1 // 0, "broke off"),
]


def test_a_dishonest_call_is_found(world: World) -> None:
    depth, books = world.state.depth, world.books
    for effect, words in DISHONEST:
        dishonest(world, effect)
        world.state.begin()
        with pytest.raises(Finding, match=words):
            world.send("//Alice", ("System", ("remark", {"remark": b""})))
        while world.state.depth > depth:
            world.state.rollback()
        world.books = books


def test_a_failing_call_that_leaves_something_behind_is_found(world: World) -> None:
    """The same registration, once rolled back as it should be when the price is too high, once not."""
    broke = {"netuid": 2, "hotkey": world.sampler.accounts["//hot/7"], "limit_price": 0}
    handler = world.rt.calls["SubtensorModule", "register_limit"]

    def late(*args: Any, **kwargs: Any) -> None:
        world.rt.subtensor.Tempo[2] = 99
        handler(*args, **kwargs)

    late.call_info = handler.call_info  # type: ignore[attr-defined]
    world.rt.calls["SubtensorModule", "register_limit"] = late
    assert world.send("//Bob", ("SubtensorModule", ("register_limit", broke))).startswith("failed")
    world.state.rollback = world.state.commit  # type: ignore[method-assign]
    with pytest.raises(Finding, match="and yet SubtensorModule\\.Tempo"):
        world.send("//Bob", ("SubtensorModule", ("register_limit", broke)))
