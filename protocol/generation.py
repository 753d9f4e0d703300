"""What travels for `inference.generate`: request, streamed chunks, response, and the seed they determine.

A request names the exact model (root and dtype), the exact prompt (token ids; the messages are for people and for the
verifier's own tokenization), the sampler and a nonce. Everything has a bound, so a hostile peer cannot make the other
side allocate more than a few hundred kilobytes. A streamed answer is a run of `GenerateChunk` closed by one
`GenerateResponse` that repeats all token ids; the response is what the miner signs.

    request_digest(request)           sha256 over the canonical JSON
    derive_seed(request, miner)       sha256 over nonce, request digest and the miner's hotkey: the miner never chooses
                                      it, so no answer can be replayed or prepared, and no two owe the same text
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from protocol.fingerprint import encoded_size
from protocol.sampling import Sampler
from protocol.synapse import KIB, MIB, Message, Synapse

MAX_PROMPT_TOKENS = 8192  # the longest prompt a request may carry; a model's own context may be shorter
MAX_ANSWER_TOKENS = 2048
MAX_TOKEN_ID = 2**24 - 1  # beyond any vocabulary in use
MAX_MESSAGES = 32
MAX_MESSAGE_CHARACTERS = 16_384

DType: TypeAlias = Literal["float32", "bfloat16", "float16"]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Hex32: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # 32 bytes, lower-case hex without prefix
FinishReason: TypeAlias = Literal["eos", "length"]


class ChatMessage(Message):
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_MESSAGE_CHARACTERS)


class GenerateRequest(Message):
    """Generate at most `max_tokens` tokens after `prompt_ids`, exactly as the sampler and the seed demand."""

    model_root: Hex32
    dtype: DType
    prompt_ids: tuple[TokenId, ...] = Field(min_length=1, max_length=MAX_PROMPT_TOKENS)
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES)
    sampler: Sampler
    max_tokens: int = Field(ge=1, le=MAX_ANSWER_TOKENS)
    nonce: Hex32


class GenerateChunk(Message):
    """Tokens `offset`, `offset + 1`, ... of the answer."""

    offset: int = Field(ge=0, le=MAX_ANSWER_TOKENS)
    token_ids: tuple[TokenId, ...] = Field(min_length=1, max_length=MAX_ANSWER_TOKENS)


class Timings(Message):
    """The miner's own account in milliseconds, for people; scores use what the validator measured."""

    queue_ms: float = Field(ge=0.0, le=1e9)
    first_token_ms: float = Field(ge=0.0, le=1e9)
    total_ms: float = Field(ge=0.0, le=1e9)


class Proof(Message):
    """What makes checking cheaper than redoing: the fingerprint of `protocol/fingerprint.py`, base64."""

    fingerprint: str = Field(max_length=4 * math.ceil(encoded_size(MAX_ANSWER_TOKENS) / 3))


class GenerateResponse(Message):
    """The whole answer. `token_ids` includes the closing end-of-sequence token when `finish_reason` is "eos"."""

    token_ids: tuple[TokenId, ...] = Field(max_length=MAX_ANSWER_TOKENS)
    finish_reason: FinishReason
    proof: Proof
    timings: Timings


def canonical_json(value: BaseModel) -> bytes:
    """Sorted keys, no spaces, ASCII, shortest floats: the bytes that digests are taken over."""
    plain = value.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def request_digest(request: GenerateRequest) -> bytes:
    """32 bytes that stand for every field of the request."""
    return hashlib.sha256(b"touchstone/request/v1" + canonical_json(request)).digest()


def derive_seed(request: GenerateRequest, miner_hotkey: str) -> bytes:
    """32 bytes: H(nonce || request digest || miner hotkey). The hotkey enters as its SS58 text."""
    parts = bytes.fromhex(request.nonce) + request_digest(request) + miner_hotkey.encode()
    return hashlib.sha256(b"touchstone/seed/v1" + parts).digest()


INFERENCE_GENERATE: Synapse[GenerateRequest, GenerateResponse] = Synapse(
    name="inference_generate",
    version=2,
    request=GenerateRequest,
    response=GenerateResponse,
    max_request_bytes=1 * MIB,
    max_response_bytes=256 * KIB,
    timeout=120.0,
    chunk=GenerateChunk,
    max_chunk_bytes=32 * KIB,
)
