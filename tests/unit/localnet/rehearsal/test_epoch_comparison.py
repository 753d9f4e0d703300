"""One epoch of the same subnet on two runtimes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from localnet.abi import State
from localnet.codec.document import Document
from localnet.errors import ConfigError
from localnet.rehearsal.epochs import RESULTS, Side, compare, run_epoch
from localnet.rehearsal.known_epochs import EPOCH_RULES
from localnet.rehearsal.random_subnets import random_subnet
from localnet.rehearsal.report import epochs_text
from localnet.rehearsal.subnet_states import NETUID, PALLET
from localnet.runtime.runtime import SpecRuntime
from localnet.vocabulary import Vocabulary
from tests.unit.localnet.rehearsal.two_runtimes import AfterHooks

SPEC = Side.of(SpecRuntime(), "the specification")
SEEDS = range(40)


def one_more(runtime: SpecRuntime) -> None:
    """A changed rule: the first stake share that is not 0 is one unit larger."""
    items = runtime.subtensor.StakeWeight
    values = list(items[NETUID])
    place = next((uid for uid, value in enumerate(values) if 0 < value < 65_535), None)
    if place is not None:
        values[place] += 1
        items[NETUID] = values


def test_a_runtime_agrees_with_itself() -> None:
    compared = compare(SPEC, Side.of(SpecRuntime(), "another"), range(10))
    assert compared.agree and compared.states == 10 and not compared.rules
    assert set(compared.items) == {name for name in RESULTS if (PALLET, name) in SPEC.words.document.storage}
    assert all(count > 0 for count in compared.items.values())


def test_one_unit_in_one_vector_is_found() -> None:
    compared = compare(SPEC, Side.of(AfterHooks(one_more), "changed"), range(12))
    assert not compared.agree and set(compared.unlike) == {"StakeWeight"}
    for difference in compared.differences:
        mine, theirs = difference.values
        assert theirs == mine + 1 and difference.uid is not None
        assert f"seed {difference.seed}: StakeWeight of uid {difference.uid}" in difference.text(compared.names)


def test_facts_that_a_runtime_has_no_storage_for_are_told_of_all_subnets() -> None:
    tree = copy.deepcopy(SPEC.words.document.tree)
    storage = next(pallet["storage"] for pallet in tree["pallets"] if pallet["name"] == PALLET)
    storage["entries"] = [entry for entry in storage["entries"] if entry["name"] != "ChildKeys"]
    narrow = Side(SpecRuntime(), Vocabulary(Document(b"", b"", tree)), SPEC.spec, "narrow")
    families = {bool(random_subnet(seed).children): seed for seed in SEEDS}
    compared = compare(narrow, SPEC, [families[True], families[False]])
    assert "ChildKeys" in compared.left_out["narrow"] and "ChildKeys" not in compared.left_out[SPEC.name]
    assert any(line.startswith("  narrow has no storage for") and "ChildKeys" in line for line in epochs_text(compared))


def test_the_epoch_really_runs_and_depends_on_the_subnet() -> None:
    seen = set()
    for seed in range(6):
        state, _ = run_epoch(SPEC, random_subnet(seed))
        entry = SPEC.words.entry(PALLET, "Emission")
        seen.add(tuple(SPEC.words.stored(entry, state.get(SPEC.words.key_of(entry, (NETUID,))))))
    assert len(seen) == 6


class Idle(SpecRuntime):
    """Opens a block and does nothing in it."""

    def call(self, method: str, data: bytes, state: State) -> bytes:
        return b"" if method == "Core_initialize_block" else super().call(method, data, state)


def test_a_runtime_that_runs_no_epoch_does_not_agree() -> None:
    idle = Side.of(Idle(), "idle")
    with pytest.raises(ConfigError, match="ran no epoch"):
        run_epoch(idle, random_subnet(3))
    compared = compare(SPEC, idle, range(2))
    assert not compared.agree and compared.states == 0 and "ran no epoch" in compared.failures[0]


def test_subnets_are_made_from_their_seed_alone_and_cover_every_branch() -> None:
    subnets = [random_subnet(seed) for seed in SEEDS]
    assert subnets == [random_subnet(seed) for seed in SEEDS]
    for has in (
        lambda s: s.owner is not None, lambda s: s.commits, lambda s: s.children, lambda s: s.root,
        lambda s: s.hyper.yuma3 and s.hyper.liquid_alpha, lambda s: not s.hyper.yuma3,
        lambda s: s.hyper.stake_threshold,
        lambda s: not any(s.stakes), lambda s: s.size == 1, lambda s: s.size >= 40, lambda s: not all(s.permits),
        lambda s: any(uid == target for uid, row in s.weights.items() for target, _ in row),
        lambda s: any(row != sorted(row) for row in s.weights.values()),
    ):  # fmt: skip
        assert any(map(has, subnets))


@pytest.mark.parametrize("rule", EPOCH_RULES, ids=lambda rule: rule.name)
def test_a_rule_is_taken_out_of_a_subnet(rule) -> None:
    """... for good, and without spoiling the subnet for what is left."""
    for seed in range(12):
        bare = rule.without(random_subnet(seed))
        assert rule.without(bare) == bare
        run_epoch(SPEC, bare)
    assert rule.what and rule.source


def test_rules_separate_versions_by_what_they_have() -> None:
    by_sign = next(rule for rule in EPOCH_RULES if rule.signs)
    assert by_sign.holds(1, SPEC.words.document)  # whatever number it carries
    by_number = next(rule for rule in EPOCH_RULES if not rule.signs)
    older = replace(SPEC, spec=by_number.since - 1)
    assert SPEC.holds(by_number) and not older.holds(by_number)
    compared = compare(SPEC, older, range(3))
    assert by_number in compared.rules and compared.agree
