"""The scenario on two chains in lockstep: nothing where they are the same, and what differs where it differs."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.calls import PALLET
from localnet.errors import ConfigError
from localnet.rehearsal.differential import Findings, OutcomeDifference, StateDifference, differential
from localnet.rehearsal.report import scenario_json, scenario_text
from localnet.rehearsal.scenario import SCENARIO, Step
from localnet.rehearsal.versioned import VERSIONED, explain
from localnet.runtime.runtime import SpecRuntime
from tests.unit.localnet.rehearsal.two_runtimes import AfterHooks, chain, with_call

NEEDED = ("fund accounts", "found a subnet", "register neurons", "serve")
STEPS = tuple(step for step in SCENARIO if step.name in NEEDED)


async def found(other: Any, steps: tuple[Step, ...] = STEPS, **options: Any) -> Findings:
    async with chain(SpecRuntime()) as first, chain(other) as second:
        return await differential(first, second, ("reference", "other"), steps=steps, **options)


async def test_a_runtime_does_not_differ_from_itself() -> None:
    findings = await found(SpecRuntime())
    assert findings.agree and not findings.differences
    assert findings.blocks > 15 and findings.values > 2_000 and len(findings.compared) > 200
    assert not any(step.skipped or step.broke for step in findings.played)
    assert {said.error for step in findings.played for said in step.said} >= {None, "HotKeyAlreadyRegisteredInSubNet"}


def other_port(runtime: SpecRuntime, before: Any, origin: Any, **arguments: Any) -> Any:
    return before(origin, **{**arguments, "port": arguments["port"] + 1})


async def test_a_changed_call_is_found_with_its_block_its_call_and_both_values() -> None:
    findings = await found(with_call(SpecRuntime(), PALLET, "serve_axon", other_port))
    assert not findings.agree and findings.counts == {f"{PALLET}.Axons": 3}
    first = findings.differences[0]
    assert isinstance(first, StateDifference) and first.explained is None
    served = next(said for step in findings.played for said in step.said if said.what == "serve_axon")
    assert (first.block, first.cause) == (served.block, "serve_axon")
    assert first.keys[0] == 2 and [value["port"] for value in first.values] == [8_091, 8_092]
    assert f"{PALLET}.AxonServed" in first.events[0] and f"{PALLET}.AxonServed" in first.events[1]
    text = "\n".join(scenario_text(findings))
    assert f"block {first.block}, serve_axon: {PALLET}.Axons[2, " in text and "3 unexplained" in text
    assert scenario_json(findings)["differences"][0]["values"][1]["port"] == 8_092


def fails(runtime: SpecRuntime, before: Any, origin: Any, **arguments: Any) -> Any:
    raise runtime.subtensor.error("InvalidIpAddress")


async def test_a_call_that_fails_on_one_side_only_is_an_outcome_that_differs() -> None:
    findings = await found(with_call(SpecRuntime(), PALLET, "serve_prometheus", fails))
    outcome = next(one for one in findings.differences if isinstance(one, OutcomeDifference))
    assert (outcome.call, outcome.errors) == ("serve_prometheus", (None, "InvalidIpAddress"))
    assert outcome.events == ((f"{PALLET}.PrometheusServed",), ())
    assert f"{PALLET}.Prometheus" in findings.counts


def creeping(runtime: SpecRuntime) -> None:
    runtime.subtensor.TxRateLimit.put(runtime.number)


async def test_a_changed_hook_is_told_in_every_block_and_aligned_after_each() -> None:
    findings = await found(AfterHooks(creeping), STEPS[:1])
    told = [one for one in findings.differences if isinstance(one, StateDifference)]
    assert len(told) == findings.blocks and {one.item for one in told} == {f"{PALLET}.TxRateLimit"}
    assert {one.cause for one in told} == {"hooks before the extrinsics"}
    assert [one.values[1] for one in told] == [one.block for one in told]  # and the reference's value stays the same
    assert len({one.values[0] for one in told}) == 1


async def test_the_first_difference_ends_it_unless_more_is_asked_for() -> None:
    changed = with_call(SpecRuntime(), PALLET, "serve_axon", other_port)
    findings = await found(changed, first_only=True)
    assert len(findings.differences) == 1 and not findings.agree
    assert len(findings.played) < len(STEPS)


async def test_without_alignment_a_difference_stays_and_is_told_once() -> None:
    findings = await found(AfterHooks(lambda rt: rt.subtensor.TxRateLimit.put(7)), STEPS[:1], align=False)
    assert findings.counts == {f"{PALLET}.TxRateLimit": 1}


async def test_a_step_that_one_side_has_no_call_for_is_skipped_by_name() -> None:
    without = SpecRuntime()
    pallet = next(p for p in without.document.tree["pallets"] if p["name"] == PALLET)
    types = without.document.tree["types"][pallet["calls"]]["def"]
    kept, before = [v for v in types["variant"] if v["name"] != "serve_prometheus"], types["variant"]
    async with chain(SpecRuntime()) as first, chain(without) as second:
        try:
            types["variant"] = kept  # the parsed metadata is shared: both lose the call
            findings = await differential(first, second, ("a", "b"), steps=STEPS)
        finally:
            types["variant"] = before
    skipped = next(step for step in findings.played if step.skipped)
    assert skipped.name == "serve" and "serve_prometheus" in str(skipped.skipped)
    assert [said.what for said in skipped.said].count("serve_axon") == 2  # what came before it was done


async def test_chains_of_different_slots_cannot_be_in_lockstep() -> None:
    async with chain(SpecRuntime()) as first, chain(SpecRuntime()) as second:
        second.chain.slot_ms = 12_000
        with pytest.raises(ConfigError, match="slots of 250 ms"):
            await differential(first, second, ("a", "b"), steps=STEPS)


def test_known_changes_explain_what_lies_between_two_versions_only() -> None:
    row = next(row for row in VERSIONED if "Burn" in row.items)
    for specs in ((row.since - 1, row.since), (row.since, row.since - 1)):
        assert explain(f"{PALLET}.Burn", "whatever", specs) is row
    assert explain(f"{PALLET}.Burn", "whatever", (row.since, row.since + 1)) is None
    assert all(one.what and one.source and one.since > 0 for one in VERSIONED)
