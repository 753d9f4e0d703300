"""The scenario on two chains in lockstep: nothing where they are the same, and what differs where it differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from localnet.calls import PALLET
from localnet.errors import ConfigError
from localnet.rehearsal.comparable import Bridge
from localnet.rehearsal.differential import Findings, OutcomeDifference, Pair, StateDifference, differential
from localnet.rehearsal.report import scenario_json, scenario_text
from localnet.rehearsal.scenario import SCENARIO, Step
from localnet.rehearsal.versioned import VERSIONED
from localnet.rules.coinbase import activity_cutoff
from localnet.runtime.runtime import SpecRuntime
from tests.unit.localnet.rehearsal.two_runtimes import (
    NEW_CODE,
    AfterHooks,
    Upgradable,
    chain,
    pallet_of,
    with_call,
)

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
    assert f"block {first.block}, step 'serve', serve_axon: {PALLET}.Axons[2, " in text and "3 unexplained" in text
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
    text = scenario_text(findings)
    assert "step 'serve', serve_axon: " in text[1] and text[-1].endswith(
        "the scenario was stopped there, --all goes on"
    )
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


async def test_what_known_changes_account_for_is_told_by_whether_values_were_checked() -> None:
    findings = await found(with_call(SpecRuntime(), PALLET, "serve_axon", other_port))
    rows = [next(row for row in VERSIONED if row.checked is checked) for checked in (True, False, False)]
    findings.differences = [
        replace(one, explained=row) for one, row in zip(findings.differences, rows, strict=True)
    ]  # fmt: skip
    text = "\n".join(scenario_text(findings))
    assert "3 differences are accounted for" in text and "of 1 the values were checked, of the other 2 only" in text
    assert f"1, checked: {rows[0].what}" in text and f"2: {rows[1].what}" in text
    told = scenario_json(findings)["differences"]
    assert [one["explained"]["values_checked"] for one in told] == [True, False, False]
    json.dumps(told, default=str)


async def test_chains_of_different_slots_cannot_be_in_lockstep() -> None:
    async with chain(SpecRuntime()) as first, chain(SpecRuntime()) as second:
        second.chain.slot_ms = 12_000
        with pytest.raises(ConfigError, match="slots of 250 ms"):
            await differential(first, second, ("a", "b"), steps=STEPS)


def older(tree: dict[str, Any]) -> None:
    """Metadata without what came with the scheduler that remembers its last epoch."""
    storage = pallet_of(tree, PALLET)["storage"]
    gone = ("LastEpochBlock", "PendingEpochAt", "ActivityCutoffFactorMilli", "LiquidAlphaConsensusMode",
            "CommitRevealWeightsEnabled")  # fmt: skip
    storage["entries"] = [entry for entry in storage["entries"] if entry["name"] not in gone]


async def test_what_only_the_newer_one_keeps_is_written_for_it() -> None:
    """... so that both have their epochs in the same blocks, and neurons are silent equally long."""
    async with chain(Upgradable(older, code=NEW_CODE)) as first, chain(SpecRuntime()) as second:
        bridge, words = Bridge(first, second), second.client
        written = bridge.writes(500)
        same = Bridge(second, second).writes(500)
        tempo = first.query(PALLET, "Tempo", 1)
        entry = {item: words.storage_key(PALLET, item, 1) for item in bridge.needed}
        values = {item: words.registry.decode(words.entry(PALLET, item).value, written[key] or b"")
                  for item, key in entry.items()}  # fmt: skip
    due = values["LastEpochBlock"] + tempo
    assert due > 500 and tempo == (due + 1 + 1) % (tempo + 1)  # where a runtime that counts blocks has its epoch
    cutoff = first.query(PALLET, "ActivityCutoff", 1)
    assert activity_cutoff(values["ActivityCutoffFactorMilli"], tempo) == cutoff
    assert values["LiquidAlphaConsensusMode"] == "Current" and values["PendingEpochAt"] == 0
    assert values["CommitRevealWeightsEnabled"] is False
    assert same == {}


def other_defaults(tree: dict[str, Any]) -> None:
    """Metadata in which a plain item and a map that nobody has written say something else."""
    entries = {entry["name"]: entry for entry in pallet_of(tree, PALLET)["storage"]["entries"]}
    entries["NetworkImmunityPeriod"]["default"] = (7).to_bytes(8, "little")
    entries["Kappa"]["default"] = (9).to_bytes(2, "little")


async def test_an_older_default_is_put_in_writing_for_the_one_that_has_another() -> None:
    """A plain item at once; of a map the entries that the newer one has written and the older one has not."""
    async with chain(Upgradable(other_defaults, code=NEW_CODE)) as first, chain(SpecRuntime()) as second:
        findings = Findings(("older", "newer"), (1, 2))
        pair = Pair(first, second, findings)
        assert second.query(PALLET, "NetworkImmunityPeriod") != 7 and second.query(PALLET, "Kappa", 77) != 9
        await second.set_storage(PALLET, "Kappa", 77, value=9_999)
        await first.mine()
        await pair.meet()
        assert (second.query(PALLET, "NetworkImmunityPeriod"), second.query(PALLET, "Kappa", 77)) == (7, 9)
        await pair.mine(1)
        assert not findings.differences
