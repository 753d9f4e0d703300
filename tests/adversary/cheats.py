"""Dishonest miners, as drop-in replacements for `GenerateService`: what they answer is wrong, how they answer is not.

Each cheat is a stream handler `(request, caller) -> frames`, so it can be attached to a real server or called directly.
The list is `CHEATS`; `make(name, ...)` builds one. A slow but honest miner (`slowed`) is here too, for comparison.

    layer_skip     one transformer layer in the middle is left out: cheaper, almost as fluent
    canned         one stored answer, prepared at leisure, for every request
    wrong_seed     samples honestly but with a seed of its own choice
    hotter         temperature 0.3 above what was asked (greedy: 0.5)
    greedy         always the likeliest token
    tampered       an honest answer with every eighth token replaced
    fake_eos       stops after a few tokens with an end-of-sequence token that did not win
    padded         tokens after the end, to look longer
    truncated      stops early without an end
    other_prompt   answers without the system message
    borrowed       an answer owed by another hotkey: the same request with that hotkey's seed
    two_faced      streams junk at once, to look fast, and closes with the honest answer
    late           an honest answer, after the deadline
    silent         accepts the request and never answers
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from protocol.inference import (
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Sampler,
    Timings,
    derive_seed,
)
from template.inference.engine import ContinuousBatchingEngine
from template.inference.models import LoadedModel
from template.inference.service import Frame, GenerateService

Handler: TypeAlias = Callable[..., AsyncIterator[Frame]]

NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
CHEATS = (
    "layer_skip",
    "canned",
    "wrong_seed",
    "hotter",
    "greedy",
    "tampered",
    "fake_eos",
    "padded",
    "truncated",
    "other_prompt",
    "borrowed",
    "two_faced",
    "late",
    "silent",
)


@dataclass(frozen=True)
class Kitchen:
    """What a cheating miner has: an honest engine, the model, its hotkey. `delay_s`: how late the late one is."""

    engine: ContinuousBatchingEngine
    loaded: LoadedModel
    hotkey: str
    delay_s: float = 60.0

    async def answer(
        self, request: GenerateRequest, *, sampler: Sampler | None = None, seed: bytes | None = None
    ) -> GenerateResponse:
        """An answer generated with a sampler or seed that may not be the ones asked for."""
        used = seed or derive_seed(request, self.hotkey)
        async with await self.engine.submit(
            request.prompt_ids, sampler or request.sampler, used, request.max_tokens
        ) as generation:
            tokens = tuple([token async for token in generation])
            assert generation.finish_reason is not None
            return GenerateResponse(token_ids=tokens, finish_reason=generation.finish_reason, timings=NO_TIMINGS)


def skip_layer(loaded: LoadedModel, layer: int | None = None) -> LoadedModel:
    """The same model, one middle layer short, under the same identity. Weights are shared, not copied."""
    model = copy.copy(loaded.model)
    model._modules = dict(loaded.model._modules)
    inner = copy.copy(loaded.model.model)
    inner._modules = dict(loaded.model.model._modules)
    layers = list(loaded.model.model.layers)
    del layers[len(layers) // 2 if layer is None else layer]
    renumbered = []
    for index, original in enumerate(layers):
        shallow = copy.copy(original)
        shallow._modules = dict(original._modules)
        attention = copy.copy(original.self_attn)
        attention.layer_idx = index
        shallow.self_attn = attention
        renumbered.append(shallow)
    inner.layers = torch.nn.ModuleList(renumbered)
    config = copy.deepcopy(loaded.model.config)
    config.num_hidden_layers = len(renumbered)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: len(renumbered)]
    inner.config = config
    model.config = config
    model.model = inner
    return replace(loaded, model=model)


def make(name: str, kitchen: Kitchen) -> Handler:
    """The cheat called `name` from `CHEATS`. For "layer_skip" the kitchen's engine must run `skip_layer(loaded)`."""
    if name == "layer_skip":
        return GenerateService(kitchen.engine, kitchen.loaded.identity, kitchen.hotkey)
    if name in ("late", "silent", "two_faced"):
        return _HANDLERS[name](kitchen)
    return _whole(_ANSWERS[name], kitchen)


def slowed(handler: Handler, seconds_per_token: float) -> Handler:
    """An honest miner on a slower machine: the same frames, with a pause for every token."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        async for frame in handler(request, caller):
            if isinstance(frame, GenerateChunk):
                await asyncio.sleep(seconds_per_token * len(frame.token_ids))
            yield frame

    return serve


def _whole(answer: Callable[..., object], kitchen: Kitchen) -> Handler:
    """Stream an answer that was made in one piece."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        response = await answer(kitchen, request)  # type: ignore[misc]
        for offset in range(0, len(response.token_ids), 4):
            yield GenerateChunk(offset=offset, token_ids=response.token_ids[offset : offset + 4])
        yield response

    return serve


async def _canned(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    stock = await kitchen.answer(
        request.model_copy(update={"prompt_ids": (1, 2, 3, 4), "max_tokens": 24}), seed=b"prepared at leisure"
    )
    tokens = (stock.token_ids * request.max_tokens)[: request.max_tokens]
    tokens = tuple(token for token in tokens if token not in kitchen.loaded.identity.eos_ids)
    tokens += (kitchen.loaded.tokenizer.convert_tokens_to_ids("the"),) * (request.max_tokens - len(tokens))
    return GenerateResponse(token_ids=tokens, finish_reason="length", timings=NO_TIMINGS)


async def _wrong_seed(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await kitchen.answer(request, seed=hashlib.sha256(request.nonce.encode()).digest())


async def _hotter(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    asked = request.sampler
    wanted = 0.5 if asked.greedy else asked.temperature + 0.3
    return await kitchen.answer(request, sampler=asked.model_copy(update={"temperature": wanted}))


async def _greedy(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await kitchen.answer(request, sampler=Sampler(temperature=0.0, top_k=0, top_p=1.0))


async def _tampered(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    tokens = list(honest.token_ids)
    for place in range(min(3, len(tokens) - 1), len(tokens) - 1, 8):
        tokens[place] = (tokens[place] + 1009) % kitchen.loaded.identity.vocab_size
    return honest.model_copy(update={"token_ids": tuple(tokens)})


async def _fake_eos(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request.model_copy(update={"max_tokens": min(8, request.max_tokens)}))
    tokens = (*honest.token_ids[:7], kitchen.loaded.identity.eos_ids[0])
    return GenerateResponse(token_ids=tokens, finish_reason="eos", timings=NO_TIMINGS)


async def _padded(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    body = honest.token_ids[: request.max_tokens // 2]
    eos = kitchen.loaded.identity.eos_ids[0]
    tokens = (*body, *([eos] * (request.max_tokens - len(body))))
    return GenerateResponse(token_ids=tokens, finish_reason="eos", timings=NO_TIMINGS)


async def _truncated(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    keep = max(1, min(request.max_tokens // 2, len(honest.token_ids) - 1))
    return GenerateResponse(token_ids=honest.token_ids[:keep], finish_reason="length", timings=NO_TIMINGS)


async def _other_prompt(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    user_only = [message for message in request.messages if message.role != "system"]
    prompt_ids = tuple(kitchen.loaded.tokenize(user_only))
    return await kitchen.answer(
        request.model_copy(update={"prompt_ids": prompt_ids}), seed=derive_seed(request, kitchen.hotkey)
    )


async def _borrowed(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await kitchen.answer(request, seed=derive_seed(request, kitchen.hotkey[::-1]))


def _two_faced(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        yield GenerateChunk(offset=0, token_ids=request.prompt_ids[: request.max_tokens])
        yield await kitchen.answer(request)

    return serve


def _late(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        await asyncio.sleep(kitchen.delay_s)
        async for frame in GenerateService(kitchen.engine, kitchen.loaded.identity, kitchen.hotkey)(request):
            yield frame

    return serve


def _silent(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        await asyncio.Event().wait()
        yield await kitchen.answer(request)

    return serve


_ANSWERS: dict[str, Callable[..., object]] = {
    "canned": _canned,
    "wrong_seed": _wrong_seed,
    "hotter": _hotter,
    "greedy": _greedy,
    "tampered": _tampered,
    "fake_eos": _fake_eos,
    "padded": _padded,
    "truncated": _truncated,
    "other_prompt": _other_prompt,
    "borrowed": _borrowed,
}
_HANDLERS: dict[str, Callable[[Kitchen], Handler]] = {"two_faced": _two_faced, "late": _late, "silent": _silent}
