"""Honest answers, made and checked in as many ways as honest machines do: the sample a calibration stands on.

    WAYS                              how answers are made: batch sizes, thread counts, late joins, chunked prefill
    CHECKS                            how they are checked: packed together or alone, thread counts
    async for record in sample(loaded, plan, seed): ...      one Record for each answer, as they are done
    summarise(records)                -> protocol.calibration.HonestSample

The engine serves most answers, through the miner's own service, so that the streamed tokens are compared with the whole
answer on the way. `by_chunks` is another implementation on purpose: a plain cache, the prompt in pieces, one sequence
at a time. A Record is small and JSON-able; an interrupted run goes on from the records it has.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache

from protocol.calibration import POOL_TOKENS, REQUEST_TOKENS, HonestSample, Spread
from protocol.challenges import Challenge, ChallengePolicy, plan_challenge
from protocol.fingerprint import Fingerprinter
from protocol.generation import GenerateChunk, GenerateResponse, Proof, Timings
from protocol.sampling import choose, noise_key
from protocol.synapse import Message
from protocol.verdicts import Recomputed, clipped_sum
from template.errors import TemplateError
from template.inference.batch import shortlists
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.readout import Readout
from template.inference.service import GenerateService
from template.inference.verifier import Verifier, VerifierSettings

MINER = "honest"  # stands for a hotkey: the seed only needs some text
NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
POOLS = 10_000  # pools drawn from the sample


class SampleFailed(TemplateError):
    """An honest answer could not be made or checked; a calibration without it would be a lie."""


@dataclass(frozen=True)
class Way:
    """One way of making answers. `batch` 0: by_chunks, with pieces of `piece` tokens. `share`: of all answers."""

    name: str
    share: float
    batch: int
    threads: int  # 0: every core
    piece: int = 0


WAYS = (
    Way("batch 32", 0.78, 32, 0),
    Way("batch 16, one thread", 0.08, 16, 1),
    Way("batch 8", 0.06, 8, 0),
    Way("batch 4", 0.03, 4, 0),
    Way("alone", 0.015, 1, 0),
    Way("alone, one thread", 0.01, 1, 1),
    Way("prompt in pieces of 7", 0.015, 0, 0, piece=7),
    Way("prompt in pieces of 32", 0.01, 0, 1, piece=32),
)
CHECKS = (
    ("packed", VerifierSettings(threads=0)),
    ("packed, one thread", VerifierSettings(threads=1, tokens_per_pass=1024)),
    ("alone, plain weights", VerifierSettings(threads=0, tokens_per_pass=1, pack_weights=False)),
)
CHECK_SHARES = (0.86, 0.1, 0.04)


class Record(Message):
    """One honest answer as the verifier saw it. `margins` holds only those above zero; the rest won outright."""

    number: int
    way: str
    check: str
    tokens: int
    eos: bool
    matched: int
    margins: list[float]
    last: float
    clipped: float
    distances: list[float]


def challenges(loaded: LoadedModel, numbers: Sequence[int], policy: ChallengePolicy, seed: bytes) -> list[Challenge]:
    return [
        plan_challenge(
            block_hash="0x" + hashlib.sha256(seed).hexdigest(),
            secret=seed,
            validator="calibration",
            miner=MINER,
            round=number,
            model=loaded.identity,
            tokenize=loaded.tokenize,
            policy=policy,
        )
        for number in numbers
    ]


async def sample(
    loaded: LoadedModel, numbers: Sequence[int], policy: ChallengePolicy, seed: bytes, cores: int
) -> AsyncIterator[tuple[Record, Challenge, GenerateResponse, Recomputed]]:
    """Answers to the challenges of these numbers. Which way each goes depends on its number alone. Raises
    SampleFailed."""
    for way in WAYS:
        own = [number for number in numbers if _pick(number, [w.share for w in WAYS]) == WAYS.index(way)]
        size = max(1, way.batch) * 4
        for start in range(0, len(own), size):
            part = own[start : start + size]
            asked = challenges(loaded, part, policy, seed)
            answers = await _answers(loaded, way, asked, cores)
            found = await _checked(loaded, part, asked, answers, cores)
            for number, challenge, response, (check, recomputed) in zip(part, asked, answers, found, strict=True):
                yield _record(number, way.name, check, response, recomputed), challenge, response, recomputed


def _pick(number: int, shares: Sequence[float]) -> int:
    """Position of `shares` that a number falls on; spread evenly, so that any range of numbers has all of them."""
    place = int.from_bytes(hashlib.sha256(f"way {number}".encode()).digest()[:8], "big") / 2.0**64
    bounds = np.cumsum(shares) / sum(shares)
    return int(np.searchsorted(bounds, place, side="right"))


async def _answers(loaded: LoadedModel, way: Way, asked: Sequence[Challenge], cores: int) -> list[GenerateResponse]:
    threads = way.threads or cores
    if not way.batch:
        torch.set_num_threads(threads)
        return [by_chunks(loaded, challenge, way.piece) for challenge in asked]
    settings = EngineSettings(max_batch=way.batch, max_queue=len(asked), threads=threads)
    async with ContinuousBatchingEngine(loaded, settings) as engine:
        service = GenerateService(engine, loaded.identity, MINER)
        return list(await asyncio.gather(*(_streamed(service, challenge) for challenge in asked)))


async def _streamed(service: GenerateService, challenge: Challenge) -> GenerateResponse:
    streamed: list[int] = []
    async for frame in service(challenge.request):
        if isinstance(frame, GenerateChunk):
            streamed.extend(frame.token_ids)
        elif tuple(streamed) == frame.token_ids:
            return frame
    raise SampleFailed("the streamed tokens of an honest answer are not the answer's", remedy="report this")


@torch.inference_mode()
def by_chunks(loaded: LoadedModel, challenge: Challenge, piece: int) -> GenerateResponse:
    """One answer with a plain cache: the prompt in pieces of `piece` tokens, then token by token."""
    request, key = challenge.request, noise_key(challenge.seed)
    readout = Readout(loaded.model)
    prints = Fingerprinter(challenge.seed, readout.width)
    cache = DynamicCache(config=loaded.model.config)
    pieces = [request.prompt_ids[i : i + piece] for i in range(0, len(request.prompt_ids), piece)]
    tokens: list[int] = []
    while pieces:
        ids = torch.tensor([pieces.pop(0)], device=loaded.model.device)
        hidden, logits = readout.last(input_ids=ids, past_key_values=cache, use_cache=True)
        if pieces:
            continue
        ((ids_here, values),) = shortlists(logits, [request.sampler])
        tokens.append(choose(ids_here, values, request.sampler, key, len(tokens)))
        prints.add(hidden[0].float().cpu().numpy())
        if tokens[-1] not in loaded.identity.eos_ids and len(tokens) < request.max_tokens:
            pieces.append((tokens[-1],))
    return GenerateResponse(
        token_ids=tuple(tokens),
        finish_reason="eos" if tokens[-1] in loaded.identity.eos_ids else "length",
        proof=Proof(fingerprint=prints.encode()),
        timings=NO_TIMINGS,
    )


async def _checked(
    loaded: LoadedModel,
    numbers: Sequence[int],
    asked: Sequence[Challenge],
    answers: Sequence[GenerateResponse],
    cores: int,
) -> list[tuple[str, Recomputed]]:
    found: dict[int, tuple[str, Recomputed]] = {}
    for place, (name, settings) in enumerate(CHECKS):
        own = [i for i, number in enumerate(numbers) if _pick(number + 1_000_003, CHECK_SHARES) == place]
        if not own:
            continue
        verifier = Verifier(loaded, replace(settings, threads=settings.threads or cores))
        results = await verifier.recompute([(asked[i], answers[i]) for i in own])
        verifier.close()
        for i, result in zip(own, results, strict=True):
            if not isinstance(result, Recomputed):
                raise SampleFailed(f"an honest answer could not be checked: {result.detail}", remedy="free some memory")
            found[i] = (name, result)
    return [found[i] for i in range(len(numbers))]


def _record(number: int, way: str, check: str, response: GenerateResponse, recomputed: Recomputed) -> Record:
    return Record(
        number=number,
        way=way,
        check=check,
        tokens=len(recomputed.margins),
        eos=response.finish_reason == "eos",
        matched=sum(w == t for w, t in zip(recomputed.winners, response.token_ids, strict=True)),
        margins=[margin for margin in recomputed.margins if margin > 0.0],
        last=recomputed.margins[-1],
        clipped=clipped_sum(recomputed.margins),
        distances=list(recomputed.distances),
    )


def summarise(records: Sequence[Record], seed: int = 0) -> HonestSample:
    """The figures of a sample. Raises ValueError for a figure that is not finite."""
    tokens = sum(record.tokens for record in records)
    margins = [margin for record in records for margin in record.margins]
    ways = Counter(record.way for record in records) + Counter(f"checked {record.check}" for record in records)
    return HonestSample(
        answers=len(records),
        tokens=tokens,
        match=sum(record.matched for record in records) / max(1, tokens),
        margin=Spread.of(margins + [0.0] * (tokens - len(margins))),
        eos_margin=Spread.of([record.last for record in records if record.eos]),
        request_mean=Spread.of([r.clipped / r.tokens for r in records if r.tokens >= REQUEST_TOKENS]),
        pool_mean=Spread.of(list(_pools(records, seed))),
        distance=Spread.of([distance for record in records for distance in record.distances]),
        variants=dict(sorted(ways.items())),
        versions={name: version(name) for name in ("torch", "transformers", "numpy")} | {"python": _python()},
        machine=machine()[:200],
    )


def _pools(records: Sequence[Record], seed: int) -> Iterator[float]:
    """Mean clipped margin of POOLS pools of at least POOL_TOKENS tokens, drawn with replacement."""
    if not records:
        return
    tokens = np.array([record.tokens for record in records])
    clipped = np.array([record.clipped for record in records])
    rng = np.random.default_rng(seed)
    for _ in range(POOLS):
        drawn = rng.integers(0, len(records), size=POOL_TOKENS)
        enough = int(np.searchsorted(np.cumsum(tokens[drawn]), POOL_TOKENS)) + 1
        yield float(clipped[drawn[:enough]].sum() / tokens[drawn[:enough]].sum())


def _python() -> str:
    return platform.python_version()


def machine() -> str:
    """What the sample was measured on, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name or platform.processor()}, {platform.machine()}, {platform.system()}, {device}"
