"""What checking costs, and what the fingerprint sees: `python benchmarks/verification.py [all|cost|fingerprint]`, JSON.

    cost          CPU seconds of a full audit over those of generating the same answers: engine batches of 1 and 16,
                  answers of 32 and 128 tokens; and at the lowest audit rate, as a share of the miners' compute
    fingerprint   distance of honest, int8 and noisy models by dimensions, chunk length and precision: the measurement
                  behind the constants of protocol/fingerprint.py

SmolLM2-135M-Instruct in float32. CPU time counts, not wall time, so that other work disturbs little.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from transformers import DynamicCache

from protocol import fingerprint
from protocol.audits import AuditRules
from protocol.fingerprint import FloatArray
from protocol.inference import Challenge, ChallengePolicy, GenerateResponse, Recomputed, Sampler
from protocol.sampling import choose, noise_key
from template.inference.batch import shortlists
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.honest import challenges
from template.inference.models import LoadedModel, load_model
from template.inference.readout import Readout
from template.inference.service import GenerateService
from template.inference.sources import ModelSettings
from template.inference.verifier import Verifier, VerifierSettings

SEED = b"benchmark secret" * 2
ANSWERS = 16


def asked(loaded: LoadedModel, tokens: int, count: int) -> list[Challenge]:
    policy = ChallengePolicy(samplers=(Sampler(),), max_tokens=(tokens,), length_classes=("short",))
    return challenges(loaded, range(count), policy, SEED)


async def respond(engine: ContinuousBatchingEngine, loaded: LoadedModel, challenge: Challenge) -> GenerateResponse:
    frames = [frame async for frame in GenerateService(engine, loaded.identity, challenge.miner)(challenge.request)]
    assert isinstance(frames[-1], GenerateResponse)
    return frames[-1]


async def measure_cost(loaded: LoadedModel) -> list[dict[str, Any]]:
    rows = []
    verifier = Verifier(loaded, VerifierSettings(threads=1))
    for batch in (1, 16):
        for tokens in (32, 128):
            print(f"batch {batch}, {tokens} tokens ...", file=sys.stderr, flush=True)
            todo = asked(loaded, tokens, max(4, batch))
            async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=batch, threads=1)) as engine:
                await respond(engine, loaded, todo[0])
                before = time.process_time()
                done = await asyncio.gather(*[respond(engine, loaded, challenge) for challenge in todo])
                generating = time.process_time() - before
            before = time.process_time()
            found = await verifier.recompute(list(zip(todo, done, strict=True)))
            verifying = time.process_time() - before
            assert all(isinstance(result, Recomputed) for result in found)
            ratio = verifying / generating
            rows.append(
                {
                    "batch": batch,
                    "prompt_tokens": sum(len(challenge.request.prompt_ids) for challenge in todo),
                    "answer_tokens": sum(len(response.token_ids) for response in done),
                    "generate_cpu_s": round(generating, 2),
                    "verify_cpu_s": round(verifying, 2),
                    "full_audit": round(ratio, 3),
                    "at_lowest_rate": round(ratio * AuditRules().least, 4),
                }
            )
    verifier.close()
    return rows


KINDS = ("honest", "float16", "noise 0.5 %", "int8")
FORMS = ((4, 16), (8, 16), (16, 16), (32, 16), (16, 1), (16, 32), (16, 64))  # dimensions, tokens in a chunk


def changed(loaded: LoadedModel, kind: str) -> LoadedModel:
    if kind == "honest":
        return loaded
    model, noise = copy.deepcopy(loaded.model), torch.Generator().manual_seed(7)
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or "lm_head" in name:
            continue
        weight = module.weight.data
        if kind == "float16":
            module.weight.data = weight.half().float()
        elif kind == "int8":
            scale = weight.abs().amax(1, keepdim=True) / 127
            module.weight.data = (weight / scale).round() * scale
        else:
            module.weight.data = weight + 0.005 * weight.std() * torch.randn(weight.shape, generator=noise)
    return replace(loaded, model=model)


@torch.inference_mode()
def decoded(loaded: LoadedModel, challenge: Challenge) -> tuple[list[int], FloatArray]:
    """An answer token by token with a plain cache, and the hidden states it was sampled from, [tokens, width]."""
    request, key, readout = challenge.request, noise_key(challenge.seed), Readout(loaded.model)
    cache, fresh = DynamicCache(config=loaded.model.config), list(request.prompt_ids)
    tokens: list[int] = []
    states = []
    while len(tokens) < request.max_tokens and not set(tokens[-1:]) & set(loaded.identity.eos_ids):
        hidden, logits = readout.last(input_ids=torch.tensor([fresh]), past_key_values=cache, use_cache=True)
        ((ids, values),) = shortlists(logits, [request.sampler])
        fresh = [choose(ids, values, request.sampler, key, len(tokens))]
        tokens += fresh
        states.append(hidden[0].double().numpy())
    return tokens, np.stack(states)


@torch.inference_mode()
def own_states(loaded: LoadedModel, challenge: Challenge, tokens: Sequence[int]) -> FloatArray:
    """The verifier's hidden states of an answer, [tokens, width]."""
    prompt = challenge.request.prompt_ids
    hidden = Readout(loaded.model).all_hidden(torch.tensor([[*prompt, *tokens[:-1]]]))
    return np.asarray(hidden[0, len(prompt) - 1 :].double().numpy())


def projected(states: FloatArray, dimensions: int, chunk: int, seed: bytes) -> FloatArray:
    """The same sketch as protocol/fingerprint.py, for any dimensions and chunk length."""
    rng = np.random.default_rng(list(seed))
    matrix = rng.choice([-1.0, 1.0], (states.shape[1], dimensions))
    signs = rng.choice([-1.0, 1.0], (len(states), dimensions))
    mixed = signs * (states @ matrix)
    pieces = [mixed[i : i + chunk] for i in range(0, len(mixed), chunk)]
    return np.array([piece.sum(axis=0) / math.sqrt(len(piece) * states.shape[1]) for piece in pieces])


def measure_fingerprint(loaded: LoadedModel) -> list[dict[str, Any]]:
    rows = []
    for kind in KINDS:
        print(f"{kind} ...", file=sys.stderr, flush=True)
        served = changed(loaded, kind)
        pairs = []
        for challenge in asked(loaded, 64, ANSWERS):
            tokens, claimed = decoded(served, challenge)
            pairs.append((challenge, claimed, own_states(loaded, challenge, tokens)))
        for dimensions, chunk in FORMS:
            row: dict[str, Any] = {"kind": kind, "dimensions": dimensions, "chunk": chunk}
            row["bytes_per_token"] = 4 * dimensions / chunk
            for precision, kept in (("half", np.float16), ("single", np.float32)):
                found = []
                for challenge, claimed, own in pairs:
                    a, b = (projected(states, dimensions, chunk, challenge.seed) for states in (claimed, own))
                    sizes = [math.sqrt(float(np.mean(own[i : i + chunk] ** 2))) for i in range(0, len(own), chunk)]
                    found += list(np.sqrt(np.mean((a.astype(kept) - b) ** 2, axis=1)) / np.array(sizes))
                row[precision] = {
                    "least": float(min(found)),
                    "median": float(np.median(found)),
                    "most": float(max(found)),
                }
            rows.append(row)
    return rows


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=("all", "cost", "fingerprint"))
    options = parser.parse_args()
    loaded = load_model(ModelSettings(source="package"), lambda line: print(line, file=sys.stderr))
    figures: dict[str, Any] = {
        "model_root": loaded.identity.root,
        "bytes_per_token": fingerprint.encoded_size(1024) / 1024,
    }
    if options.what in ("all", "cost"):
        figures["cost"] = await measure_cost(loaded)
    if options.what in ("all", "fingerprint"):
        figures["fingerprint"] = measure_fingerprint(loaded)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
