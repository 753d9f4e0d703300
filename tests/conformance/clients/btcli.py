"""btcli, run as a user runs it: one process per command, `--json`, a home directory of its own.

The processes are forked from one that has imported the program (`btcli_server`), which saves the second or more that
importing takes. Wallet files are written in the format the program reads, from the URIs the other clients sign with.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import bittensor as bt

from tests.conformance.clients.base import TAO, U16_MAX, Actor, NeuronRow, Outcome, normalised


def _option(name: str) -> str:
    return "--" + name.removesuffix("_ss58").replace("_", "-")


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


REPOSITORY = Path(__file__).parents[3]


class Btcli:
    name = "btcli"

    def __init__(self, endpoint: str, home: Path) -> None:
        self._home = home
        self._wallets = home / ".bittensor" / "wallets"
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("BT_")},
            "HOME": str(home), "BT_NETWORK": endpoint, "BT_FALLBACK_ENDPOINTS": "none", "COLUMNS": "200",
            "NO_COLOR": "1",
        }  # fmt: skip
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.clients.btcli_server"],
            env=self._env, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        self._server.communicate(timeout=15)

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, *arguments: str) -> tuple[int, Any, str]:
        """(exit status, what was printed as JSON, standard error)."""
        output, errors = self._home / "output", self._home / "errors"
        request = {"arguments": [*arguments, "--json"], "output": str(output), "errors": str(errors)}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        text = output.read_text().strip()
        try:
            return status, json.loads(text) if text else None, errors.read_text()
        except json.JSONDecodeError as error:
            raise AssertionError(f"btcli {arguments[0]} did not print JSON: {text[:500]!r}") from error

    def wallet(self, actor: Actor) -> list[str]:
        """Options that select the actor's wallet, which is written to this home."""
        cold, hot = (uri.strip("/").replace("/", "-") for uri in (actor.cold_uri, actor.hot_uri))
        wallet = bt.Wallet(cold, hot, str(self._wallets))
        if not wallet.coldkey_file.exists_on_device():
            public = bt.sp_core.Keypair(ss58_address=actor.cold, public_key=bytes(actor.coldkey.public_key))
            wallet.coldkey_file.set_keypair(actor.coldkey, encrypt=False)
            wallet.coldkeypub_file.set_keypair(public, encrypt=False)
        if not wallet.hotkey_file.exists_on_device():
            wallet.hotkey_file.set_keypair(actor.hotkey, encrypt=False)
        return ["--wallet", cold, "--wallet-hotkey", hot, "--wallet-path", str(self._wallets)]

    def _submit(self, actor: Actor, *arguments: str) -> Outcome:
        status, payload, errors = self.run(*arguments, *self.wallet(actor), "--yes")
        if isinstance(payload, dict) and "success" in payload:
            error = payload.get("error") or {}
            name = None if payload["success"] else str(error.get("name") or error.get("code"))
            assert (status == 0) == payload["success"], f"exit status {status} for {payload}"
            return Outcome(payload["success"], name, str(payload.get("message")), data=payload.get("data") or {})
        assert status != 0, f"btcli {arguments} exited 0 without a result: {payload!r} {errors}"
        try:
            record = json.loads(errors[errors.index("{") :])
        except ValueError:
            record = {}
        return Outcome(False, str(record.get("name") or record.get("code") or record.get("error")), errors.strip())

    def do(self, op: str, actor: Actor, **args: Any) -> Outcome:
        options: list[str] = []
        for name, value in args.items():
            if isinstance(value, bool):
                options.append(_option(name) if value else "--no-" + name.replace("_", "-"))
            else:
                options += [_option(name), _value(value)]
        return self._submit(actor, "tx", op.replace("_", "-"), *options)

    def call(
        self, pallet: str, function: str, args: dict[str, Any], actor: Actor, *, hot: bool = False, sudo: bool = False
    ) -> Outcome:
        extra = ["--sudo"] * sudo + ["--key", "hotkey"] * hot
        return self._submit(actor, "call", f"{pallet}.{function}", "--args", json.dumps(args), *extra)

    def query(self, name: str, **params: Any) -> Any:
        options = [text for key, value in params.items() for text in (_option(key), _value(value))]
        status, payload, errors = self.run("query", name, *options)
        assert status == 0, f"btcli query {name}: {errors}"
        return payload

    # -- reads ------------------------------------------------------------------------------------------------------

    def block(self) -> int:
        return int(self.query("timestamp")["block"])

    def balance(self, address: str) -> int:
        return _rao(self.query("balance", coldkey_ss58=address))

    def storage(self, pallet: str, item: str, *keys: Any) -> Any:
        raise NotImplementedError("btcli has no generic storage query")

    def uid(self, netuid: int, hotkey: str) -> int | None:
        value = _scalar(self.query("uid", hotkey_ss58=hotkey, netuid=netuid))
        return None if value is None else int(value)

    def stake(self, coldkey: str, hotkey: str, netuid: int) -> int:
        return _rao(self.query("stake", coldkey_ss58=coldkey, hotkey_ss58=hotkey, netuid=netuid))

    def neurons(self, netuid: int) -> list[NeuronRow]:
        status, graph, errors = self.run("subnets", "metagraph", str(netuid))
        assert status == 0, errors
        return [
            NeuronRow(
                uid,
                hotkey,
                graph["validator_permit"][uid],
                graph["incentives"][uid] / U16_MAX,
                graph["dividends"][uid] / U16_MAX,
                graph["emission"][uid],
                graph["alpha_stake"][uid],
                _endpoint(graph["axons"][uid]),
            )
            for uid, hotkey in enumerate(graph["hotkeys"])
        ]

    def weights(self, netuid: int) -> dict[int, dict[int, float]]:
        rows = self.query("weights", netuid=netuid, mechid=0)
        return {int(uid): normalised({int(d): float(v) for d, v in dict(row).items()}) for uid, row in rows.items()}

    def identity(self, coldkey: str) -> str | None:
        value = self.query("identity", coldkey_ss58=coldkey)
        return None if value is None else str(value["name"])

    def commitment(self, netuid: int, hotkey: str) -> str | None:
        value = self.query("commitment", netuid=netuid, hotkey_ss58=hotkey)
        return None if value is None else str(value["data"])

    def take(self, hotkey: str) -> float:
        return float(self.query("delegate-take", hotkey_ss58=hotkey)["take"])

    def children(self, netuid: int, hotkey: str) -> list[str]:
        return [str(child) for _, child in self.query("children", hotkey_ss58=hotkey, netuid=netuid)]

    def hyperparameter(self, netuid: int, name: str) -> Any:
        return self.query("subnet-hyperparameters", netuid=netuid)[name]


def _endpoint(axon: dict[str, int]) -> str | None:
    return f"{ipaddress.ip_address(axon['ip'])}:{axon['port']}" if axon["port"] else None


def _scalar(value: Any) -> Any:
    return value.get("value", value) if isinstance(value, dict) else value


def _rao(value: Any) -> int:
    """Amounts are printed with their token's symbol: "τ1,000.000000000", or as a plain number of tokens."""
    text = re.search(r"-?[\d,]+(\.\d+)?", str(_scalar(value)))
    assert text, f"no amount in {value!r}"
    return round(Decimal(text.group().replace(",", "")) * TAO)
