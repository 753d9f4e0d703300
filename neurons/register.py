"""`touchstone register`: give a hotkey its uid, paid by the wallet's coldkey."""

from __future__ import annotations

from pathlib import Path

import typer

from neurons.output import console, print_json
from template.chain import Chain
from template.errors import TemplateError
from template.keys import Hotkey, open_wallet
from template.operations import RAO, Operator


async def register(
    network: str, netuid: int, wallet: str, hotkey: str, wallet_path: Path, *, yes: bool, as_json: bool
) -> int:
    """Register, or say that it is done already. Raises TemplateError."""
    address = Hotkey.load(wallet, hotkey, wallet_path.expanduser()).ss58
    async with Chain(network) as chain:
        uid = await chain.uid(netuid, address)
        paid = 0.0
        if uid is None:
            price = int(await chain.query("Burn", netuid)) / RAO
            if not yes:
                _ask(f"Register {address} on subnet {netuid} of {network} for about {price:.4f} TAO?", as_json)
            handle = open_wallet(wallet, hotkey, wallet_path.expanduser())
            before = await chain.balance(handle.coldkeypub.ss58_address)
            uid = await Operator(chain, handle).register(netuid, address)
            paid = (before - await chain.balance(handle.coldkeypub.ss58_address)) / RAO
        if as_json:
            print_json({"netuid": netuid, "hotkey": address, "uid": uid, "paid_tao": paid})
        elif paid:
            console.print(f"registered: {address} is uid {uid} on subnet {netuid} (paid {paid:.4f} TAO)")
        else:
            console.print(f"{address} is uid {uid} on subnet {netuid} already")
    return 0


def _ask(question: str, as_json: bool) -> None:
    if as_json:
        raise TemplateError("registration is paid", remedy="add --yes to agree; --json asks nothing")
    typer.confirm(question, abort=True)
