import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from template.settings import GatewaySettings, MinerSettings, ValidatorSettings

runner = CliRunner()
COMMANDS = (
    "localnet",
    "miner",
    "validator",
    "gateway",
    "gateway-keys",
    "register",
    "wallets",
    "status",
    "doctor",
    "model",
    "artifact",
    "audit",
    "challenge-bench",
    "dataset",
    "dispute",
    "evidence",
    "verify",
    "up",
)


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "bittensor", "substrateinterface", "aiohttp", "boto3")
    program = f"import sys, neurons.cli; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "up"])
def test_every_command_has_help(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("command", "model"),
    [("miner", MinerSettings), ("validator", ValidatorSettings), ("gateway", GatewaySettings)],
)
def test_help_shows_every_setting(command: str, model: type) -> None:
    shown = runner.invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert [name for name in model.model_fields if "--" + name.replace("_", "-") not in shown] == []  # type: ignore[attr-defined]


def test_a_missing_setting_is_one_line() -> None:
    result = runner.invoke(app, ["miner"])
    assert result.exit_code == 1 and "netuid is not set" in result.output


def test_a_wallet_is_created_and_listed_without_its_secrets(tmp_path: Path) -> None:
    options = ["wallets", "--wallet-path", str(tmp_path), "--json"]
    created = runner.invoke(app, [*options, "--create", "mine/first", "--no-password"])
    assert created.exit_code == 0, created.output
    (wallet,) = json.loads(runner.invoke(app, options).output)["wallets"]
    assert wallet["name"] == "mine" and list(wallet["hotkeys"]) == ["first"] and wallet["coldkey_private"]
    secrets = json.loads((tmp_path / "mine" / "hotkeys" / "first").read_text())
    assert wallet["hotkeys"]["first"] == secrets["ss58Address"]
    assert secrets["privateKey"] not in created.output


def test_a_chain_that_is_not_there_is_one_line(unused_tcp_port: int) -> None:
    result = runner.invoke(app, ["status", "--netuid", "1", "--network", f"ws://127.0.0.1:{unused_tcp_port}"])
    assert result.exit_code == 1 and "touchstone localnet" in result.output


def test_the_doctor_reports_failures_with_remedies(tmp_path: Path, unused_tcp_port: int) -> None:
    url = f"ws://127.0.0.1:{unused_tcp_port}"
    result = runner.invoke(app, ["doctor", "--network", url, "--wallet-path", str(tmp_path), "--json"])
    findings = {finding["what"]: finding for finding in json.loads(result.output)["findings"]}
    assert result.exit_code == 1
    for what in ("hotkey", "chain"):
        assert findings[what]["level"] == "fail" and findings[what]["remedy"]
    assert findings["python"]["level"] == "ok" and "model" in findings
    for role in ("train-miner", "train-validator"):
        asked = ["doctor", "--network", url, "--wallet-path", str(tmp_path), "--role", role, "--json"]
        found = {one["what"]: one for one in json.loads(runner.invoke(app, asked).output)["findings"]}
        assert found["memory"]["found"].endswith("0.7 needed") and "model" not in found
