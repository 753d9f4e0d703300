"""Whom the gateway asks: the rule, and the figures it looks at."""

import asyncio
import contextlib

import pytest

from protocol.metagraph import Metagraph, Neuron
from protocol.scoring import ScoreState
from template.exchange import Target
from template.gateway import routing
from template.gateway.routing import Board, Standing, hedge_delay, order


def standing(
    name: str, worth: float = 1.0, waiting: int = 0, latency: float | None = 0.1, cooling: float = 0.0
) -> Standing:
    return Standing(Target(name, "127.0.0.1", 1), worth, waiting, latency, cooling)


def names(*standings: Standing, per_miner: int = 3) -> list[str]:
    return [target.hotkey for target in order(standings, per_miner)]


def test_the_better_miner_comes_first_and_load_and_waiting_push_it_back() -> None:
    assert names(standing("a", 0.5), standing("b", 0.9)) == ["b", "a"]
    assert names(standing("a", 0.5), standing("b", 0.9, waiting=1)) == ["a", "b"]
    assert names(standing("a", 0.5), standing("b", 0.9, latency=0.4)) == ["a", "b"]
    assert names(standing("a", 0.5), standing("b", 0.9, latency=0.15)) == ["b", "a"]


def test_who_is_not_asked() -> None:
    assert names(standing("a", cooling=0.5), standing("b", waiting=3), standing("c", waiting=2)) == ["c"]
    assert names() == []


def test_whoever_was_never_verified_comes_last_however_fast() -> None:
    assert names(standing("new", 0.0, latency=0.001), standing("old", 1e-5, waiting=2, latency=9.0)) == ["old", "new"]


def test_an_unknown_latency_counts_as_the_usual_one() -> None:
    others = [standing("a", latency=0.1), standing("b", latency=0.3), standing("c", latency=0.9)]
    assert names(*others, standing("new", latency=None)) == ["a", "new", "b", "c"]


def test_the_hedge_delay_is_what_few_requests_exceed() -> None:
    assert hedge_delay([]) == routing.HEDGE_FIRST_S
    assert hedge_delay([1.0] * 96 + [5.0] * 4) == 1.0
    assert hedge_delay([1.0] * 90 + [5.0] * 10) == 5.0
    assert hedge_delay([0.001] * 10) == routing.HEDGE_LEAST_S
    assert hedge_delay([1000.0] * 10) == routing.HEDGE_MOST_S


def neuron(uid: int, hotkey: str, **fields: object) -> Neuron:
    values = {"port": 8000 + uid, "incentive": 0.0, **fields}
    return Neuron(uid, hotkey, hotkey, 0.0, False, True, "10.0.0.1", protocol=4, last_update=0, **values)  # type: ignore[arg-type]


def graph(*neurons: Neuron) -> Metagraph:
    return Metagraph(1, 7, "0x" + "22" * 32, 360, neurons)


def board(*neurons: Neuron, states: dict[str, ScoreState] | None = None, round: int = 5) -> Board:
    found = Board()
    found.update(graph(*neurons), states or {}, round, "self")
    return found


def hotkeys(found: Board, now: float = 0.0) -> list[str]:
    return [target.hotkey for target in found.order(now)]


def test_scores_decide_once_there_are_any_and_incentive_until_then() -> None:
    two = (neuron(0, "a", incentive=0.2), neuron(1, "b", incentive=0.8))
    assert hotkeys(board(*two)) == ["b", "a"]
    assert hotkeys(board(*two, states={"a": ScoreState("a", score=0.3)})) == ["a", "b"]


def test_only_serving_neurons_outside_a_cool_down_are_asked() -> None:
    states = {"b": ScoreState("b", cooldown_until=6), "c": ScoreState("c", score=0.1, cooldown_until=5)}
    found = board(neuron(0, "a", port=0), neuron(1, "b"), neuron(2, "c"), neuron(3, "self"), states=states)
    assert hotkeys(found) == ["c"] and found.serving == 1


def test_failures_cool_a_miner_down_longer_each_time_and_success_forgives() -> None:
    found = board(neuron(0, "a"))
    (target,) = found.order(0.0)
    for now, pause in ((0.0, 10.0), (100.0, 20.0), (200.0, 40.0)):
        with found.working(target, now) as work:
            work.failed(now)
        assert hotkeys(found, now + pause - 0.1) == [] and hotkeys(found, now + pause) == ["a"]
    with found.working(target, 300.0) as work:
        work.succeeded()
    with found.working(target, 300.0) as work:
        work.failed(300.0)
    assert hotkeys(found, 310.0) == ["a"]


def test_requests_that_fail_together_are_one_failure_and_no_outage_is_held_against_a_miner_for_long() -> None:
    found = board(neuron(0, "a"))
    (a,) = found.order(0.0)
    with contextlib.ExitStack() as stack:
        together = [stack.enter_context(found.working(a, 0.0)) for _ in range(8)]
        for work in together:
            work.failed(5.0)
    assert hotkeys(found, 14.9) == [] and hotkeys(found, 15.0) == ["a"]
    for now in range(100, 2000, 100):
        with found.working(a, float(now)) as work:
            work.failed(float(now))
    assert hotkeys(found, 1900.0 + routing.COOL_LIMIT_S) == ["a"]


def test_a_miner_that_says_when_to_come_back_is_believed() -> None:
    found = board(neuron(0, "a"))
    with found.working(found.order(0.0)[0], 0.0) as work:
        work.failed(0.0, retry_after=2.0)
    assert hotkeys(found, 1.9) == [] and hotkeys(found, 2.0) == ["a"]


def test_a_rejected_miner_is_left_alone() -> None:
    found = board(neuron(0, "a"), neuron(1, "b"))
    found.rejected("b", 0.0)
    assert hotkeys(found, 1.0) == ["a"] and set(hotkeys(found, routing.REJECTED_S)) == {"a", "b"}


def test_load_counts_while_it_lasts_and_latency_while_it_is_fresh() -> None:
    found = board(neuron(0, "a", incentive=0.5), neuron(1, "b", incentive=0.4))
    a = found.order(0.0)[0]
    with found.working(a, 0.0) as work:
        assert hotkeys(found) == ["b", "a"]
        work.first_token(9.0)
    assert hotkeys(found, 10.0) == ["a", "b"], "nothing is known of b, so it counts as slow as the only one known"
    with found.working(Target("b", "10.0.0.1", 8001), 10.0) as work:
        work.first_token(10.1)
    assert hotkeys(found, 11.0) == ["b", "a"]
    assert hotkeys(found, 10.2 + routing.FRESH_S) == ["a", "b"], "an old latency is no news"


def test_with_every_place_taken_nobody_is_free() -> None:
    found = board(neuron(0, "a"))
    (a,) = found.order(0.0)
    with found.working(a, 0.0), found.working(a, 0.0), found.working(a, 0.0):
        assert hotkeys(found) == []
    assert hotkeys(found) == ["a"]


async def test_whoever_waits_hears_of_a_free_place() -> None:
    found = board(neuron(0, "a"))
    (a,) = found.order(0.0)
    with found.working(a, 0.0):
        waiter = asyncio.create_task(found.changed(60.0))
        await asyncio.sleep(0)
        assert not waiter.done()
    await asyncio.wait_for(waiter, 10.0)


@pytest.mark.parametrize("left", [True, False])
def test_figures_of_whoever_left_are_dropped(left: bool) -> None:
    found = board(neuron(0, "a"))
    with found.working(found.order(0.0)[0], 0.0) as work:
        work.failed(0.0)
    if left:
        found.update(graph(), {}, 6, "self")
    found.update(graph(neuron(0, "a")), {}, 7, "self")
    assert hotkeys(found, 1.0) == (["a"] if left else [])
