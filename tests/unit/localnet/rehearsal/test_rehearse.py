"""The rehearsal of an upgrade, on a runtime whose code can be replaced; and what source code uses of a chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from localnet.calls import PALLET
from localnet.cli import app
from localnet.codec.compare import NEW_DEFAULT
from localnet.codec.document import Document, twox128
from localnet.errors import ConfigError
from localnet.rehearsal.rehearse import Rehearsal, rehearse
from localnet.rehearsal.report import rehearsal_json, rehearsal_text
from localnet.rehearsal.scenario import SCENARIO
from localnet.rehearsal.uses import scan
from localnet.runtime.runtime import SpecRuntime
from tests.unit.localnet.rehearsal.two_runtimes import NEW_CODE, Upgradable, chain, pallet_of

STEPS = tuple(
    step for step in SCENARIO if step.name in ("fund accounts", "found a subnet", "register neurons", "serve")
)
SOURCE = """
from somewhere.storage import SubtensorModule as st
from somewhere import calls

def work(chain, view):
    calls.SubtensorModule.serve_prometheus(1)
    view.query(st.Axons, [1])
    chain.query("Tempo", 1)
    chain.query("Rho", 1)
    chain.query("Account", pallet="System")
    return ("AdminUtils", "sudo_set_tempo"), calls.Nothing.at_all, "Kappa"
"""


async def rehearsed(runtime: Upgradable, tmp_path: Path, code: bytes = NEW_CODE) -> Rehearsal:
    source = tmp_path / "uses.py"
    source.write_text(SOURCE)
    async with chain(runtime) as net:
        return await rehearse(net, code, ("old", "new"), {"our code": [source]}, steps=STEPS)


async def test_an_upgrade_that_changes_nothing_breaks_nothing(tmp_path: Path) -> None:
    report = await rehearsed(Upgradable(lambda tree: None, lambda rt: None), tmp_path)
    assert report.broken == [] and report.failed is None and report.steps == []
    assert report.specs[1] == report.specs[0] + 1 and report.blocks >= 2
    assert report.after is not None and not report.after.undecodable
    assert rehearsal_text(report)[-1] == "nothing broke"


def rewrite(tree: dict[str, Any]) -> None:
    """A call is gone, a storage item is gone, another one holds something else."""
    pallet = pallet_of(tree, PALLET)
    calls = tree["types"][pallet["calls"]]["def"]
    calls["variant"] = [one for one in calls["variant"] if one["name"] != "serve_prometheus"]
    entries = pallet["storage"]["entries"]
    flag = next(one["value"] for one in entries if one["name"] == "NetworksAdded")
    for entry in entries:
        if entry["name"] == "Tempo":
            entry["value"], entry["default"] = flag, b"\0"
        if entry["name"] == "Rho":
            entry["default"] = b"\7\0"  # breaks nobody
    pallet["storage"]["entries"] = [one for one in entries if one["name"] != "Kappa"]


def migrate(runtime: SpecRuntime) -> None:
    """The pallet's storage version, an item that comes and one that goes, and a chain that is stricter from then on."""
    runtime.state.put(twox128(PALLET.encode()) + twox128(b":__STORAGE_VERSION__:"), (9).to_bytes(2, "little"))
    runtime.subtensor.HasMigrationRun[b"rehearsed"] = True
    runtime.subtensor.TxRateLimit.kill()
    before = runtime.calls[PALLET, "serve_axon"]

    def refuse(origin: Any, **arguments: Any) -> None:
        raise runtime.subtensor.error("InvalidIpAddress")

    refuse.call_info = before.call_info  # type: ignore[attr-defined]
    runtime.calls[PALLET, "serve_axon"] = refuse


async def test_everything_that_an_upgrade_breaks_is_told(tmp_path: Path) -> None:
    runtime = Upgradable(rewrite, migrate)
    handler = runtime._rules.calls[PALLET, "serve_axon"]
    source = tmp_path / "uses.py"
    source.write_text(SOURCE)
    async with chain(runtime) as net:
        net.chain.reverted.append(lambda block, diff: runtime._rules.calls.update({(PALLET, "serve_axon"): handler}))
        report = await rehearse(net, NEW_CODE, ("old", "new"), {"our code": [source]}, steps=STEPS)
    assert report.versions == {PALLET: (None, 9)}
    assert f"{PALLET}.HasMigrationRun" in report.moved(come=True)
    assert f"{PALLET}.TxRateLimit" in report.moved(come=False)
    assert report.after is not None and f"{PALLET}.Tempo" in report.after.undecodable
    assert report.after.unknown[PALLET] > 0  # what Kappa held
    said = "\n".join(report.broken)
    assert f"values of {PALLET}.Tempo cannot be decoded" in said
    assert "serve: serve_axon gave SubtensorModule.AxonServed, now InvalidIpAddress" in said
    assert "serve: the step gave played, now no call: serve_prometheus" in said
    assert f"our code uses what changed: removed call {PALLET}.serve_prometheus" in said
    assert f"our code uses what changed: changed storage {PALLET}.Tempo" in said
    assert "Rho" not in said and any(one.detail == NEW_DEFAULT for one in report.used["our code"])
    assert "Kappa" not in said  # a text alone is no use of an item
    text = rehearsal_text(report)
    assert "BROKEN:" in text and f"  {PALLET}: None -> 9" in text
    json.dumps(rehearsal_json(report))


async def test_an_upgrade_that_does_not_happen_is_told(tmp_path: Path) -> None:
    runtime = Upgradable(lambda tree: None, lambda rt: None)

    def refused(origin: Any, code: bytes) -> None:
        raise runtime._rules.system.error("InvalidSpecName")

    refused.call_info = runtime._rules.calls["System", "set_code"].call_info  # type: ignore[attr-defined]
    runtime._rules.calls["System", "set_code"] = refused
    report = await rehearsed(runtime, tmp_path)
    assert report.failed == "InvalidSpecName" and report.broken == ["the upgrade failed: InvalidSpecName"]
    assert report.after is None and rehearsal_json(report)["broken"]
    text = rehearsal_text(report)
    assert text[0] == f"old (spec {report.specs[0]}) -> new" and text[-1] == "1 thing broke"
    assert not any(line.startswith("metadata: ") for line in text)  # nobody has seen the new one's


async def test_sources_that_are_not_there_are_told_before_anything_is_played(tmp_path: Path) -> None:
    async with chain(Upgradable(lambda tree: None)) as net:
        with pytest.raises(ConfigError, match="does not exist"):
            await rehearse(net, NEW_CODE, ("old", "new"), {"our code": [tmp_path / "none.py"]}, steps=STEPS)
        assert net.block == 0


async def test_what_a_pallet_leaves_behind_that_is_gone_is_told_by_its_name(tmp_path: Path) -> None:
    def gone(tree: dict[str, Any]) -> None:
        tree["pallets"].remove(pallet_of(tree, "Commitments"))

    def migrated(runtime: SpecRuntime) -> None:
        runtime.state.put(twox128(b"Commitments") + twox128(b"MaxSpace"), b"\0\0\0\0")

    report = await rehearsed(Upgradable(gone, migrated), tmp_path)
    assert report.after is not None and set(report.after.unknown) >= {"Commitments"}
    assert not any(
        name.startswith("0x") and name == "0x" + twox128(b"Commitments").hex() for name in report.after.unknown
    )


def test_uses_are_found_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text(SOURCE)
    assert scan([tmp_path], [Document.load()]) == {
        ("call", f"{PALLET}.serve_prometheus"), ("storage", f"{PALLET}.Axons"), ("storage", f"{PALLET}.Tempo"),
        ("storage", f"{PALLET}.Rho"), ("storage", "System.Account"), ("call", "AdminUtils.sudo_set_tempo"),
    }  # fmt: skip
    (tmp_path / "broken.py").write_text("def (")
    with pytest.raises(ConfigError, match="cannot be read as Python"):
        scan([tmp_path], [Document.load()])
    with pytest.raises(ConfigError, match="does not exist"):
        scan([tmp_path / "nowhere"], [Document.load()])


def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["differential", "spec", "--with", "spec", "--seeds", "3", "--no-scenario", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["epochs"]["agree"] and told["epochs"]["states"] == 3
    idle = run(app, ["differential", "spec", "--seeds", "0", "--no-scenario"])
    assert idle.exit_code == 2 and "nothing to compare" in idle.output
    words = run(app, ["differential", "spec", "--seeds", "2", "--no-scenario"])
    assert "epochs: 2 subnets" in words.stdout and "all agree" in words.stdout
    assert run(app, ["rehearse", "--from", "spec", "--to", "spec"]).exit_code == 2
    nothing = run(app, ["rehearse", "--from", str(tmp_path / "none.wasm"), "--to", str(tmp_path / "none.wasm")])
    assert nothing.exit_code == 2 and "error: " in nothing.output
