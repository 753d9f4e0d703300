"""`touchstone train status` and `touchstone train replay`: what a training has come to, and whether it is what it says.

touchstone train status --ledger FILE          loss and contributions window by window, ratings, the last verdicts
touchstone train replay --network N --netuid N     fetch every contribution on record, and compute the model again

`replay` trusts nothing but the chain: the recipe its owner committed, and the record that most stake stands behind.
Exit status 0 says that the contributions on record lead to exactly that model.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.output import console, print_json, print_table
from neurons.training import read_recipe
from protocol.training.ratings import weights
from template.artifacts.opening import open_store
from template.chain import Chain
from template.errors import TemplateError
from template.training.ledger import TrainLedger

if TYPE_CHECKING:
    from template.training.shared import Shared


class NoHistory(TemplateError):
    """There is nothing to replay."""


class NoLedger(TemplateError):
    """No validator has kept a ledger of a training here."""


async def status(ledger: Path | None, data_dir: Path, *, last: int, as_json: bool) -> int:
    """Show one validator's ledger. Raises NoLedger, and StateUnavailable for one that cannot be read."""
    path = ledger or _only(sorted(data_dir.expanduser().glob("*/training/*/ledger.sqlite")))
    if not path.exists():
        raise NoLedger(f"{path} does not exist", remedy="name a validator's ledger with --ledger")
    with TrainLedger(path) as kept:
        windows, states = kept.windows(), kept.states()
        rows = kept.rows(windows[-1].window) if windows else []
    shares = weights(states, windows[-1].window + 1) if windows else {}
    if as_json:
        print_json(
            {
                "windows": [asdict(row) for row in windows],
                "ratings": [asdict(state) | {"weight": shares.get(hotkey, 0.0)} for hotkey, state in states.items()],
                "verdicts": [asdict(row) for row in rows],
            }
        )
        return 0
    shown = [
        [str(row.window), "-" if row.loss is None else f"{row.loss:.4f}", str(row.contributions), row.root[:16]]
        for row in windows[-last:]
    ]
    print_table("windows", ["window>", "loss before>", "entered>", "model after"], shown)
    print_table(
        "ratings",
        ["hotkey", "weight>", "rating>", "effort>", "presence>", "audits>", "rejects>", "pause until>"],
        [
            [
                hotkey, f"{shares.get(hotkey, 0.0):.3f}", f"{state.mu - 3 * state.sigma:.1f}", f"{state.effort:.2f}",
                f"{state.presence:.2f}", str(state.audits), str(state.rejects), str(state.cooldown_until or "-"),
            ]
            for hotkey, state in sorted(states.items(), key=lambda item: -shares.get(item[0], 0.0))
        ],
    )  # fmt: skip
    print_table(
        f"window {windows[-1].window}" if windows else "no window yet",
        ["hotkey", "verdict", "assigned>", "unassigned>", "audited", "entered", "detail"],
        [
            [
                row.hotkey, row.reason or row.outcome or "absent", _gain(row.assigned), _gain(row.unassigned),
                "yes" if row.audited else "", "yes" if row.accepted else "", row.detail,
            ]
            for row in rows
        ],
    )  # fmt: skip
    return 0


async def replay(network: str, netuid: int, data_dir: Path, *, as_json: bool) -> int:
    """Compute the model from the records. Raises HistoryBroken at the first window that gives another model than its
    record says, and other TemplateErrors."""
    from template.training.chain_view import WindowView
    from template.training.checkpoint import build
    from template.training.following import first_model, history, replayed
    from template.training.layout import Layout
    from template.training.peers import Peers

    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Chain(network))
        await chain.wait_ready(longest=30.0)
        own = await stack.enter_async_context(open_store(str(data_dir.expanduser() / "replay" / f"subnet-{netuid}")))
        peers = await stack.enter_async_context(Peers(own, allow_local=chain.is_local))
        owner = (await chain.metagraph(netuid)).owner_hotkey
        recipe, location = await read_recipe(chain, netuid, owner, peers)
        view = WindowView(chain, netuid, recipe.clock.schedule)
        stands = await view.agreed()
        if stands is None:
            raise NoHistory("validators stand behind no record yet", remedy="wait for the score phase of window 1")
        layout = Layout.of(await asyncio.to_thread(build, recipe.architecture))
        start = await first_model(recipe, layout, peers.fetch, [location])
        records = await history(stands.record, peers.fetch, stands.locations)

        def tell(shared: Shared) -> None:
            print(f"window {shared.window - 1} of {stands.window}: {shared.root[:16]}", file=sys.stderr, flush=True)

        model = await replayed(start, records, recipe, layout, peers.fetch, stands.locations, tell)
    result: dict[str, Any] = {
        "windows": len(records),
        "contributions": sum(len(record.contributions) for record in records),
        "parameters": layout.size,
        "root": model.root,
        "record": stands.record,
    }
    if as_json:
        print_json(result)
    else:
        entered = f"{result['contributions']} contributions in {len(records)} windows"
        console.print(f"{entered} give model {model.root}, as record {stands.record} says")
    return 0


def _only(found: Sequence[Path]) -> Path:
    if len(found) != 1:
        what = "no ledger of a training" if not found else f"{len(found)} ledgers"
        raise NoLedger(f"{what} below the data folder", remedy="name a validator's with --ledger")
    return found[0]


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
