"""`touchstone gateway-keys`: a key is shown once, listed without its secret, and closed for ever."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from neurons.cli import app
from template.gateway.keys import KeyStore
from template.settings import GatewaySettings

runner = CliRunner()


def run(home: Path, *arguments: str) -> Any:
    result = runner.invoke(app, ["gateway-keys", *arguments, "--data-dir", str(home), "--wallet", "vali", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_create_list_revoke(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "alice", "--requests-per-minute", "7", "--tokens-per-day", "900")
    path = GatewaySettings(netuid=3, wallet="vali", data_dir=tmp_path).keys_path
    found = KeyStore(path).find(made["key"])
    assert found is not None and found.id == made["id"], "the gateway looks into the same file"
    assert (found.quota.requests_per_minute, found.quota.tokens_per_day) == (7, 900)

    (listed,) = run(tmp_path, "list")["keys"]
    assert listed["label"] == "alice" and listed["revoked_at"] is None and listed["tokens_today"] == 0
    assert made["key"] not in json.dumps(listed)
    table = runner.invoke(app, ["gateway-keys", "list", "--data-dir", str(tmp_path), "--wallet", "vali"]).output
    assert "alice" in table and made["key"] not in table

    assert run(tmp_path, "revoke", made["id"])["revoked"] is True
    assert KeyStore(path).find(made["key"]) is None
    assert run(tmp_path, "list")["keys"][0]["revoked_at"] is not None


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path)]
    missing = runner.invoke(app, ["gateway-keys", "list", *options])
    assert missing.exit_code == 1 and "gateway-keys create" in missing.output
    assert runner.invoke(app, ["gateway-keys", "create", "a", *options]).exit_code == 0
    unknown = runner.invoke(app, ["gateway-keys", "revoke", "nobody", *options])
    assert unknown.exit_code == 1 and "no key has the id" in unknown.output
