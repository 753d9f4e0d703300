"""btcli, run as a user runs it: one process per command, `--json`, a home directory of its own.

Wallet files are written in the format the program reads, from the same URIs the other clients sign with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import bittensor as bt

from tests.conformance.clients.base import TAO, Actor, NeuronRow, Outcome, normalised

TIMEOUT = 90.0


def _program() -> str:
    path = Path(sys.executable).with_name("btcli")
    if not path.exists():
        raise FileNotFoundError(f"btcli is not installed next to {sys.executable}: pip install bittensor")
    return str(path)


def _option(name: str) -> str:
    return "--" + name.removesuffix("_ss58").replace("_", "-")


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


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

    def close(self) -> None:
        """Nothing to close: every command was a process of its own."""

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, *arguments: str) -> tuple[int, Any, str]:
        """(exit status, what was printed as JSON, standard error)."""
        done = subprocess.run(
            [_program(), *arguments, "--json"], env=self._env, capture_output=True, text=True, timeout=TIMEOUT
        )
        text = done.stdout.strip()
        try:
            return done.returncode, json.loads(text) if text else None, done.stderr
        except json.JSONDecodeError as error:
            raise AssertionError(f"btcli {arguments[0]} did not print JSON: {text[:500]!r}") from error

    def _wallet(self, actor: Actor) -> list[str]:
        name = actor.cold_uri.strip("/").replace("/", "-")
        wallet = bt.Wallet(name, "default", str(self._wallets))
        if not wallet.coldkey_file.exists_on_device():
            for file, keypair in (
                (wallet.coldkey_file, actor.coldkey),
                (wallet.coldkeypub_file, bt.wallet._public_only(actor.coldkey)),
                (wallet.hotkey_file, actor.hotkey),
            ):
                file.set_keypair(keypair, encrypt=False, overwrite=True)
        return ["--wallet", name, "--wallet-hotkey", "default", "--wallet-path", str(self._wallets)]

    def _submit(self, actor: Actor, *arguments: str) -> Outcome:
        status, payload, errors = self.run(*arguments, *self._wallet(actor), "--yes")
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
        extra = ["--sudo"] if sudo else []
        signer = "hotkey" if hot else "coldkey"
        return self._submit(
            actor, "call", f"{pallet}.{function}", "--args", json.dumps(args), "--signer", signer, *extra
        )

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
        status, graph, errors = self.run("subnets", "metagraph", "--netuid", str(netuid))
        assert status == 0, errors
        return [
            NeuronRow(
                int(row["uid"]), row["hotkey"], bool(row["validator_permit"]), float(row["incentive"]),
                float(row["dividends"]), _rao(row["emission"]), _rao(row["alpha_stake"]), row["axon"],
            )
            for row in graph["neurons"]
        ]  # fmt: skip

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


def _scalar(value: Any) -> Any:
    return value.get("value", value) if isinstance(value, dict) else value


def _rao(value: Any) -> int:
    """Amounts are printed with their token's symbol: "τ1,000.000000000", or as a plain number of tokens."""
    text = re.search(r"-?[\d,]+(\.\d+)?", str(_scalar(value)))
    assert text, f"no amount in {value!r}"
    return round(Decimal(text.group().replace(",", "")) * TAO)
