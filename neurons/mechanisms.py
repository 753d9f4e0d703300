"""`touchstone mechanisms`: how a subnet's emission is divided between inference and training.

touchstone mechanisms --netuid 2                                      what the chain holds
touchstone mechanisms --netuid 2 --split 0.7,0.3 --wallet owner       inference 70 %, training 30 %; the owner's coldkey
"""

from __future__ import annotations

from pathlib import Path

import typer

from neurons.output import console, print_json
from template.chain import Chain
from template.errors import TemplateError
from template.keys import open_wallet
from template.operations import UIDS, WHOLE, Operator, split_of

NAMES = ("inference", "training")


async def mechanisms(
    network: str, netuid: int, split: str, wallet: str, wallet_path: Path, *, yes: bool, as_json: bool
) -> int:
    """Show, after setting what `split` says when it says something. Raises TemplateError."""
    shares = _shares(split) if split else None
    async with Chain(network) as chain:
        await chain.metagraph(netuid)  # tells of a subnet that does not exist
        if shares is not None:
            if not yes:
                uids = UIDS // len(shares)
                _ask(f"Divide the emission of subnet {netuid} as {split}? It has {uids} uids then.", as_json)
            handle = open_wallet(wallet, "default", wallet_path.expanduser())
            await Operator(chain, handle).split_emission(netuid, shares)
        count = int(await chain.query("MechanismCountCurrent", netuid))
        held = await chain.query("MechanismEmissionSplit", netuid) or split_of([1.0] * count)
    found = {name: share / WHOLE for name, share in zip(NAMES, held, strict=False)}
    if as_json:
        print_json({"netuid": netuid, "mechanisms": count, "emission": found})
    else:
        told = ", ".join(f"{name} {share:.1%}" for name, share in found.items())
        console.print(f"subnet {netuid} has {count} mechanism{'s' if count > 1 else ''}; emission: {told}")
    return 0


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
        split_of(shares)
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= len(NAMES):
        remedy = "give the parts of inference and training: 0.7,0.3"
        raise TemplateError(f"--split {text} is no division", remedy=remedy)
    return shares


def _ask(question: str, as_json: bool) -> None:
    if as_json:
        raise TemplateError("this changes the subnet", remedy="add --yes to agree; --json asks nothing")
    typer.confirm(question, abort=True)
