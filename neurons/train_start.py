"""`touchstone train start`: the subnet's owner begins a training. Made once; everybody else reads it from the chain.

touchstone train start --dataset english --netuid 2 --wallet owner --artifacts @own.txt --published "..."
    --set tasks.steps=60 --set clock.train=80         anything of the recipe; see protocol/training/recipe.py

Puts the dataset, the model to start from and the recipe into the owner's bucket, and commits the recipe and the bucket
on chain. The first window starts `--in` blocks from now. The same seed and recipe make the same model on machines with
the same torch; what counts is the file in the bucket, whose root is in the recipe.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neurons.output import console, print_json
from neurons.training import check_dataset
from protocol.dataset import encode_manifest
from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_PREFIX, Location
from protocol.training.recipe import (
    COMMITMENT_PREFIX,
    Architecture,
    Clock,
    Inner,
    Privacy,
    Recipe,
    Scored,
    Tasks,
    recipe_commitment,
)
from template.artifacts.opening import open_store
from template.artifacts.store import ArtifactStore
from template.chain import Chain
from template.commitments import replaced
from template.errors import TemplateError
from template.keys import Hotkey

# 1.1 million parameters with the shipped corpus: what two CPU cores train at some 7,000 tokens a second.
SMALL = {
    "architecture": {
        "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 512,
    },
}  # fmt: skip


FIXED = ("version", "model", "model_file", "dataset")


class BadRecipe(TemplateError):
    """What was asked for is no recipe."""


@dataclass(frozen=True)
class Start:
    """What the owner decides. `changes`: of the recipe, by dotted name."""

    dataset: Path
    seed: int = 0
    blocks: int = 10  # until the first window
    changes: tuple[tuple[str, str], ...] = ()


async def start_training(
    network: str,
    netuid: int,
    wallet: str,
    hotkey_name: str,
    wallet_path: Path,
    given: Start,
    artifacts: str,
    published: str,
    *,
    as_json: bool,
) -> int:
    """Put, commit and tell. Raises TemplateError."""
    hotkey = Hotkey.load(wallet, hotkey_name, wallet_path.expanduser())
    async with Chain(network) as chain, open_store(artifacts, allow_local=chain.is_local) as store:
        await chain.wait_ready(longest=30.0)
        owner = (await chain.metagraph(netuid)).owner_hotkey
        if hotkey.ss58 != owner:
            raise TemplateError(
                f"{hotkey.ss58} is not the hotkey of subnet {netuid}'s owner, {owner}",
                remedy="name the owner's keys with --wallet and --hotkey",
            )
        recipe, cid = await prepare(given, await chain.block() + given.blocks, store)
        await commit(chain, netuid, hotkey, cid, published)
    if as_json:
        print_json({"recipe": cid, "id": recipe.id, **recipe.model_dump(mode="json")})
    else:
        length = recipe.clock.schedule.length
        console.print(f"recipe {cid}: window 0 starts at block {recipe.clock.start}; a window has {length} blocks")
    return 0


async def prepare(given: Start, first_block: int, store: ArtifactStore) -> tuple[Recipe, str]:
    """The recipe and its artifact; everything that it names is in `store` then. Raises TemplateError."""
    from template.training.checkpoint import fresh, model_root, to_file
    from template.training.dataset import own_store, read_manifest, shard_limits

    manifest = read_manifest(given.dataset)
    async with own_store(given.dataset) as source:
        shards = [*manifest.training, *manifest.validation]
        for number, shard in enumerate(shards, 1):
            await store.put_bytes(await source.read(shard.cid, shard_limits(manifest, shard)))
            print(f"dataset: {number} of {len(shards)} shards", file=sys.stderr, flush=True)
    dataset = await store.put_bytes(encode_manifest(manifest))
    wanted = _wanted(given.changes, manifest.vocabulary)
    architecture = _checked(Architecture, wanted.get("architecture", {}))

    layout, vector = await asyncio.to_thread(fresh, architecture, given.seed)
    root, file = model_root(architecture, layout, vector), to_file(layout, vector)
    fixed = {"model": root, "model_file": await store.put_bytes(file), "dataset": dataset, "architecture": architecture}
    clock = _checked(Clock, {"start": first_block, **wanted.get("clock", {})})
    parts = {"tasks": Tasks, "scored": Scored, "inner": Inner}
    made = {name: _checked(kind, wanted.get(name, {})) for name, kind in parts.items()}
    if "privacy" in wanted:
        made["privacy"] = _checked(Privacy, wanted["privacy"])
    rest = {name: value for name, value in wanted.items() if name not in (*made, "clock", "architecture")}
    recipe = _checked(Recipe, {**rest, **fixed, **made, "clock": clock})
    check_dataset(recipe, manifest)
    return recipe, await store.put_bytes(recipe.encode())


async def commit(chain: Chain, netuid: int, hotkey: Hotkey, cid: str, published: str) -> None:
    """The owner's word on chain; its other texts stay."""
    try:
        location = Location.parse(published).encode()
    except MalformedMessage as error:
        remedy = "give the bucket with keys that can only read"
        raise BadRecipe(f"--published is no bucket: {error}", remedy=remedy) from None
    held = await chain.commitment(netuid, hotkey.ss58)
    texts = replaced(held.texts if held else (), COMMITMENT_PREFIX, recipe_commitment(cid))
    await chain.commit(netuid, hotkey, *replaced(texts, LOCATION_PREFIX, location))


def _wanted(changes: tuple[tuple[str, str], ...], vocabulary: int) -> dict[str, Any]:
    wanted: dict[str, Any] = json.loads(json.dumps(SMALL))
    wanted["architecture"]["vocab_size"] = vocabulary
    for name, text in changes:
        place, parts = wanted, name.split(".")
        if parts[0] in FIXED:
            raise BadRecipe(f"{name} is not set by hand", remedy="it follows from --dataset and --seed")
        for part in parts[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise BadRecipe(f"{name}: {part} has no parts", remedy="see protocol/training/recipe.py for names")
        try:
            place[parts[-1]] = json.loads(text)
        except json.JSONDecodeError:
            place[parts[-1]] = text
    return wanted


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{kind.__name__.lower()}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]
        )
        raise BadRecipe(problems, remedy="see protocol/training/recipe.py for names and bounds") from None
