"""Mechanism 0 in figures: `python benchmarks/inference.py [all|engine|verify|honest|cheats|load]`, one JSON object.

    engine   tokens/s of the miner's engine: batch 1, 4, 8 with 1 and 2 threads; prompt of 60 tokens, 32 answers' tokens
    verify   CPU seconds to verify answers by prefill, and to generate them, for the same answers
    honest   how far honest tokens are from winning: the sample a calibration stands on
    cheats   of 16 answers of each cheat, how many a single request of 8, 16, 32, 64 tokens gives away
    load     seconds to load the prepared model, and this process's memory (PSS counts shared pages by their share)

The model is SmolLM2-135M-Instruct as the package carries it. Figures depend on what else the machine does: run it
alone.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from protocol.inference import (
    Challenge,
    ChallengePolicy,
    GenerateResponse,
    Recomputation,
    Recomputed,
    Sampler,
    Timings,
    judge,
    plan_challenge,
)
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel, load_model
from template.inference.sources import ModelSettings
from template.inference.verifier import Verifier, VerifierSettings, calibration_for
from tests.adversary import cheats

SHORT = ChallengePolicy(samplers=(Sampler(),), max_tokens=(32,), length_classes=("short",))
NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)


def challenges(loaded: LoadedModel, count: int, policy: ChallengePolicy) -> list[Challenge]:
    return [
        plan_challenge(
            block_hash="0x" + "42" * 32,
            secret=b"benchmark secret",
            validator="validator",
            miner="miner",
            round=number,
            model=loaded.identity,
            tokenize=loaded.tokenize,
            policy=policy,
        )
        for number in range(count)
    ]


async def answer(engine: ContinuousBatchingEngine, challenge: Challenge, delay: float = 0.0) -> GenerateResponse:
    await asyncio.sleep(delay)
    request = challenge.request
    async with await engine.submit(
        request.prompt_ids, request.sampler, challenge.seed, request.max_tokens
    ) as generation:
        tokens = tuple([token async for token in generation])
    assert generation.finish_reason is not None
    return GenerateResponse(token_ids=tokens, finish_reason=generation.finish_reason, timings=NO_TIMINGS)


async def measure_engine(loaded: LoadedModel) -> list[dict[str, Any]]:
    rows = []
    for threads in (1, 2):
        for batch in (1, 4, 8):
            asked = challenges(loaded, max(batch, 2), SHORT)
            async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=batch, threads=threads)) as engine:
                await answer(engine, asked[0])
                started = time.perf_counter()
                done = await asyncio.gather(*[answer(engine, challenge) for challenge in asked])
                seconds = time.perf_counter() - started
            tokens = sum(len(response.token_ids) for response in done)
            rows.append({"threads": threads, "batch": batch, "tokens_per_s": round(tokens / seconds, 1)})
    return rows


async def measure_verify(loaded: LoadedModel) -> dict[str, Any]:
    asked = challenges(loaded, 16, SHORT)
    verifier = Verifier(loaded, VerifierSettings(threads=1))
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=8, threads=1)) as engine:
        before = time.process_time()
        done = await asyncio.gather(*[answer(engine, challenge) for challenge in asked])
        generating = time.process_time() - before
    before = time.process_time()
    await verifier.recompute(list(zip(asked, done, strict=True)))
    verifying = time.process_time() - before
    verifier.close()
    return {
        "answers": len(done),
        "prompt_tokens": sum(len(c.request.prompt_ids) for c in asked),
        "answer_tokens": sum(len(r.token_ids) for r in done),
        "generate_cpu_s": round(generating, 2),
        "verify_cpu_s": round(verifying, 2),
        "verify_over_generate": round(verifying / generating, 3),
    }


async def measure_honest(loaded: LoadedModel, count: int) -> dict[str, Any]:
    """Requests of every kind join a running batch at uneven times; verified in another batch and thread count."""
    asked = challenges(loaded, count, ChallengePolicy(max_tokens=(64,)))
    verifier = Verifier(loaded, VerifierSettings(threads=1))
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=8, max_queue=count, threads=2)) as engine:
        done = await asyncio.gather(*[answer(engine, c, 0.37 * i) for i, c in enumerate(asked)])
    found = await verifier.recompute(list(zip(asked, done, strict=True)))
    verifier.close()
    margins = np.concatenate([np.asarray(item.margins) for item in found if isinstance(item, Recomputed)])
    winners = np.concatenate([np.asarray(item.winners) for item in found if isinstance(item, Recomputed)])
    tokens = np.concatenate([np.asarray(response.token_ids) for response in done])
    return {
        "honest_tokens": len(tokens),
        "honest_match": float((tokens == winners).mean()),
        "honest_max": float(margins.max()),
        "honest_mean": float(np.minimum(margins, 0.3).mean()),
    }


CHEATS = ("layer_skip", "int8", "hotter", "greedy", "wrong_seed", "borrowed", "other_prompt", "tampered", "canned")
CHEAT_ANSWERS = 16
PREFIXES = (8, 16, 32, 64)  # tokens


async def measure_cheats(loaded: LoadedModel) -> dict[str, Any]:
    """For each cheat: the share of answers rejected when only the first tokens had been asked for; the mean margin."""
    policy = ChallengePolicy(samplers=(Sampler(),), max_tokens=(max(PREFIXES),), length_classes=("short",))
    asked = challenges(loaded, CHEAT_ANSWERS, policy)
    verifier = Verifier(loaded, VerifierSettings(threads=2))
    rows: dict[str, Any] = {}
    for name in CHEATS:
        print(f"cheat {name} ...", file=sys.stderr, flush=True)
        done = await cheated(loaded, name, asked)
        found = await verifier.recompute(list(zip(asked, done, strict=True)))
        rows[name] = detection(loaded, list(zip(asked, done, found, strict=True)))
    verifier.close()
    return rows


async def cheated(loaded: LoadedModel, name: str, asked: list[Challenge]) -> list[GenerateResponse]:
    served = {"layer_skip": cheats.skip_layer, "int8": int8}.get(name, lambda same: same)(loaded)
    async with ContinuousBatchingEngine(served, EngineSettings(max_batch=8, max_queue=64, threads=2)) as engine:
        kitchen = cheats.Kitchen(engine, served, asked[0].miner)
        handler = cheats.make("layer_skip" if name == "int8" else name, kitchen)

        async def one(challenge: Challenge) -> GenerateResponse:
            frames = [frame async for frame in handler(challenge.request, None)]
            assert isinstance(frames[-1], GenerateResponse)
            return frames[-1]

        return list(await asyncio.gather(*[one(challenge) for challenge in asked]))


def int8(loaded: LoadedModel) -> LoadedModel:
    """Weights of the inner linear layers rounded to eight bits per output channel."""
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
                scale = module.weight.abs().amax(1, keepdim=True) / 127
                module.weight.copy_((module.weight / scale).round() * scale)
    return replace(loaded, model=model)


def detection(loaded: LoadedModel, answers: list[tuple[Challenge, GenerateResponse, Recomputation]]) -> dict[str, Any]:
    calibration = calibration_for(loaded.identity)
    caught = dict.fromkeys(PREFIXES, 0)
    margins: list[float] = []
    for challenge, response, recomputed in answers:
        if not isinstance(recomputed, Recomputed):
            raise SystemExit(f"an answer could not be checked: {recomputed.detail}")
        margins += recomputed.margins
        for size in PREFIXES:
            caught[size] += judge(*shortened(challenge, response, recomputed, size), calibration).outcome == "reject"
    shares = {str(size): round(count / len(answers), 2) for size, count in caught.items()}
    return {"caught": shares, "mean_clipped": round(float(np.minimum(margins, 0.3).mean()), 4)}


def shortened(
    challenge: Challenge, response: GenerateResponse, recomputed: Recomputed, size: int
) -> tuple[Challenge, GenerateResponse, Recomputed]:
    """The same exchange as if only `size` tokens had been asked for."""
    if len(response.token_ids) <= size:
        return challenge, response, recomputed
    request = challenge.request.model_copy(update={"max_tokens": size})
    cut = response.model_copy(update={"token_ids": response.token_ids[:size], "finish_reason": "length"})
    parts = {name: getattr(recomputed, name)[:size] for name in ("margins", "winners", "cut")}
    return replace(challenge, request=request), cut, replace(recomputed, **parts)


def memory() -> dict[str, int]:
    """MiB of this process, from Linux; empty elsewhere."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    fields = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines}
    return {"rss": fields["Rss"], "pss": fields["Pss"], "anonymous": fields["Anonymous"]}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", default="all", choices=("all", "engine", "verify", "honest", "cheats", "load")
    )
    parser.add_argument("--answers", type=int, default=60, help="size of the honest sample, in answers of 64 tokens")
    options = parser.parse_args()
    started = time.perf_counter()
    loaded = load_model(ModelSettings(source="package"), lambda line: print(line, file=sys.stderr))
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "model_root": loaded.identity.root}
    figures["load_s"] = round(time.perf_counter() - started, 2)
    if options.what in ("all", "engine"):
        figures["engine"] = await measure_engine(loaded)
    if options.what in ("all", "verify"):
        figures["verify"] = await measure_verify(loaded)
    if options.what in ("all", "honest"):
        figures["honest"] = await measure_honest(loaded, options.answers)
    if options.what in ("all", "cheats"):
        figures["cheats"] = await measure_cheats(loaded)
    figures["memory_mib"] = memory()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
