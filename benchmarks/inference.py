"""Mechanism 0 in figures: `python benchmarks/inference.py [all|engine|load]`, one JSON object.

    engine   tokens/s and time to first token of the miner's engine at 1, 8, 32 concurrent requests, against plain
             `model.generate` on the same prompts in the same run; bytes of proof per token
    load     seconds to load the prepared model, and this process's memory (PSS counts shared pages by their share)

The model is SmolLM2-135M-Instruct as the package carries it. Figures depend on what else the machine does: run it
alone. The cost of checking is in `verification.py`; honest answers and cheats are measured by `touchstone calibrate`
and `touchstone challenge-bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from protocol.fingerprint import encoded_size
from protocol.inference import (
    Challenge,
    ChallengePolicy,
    GenerateResponse,
    Proof,
    Sampler,
    Timings,
    plan_challenge,
)
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel, load_model
from template.inference.sources import ModelSettings

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
    proof = Proof(fingerprint=generation.fingerprint)
    return GenerateResponse(token_ids=tokens, finish_reason=generation.finish_reason, proof=proof, timings=NO_TIMINGS)


CONCURRENT = (1, 8, 32)
ALONE = 8  # requests of the sequential runs


async def measure_engine(loaded: LoadedModel, threads: int, turns: int) -> dict[str, Any]:
    """Medians by concurrency. Each request is a prompt of about 60 tokens and up to 32 tokens of answer. Everything is
    done once in each turn, so that what else the machine does hits all alike; a CPU second is of all threads."""
    asked = challenges(loaded, 2 * max(CONCURRENT), SHORT)
    plain = as_it_comes(loaded.model)
    torch.set_num_threads(threads)
    runs: dict[int, list[dict[str, float]]] = {many: [] for many in CONCURRENT}
    alone: list[dict[str, float]] = []
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=32, threads=threads)) as engine:
        await answer(engine, asked[0])
        for number in range(turns):
            alone.append(generate_alone(plain, asked[:ALONE]))
            print(f"turn {number + 1} of {turns}: model.generate {alone[-1]}", file=sys.stderr, flush=True)
            for many in CONCURRENT:
                runs[many].append(await under_load(engine, asked[: max(ALONE, 2 * many)], many))
                print(f"engine at {many}: {runs[many][-1]}", file=sys.stderr, flush=True)
    tokens = SHORT.max_tokens[0]
    rows = {}
    for many, found in runs.items():
        rows[str(many)] = {name: round(float(np.median([run[name] for run in found])), 1) for name in found[0]}
        for unit in ("s", "cpu_s"):
            name = f"tokens_per_{unit}"
            ratios = [run[name] / base[name] for run, base in zip(found, alone, strict=True)]
            rows[str(many)][f"over_generate_by_{unit}"] = round(float(np.median(ratios)), 2)
    return {
        "threads": threads,
        "generate": {name: round(float(np.median([run[name] for run in alone])), 1) for name in alone[0]},
        "concurrent": rows,
        "proof_bytes_per_token": round(encoded_size(tokens) / tokens, 2),
    }


def as_it_comes(model: Any) -> Any:
    """The same parameters in a model without our faster products."""
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for module in twin.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = torch.nn.Linear
    return twin


@torch.inference_mode()
def generate_alone(model: Any, asked: list[Challenge]) -> dict[str, float]:
    """`model.generate`, one request after the other, with the same sampler settings."""
    tokens, started, cpu = 0, time.perf_counter(), time.process_time()
    for challenge in asked:
        request, sampler = challenge.request, challenge.request.sampler
        ids = torch.tensor([request.prompt_ids], device=model.device)
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=sampler.temperature,
            top_k=sampler.top_k,
            top_p=sampler.top_p,
            max_new_tokens=request.max_tokens,
        )
        tokens += output.shape[1] - ids.shape[1]
    return rates(tokens, started, cpu)


def rates(tokens: int, started: float, cpu: float) -> dict[str, float]:
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {"tokens_per_s": round(tokens / seconds, 2), "tokens_per_cpu_s": round(tokens / cpu_seconds, 2)}


async def under_load(engine: ContinuousBatchingEngine, asked: list[Challenge], many: int) -> dict[str, float]:
    """All requests, `many` at a time."""
    slots, first = asyncio.Semaphore(many), []
    started, cpu = time.perf_counter(), time.process_time()

    async def one(challenge: Challenge) -> int:
        request = challenge.request
        async with (
            slots,
            await engine.submit(request.prompt_ids, request.sampler, challenge.seed, request.max_tokens) as generation,
        ):
            count = len([token async for token in generation])
        assert generation.first_token is not None
        first.append(1e3 * (generation.first_token - generation.submitted))
        return count

    tokens = sum(await asyncio.gather(*[one(challenge) for challenge in asked]))
    low, high = np.percentile(first, [50, 99])
    return {**rates(tokens, started, cpu), "first_token_ms_p50": round(low), "first_token_ms_p99": round(high)}


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
    parser.add_argument("what", nargs="?", default="all", choices=("all", "engine", "load"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of the engine part")
    parser.add_argument("--turns", type=int, default=3, help="how often the engine part measures everything")
    options = parser.parse_args()
    started = time.perf_counter()
    loaded = load_model(ModelSettings(source="package"), lambda line: print(line, file=sys.stderr))
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "model_root": loaded.identity.root}
    figures["load_s"] = round(time.perf_counter() - started, 2)
    if options.what in ("all", "engine"):
        figures["engine"] = await measure_engine(loaded, options.threads, options.turns)
    figures["memory_mib"] = memory()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
