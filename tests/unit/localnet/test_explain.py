"""Explanations come from the epoch itself: their numbers are the chain's, and their words follow from the numbers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from localnet.cli import app
from localnet.client import public_key
from localnet.errors import ChainError, ConfigError, StateDiscarded
from localnet.explain import alpha, sentences
from localnet.net import TAO
from localnet.node import server
from localnet.subnets import SyncSubnet
from localnet.sync import SyncLocalnet
from localnet.timeline_svg import draw, leading, received

MANUAL = pytest.mark.localnet(mining="manual")
WEIGHTS = ({3: 1, 4: 2, 5: 4}, {3: 1, 4: 2, 5: 0.5})  # uids of the three miners, by the first and second validator


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {"mining": "manual"}


@pytest.fixture(scope="module")
def ready(localnet_chains: Any, options: dict[str, Any]) -> Any:
    """A subnet whose validators disagree about uid 5, two epochs after they set weights; undone after the module."""
    net: SyncLocalnet = localnet_chains.get(options)
    with net.snapshot():
        subnet = net.subnet(miners=3, validators=2, stake=[120 * TAO, 100 * TAO])
        for place, weights in enumerate(WEIGHTS):
            subnet.set_weights(place, weights)
        subnet.epochs(2)
        yield subnet


def words(report: dict[str, Any]) -> str:
    return "\n".join(report["words"])


@MANUAL
def test_every_number_is_what_the_chain_holds(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    metagraph, block = ready.metagraph(), shared_localnet.block
    state = dict(shared_localnet.net.chain.state.head)
    for uid in ready.uids():
        report = ready.explain(uid)
        mechanism = report["mechanisms"][0]
        assert report["as_on_chain"] and (report["block"], report["preview"]) == (block, False)
        for name, item in (("consensus", "consensus"), ("incentive", "incentives"), ("dividends", "dividends")):
            assert mechanism["u16"][name] == report["stored"][name] == metagraph[item][uid]
            assert int(mechanism[name] * 65535) == metagraph[item][uid]
        assert report["stored"]["emission"] == metagraph["emission"][uid]
        assert mechanism["activity"]["last_update"] == metagraph["last_update"][uid]
        assert report["stored"]["permit"] == metagraph["validator_permit"][uid]
    assert (shared_localnet.net.chain.state.head, shared_localnet.block) == (state, block)


@MANUAL
def test_an_incentive_is_stake_times_clipped_weight(ready: SyncSubnet) -> None:
    reports = [ready.explain(uid)["mechanisms"][0] for uid in ready.uids()]
    rank = [
        sum(one["stake"] * one["clipped"] for one in report["received"] if not one["unheard"]) for report in reports
    ]
    assert [r["incentive"] for r in reports] == pytest.approx([value / sum(rank) for value in rank], abs=1e-8)
    first, second = reports[5]["received"]
    assert (first["from"], second["from"]) == (1, 2)
    assert (first["normalised"], second["normalised"]) == pytest.approx((4 / 7, 1 / 7), abs=1e-4)
    assert first["stake"] > 0.5 > second["stake"] and reports[5]["consensus"] == pytest.approx(4 / 7, abs=1e-4)
    over = reports[3]["received"][1]
    assert over["normalised"] > 0.28 and over["clipped"] == pytest.approx(1 / 7, abs=1e-4)
    assert ready.explain(1)["hyperparameters"]["yuma3"] and "times its stake (Yuma 3)" in words(ready.explain(1))
    claims = [r["stake"]["heard"] * sum(bond["share"] * bond["incentive"] for bond in r["bonds"]) for r in reports]
    assert [r["dividends"] for r in reports] == pytest.approx([c / sum(claims) for c in claims], abs=1e-3)


@MANUAL
def test_what_was_paid_is_what_the_stakes_grew_by(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    """Also with a parent and with stake on root, whose part of the dividends the epoch's own terms do not show."""
    net, n, keys = shared_localnet, ready.netuid, [public_key(one.hotkey) for one in ready.neurons]

    def held(item: str, *key: Any, block: int | None = None) -> Any:
        return net.query("SubtensorModule", item, *key, block=block)

    net.set_storage("SubtensorModule", "TotalHotkeyAlpha", keys[2], 0, value=300 * TAO)
    net.set_storage("SubtensorModule", "Uids", 0, keys[2], value=0)  # a seat on root
    net.set_storage("SubtensorModule", "ParentKeys", keys[1], n, value=[((1 << 64) // 2, keys[2])])
    net.set_storage("SubtensorModule", "PendingRootAlphaDivs", n, value=TAO)
    block = ready.epochs()
    reports = [ready.explain(uid) for uid in ready.uids()]
    for uid in (1, 2, 3, 4, 5):
        paid, text, key = reports[uid]["paid"], words(reports[uid]), keys[uid]
        grown = held("TotalHotkeyAlpha", key, n) - held("TotalHotkeyAlpha", key, n, block=block - 1)
        assert grown > 0 and f"grew by {alpha(grown)};" in text
        if uid > 2:
            assert reports[uid]["mechanisms"][0]["server_alpha"] == grown and f"{alpha(grown)} for incentive" in text
            continue
        shared, waits = held("AlphaDividendsPerSubnet", n, key), held("RootAlphaDividendsPerSubnet", n, key)
        assert (paid["to_alpha_stakers"], paid["to_root_stakers"]) == (shared, waits)
        deposited = waits - held("PendingBasketDeposits", key, n)  # by the same block, after the epoch
        assert grown - shared - deposited == pytest.approx(paid["alpha_take"] + paid["root_take"], abs=2)
        assert paid["alpha_take"] > 0 and paid["take"] == 11796 / 65535
        assert paid["alpha_dividend"] == pytest.approx(shared / (1 - paid["take"]), abs=2)
        assert (
            f"Dividends: {alpha(paid['alpha_dividend'])}; after a take of 18.00 % ({alpha(paid['alpha_take'])})" in text
        )
        assert f"its owner's too, shares {alpha(shared)}." in text
        rooted = f"For its stake on root: {alpha(paid['root_dividend'])}; after a take of {alpha(paid['root_take'])}, "
        assert (f"{rooted}{alpha(waits)} are for the basket" in text) == (uid == 2)
        share = reports[uid]["mechanisms"][0]["dividend_share"]
        assert f"its share of the validators' part is {100 * share:.2f} %" in text
    assert sum(report["paid"]["root_dividend"] for report in reports) == pytest.approx(
        held("PendingRootAlphaDivs", n, block=block - 1), rel=0.01
    )
    assert sum(report["mechanisms"][0]["dividend_share"] for report in reports) == pytest.approx(1)


@MANUAL
def test_words_say_why(ready: SyncSubnet) -> None:
    miner, validator = words(ready.explain(4)), words(ready.explain(2))
    assert (
        "clipped to 0.285" in miner and "Consensus 0.285" in miner and "held none, so its weights do not count" in miner
    )
    assert "Incentive: 0, because nobody has set a weight on it." in validator and "consensus clipped 42.8" in validator
    assert "Bond on uid 4" in validator and "after a take of" in validator
    assert "Permit: always, as the subnet owner's hotkey" in words(ready.explain(0))
    report = ready.explain(2)
    many = {**report["mechanisms"][0], "bonds": report["mechanisms"][0]["bonds"] * 4}
    assert len(many["bonds"]) == 12 and "  and on 4 more." in sentences({**report, "mechanisms": [many]})


@MANUAL
def test_weights_that_do_not_count_are_named(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    net, n = shared_localnet, ready.netuid
    row = [(4, 65535), (2, 65535)]
    net.set_storage("SubtensorModule", "Weights", n, 2, value=row)  # a self-weight among them
    net.set_storage("SubtensorModule", "Weights", n, 3, value=row)  # by a miner
    permits = [uid < 3 for uid in ready.uids()]
    net.set_storage("SubtensorModule", "ValidatorPermit", n, value=permits)
    net.set_storage("SubtensorModule", "BlockAtRegistration", n, 4, value=net.block)
    ready.epochs()
    unheard = {one["from"]: one["unheard"] for one in ready.explain(4)["mechanisms"][0]["received"]}
    assert unheard == {1: "set before registration", 2: "set before registration", 3: "no permit"}
    assert ready.explain(2)["mechanisms"][0]["received"][0]["unheard"] == "self-weight"
    assert "uid 3 (no permit)" in words(ready.explain(4)) and "(self-weight)" in words(ready.explain(2))
    net.set_storage("SubtensorModule", "LastUpdate", n, value=[net.block, 5, net.block, *[0] * 3])
    net.set_storage("SubtensorModule", "ActivityCutoffFactorMilli", n, value=1)
    ready.epochs()
    report = ready.explain(3)["mechanisms"][0]["received"]
    assert [one["unheard"] for one in report] == ["inactive"] and not ready.explain(3)["mechanisms"][0]["incentive"]
    assert "inactive, so its stake does not count" in words(ready.explain(1))
    share = ready.explain(1)["mechanisms"][0]["stake"]["share"]
    assert share == pytest.approx(net.query("SubtensorModule", "StakeWeight", n)[1] / 65535, abs=2e-5) and share > 0.5
    assert f": {100 * share:.2f} % of the subnet's, 0.00 % of what is heard." in words(ready.explain(1))
    assert "divided by stake" in words(ready.explain(1))


@MANUAL
def test_the_owners_incentive_is_burned_and_says_so(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    ready.set_weights(0, {0: 1})
    ready.epochs()
    report = ready.explain(0)
    withheld = report["mechanisms"][0]["server_alpha"]
    assert withheld > 0 and report["paid"]["is_owners"] and report["paid"]["miner_burned"] == 1
    assert f"its incentive of {withheld / TAO:,.6f} alpha is burned" in words(report)
    shared_localnet.set_storage("SubtensorModule", "StakeThreshold", value=10**15)
    ready.epochs()
    assert "below the threshold of 1,000,000.000: it counts as nothing" in words(ready.explain(1))


@MANUAL
def test_a_preview_is_the_next_epoch_before_it_comes(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    ready.set_weights(0, {3: 1})
    state = dict(net.net.chain.state.head)
    told = ready.explain(3, preview=True)
    assert told["preview"] and told["block"] == net.block + 1 and told["as_on_chain"] is None
    assert net.net.chain.state.head == state
    assert told["mechanisms"][0]["consensus"] > ready.explain(3)["mechanisms"][0]["consensus"]
    net.set_storage("SubtensorModule", "PendingEpochAt", ready.netuid, value=net.block + 2)
    told = ready.explain(3, preview=True)
    assert ready.epochs() == told["block"]
    assert {**ready.explain(3), "preview": 0, "as_on_chain": 0, "words": 0} == {
        **told, "preview": 0, "as_on_chain": 0, "words": 0
    }  # fmt: skip


@MANUAL
def test_an_epoch_that_was_written_over_is_told_apart(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    net.mine_to(ready.explain(1)["block"] + 9)
    key, raw = net.net.client.storage_write("SubtensorModule", "Dividends", (ready.netuid,), [1] * 6)
    net.impersonate("root", "System", "set_storage", items=[(key, raw)])
    report = ready.explain(1)
    assert report["block"] == net.block and report["as_on_chain"] is False and "written over since" in words(report)
    ready.epochs()
    assert ready.explain(2)["as_on_chain"]
    net.set_storage("SubtensorModule", "Dividends", ready.netuid, value=[1] * 6)  # in a later block than the epoch's
    assert ready.explain(2)["as_on_chain"] is False and ready.explain(2, block=net.block - 1)["as_on_chain"]


@MANUAL
def test_what_has_no_terms_says_why(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    net.fund("//New", 100 * TAO)
    net.extrinsic("//New", "SubtensorModule", "burned_register", netuid=ready.netuid, hotkey="//New//hot")
    assert net.query("SubtensorModule", "Uids", ready.netuid, "//New//hot") == 6
    with pytest.raises(ChainError, match="uid 6 came after the newest epoch"):
        ready.explain(6)
    without = "after the epoch it has none, for want of stake (rank 7 by stake, 64 permits)"
    assert without in words(ready.explain(6, preview=True))
    net.set_storage("SubtensorModule", "SubnetEpochConsensus", ready.netuid, value="Null")
    ready.epochs()
    for preview in (False, True):
        with pytest.raises(ChainError, match="has Null consensus"):
            ready.explain(1, preview=preview)


@MANUAL
def test_before_the_first_epoch_and_without_a_neuron(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    young = shared_localnet.subnet(
        miners=1, validators=1, epochs=0, hyperparameters={"commit_reveal_weights_enabled": True}
    )
    report = young.explain(1)
    assert report["preview"] and "would run now, in block" in report["words"][0]
    assert "Commit-reveal is on" in words(report) and "Waiting: none." in words(report)
    for netuid, uid, problem in ((ready.netuid, 6, "none with uid 6"), (77, 0, "there is no subnet 77")):
        with pytest.raises(ChainError, match=problem):
            shared_localnet.explain(netuid, uid)
    with pytest.raises(ConfigError):
        shared_localnet.explain(70_000, 0)
    assert ready.explain(3, block=ready.timeline()["epochs"][0]["block"])["mechanisms"][0]["received"] == []


@MANUAL
def test_each_mechanism_has_its_own_numbers(shared_localnet: SyncLocalnet) -> None:
    settings = {"max_allowed_uids": 128, "mechanism_count": 2, "mechanism_emission_split": [49151, 16384]}
    subnet = shared_localnet.subnet(miners=2, validators=1, hyperparameters=settings)
    subnet.set_weights(0, {2: 1})
    subnet.set_weights(0, {3: 1}, mecid=1)
    subnet.epochs(2)
    first, second = subnet.explain(3)["mechanisms"]
    assert (first["incentive"], second["incentive"]) == (0, pytest.approx(1, abs=1e-6))
    assert first["alpha"] == pytest.approx(3 * second["alpha"], rel=1e-3) and second["server_alpha"] > 0
    assert "Mechanism 1, which divides" in words(subnet.explain(3)) and subnet.explain(3)["as_on_chain"]


@pytest.mark.localnet(mining="manual", history=64)
def test_an_epoch_older_than_the_history_is_refused_by_name(sync_localnet: SyncLocalnet) -> None:
    subnet = sync_localnet.subnet(miners=1, validators=1)
    sync_localnet.set_storage("SubtensorModule", "Tempo", subnet.netuid, value=5000)
    sync_localnet.mine(200)
    with pytest.raises(StateDiscarded):
        subnet.explain(1)
    assert subnet.explain(1, preview=True)["preview"]
    assert subnet.timeline()["epochs"] == []


# -- time-line ------------------------------------------------------------------------------------------------------


@MANUAL
def test_a_timeline_reads_what_every_epoch_left(ready: SyncSubnet, shared_localnet: SyncLocalnet) -> None:
    line = json.loads(json.dumps(ready.timeline()))
    blocks = [epoch["block"] for epoch in line["epochs"]]
    assert len(blocks) == 3 and blocks == sorted(blocks) and line["epochs"][0]["weights"] == {}
    last, metagraph = line["epochs"][-1], ready.metagraph()
    assert [round(65535 * share) for share in last["incentive"]] == metagraph["incentives"]
    assert [round(65535 * share) for share in last["dividends"]] == metagraph["dividends"]
    assert last["weights"]["1"] == pytest.approx({"3": 1 / 7, "4": 2 / 7, "5": 4 / 7}, abs=1e-4)
    assert last["price"] == shared_localnet.call("SwapRuntimeApi", "current_alpha_price", ready.netuid) / TAO
    assert line["hotkeys"][3] == ready.miners[0].address and last["hotkeys"] == line["hotkeys"]
    shared_localnet.set_storage("SubtensorModule", "Keys", ready.netuid, 3, value=public_key("//Heir"))
    line = ready.timeline()  # who has the uid now did not earn what it earned then
    assert line["epochs"][-1]["hotkeys"] == last["hotkeys"] != line["hotkeys"]
    assert ready.timeline(1)["epochs"] == line["epochs"][-1:]
    with pytest.raises(ChainError, match="no subnet 77"):
        shared_localnet.timeline(77)


@MANUAL
def test_the_picture_is_one_self_contained_svg(ready: SyncSubnet) -> None:
    line = ready.timeline()
    root = ElementTree.fromstring(draw(line))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    for text in ("Consensus", "Incentive", "Dividends", "uid 5", str(line["epochs"][-1]["block"])):
        assert text in texts
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert {len((line.get("points") or "").split()) for line in lines} == {3} and len(lines) == 3 + 3 + 2 + 2
    assert not any(name.endswith("href") for element in root.iter() for name in element.attrib)
    assert leading(line["epochs"]) == [1, 2, 3, 4, 5]
    assert sum(received(line["epochs"][-1])) == pytest.approx(1) and received(line["epochs"][0]) == [0.0] * 6
    assert "No epoch" in draw({"netuid": 9, "epochs": []})


# -- the commands ---------------------------------------------------------------------------------------------------


@MANUAL
def test_the_commands_ask_a_running_chain(
    ready: SyncSubnet,
    shared_localnet: SyncLocalnet,
    sync_localnet: SyncLocalnet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*arguments: str, code: int = 0, net: SyncLocalnet = shared_localnet) -> str:
        done = CliRunner().invoke(app, [*arguments, "--url", net.url])
        assert done.exit_code == code, done.output
        return done.output

    netuid = str(ready.netuid)
    assert run("explain", netuid, "4").splitlines() == ready.explain(4)["words"]
    assert json.loads(run("explain", netuid, "4", "--json"))["hotkey"] == ready.miners[1].address
    assert run("explain", netuid, "99", code=1) == f"error: subnet {netuid} has 6 neurons and none with uid 99\n"
    assert run("explain", "99", "0", code=1) == run("timeline", "99", code=1) == "error: there is no subnet 99\n"
    assert json.loads(run("timeline", netuid, "--epochs", "2")) == json.loads(json.dumps(ready.timeline(2)))
    picture, state = tmp_path / "line.svg", tmp_path / "state.json"
    assert "3 epochs written" in run("timeline", netuid, "--out", str(picture))
    assert picture.read_text() == draw(ready.timeline())
    assert "as .svg or .json" in run("timeline", netuid, "--out", "line.gif", code=1)
    run("export", str(state))
    assert f"goes on from block {shared_localnet.block}," in run("import", str(state), net=sync_localnet)
    assert sync_localnet.query("SubtensorModule", "Weights", ready.netuid, 1) != []
    assert run("fund", "//Zoe", "1.5", net=sync_localnet) == "//Zoe has 1.5 TAO\n"
    assert sync_localnet.balance("//Zoe") == 1_500_000_000
    for account, amount, problem in (
        ("//Zoe", "much", "no amount"),
        ("//Zoe", "1e-10", "nine decimals"),
        ("//Zoe", "inf", "nine decimals"),
        ("Zoe", "1", "'Zoe' is no account"),
    ):
        assert problem in run("fund", account, amount, net=sync_localnet, code=1)
    monkeypatch.setattr(server, "MAX_FRAME", 1000)  # what is larger is an exported state ..
    monkeypatch.setattr(server, "MAX_STATE", 2000)  # .. and this is too large for one
    assert "refuses the request: 413" in run("fund", "//" + "x" * server.SMALL_BODY, "1", code=1)
    gone = CliRunner().invoke(app, ["explain", "1", "0", "--url", "ws://127.0.0.1:9"])
    assert gone.exit_code == 1 and "Start a chain" in gone.output
