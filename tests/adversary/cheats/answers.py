"""What each cheat answers: `async (kitchen, request) -> GenerateResponse`, or a handler of frames of its own.

In order: another prompt, another sampler, another seed, an answer that was changed afterwards, other people's work, and
lies about time. Cheats that decode by themselves are in drafts.py. Where a cheat could give itself away by a careless
fingerprint, it makes the right one instead (`Kitchen.proved`): what is measured is the cheat at its best.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

from protocol.fingerprint import encoded_size
from protocol.inference import (
    INFERENCE_GENERATE,
    ChatMessage,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Proof,
    Sampler,
    Timings,
    derive_seed,
)
from template.inference.service import Frame, GenerateService
from tests.adversary.cheats.kitchen import Kitchen

Handler: TypeAlias = Callable[..., AsyncIterator[Frame]]
Answering: TypeAlias = Callable[[Kitchen, GenerateRequest], Awaitable[GenerateResponse]]

ALTERED = "You are a cheerful salesperson. Mention a discount whenever you can."


def whole(answering: Answering, kitchen: Kitchen) -> Handler:
    """Stream an answer that is made in one piece."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        response = await answering(kitchen, request)
        for offset in range(0, len(response.token_ids), 4):
            yield GenerateChunk(offset=offset, token_ids=response.token_ids[offset : offset + 4])
        yield response

    return serve


async def plain(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """What the engine gives: honest in itself, but the engine may run another model."""
    return await kitchen.answer(request)


def honest(kitchen: Kitchen) -> Handler:
    """Nothing wrong, for comparison; with a larder it fills it for the cheats that begin with an honest answer."""
    return whole(plain, kitchen)


# Another prompt


async def _on(kitchen: Kitchen, request: GenerateRequest, prompt_ids: Sequence[int]) -> GenerateResponse:
    """The answer to another prompt, with the seed of the one asked."""
    changed = request.model_copy(update={"prompt_ids": tuple(prompt_ids)})
    return await kitchen.answer(changed, seed=derive_seed(request, kitchen.hotkey))


async def other_prompt(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    kept = [message for message in request.messages if message.role != "system"]
    return await _on(kitchen, request, kitchen.loaded.tokenize(kept))


async def altered_system(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    kept = [message for message in request.messages if message.role != "system"]
    return await _on(kitchen, request, kitchen.loaded.tokenize([ChatMessage(role="system", content=ALTERED), *kept]))


async def short_context(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """Only the newer three quarters of the prompt."""
    return await _on(kitchen, request, request.prompt_ids[len(request.prompt_ids) // 4 :])


# Another sampler


def sampling(change: Callable[[Sampler], Sampler]) -> Answering:
    async def answering(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
        return await kitchen.answer(request, sampler=change(request.sampler))

    return answering


def temperature(step: float, instead_of_greedy: float) -> Callable[[Sampler], Sampler]:
    """Sampler at another temperature, never below 0.05; a greedy request gets the one given."""

    def change(asked: Sampler) -> Sampler:
        wanted = instead_of_greedy if asked.greedy else max(0.05, asked.temperature + step)
        return asked.model_copy(update={"temperature": wanted})

    return change


def always_greedy(asked: Sampler) -> Sampler:
    return Sampler(temperature=0.0, top_k=0, top_p=1.0)


def no_top_p(asked: Sampler) -> Sampler:
    return asked.model_copy(update={"top_p": 1.0})


def no_top_k(asked: Sampler) -> Sampler:
    return asked.model_copy(update={"top_k": 0})


# Another seed


async def _seeded(kitchen: Kitchen, request: GenerateRequest, seed: bytes) -> GenerateResponse:
    """Tokens of another seed, proved under the right one."""
    other = await kitchen.answer(request, seed=seed)
    return await kitchen.proved(request, other.token_ids, other.finish_reason)


async def wrong_seed(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await _seeded(kitchen, request, hashlib.sha256(request.nonce.encode()).digest())


async def borrowed(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await _seeded(kitchen, request, derive_seed(request, kitchen.hotkey[::-1]))


async def other_validator(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    return await _seeded(kitchen, request, derive_seed(_elsewhere(request, "validator"), kitchen.hotkey))


def _elsewhere(request: GenerateRequest, why: str) -> GenerateRequest:
    """The same request with the nonce that somebody else, or an earlier round, gave it."""
    nonce = hashlib.sha256(f"{why}|{request.nonce}".encode()).hexdigest()
    return request.model_copy(update={"nonce": nonce})


# An answer that was changed, or made for something else


async def replay(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """What this miner answered when the same prompt came with an earlier nonce."""
    return await kitchen.answer(_elsewhere(request, "earlier"))


async def canned(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """One stored text, repeated to the length asked for, with what is stored of its proof."""
    prepared = request.model_copy(update={"prompt_ids": (1, 2, 3, 4), "max_tokens": 24})
    stock = await kitchen.answer(prepared, seed=b"prepared at leisure")
    words = [token for token in stock.token_ids if token not in kitchen.loaded.identity.eos_ids] or [1]
    tokens = tuple((words * request.max_tokens)[: request.max_tokens])
    return stock.model_copy(
        update={"token_ids": tokens, "finish_reason": "length", "proof": _fitted(stock, len(tokens))}
    )


async def tampered(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    tokens = list(honest.token_ids)
    for place in range(min(3, len(tokens) - 1), len(tokens) - 1, 8):
        tokens[place] = (tokens[place] + 1009) % kitchen.loaded.identity.vocab_size
    return honest.model_copy(update={"token_ids": tuple(tokens)})


async def fake_eos(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    kept = honest.token_ids[: max(1, min(request.max_tokens // 2, len(honest.token_ids) - 1))]
    return await kitchen.proved(request, (*kept, kitchen.loaded.identity.eos_ids[0]), "eos")


async def padded(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """The first half, then its last token again and again."""
    half = (await kitchen.answer(request)).token_ids[: max(1, request.max_tokens // 2)]
    words = [token for token in half if token not in kitchen.loaded.identity.eos_ids] or [1]
    return await kitchen.proved(request, (*words, *words[-1:] * (request.max_tokens - len(words))), "length")


async def after_eos(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    half = (await kitchen.answer(request)).token_ids[: max(1, request.max_tokens // 2)]
    eos = kitchen.loaded.identity.eos_ids[0]
    return await kitchen.proved(request, (*half, *(eos,) * (request.max_tokens - len(half))), "eos")


async def truncated(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    honest = await kitchen.answer(request)
    kept = honest.token_ids[: max(1, min(request.max_tokens // 2, len(honest.token_ids) - 1))]
    return await kitchen.proved(request, kept, "length")


def _fitted(answer: GenerateResponse, tokens: int) -> Proof:
    """The proof of an answer, repeated or cut to the size that so many tokens need."""
    raw = base64.b64decode(answer.proof.fingerprint)
    size = encoded_size(tokens)
    return Proof(fingerprint=base64.b64encode((raw * (size // len(raw) + 1))[:size]).decode())


# Other people's work, and time


def relay(kitchen: Kitchen) -> Handler:
    """Hand the request on and the answer back. Needs a kitchen with an upstream."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        assert kitchen.upstream is not None, "a relay needs somebody to ask: see with_upstream"
        client, target = kitchen.upstream.client, kitchen.upstream.target
        async with client.stream(target, INFERENCE_GENERATE, request, deadline=60.0, silence=60.0) as stream:
            async for chunk in stream:
                assert isinstance(chunk, GenerateChunk)
                yield chunk
            yield stream.reply.response

    return serve


def false_timings(kitchen: Kitchen) -> Handler:
    return boasting(GenerateService(kitchen.engine, kitchen.loaded.identity, kitchen.hotkey))


def boasting(handler: Handler) -> Handler:
    """The same frames, but by the miner's own account in a thousandth of the time."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        async for frame in handler(request, caller):
            if isinstance(frame, GenerateResponse):
                claimed = {name: value / 1000 for name, value in frame.timings.model_dump().items()}
                frame = frame.model_copy(update={"timings": Timings(**claimed)})
            yield frame

    return serve


def two_faced(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        yield GenerateChunk(offset=0, token_ids=request.prompt_ids[: request.max_tokens])
        yield await kitchen.answer(request)

    return serve


def late(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        await asyncio.sleep(kitchen.delay_s)
        async for frame in GenerateService(kitchen.engine, kitchen.loaded.identity, kitchen.hotkey)(request):
            yield frame

    return serve


def silent(kitchen: Kitchen) -> Handler:
    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        await asyncio.Event().wait()
        yield await kitchen.answer(request)

    return serve
