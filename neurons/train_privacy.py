"""`touchstone train privacy`: what clipping and noise are worth, and against whom.

touchstone train privacy --noise 5 --windows 100         before a training: what it would be worth
touchstone train privacy --network N --netuid N          of the one that runs: by its owner's recipe, so far

Said with every figure: it counts only against somebody who sees the models and nothing else of the subnet.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import ValidationError

from neurons.output import console, print_json, print_table
from neurons.training import read_recipe
from protocol.training.recipe import Privacy
from template.artifacts.opening import open_store
from template.chain import Chain
from template.errors import TemplateError

USUAL = (1, 10, 100, 1000)  # windows
AGAINST = "somebody who sees the models and nothing else of the subnet"
NOT_AGAINST = "readers of the chain: contributions and the seeds of the noise are public"


class NoPrivacy(TemplateError):
    """There is no noise to account for."""


async def privacy(
    network: str,
    netuid: int | None,
    data_dir: Path,
    noise: float | None,
    delta: float,
    windows: Sequence[int],
    *,
    as_json: bool,
) -> int:
    """Print epsilon by number of windows. Raises NoPrivacy, NoAccountant and ChainError."""
    from template.training.privacy import epsilon

    if (noise is None) == (netuid is None):
        raise NoPrivacy("either a noise or a subnet is needed", remedy="give --noise or --netuid, not both")
    if noise is not None:
        asked, so_far = _asked(noise, delta), None
    else:
        asked, so_far = await _running(network, int(netuid or 0), data_dir)
    counted = sorted({*(windows or USUAL), *([so_far] if so_far is not None else [])})
    found = {count: await asyncio.to_thread(epsilon, asked, count) for count in counted}
    if as_json:
        print_json(
            {
                "noise": asked.noise, "delta": asked.delta, "so_far": so_far, "neighbours": "zero-out, by hotkey",
                "epsilon": [
                    {"windows": count, "epsilon": value if math.isfinite(value) else None}
                    for count, value in found.items()
                ],
                "against": AGAINST, "not_against": NOT_AGAINST,
            }
        )  # fmt: skip
        return 0
    rows = [[f"{count}{' (so far)' if count == so_far else ''}", _shown(value)] for count, value in found.items()]
    print_table(f"noise {asked.noise:g} clips", ["windows>", f"epsilon at delta {asked.delta:g}>"], rows)
    console.print(f"This holds against {AGAINST}.\nIt does not against {NOT_AGAINST}.")
    return 0


async def _running(network: str, netuid: int, data_dir: Path) -> tuple[Privacy, int]:
    """The recipe's privacy, and the windows that are on record."""
    from template.training.chain_view import WindowView
    from template.training.peers import Peers

    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Chain(network))
        await chain.wait_ready(longest=30.0)
        own = await stack.enter_async_context(open_store(str(data_dir.expanduser() / "replay" / f"subnet-{netuid}")))
        peers = await stack.enter_async_context(Peers(own, allow_local=chain.is_local))
        recipe, _ = await read_recipe(chain, netuid, (await chain.metagraph(netuid)).owner_hotkey, peers)
        if recipe.privacy is None:
            remedy = "the owner asks for it with: touchstone train start --set privacy.clip=... --set privacy.noise=..."
            raise NoPrivacy(f"the recipe of subnet {netuid} has no privacy", remedy=remedy)
        stands = await WindowView(chain, netuid, recipe.clock.schedule).agreed()
        return recipe.privacy, stands.window + 1 if stands is not None else 0


def _asked(noise: float, delta: float) -> Privacy:
    try:
        return Privacy(clip=1.0, noise=noise, delta=delta)  # epsilon does not depend on the clip
    except ValidationError as error:
        problem = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise NoPrivacy(problem, remedy="see Privacy in protocol/training/recipe.py for the bounds") from None


def _shown(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
