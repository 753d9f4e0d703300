"""What random calls once stopped blocks with or broke off in: numbers at the end of their range, mistakes."""

from __future__ import annotations

import logging

import pytest

from localnet.errors import DispatchError
from localnet.rules.fixed import U32_MAX, U64_MAX
from tests.support.spec_chain import TAO, Chain, key


def running(chain: Chain) -> int:
    """A subnet with a validator that has weights, so that its epochs have bonds to average."""
    netuid = chain.subnet()
    for hotkey in ("one", "two"):
        chain.neuron(netuid, hotkey)
    chain.stake(netuid, "one", 100 * TAO)
    chain.p.Tempo[netuid] = 3
    chain.p.AdminFreezeWindow.put(0)
    chain.next(8)
    chain.do("one", "set_weights", netuid=netuid, dests=[2], weights=[1], version_key=0)
    return netuid


@pytest.mark.parametrize("yuma3", [True, False])
def test_an_absurd_bonds_moving_average_does_not_stop_blocks(chain: Chain, yuma3: bool) -> None:
    netuid = running(chain)
    chain.p.Yuma3On[netuid] = yuma3
    chain.next(7)
    before = chain.p.Bonds[netuid, 1]
    assert before and chain.p.LastMechansimStepBlock[netuid] > 8
    chain.root("sudo_set_bonds_moving_average", netuid=netuid, bonds_moving_average=U64_MAX)
    step = chain.p.LastMechansimStepBlock[netuid]
    chain.next(8)
    assert chain.p.LastMechansimStepBlock[netuid] > step
    (target, bond), (_, was) = chain.p.Bonds[netuid, 1][0], before[0]
    assert target == 2 and abs(bond - was) <= 4  # two roundings to u16


def test_a_period_beyond_the_last_block_does_not_stop_blocks(chain: Chain) -> None:
    remark = ("System", ("remark", {"remark": b""}))
    arguments = {"maybe_periodic": (U32_MAX, 3), "priority": 0, "call": remark}
    chain.root("schedule", "Scheduler", when=chain.block + 2, **arguments)
    chain.root("schedule_after", "Scheduler", after=U32_MAX, **arguments)
    chain.next(4)
    assert [task is not None for task in chain.rt.scheduler.Agenda[U32_MAX]] == [True, True]


def test_delays_and_counters_end_at_the_largest_number(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.p.ColdkeySwapAnnouncementDelay.put(U32_MAX)
    chain.do("Bob", "announce_coldkey_swap", new_coldkey_hash=bytes(32))
    assert chain.p.ColdkeySwapAnnouncements[key("Bob")] == (U32_MAX, bytes(32))
    chain.p.RAORecycledForRegistration[netuid] = U64_MAX
    chain.neuron(netuid, "one", "Charlie")
    assert chain.p.RAORecycledForRegistration[netuid] == U64_MAX
    chain.p.PendingChildKeyCooldown.put(U64_MAX)
    chain.do("Charlie", "set_children", hotkey=key("one"), netuid=netuid, children=[(1, key("two"))])
    assert chain.p.PendingChildKeys[netuid, key("one")] == ([(1, key("two"))], U64_MAX)


@pytest.mark.parametrize("inside", [False, True])
def test_a_mistake_in_a_call_fails_that_call_and_undoes_it(
    chain: Chain, caplog: pytest.LogCaptureFixture, inside: bool
) -> None:
    """Even one that breaks off inside a transaction of its own; the next extrinsic and the next block go on."""

    def broken(origin: object, remark: bytes) -> None:
        chain.p.Tempo[0] = 77
        chain.rt.system.emit("CodeUpdated")
        if inside:
            with chain.rt.transaction():
                raise KeyError("mistake")
        raise ZeroDivisionError("mistake")

    broken.call_info = chain.rt.calls["System", "remark"].call_info  # type: ignore[attr-defined]
    chain.rt.calls["System", "remark"] = broken
    tempo, events = chain.p.Tempo[0], len(chain.rt.events)
    with caplog.at_level(logging.CRITICAL), pytest.raises(DispatchError, match="mistake") as caught:
        chain.do("Alice", "remark", "System", remark=b"")
    assert caught.value.value == "Corruption"
    assert (chain.p.Tempo[0], len(chain.rt.events)) == (tempo, events)
    chain.do("Alice", "register_network", hotkey=key("hot"))
    chain.next(2)
