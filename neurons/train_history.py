"""`touchstone train status` and `touchstone train replay`: what a training has come to, and whether it is what it says.

touchstone train status --ledger FILE          loss and contributions window by window, ratings, the last verdicts
touchstone train status --picture FILE.png     the same as a picture, with all scores and verdicts; --json has them too
touchstone train replay --network N --netuid N     fetch every contribution on record, and compute the model again

`replay` trusts nothing but the chain: the recipe its owner committed, and the record that most stake stands behind.
Exit status 0 says that the contributions on record lead to exactly that model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.output import console, print_json, print_table
from neurons.training import read_recipe
from protocol.training.ratings import weights
from protocol.training.windows import Phase
from template.artifacts.opening import open_store
from template.chain import Chain
from template.errors import TemplateError
from template.training.ledger import TrainLedger
from template.training.progress import read

if TYPE_CHECKING:
    from protocol.training.records import WindowRecord
    from template.training.chain_view import WindowView
    from template.training.shared import Shared


class NoHistory(TemplateError):
    """There is nothing to replay."""


class NoLedger(TemplateError):
    """No validator has kept a ledger of a training here."""


class BadNames(TemplateError):
    """The file does not name hotkeys."""


async def status(
    ledger: Path | None,
    data_dir: Path,
    *,
    last: int,
    as_json: bool,
    picture: Path | None = None,
    names: Path | None = None,
) -> int:
    """Show one validator's ledger. Raises NoLedger, StateUnavailable for one that cannot be read, and BadNames and
    NotDrawn for the picture."""
    named = read_names(names) if names else {}
    path = ledger or _only(sorted(data_dir.expanduser().glob("*/training/*/ledger.sqlite")))
    if not path.exists():
        raise NoLedger(f"{path} does not exist", remedy="name a validator's ledger with --ledger")
    with TrainLedger(path) as kept:
        progress, states = read(kept), kept.states()
    windows = progress.windows
    rows = progress.verdicts[windows[-1].window] if windows else ()
    if picture is not None:
        from template.training.chart import draw

        await asyncio.to_thread(draw, progress, picture, named)
    shares = weights(states, windows[-1].window + 1) if windows else {}
    if as_json:
        ratings = [asdict(state) | {"weight": shares.get(hotkey, 0.0)} for hotkey, state in states.items()]
        print_json({**progress.document(), "ratings": ratings})
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

        await check_seeds(records, view)
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


def read_names(path: Path) -> dict[str, str]:
    """Names of hotkeys, for people: a JSON object {hotkey: name}. Raises BadNames."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadNames(f"{path} cannot be read: {error}", remedy="give a JSON object {hotkey: name}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise BadNames(f"{path} is no table of names", remedy="give a JSON object {hotkey: name}")
    return found


async def check_seeds(records: Sequence[WindowRecord], view: WindowView) -> None:
    """Noise is what the chain drew. Raises HistoryBroken and ChainError."""
    from template.training.following import HistoryBroken

    for record in records:
        if record.seed is not None and record.seed != (await view.seed(record.window, Phase.AGGREGATE)).hex():
            raise HistoryBroken(f"the noise of window {record.window} is not drawn from its block")


def _only(found: Sequence[Path]) -> Path:
    if len(found) != 1:
        what = "no ledger of a training" if not found else f"{len(found)} ledgers"
        raise NoLedger(f"{what} below the data folder", remedy="name a validator's with --ledger")
    return found[0]


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
