"""What `touchstone challenge-bench` does before there is a table: ask the cheats, judge, and keep what was seen.

    Options                            what to measure; the command's flags
    await Bench(...).run(cheats)       everything that the journal does not hold yet
    journal.done[name]                 the answers of a cheat, or of HONEST, as the judge saw them

All cheats get the same challenges. Each changed model is made once, and cheats on the same model share their answers
as far as they begin alike (`Kitchen.larder`). A steady cheat is asked for its longest answer, which is then cut; the
others are asked for every length.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.detection import Seen, seen_of, shortened
from neurons.journal import Journal
from protocol.calibration import Calibration
from protocol.challenges import Challenge, ChallengePolicy, plan_challenge
from protocol.fingerprint import CHUNK
from protocol.generation import GenerateChunk, GenerateResponse
from protocol.verdicts import Outcome, Recomputation, Unchecked, check_form
from template.errors import TemplateError
from template.keys import Hotkey

if TYPE_CHECKING:
    from template.inference.models import LoadedModel
    from template.inference.verifier import Verifier
    from tests.adversary.cheats import Cheat, Handler, Kitchen, ModelChange

SIZES = (8, 16, 32, 64, 128, 256)  # tokens of an answer, up to --max-tokens
BATCH = 16
PATIENCE = 5.0  # seconds for a cheat that claims to give no answer to give one
HONEST = "honest"
MINER, OTHER = Hotkey.from_uri("//bench-miner"), Hotkey.from_uri("//bench-other")


@dataclass(frozen=True)
class Options:
    """What to measure; the command's flags."""

    cheats: tuple[str, ...] = ()  # empty: all
    answers: int = 16
    max_tokens: int = 64
    honest: int = 64
    rounds: int = 2000
    prompts: str = "short"
    seed: int = 0
    calibration: Path | None = None
    out: Path | None = None
    table: Path | None = None
    journal: Path | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*(size for size in SIZES if size < self.max_tokens), self.max_tokens)


def conditions(loaded: LoadedModel, calibration: Calibration, options: Options) -> dict[str, Any]:
    """Everything that must be the same for two runs to be one."""
    return {
        "model_root": loaded.identity.root,
        "dtype": loaded.identity.dtype,
        "calibration": calibration.digest,
        "max_tokens": options.max_tokens,
        "prompts": options.prompts,
        "answers": options.answers,
        "honest": options.honest,
        "seed": options.seed,
    }


@dataclass
class Bench:
    """Makes and checks the answers."""

    loaded: LoadedModel
    calibration: Calibration
    verifier: Verifier
    options: Options
    cores: int
    journal: Journal[list[Seen]]
    started: float = field(default_factory=time.monotonic)

    async def run(self, cheats: Sequence[Cheat]) -> None:
        """Everything that the journal does not hold yet, one model after the other."""
        missing = [cheat for cheat in cheats if cheat.name not in self.journal.done]
        changes = list(dict.fromkeys(cheat.model for cheat in missing))
        if None not in changes and HONEST not in self.journal.done:
            changes.insert(0, None)
        for change in sorted(changes, key=lambda change: change is not None):  # the right model first
            async with self._kitchen(change) as kitchen:
                if change is None and HONEST not in self.journal.done:
                    await self._measure(HONEST, kitchen)
                for cheat in missing:
                    if cheat.model == change:
                        await self._measure(cheat.name, kitchen, cheat)

    def _kitchen(self, change: ModelChange | None) -> AbstractAsyncContextManager[Kitchen]:
        from template.inference.engine import EngineSettings
        from tests.adversary.cheats import opened

        settings = EngineSettings(max_batch=BATCH, max_queue=100_000, threads=self.cores)
        return opened(self.loaded, MINER.ss58, change, settings, delay_s=2 * PATIENCE, larder={})

    async def _measure(self, name: str, kitchen: Kitchen, cheat: Cheat | None = None) -> None:
        began = time.monotonic()
        count = self.options.answers if cheat else self.options.honest
        steady = cheat is None or cheat.steady
        asked = {size: self._challenges(count, size) for size in self.options.sizes if not (steady and self._cut(size))}
        async with self._handler(kitchen, cheat) as handler:
            waits = PATIENCE if cheat and cheat.fate == "unpaid" else None
            seen = []
            for size, challenges in asked.items():
                cuts = (
                    [cut for cut in self.options.sizes if cut not in asked] if size == self.options.max_tokens else []
                )
                seen += await self._seen(challenges, handler, waits, cuts)
        self.journal.add(name, seen)
        rejected = sum(one.outcome is Outcome.REJECT for one in seen if one.size == self.options.max_tokens)
        spent, since = time.monotonic() - began, time.monotonic() - self.started
        told = f"{name}: {rejected} of {count} rejected at {self.options.max_tokens} tokens"
        print(f"{since:5.0f} s  {told} ({spent:.0f} s)", file=sys.stderr, flush=True)

    def _cut(self, size: int) -> bool:
        """Whether answers of this size are beginnings of the longest ones."""
        return size % CHUNK == 0 and size != self.options.max_tokens

    def _challenges(self, count: int, size: int) -> list[Challenge]:
        policy = ChallengePolicy(max_tokens=(size,), length_classes=(self.options.prompts,))
        return [
            plan_challenge(
                block_hash="0x" + hashlib.sha256(b"challenge-bench").hexdigest(),
                secret=hashlib.sha256(f"{self.options.seed}".encode()).digest(),
                validator="challenge-bench",
                miner=MINER.ss58,
                round=number,
                model=self.loaded.identity,
                tokenize=self.loaded.tokenize,
                policy=policy,
            )
            for number in range(count)
        ]

    @contextlib.asynccontextmanager
    async def _handler(self, kitchen: Kitchen, cheat: Cheat | None) -> AsyncIterator[Handler]:
        from tests.adversary.cheats import honest, with_upstream

        if cheat is None:
            yield honest(kitchen)
        elif cheat.upstream:
            seeds_of = OTHER.ss58 if cheat.upstream == "its own" else MINER.ss58
            async with with_upstream(kitchen, OTHER, seeds_of) as connected:
                yield cheat.handler(connected)
        else:
            yield cheat.handler(kitchen)

    async def _seen(
        self, challenges: list[Challenge], handler: Handler, waits: float | None, cuts: Sequence[int]
    ) -> list[Seen]:
        """Ask all of them at once, check what came in one go, and judge it as it is and cut to each of `cuts`."""
        answers = await asyncio.gather(*(_ask(handler, challenge, waits) for challenge in challenges))
        found = await self._recomputed(challenges, answers)
        seen = []
        for number, (challenge, answer, recomputed) in enumerate(zip(challenges, answers, found, strict=True)):
            if answer is None:
                one = Seen(size=challenge.request.max_tokens, number=number, outcome=None, reason="no_answer")
            else:
                response, streamed = answer
                one = seen_of(number, challenge, response, recomputed, self.calibration, streamed)
            seen.append(one)
            for cut in cuts:
                if one.margins is None:  # nothing came, or its form was wrong: no shorter either
                    seen.append(one.model_copy(update={"size": cut}))
                else:
                    short = shortened(challenge, response, recomputed, cut)
                    seen.append(seen_of(number, *short, self.calibration, None))
        return seen

    async def _recomputed(self, challenges: list[Challenge], answers: list[Any]) -> list[Recomputation]:
        """One recomputation for each answer whose form is right; nothing that fails there needs the model."""
        places = [
            place
            for place, (challenge, answer) in enumerate(zip(challenges, answers, strict=True))
            if answer is not None and check_form(challenge, *answer) is None
        ]
        results = await self.verifier.recompute([(challenges[place], answers[place][0]) for place in places])
        found: list[Recomputation] = [Unchecked("its form is wrong")] * len(challenges)
        for place, result in zip(places, results, strict=True):
            if isinstance(result, Unchecked):
                raise TemplateError(f"an answer could not be checked: {result.detail}", remedy="free some memory")
            found[place] = result
        return found


async def _ask(
    handler: Handler, challenge: Challenge, waits: float | None
) -> tuple[GenerateResponse, tuple[int, ...]] | None:
    """The answer and what was streamed before it; None when none came within `waits` seconds."""

    async def read() -> tuple[GenerateResponse, tuple[int, ...]]:
        streamed: list[int] = []
        async for frame in handler(challenge.request):
            if isinstance(frame, GenerateChunk):
                streamed.extend(frame.token_ids)
            else:
                return frame, tuple(streamed)
        raise TemplateError("a cheat's stream ended without an answer")

    try:
        return await asyncio.wait_for(read(), waits)
    except asyncio.TimeoutError:
        return None
