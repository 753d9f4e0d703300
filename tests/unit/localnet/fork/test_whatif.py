"""Other weights on a fork: the epoch as it was is the chain's, the other one is what the weights would have done."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from localnet.beginning import load_runtime
from localnet.cli import app
from localnet.errors import ChainError, ConfigError, ForkError
from localnet.fork.start import Options
from localnet.rules.weights import TimelockPayload, timelock_payload
from localnet.subnets import SyncSubnet
from localnet.sync import SyncLocalnet
from localnet.vocabulary import public_key
from localnet.whatif import report
from localnet.whatif.answer import Answer, Question
from localnet.whatif.check import without_root
from localnet.whatif.cli import drawn
from localnet.whatif.rules import RESULTS
from localnet.whatif.run import replay

specification = cache(lambda: load_runtime("fast"))
PALLET = "SubtensorModule"
START = 1_700_000_000_000


@dataclass
class Far:
    """The remote: its newest epoch ran in block `epoch`. `real`: its results; `twin`: those of the same chain with
    `row` set by the validator in the block before. `cache_file`: of forks."""

    cache_file: Path
    net: SyncLocalnet
    subnet: SyncSubnet
    epoch: int
    row: dict[int, int]
    real: dict[str, Any]
    twin: dict[str, Any]

    def ask(self, weights: Mapping[Any, float] | None = None, who: str | None = None, **more: Any) -> Answer:
        given = {str(key): value for key, value in (self.row if weights is None else weights).items()}
        question = Question(self.subnet.netuid, given, who or self.subnet.validators[0].address, **more)
        options = Options(self.cache_file, rate=1e6)
        return replay(self.net.url, question, options, specification, lambda text: None)


def left(net: SyncLocalnet, subnet: SyncSubnet) -> dict[str, Any]:
    """What the epoch left: results, and the rows of the first validator."""
    present = [name for name in RESULTS if (PALLET, name) in net.net.client.document.storage]
    rows = {item: net.query(PALLET, item, subnet.netuid, subnet.validators[0].uid) for item in ("Weights", "Bonds")}
    return {name: net.query(PALLET, name, subnet.netuid) for name in present} | rows


def epoch_of(net: SyncLocalnet, netuid: int) -> int:
    return net._read(lambda: net.net.developer.next_epoch(netuid))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with SyncLocalnet(mining="manual", clock="step", genesis_time=START) as net:
        net.mine(2)
        subnet = net.subnet(miners=4, validators=3, epochs=1, hyperparameters={"min_allowed_weights": 2})
        first, second, third, last = subnet.uids("miner")
        for index in range(3):
            subnet.set_weights(index, {first: 3, second: 2, third: 1})
        subnet.epochs(2)
        subnet.set_weights(1, {first: 3, second: 3, third: 1})
        epoch, row = epoch_of(net, subnet.netuid), {last: 5, first: 1}
        net.set_storage(PALLET, "BlockAtRegistration", subnet.netuid, last, value=epoch - 4)  # older weights are void
        net.mine_to(epoch - 2)

        def story(weights: dict[int, int] | None) -> dict[str, Any]:
            if weights is None:
                net.mine()
            else:
                subnet.set_weights(0, weights)
            net.fund("//Zoe", 10**10)  # an extrinsic in the epoch's own block
            assert net.block == epoch
            return left(net, subnet)

        with net.snapshot():
            twin = story(row)
        real = story(None)
        net.mine(3)
        yield Far(tmp_path_factory.mktemp("fork") / "cache", net, subnet, epoch, row, real, twin)


def seen(epoch: Any) -> dict[str, Any]:
    return {**epoch.results, "Weights": epoch.weights, "Bonds": epoch.bonds}


def test_both_epochs_are_the_chains_own_to_the_last_unit(far: Far) -> None:
    answer = far.ask(explain=far.subnet.uids("miner")[3])
    assert (answer.before[0].block, answer.check.undone) == (far.epoch, None)
    assert answer.check.faithful and answer.check.extrinsics >= 3 and answer.check.values > 50
    assert answer.check.results == () and answer.check.rooted == 0
    assert seen(answer.before[0]) == far.real
    assert seen(answer.after[0]) == far.twin != far.real
    assert [answer.explained[when]["as_on_chain"] for when in ("before", "after")] == [True, True]
    assert any("Consensus 0.000000" in line for line in answer.explained["after"]["words"])


def test_the_same_by_hotkey_and_by_uid(far: Far) -> None:
    neurons = far.subnet.neurons
    weights = {neurons[uid].address: weight * 0.013 for uid, weight in far.row.items()}
    assert seen(far.ask(weights, str(far.subnet.validators[0].uid)).after[0]) == far.twin


def test_what_the_chain_has_stays_as_it_is(far: Far) -> None:
    """The row that is there already, set again: nobody's numbers move."""
    answer = far.ask(dict(far.real["Weights"]))
    assert seen(answer.after[0]) == far.real
    assert report.sentences(answer)[-1] == "Nothing changes, for nobody."


def test_reasons(far: Far) -> None:
    answer = far.ask()
    text, uid = "\n".join(report.sentences(answer)), far.subnet.validators[0].uid
    assert "has the" in text and "values that the chain has after it." in text
    assert (
        f"After: the consensus cut 83.33% of its row: uid {far.subnet.uids('miner')[3]} from 0.8333 to 0.0000." in text
    )
    trust = [report.shown("ValidatorTrust", side["ValidatorTrust"][uid]) for side in (far.real, far.twin)]
    assert f"Validator trust: {trust[0]} -> {trust[1]} (" in text and "Its bonds" in text
    columns, rows = report.table(answer)
    changed = {
        vid for name in RESULTS if name in far.real
        for vid, pair in enumerate(zip(far.real[name], far.twin[name], strict=True)) if pair[0] != pair[1]
    }  # fmt: skip
    assert {int(row[0]) for row in rows} == changed and columns[:3] == ["uid", "hotkey", "incentive"]
    document = json.loads(json.dumps(report.as_json(answer)))
    assert document["epochs"][0]["after"]["results"]["Emission"] == far.twin["Emission"]
    assert {one["uid"] for one in document["epochs"][0]["changed"]} == changed


def test_weights_that_set_weights_refuses_are_refused_by_its_name(far: Far) -> None:
    validator, miner = far.subnet.validators[0], far.subnet.miners[3]
    for weights, who, words in (
        ({miner.uid: 1}, validator.address, "WeightVecLengthIsLow: .* wants more uids"),
        ({0: 1, 1: 1}, miner.address, "NeuronNoValidatorPermit: .* name its hotkey"),
        ({0: 1, 99: 1}, validator.address, "no uid 99: the subnet has 8"),
        ({"//Nobody": 1}, validator.address, "//Nobody is no hotkey of the subnet"),
        ({0: 1, validator.uid: 1}, "//Nobody", "//Nobody is no hotkey"),
        ({0: 1, far.subnet.owner.address: 1}, validator.address, "uid 0 has two weights"),
    ):
        with pytest.raises(ConfigError, match=words):
            far.ask(weights, who)


def test_what_has_no_epochs_to_ask_about(far: Far) -> None:
    """Before anything is forked a second time, or mined."""
    said: list[str] = []
    for changed, words in (
        ({"netuid": 0}, "subnet 0 is the root network"),
        ({"netuid": 77}, "there is no subnet 77"),
        ({"mecid": 1}, "there is no mechanism 1: subnet 2 has 1, counted from 0"),
        ({"explain": 99}, "there is no uid 99: the subnet has 8"),
    ):
        question = replace(Question(far.subnet.netuid, {"0": 1}, "1", ahead=True), **changed)  # type: ignore[arg-type]
        with pytest.raises((ConfigError, ChainError), match=words):
            replay(far.net.url, question, Options(far.cache_file, rate=1e6), specification, said.append)
    assert said == []


def test_a_validator_with_too_little_stake(far: Far) -> None:
    net = far.net
    with net.snapshot():
        net.set_storage(PALLET, "StakeThreshold", value=2**60)
        with pytest.raises(
            ConfigError, match=r"from uid 1: Custom error: 1: the hotkey's stake is below StakeThreshold$"
        ):
            far.ask(who=str(far.subnet.validators[0].uid), ahead=True)


def test_why_nothing_of_a_row_counts(far: Far) -> None:
    """The consensus cut all of it; or the validator itself does not count."""
    net, subnet, last = far.net, far.subnet, far.subnet.uids("miner")[3]
    with net.snapshot():
        net.set_storage(PALLET, "MinAllowedWeights", subnet.netuid, value=1)
        answer = far.ask({last: 1}, ahead=True)
        assert (
            report.sentences(answer)[3]
            == f"After: the consensus cut 100.00% of its row: uid {last} from 1.0000 to 0.0000."
        )
    answer = far.ask(ahead=True)
    unheard = replace(answer.after[0], results={**answer.after[0].results, "ValidatorTrust": [0] * 8})
    inactive = replace(unheard, results={**unheard.results, "Active": [0] * 8})
    for epoch, words in ((unheard, "has no permit, or too little stake"), (inactive, "is not active")):
        told = report.sentences(replace(answer, after=[epoch]))
        assert words in next(line for line in told if line.startswith("After:"))


def test_the_table_fits_a_narrow_terminal(far: Far) -> None:
    columns, rows = report.table(far.ask())
    console = Console(width=80, file=io.StringIO())
    console.print(drawn(columns, rows))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "\u2026" not in shown and all(value in shown for row in rows for cell in row for value in cell.split(" -> "))


def test_the_coming_epochs(far: Far) -> None:
    answer = far.ask(ahead=True, epochs=2)
    with far.net.snapshot():
        for number in range(2):
            far.net.mine_epoch(far.subnet.netuid)
            assert answer.before[number].block == far.net.block
            assert seen(answer.before[number]) == left(far.net, far.subnet)
    with far.net.snapshot():
        far.net.mine_to(answer.after[0].block - 2)
        far.subnet.set_weights(0, far.row)
        for number in range(2):
            far.net.mine_epoch(far.subnet.netuid)
            assert seen(answer.after[number]) == left(far.net, far.subnet)
    assert not answer.check.faithful and "forecast" in report.sentences(answer)[1]


def test_a_block_that_is_not_what_the_chain_has_is_told(far: Far) -> None:
    """Somebody wrote into the storage behind the chain's back, in the epoch's own block."""
    net, subnet = far.net, far.subnet
    with net.snapshot():
        net.mine_to(epoch_of(net, subnet.netuid) - 1)
        net.set_storage(PALLET, "Dividends", subnet.netuid, value=[9] * 8)
        answer = far.ask()
        assert answer.before[0].block == net.block and not answer.check.faithful
        assert {one["item"] for one in answer.check.differing} == {"Dividends"} and answer.check.results == (
            "Dividends",
        )
        assert "NOT WHAT THE CHAIN HAS" in report.sentences(answer)[1] and "Dividends" in report.sentences(answer)[1]


def test_another_mechanism(far: Far) -> None:
    net, subnet, index = far.net, far.subnet, far.subnet.netuid + 4096

    def mine_epoch(mecid: int | None) -> list[Any]:
        net.mine_to(epoch_of(net, subnet.netuid) - 2)
        if mecid is None:
            net.mine()
        else:
            subnet.set_weights(0, far.row, mecid=mecid)
        net.mine()
        return [net.query(PALLET, "Incentive", index), net.query(PALLET, "Emission", subnet.netuid)]

    with net.snapshot():
        net.set_storage(PALLET, "AdminFreezeWindow", value=0)
        net.set_storage(PALLET, "MaxAllowedUids", subnet.netuid, value=16)
        net.impersonate("root", "AdminUtils", "sudo_set_mechanism_count", netuid=subnet.netuid, mechanism_count=2)
        for validator in range(3):
            subnet.set_weights(validator, {uid: 1 for uid in subnet.uids("miner")}, mecid=1)
        net.mine_epoch(subnet.netuid)
        with net.snapshot():
            twin = mine_epoch(1)
        assert twin != mine_epoch(None)
        answer = far.ask(mecid=1, explain=far.subnet.uids("miner")[0])
        assert answer.check.faithful
        # What the explanation says is stored is mechanism 0's incentive, which says nothing about that of mechanism 1.
        assert [answer.explained[when]["as_on_chain"] for when in ("before", "after")] == [True, True]
        assert [answer.after[0].results[name] for name in ("Incentive", "Emission")] == twin


def ethereum(root: str, transactions: int) -> dict[str, Any]:
    return {"header": {"state_root": root, "number": 5}, "transactions": transactions}


def test_only_the_states_root_may_differ() -> None:
    """As on a released runtime: its Ethereum pallet stores a block with the root in it, and hashes of that block."""
    follow = [{"pallet": "Ethereum", "item": "BlockHash"}, {"pallet": "System", "item": "Digest"}]
    other = {"pallet": PALLET, "item": "Emission", "before": 1, "after": 2}
    block = {"pallet": "Ethereum", "item": "CurrentBlock", "before": ethereum("0x1", 0), "after": ethereum("0x2", 0)}
    follow = [{**one, "before": "0x1", "after": "0x2"} for one in follow]
    assert without_root([block, *follow]) == [] and without_root([block, *follow, other]) == [other]
    for changed in (ethereum("0x2", 1), None):
        told = [{**block, "after": changed}, *follow]
        assert without_root(told) == told
    assert without_root(follow) == follow


def test_a_node_without_the_old_state_and_a_subnet_without_epochs(tmp_path: Path) -> None:
    with SyncLocalnet(mining="manual", clock="step", genesis_time=START, history=8) as net:
        net.mine(2)
        subnet = net.subnet(miners=2, validators=1, epochs=1)
        net.mine_to(epoch_of(net, subnet.netuid) - 1)
        there = Far(tmp_path / "cache", net, subnet, 0, {3: 1}, {}, {})
        net.set_storage(PALLET, "Tempo", subnet.netuid, value=300)
        net.mine(80)
        with pytest.raises(ForkError, match=r"refuses.*archive node.*--next, the coming epoch"):
            there.ask()
        net.set_storage(PALLET, "LastMechansimStepBlock", subnet.netuid, value=0)
        with pytest.raises(ChainError, match=r"no epoch of subnet .* has run up to block"):
            there.ask()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="py_arkworks_bls12381 is not there for Python 3.10")
def test_commit_reveal_takes_the_weights_as_revealed(tmp_path: Path) -> None:
    """The twin has the other row inside its sealed commit; the fork takes it in place of what the commit opens to."""
    options: dict[str, Any] = {"mining": "manual", "clock": "step", "genesis_time": START, "drand": "local"}
    with SyncLocalnet(**options) as net:
        subnet = net.subnet(miners=3, validators=2, hyperparameters={"commit_reveal_weights_enabled": True})
        validator, (first, second, third) = subnet.validators[0], subnet.uids("miner")
        rows: list[dict[int, int]] = [{first: 65535, second: 30000}, {third: 65535, first: 20000}]

        def story(row: dict[int, int]) -> tuple[int, dict[str, Any]]:
            number = net._read(lambda: net.net.drand_round())
            payload = TimelockPayload(public_key(validator.hotkey), tuple(row), tuple(row.values()), 0)
            sealed = net.seal(timelock_payload(payload), number)
            arguments = {"netuid": subnet.netuid, "reveal_round": number, "commit_reveal_version": 4}
            net.extrinsic(validator.hotkey, PALLET, "commit_timelocked_weights", commit=sealed, **arguments)
            epoch = epoch_of(net, subnet.netuid)
            net.mine_to(epoch - 1)
            assert net.query(PALLET, "Weights", subnet.netuid, validator.uid) == []
            net.mine()
            return epoch, left(net, subnet)

        with net.snapshot():
            twin = story(rows[1])
        epoch, real = story(rows[0])
        assert dict(real["Weights"]) == rows[0]
        answer = Far(tmp_path / "cache", net, subnet, epoch, rows[1], real, twin[1]).ask()
        assert answer.before[0].block == epoch and answer.check.faithful and answer.opened == 1
        assert seen(answer.before[0]) == real and seen(answer.after[0]) == twin[1] != real


def test_the_command(far: Far, tmp_path: Path) -> None:
    file, out = tmp_path / "w.csv", tmp_path / "out.json"
    file.write_text("uid,weight\n" + "".join(f"{uid},{weight}\n" for uid, weight in far.row.items()))
    uid = str(far.subnet.validators[0].uid)
    usual = ["replay", "--fork", far.net.url, "--netuid", str(far.subnet.netuid), "--fork-rate", "1000000"]
    usual += ["--fork-cache", str(far.cache_file), "--weights", str(file)]
    told = CliRunner().invoke(app, [*usual, "--uid", uid, "--json", "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == json.loads(out.read_text())
    assert json.loads(told.stdout)["check"]["faithful"] is True
    shown = CliRunner().invoke(app, [*usual, "--uid", uid, "--explain", uid])
    assert shown.exit_code == 0 and "neurons, before -> after" in shown.stdout and f"uid {uid} after:" in shown.stdout
    for more, words in (
        ([], "whose weights"),
        (["--uid", uid, "--weights", str(tmp_path / "none")], "cannot be read"),
        (["--uid", uid, "--weights", "-"], "standard input is empty"),
        (["--uid", uid, "--out", str(tmp_path / "none" / "out.json")], "there is no folder for"),
    ):
        failed = CliRunner().invoke(app, [*usual, *more])
        assert failed.exit_code == 2 and words in failed.stderr and "forking" not in failed.stderr
