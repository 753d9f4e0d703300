"""The contract between a miner and an engine server: OpenAI's completions with token ids, and our sampler.

Any server may stand behind it. `touchstone engine` is one (openai_server.py), the miner's side is remote.py. To teach
it to another server takes a logits processor that samples as protocol/sampling.py says, a hook that sees the last
hidden state of every position a token is sampled from (what the output embedding reads), and these three answers:

GET /v1/models      {"object": "list", "data": [{"id": NAME, "object": "model", "max_model_len": TOKENS,
                     "touchstone": {"sampler": "gumbel-philox/1", "fingerprint": FINGERPRINT_FORM, "identity":
                       {"name", "source", "root", "dtype", "vocab_size", "eos_ids", "context_length"}}}]}
    Exactly one entry carries `touchstone`. `root` is the model root (protocol/model_root.py), `dtype` the number format
    that is computed in. max_model_len bounds prompt and answer together.

POST /v1/completions        {"model": NAME, "prompt": [ids], "max_tokens", "temperature", "top_k", "top_p",
                             "stream": true, "return_token_ids": true,
                             "touchstone": {"sampler", "fingerprint", "seed", "root", "dtype"}}
    Nothing else is sent, and all of it is. `seed`: 32 bytes, hex. temperature 0 is greedy; top_k 0 is the whole
    vocabulary. The token at position p (counted from 0 in the answer) is
    `sampling.choose(ids, logits, sampler, noise_key(seed), p)`; generation ends with the first token of `eos_ids`,
    which is part of the answer, or after max_tokens. No other stop, penalty or bias applies.

    The answer is `text/event-stream`; its headers are sent as soon as the request has a place in the queue:
        data: {"id", "object": "text_completion", "created", "model",
               "choices": [{"index": 0, "text": "", "token_ids": [ids], "logprobs": null, "finish_reason": null}]}
    and so on, each with at least one new token; the last one has finish_reason "stop" (an end-of-sequence token) or
    "length" and beside `choices` {"touchstone": {"fingerprint": BASE64, "queue_ms": NUMBER}}, the fingerprint of
    protocol/fingerprint.py over all tokens of the answer; then `data: [DONE]`. Lines that begin with ":" keep the
    connection alive and come at least every KEEP_ALIVE_S while there is nothing else. A client that closes the
    connection cancels its request. An error in the middle is `data: {"error": ...}` in place of the next chunk.

Errors: {"error": {"message", "type", "code"}} with these codes (and HTTP status):
    refused (400)        can never be served             busy (503)             try again after Retry-After seconds
    other_model (409)    root, dtype or sampler differ   out_of_memory (503)    no memory for this request
    unauthorized (401)   the API key is missing or wrong stopped (503)          the engine is closing or failed

A key, where the server wants one, travels as `Authorization: Bearer KEY`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from protocol.challenges import ModelIdentity
from protocol.fingerprint import CHUNK, DIMENSIONS, encoded_size
from protocol.generation import (
    MAX_ANSWER_TOKENS,
    MAX_PROMPT_TOKENS,
    MAX_TOKEN_ID,
    DType,
    Hex32,
    Proof,
    TokenId,
)

MODELS = "/v1/models"
COMPLETIONS = "/v1/completions"
SAMPLER_FORM = "gumbel-philox/1"
FINGERPRINT_FORM = f"signs/{DIMENSIONS}x{CHUNK}/{encoded_size(1)}"  # another size is another fingerprint
KEEP_ALIVE_S = 5.0
MAX_BODY_BYTES = 256 * 1024  # MAX_PROMPT_TOKENS ids of eight digits, thrice
MAX_LINE_BYTES = 64 * 1024  # a whole answer in one event

Code: TypeAlias = Literal["refused", "busy", "other_model", "out_of_memory", "unauthorized", "stopped", "failed"]
STATUS: dict[Code, int] = {
    "refused": 400,
    "unauthorized": 401,
    "other_model": 409,
    "failed": 500,
    "busy": 503,
    "out_of_memory": 503,
    "stopped": 503,
}


class _Sent(BaseModel):
    """What we define: nothing unknown, nothing coerced, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Received(BaseModel):
    """What other servers may add to; the same strictness in the fields that we read."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Demands(_Sent):
    """The `touchstone` part of a request."""

    sampler: str = Field(max_length=64)
    fingerprint: str = Field(max_length=64)
    seed: Hex32
    root: Hex32
    dtype: DType


class CompletionRequest(_Sent):
    model: str = Field(max_length=512)
    prompt: list[TokenId] = Field(min_length=1, max_length=MAX_PROMPT_TOKENS)
    max_tokens: int = Field(ge=1, le=MAX_ANSWER_TOKENS)
    temperature: float = Field(ge=0.0, le=2.0)
    top_k: int = Field(ge=0, le=1000)
    top_p: float = Field(gt=0.0, le=1.0)
    stream: Literal[True]
    return_token_ids: Literal[True]
    touchstone: Demands


class Choice(_Received):
    index: Literal[0]
    text: str = Field(default="", max_length=MAX_LINE_BYTES)
    token_ids: list[TokenId] = Field(min_length=1, max_length=MAX_ANSWER_TOKENS)
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class Closing(Proof):
    """The `touchstone` part of the last chunk."""

    queue_ms: float = Field(ge=0.0, le=1e9)


class ErrorBody(_Received):
    message: str = Field(max_length=2000)
    type: str | None = None
    code: str | None = Field(default=None, max_length=64)


class Failed(_Received):
    error: ErrorBody


class Chunk(_Received):
    choices: Annotated[list[Choice], Field(min_length=1, max_length=1)]
    touchstone: Closing | None = None


class IdentityBody(_Sent):
    name: str = Field(max_length=512)
    source: str = Field(max_length=512)
    root: Hex32
    dtype: DType
    vocab_size: int = Field(ge=1, le=MAX_TOKEN_ID + 1)
    eos_ids: list[TokenId] = Field(min_length=1, max_length=64)
    context_length: int = Field(ge=1, le=2**31)

    @classmethod
    def of(cls, identity: ModelIdentity) -> IdentityBody:
        return cls(**{**asdict(identity), "eos_ids": list(identity.eos_ids)})

    def identity(self) -> ModelIdentity:
        return ModelIdentity(**{**self.model_dump(), "eos_ids": tuple(self.eos_ids)})


class Offered(_Sent):
    """The `touchstone` part of a model's entry."""

    sampler: str = Field(max_length=64)
    fingerprint: str = Field(max_length=64)
    identity: IdentityBody


class ModelEntry(_Received):
    id: str = Field(max_length=512)
    max_model_len: int | None = Field(default=None, ge=1)
    touchstone: Offered | None = None


class ModelList(_Received):
    data: list[ModelEntry] = Field(max_length=1000)
