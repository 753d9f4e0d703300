"""Cheats that decode by themselves, token by token: a single other token, a cheap draft, lossy speculation.

All of them prove their tokens with one true prefill (`Kitchen.proved`), so their fingerprint is the right one and only
the tokens can give them away.

    one_token, runner_up     one token in the middle is not the winner; everything before and after it is honest
    drafted                  everything from the cheaper model in the engine
    lossy(tolerance)         speculation that keeps a drafted token when it nearly wins
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch

from protocol.inference import GenerateRequest, GenerateResponse, Sampler, Slack, derive_seed
from protocol.sampling import NoiseKey, candidates, choose, gumbel, margin, noise_key, rank
from template.inference.batch import shortlists
from tests.adversary.cheats.kitchen import Kitchen, Text, in_kitchen

Chooser: TypeAlias = Callable[[torch.Tensor, Sampler, NoiseKey, int], int]  # logits, sampler, key, position -> token

DRAFT_BLOCK = 4  # tokens drafted before the right model looks at them
NO_SLACK = Slack(logit=0.0, mass=0.0)


async def one_token(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """In the middle a token of its own choice, everything before and after it honest, the proof too."""
    return await _with_one(kitchen, request, _foreign)


async def runner_up(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """The same with the token that came second: the mildest change there is."""
    return await _with_one(kitchen, request, _second)


async def drafted(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
    """Everything from the cheaper model in the engine, then one prefill of the right one."""
    draft = await kitchen.answer(request)
    return await kitchen.proved(request, draft.token_ids, draft.finish_reason)


def lossy(tolerance: float) -> Callable[[Kitchen, GenerateRequest], Awaitable[GenerateResponse]]:
    """Speculation that keeps a drafted token when it loses by less than `tolerance` (logit / temperature)."""

    async def answering(kitchen: Kitchen, request: GenerateRequest) -> GenerateResponse:
        tokens = await in_kitchen(_speculate, kitchen, request, tolerance)
        return await kitchen.proved(request, tokens, _finish(kitchen, tokens))

    return answering


def _speculate(kitchen: Kitchen, request: GenerateRequest, tolerance: float) -> tuple[int, ...]:
    """The usual loop of speculative decoding: draft a block, check it in one pass, keep its accepted beginning."""
    key, eos = noise_key(derive_seed(request, kitchen.hotkey)), kitchen.loaded.identity.eos_ids
    draft, right = Text(kitchen.cheap_model, request.prompt_ids), Text(kitchen.loaded.model, request.prompt_ids)
    tokens: list[int] = []
    while len(tokens) < request.max_tokens and (not tokens or tokens[-1] not in eos):
        block: list[int] = []
        while len(block) < min(DRAFT_BLOCK, request.max_tokens - len(tokens)) and (not block or block[-1] not in eos):
            block.append(_pick(draft.next, request.sampler, key, len(tokens) + len(block)))
            draft.read(block[-1:])
        rows = [right.next, *right.read(block)]
        for place, proposed in enumerate(block):
            ((ids, values),) = shortlists(rows[place][None], [request.sampler])
            found = margin(ids, values, proposed, request.sampler, key, len(tokens), NO_SLACK)
            tokens.append(proposed if found.margin < tolerance else found.winner)
            if tokens[-1] != proposed:
                for text in (draft, right):
                    text.forget(len(request.prompt_ids) + len(tokens) - 1)
                    text.read(tokens[-1:])
                break
    return tuple(tokens)


def _finish(kitchen: Kitchen, tokens: Sequence[int]) -> Literal["eos", "length"]:
    return "eos" if tokens[-1] in kitchen.loaded.identity.eos_ids else "length"


async def _with_one(kitchen: Kitchen, request: GenerateRequest, other: Chooser) -> GenerateResponse:
    honest = await kitchen.answer(request)
    tokens = await in_kitchen(_going_on_from, kitchen, request, honest.token_ids, other)
    return await kitchen.proved(request, tokens, _finish(kitchen, tokens))


def _going_on_from(
    kitchen: Kitchen, request: GenerateRequest, honest: Sequence[int], other: Chooser
) -> tuple[int, ...]:
    """The honest beginning, one token that `other` chooses, and what the right model owes after it."""
    place = min(request.max_tokens // 2, len(honest) - 1)
    key, eos = noise_key(derive_seed(request, kitchen.hotkey)), kitchen.loaded.identity.eos_ids
    text = Text(kitchen.loaded.model, [*request.prompt_ids, *honest[:place]])
    tokens = [*honest[:place], other(text.next, request.sampler, key, place)]
    while len(tokens) < request.max_tokens and tokens[-1] not in eos:
        text.read(tokens[-1:])
        tokens.append(_pick(text.next, request.sampler, key, len(tokens)))
    return tuple(tokens)


def _pick(logits: torch.Tensor, sampler: Sampler, key: NoiseKey, position: int) -> int:
    ((ids, values),) = shortlists(logits[None], [sampler])
    return choose(ids, values, sampler, key, position)


def _foreign(logits: torch.Tensor, sampler: Sampler, key: NoiseKey, position: int) -> int:
    """The token that comes last: sure to stand out, and as good as any other word that was not asked for."""
    return int(logits.argmin())


def _second(logits: torch.Tensor, sampler: Sampler, key: NoiseKey, position: int) -> int:
    """The token that comes second; where only one is a candidate, the next by logit."""
    ((ids, values),) = shortlists(logits[None], [sampler])
    kept, scores = rank(ids, values) if sampler.greedy else candidates(ids, values, sampler)
    if len(kept) == 1:
        return int(rank(ids, values)[0][1])
    if not sampler.greedy:
        scores = scores / sampler.temperature + gumbel(key, position, kept)
    return int(kept[np.argsort(-scores, kind="stable")[1]])
