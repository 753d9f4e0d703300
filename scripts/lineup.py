"""Who takes part in the main job, and the miners that are not simply those of `neurons/`.

    python scripts/lineup.py slowed --netuid 2 --wallet miner-slow      (flags as for neurons/miner.py)
    python scripts/lineup.py dishonest --netuid 2                       the other dishonest parts, in one process
    python scripts/lineup.py dishonest-trainers --netuid 2              the dishonest trainers, in one process

    slowed        honest, with a pause for every token, and boasts: by its own account it takes a thousandth of the time
    canned        replays one stored answer; needs no model at all
    dishonest     each serves, signs and publishes like an honest miner, with a hotkey of its own; only the answers
                  differ. They are cheats of tests/adversary/cheats and share what they need: one process, one engine
                  for each model, and a lower priority, because a small machine carries all of it
    dishonest-trainers      speak the protocol of training as honest ones do, and make something else of a window; they
                  are attacks of tests/adversary/trainers

Chosen are cheats that one answer of 24 tokens gives away, so that a short run has one possible end. The others, with
their odds, are in the table of `touchstone challenge-bench`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the dishonest answers are shared with the tests

from neurons import models
from neurons.miner import Offer, serve, serve_model, start
from neurons.models import CommittedModel
from neurons.runtime import in_thread, run, together, until
from neurons.train_miner import TrainMiner, mine
from protocol.fingerprint import encoded_size
from protocol.inference import GenerateChunk, GenerateRequest, GenerateResponse, Proof, Timings
from protocol.locations import Location
from protocol.synapse import Message
from template.keys import Hotkey
from template.ops import Ops
from template.server import Caller, StreamHandler
from template.settings import MinerSettings, TrainMinerSettings

if TYPE_CHECKING:
    from neurons.training import Training
    from template.training.work_state import WorkState
    from tests.adversary.cheats import Kitchen

SLOW_SECONDS_PER_TOKEN = 0.4  # 24 tokens take 9.6 s or more; the fast miner needs 2 to 5 s on two busy cores
LATE_SECONDS = 120.0  # beyond every deadline of the main job
NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
# "The capital of France is Paris.", over and over, in tokens of SmolLM2.
STOCK = (504, 3575, 282, 4649, 314, 7042, 30, 198)
NICENESS = 3  # of the dishonest: what they spend must not slow the honest


@dataclass(frozen=True)
class Part:
    """One neuron of the main job. `program`: a validator or miner of `neurons/`, one of this file's, or the name of a
    cheat or an attack.

    `process`: the child process that it runs in together with others; empty: one of its own.
    """

    name: str  # of the wallet: a validator of both mechanisms has one hotkey
    role: str  # what the table says
    program: str
    stake: float = 0.0  # TAO staked on root by a validator; a fiftieth of it goes to the subnet's pool
    honest: bool = True
    process: str = ""
    needs_model: bool = True

    @property
    def child(self) -> str:
        """Name of the child process, and of its log."""
        return self.process or self.name

    @property
    def validates(self) -> bool:
        return self.program in VALIDATORS


VALIDATORS = ("validator", "train_validator")
NEURONS = (*VALIDATORS, "miner", "train_miner")  # programs that are files of neurons/
DISHONEST = "dishonest"
DISHONEST_TRAINERS = "dishonest-trainers"
FIRST, SECOND = 30_000.0, 18_000.0  # TAO


def _cheat(name: str, role: str, cheat: str) -> Part:
    return Part(name, role, cheat, honest=False, process=DISHONEST)


def _trainer(name: str, role: str, attack: str = "train_miner") -> Part:
    honest = attack == "train_miner"
    return Part(name, role, attack, honest=honest, process="" if honest else DISHONEST_TRAINERS, needs_model=False)


def _trains(name: str, stake: float) -> Part:
    return Part(name, "validator", "train_validator", stake, process=f"{name}-training", needs_model=False)


LINEUP = (
    Part("validator-1", "validator", "validator", stake=FIRST),
    Part("validator-2", "validator", "validator", stake=SECOND),
    Part("miner-fast", "honest, fast", "miner"),
    Part("miner-slow", "honest, slow", "slowed"),
    _cheat("miner-damaged", "a layer skipped", "layer_skip"),
    _cheat("miner-int8", "int8 weights", "int8"),
    _cheat("miner-draft", "drafts only", "draft_half"),
    _cheat("miner-replay", "another seed", "replay"),
    _cheat("miner-prompt", "prompt cut", "short_context"),
    _cheat("miner-token", "one token put", "one_token"),
    Part("miner-canned", "canned answers", "canned", honest=False, needs_model=False),
    _cheat("miner-late", "always late", "late"),
)
TRAINING = (
    _trains("validator-1", FIRST),
    _trains("validator-2", SECOND),
    _trainer("trainer-1", "honest"),
    _trainer("trainer-2", "honest"),
    _trainer("trainer-3", "honest"),
    _trainer("trainer-noise", "noise", "noise"),
    _trainer("trainer-flip", "sign flipped x3", "sign flipped x3"),
    _trainer("trainer-half", "half the steps", "half the steps"),
    _trainer("trainer-copy", "another's work", "copy"),
    _trainer("trainer-silent", "never reveals", "never revealed"),
)
CASTS = {"inference": LINEUP, "training": TRAINING, "both": LINEUP + TRAINING}


@asynccontextmanager
async def slowed(
    settings: MinerSettings, hotkey: Hotkey, ops: Ops, committed: CommittedModel
) -> AsyncIterator[StreamHandler]:
    from tests.adversary import cheats

    async with serve_model(settings, hotkey, ops, committed) as handler:
        yield cheats.boasting(cheats.slowed(handler, SLOW_SECONDS_PER_TOKEN))


@asynccontextmanager
async def canned(
    settings: MinerSettings, hotkey: Hotkey, ops: Ops, committed: CommittedModel
) -> AsyncIterator[StreamHandler]:
    yield _replay


async def _replay(request: GenerateRequest, caller: Caller) -> AsyncIterator[Message]:
    tokens = (STOCK * request.max_tokens)[: request.max_tokens]
    proof = Proof(fingerprint=base64.b64encode(bytes(encoded_size(len(tokens)))).decode())
    for offset in range(0, len(tokens), 8):
        yield GenerateChunk(offset=offset, token_ids=tokens[offset : offset + 8])
    yield GenerateResponse(token_ids=tokens, finish_reason="length", proof=proof, timings=NO_TIMINGS)


async def dishonest(settings: MinerSettings, stop: asyncio.Event) -> None:
    """Every part of this process: a miner each, on kitchens they share. Raises TemplateError when one cannot start."""
    from template.inference.engine import EngineSettings
    from tests.adversary.cheats import CHEATS, opened

    os.nice(NICENESS)
    parts = [part for part in LINEUP if part.process == DISHONEST]
    loaded = await until(stop, in_thread(lambda: models.load(settings)))
    engine_settings = EngineSettings(threads=models.thread_count(settings))
    async with AsyncExitStack() as stack:
        kitchens: dict[Any, Kitchen] = {}
        for change in dict.fromkeys(CHEATS[part.program].model for part in parts):
            opening = opened(loaded, "", change, engine_settings, delay_s=LATE_SECONDS)
            kitchens[change] = await until(stop, stack.enter_async_context(opening))
        miners = [
            serve(
                settings.model_copy(update={"wallet": part.name}),
                stop,
                partial(_cheating, part.program, kitchens[CHEATS[part.program].model]),
            )
            for part in parts
        ]
        await together(*miners)


@asynccontextmanager
async def _cheating(
    name: str, kitchen: Kitchen, settings: MinerSettings, hotkey: Hotkey, ops: Ops, committed: CommittedModel
) -> AsyncIterator[StreamHandler]:
    from tests.adversary import cheats

    yield cheats.make(name, replace(kitchen, hotkey=hotkey.ss58))


async def trainers(settings: TrainMinerSettings, stop: asyncio.Event) -> None:
    """Every dishonest trainer, each with a bucket and a model of its own. Raises TemplateError when one cannot
    start."""
    os.nice(NICENESS)
    honest = [part.name for part in TRAINING if part.program == "train_miner"]
    victims = [Hotkey.load(name, settings.hotkey, settings.wallet_path).ss58 for name in honest]
    secrets, published = Path(settings.artifacts.removeprefix("@")).parent, Location.parse(settings.published)
    miners = []
    for part in TRAINING:
        if part.process == DISHONEST_TRAINERS:
            changes = {
                "wallet": part.name,
                "artifacts": f"@{secrets / part.name}.bucket",
                "published": replace(published, bucket=part.name).encode(),
            }
            miners.append(mine(settings.model_copy(update=changes), stop, partial(_attacking, part.program, victims)))
    await together(*miners)


def _attacking(name: str, victims: Sequence[str], training: Training, work: WorkState, poll: float) -> TrainMiner:
    from tests.adversary.trainers import ATTACKS, Reveals

    attack = ATTACKS[name]
    others = tuple(victims[: attack.others])
    kinds = {Reveals.IN_TIME: TrainMiner, Reveals.NEVER: Silent}
    return kinds[attack.reveals](training, work, poll, make=attack.armed(others), others=others)


class Silent(TrainMiner):
    """Commits, and shows nothing."""

    async def reveal(self, window: int) -> None:
        self._shown = window


def main() -> None:
    import typer

    from neurons.options import settings_command

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    for offer in (slowed, canned):
        app.command(offer.__name__)(settings_command(MinerSettings)(_starting(offer)))
    app.command("dishonest")(settings_command(MinerSettings)(_start_dishonest))
    app.command("dishonest-trainers")(settings_command(TrainMinerSettings)(_start_trainers))
    app()


def _starting(offer: Offer) -> Callable[[MinerSettings], int]:
    def started(settings: MinerSettings) -> int:
        return start(settings, offer)

    return started


def _start_dishonest(settings: MinerSettings) -> int:
    return run(partial(dishonest, settings), level=settings.log_level)


def _start_trainers(settings: TrainMinerSettings) -> int:
    return run(partial(trainers, settings), level=settings.log_level)


if __name__ == "__main__":
    main()
