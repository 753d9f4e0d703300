"""`touchstone wallets`: what keys there are, and what lies on them; or a new wallet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neurons.output import console, print_json, print_table
from template.chain import Chain
from template.keys import create_wallet
from template.operations import RAO


async def wallets(network: str | None, wallet_path: Path, *, create: str | None, password: bool, as_json: bool) -> int:
    """List, or create first and list then. Private keys are never read."""
    root = wallet_path.expanduser()
    if create:
        _create(create, root, password=password, as_json=as_json)
    found = [_describe(folder) for folder in sorted(root.glob("*")) if folder.is_dir()]
    if network:
        async with Chain(network) as chain:
            for wallet in found:
                if wallet["coldkey"]:
                    wallet["balance_tao"] = await chain.balance(wallet["coldkey"]) / RAO
    if as_json:
        print_json({"path": str(root), "wallets": found})
        return 0
    if not found:
        console.print(f"no wallets in {root}; create one: touchstone wallets --create NAME")
        return 0
    rows = []
    for wallet in found:
        balance = f"{wallet['balance_tao']:.4f}" if "balance_tao" in wallet else ""
        private = "yes" if wallet["coldkey_private"] else ""
        rows.append([wallet["name"], "coldkey", wallet["coldkey"] or "-", balance, private])
        rows += [["", f"hotkey {name}", address, "", ""] for name, address in wallet["hotkeys"].items()]
    print_table(str(root), ["wallet", "key", "address", "TAO>", "private here"], rows)
    return 0


def _create(name: str, root: Path, *, password: bool, as_json: bool) -> None:
    wallet, _, hotkey = name.partition("/")

    def show(role: str, words: str) -> None:
        if not as_json:
            console.print(f"{role} of {name}: write these words down, they are the only backup:\n  {words}")

    create_wallet(wallet, hotkey or "default", root, password=password, on_mnemonic=show)


def _describe(folder: Path) -> dict[str, Any]:
    public = folder / "coldkeypub.txt"
    hotkeys = folder / "hotkeys"
    names = {path.name.removesuffix("pub.txt") for path in hotkeys.glob("*")} if hotkeys.is_dir() else set()
    return {
        "name": folder.name,
        "coldkey": _address(public),
        "coldkey_private": (folder / "coldkey").exists(),
        "hotkeys": {name: _hotkey_address(hotkeys, name) for name in sorted(names)},
    }


def _hotkey_address(hotkeys: Path, name: str) -> str:
    return _address(hotkeys / f"{name}pub.txt") or _address(hotkeys / name) or "unreadable"


def _address(file: Path) -> str:
    """The SS58 address in a public key file, or "" when there is none to read."""
    try:
        return str(json.loads(file.read_bytes())["ss58Address"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
