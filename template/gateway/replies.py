"""Our answers in OpenAI's form: objects, stream chunks, headers. Pure; `created` is an argument.

    Reply(kind, model, created)      names what all parts of one answer have in common
    .whole(...)                      the object of an answer that does not stream
    .first(), .piece(text), .last(...), .usage(...)     the chunks of one that does
    Proof.of(result)                 who answered, and what proves it; .headers() for the response

The field `touchstone` is ours: in the object, and in the chunk that carries the finish reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from protocol.challenges import ModelIdentity
from template.gateway.dispatch import Result
from template.gateway.openai_api import Kind

HEADER_MINER = "X-Touchstone-Miner"  # SS58
HEADER_EVIDENCE = "X-Touchstone-Evidence"  # 64 hex digits
HEADER_AUDITED = "X-Touchstone-Audited"  # true: verified before it was sent; pending: drawn for audit; false

FINISH = {"eos": "stop", "length": "length"}


@dataclass(frozen=True)
class Proof:
    """Who answered, and by what name the signed answer is known."""

    miner: str
    evidence: str  # digest of the signed response, `SignedExchange.response_digest`
    audited: str
    challenge: str  # digest under which the ledger keeps request, answer and verdict
    asked: int  # miners

    @classmethod
    def of(cls, result: Result) -> Proof:
        reply = result.answer.reply
        assert reply is not None  # or there would be no result
        audited = "true" if result.verdict is not None else "pending" if result.drawn else "false"
        challenge = result.answer.challenge
        return cls(
            challenge.miner, reply.exchange.response_digest.hex(), audited, challenge.digest, max(result.asked, 1)
        )

    @property
    def headers(self) -> dict[str, str]:
        return {HEADER_MINER: self.miner, HEADER_EVIDENCE: self.evidence, HEADER_AUDITED: self.audited}


@dataclass(frozen=True)
class Usage:
    """Tokens; an end-of-sequence token counts as one."""

    prompt: int
    completion: int

    def to_object(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True)
class Reply:
    """What every part of one answer says."""

    kind: Kind
    model: str
    challenge: str
    created: int  # seconds since the epoch
    with_usage: bool = False  # of a stream: the caller wants a closing chunk with usage

    def whole(self, text: str, finish: str, usage: Usage, proof: Proof) -> bytes:
        if self.kind == "chat":
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}}
        else:
            choice = {"text": text}
        choice |= {"index": 0, "logprobs": None, "finish_reason": FINISH[finish]}
        body = self._frame("chat.completion", [choice]) | {"usage": usage.to_object(), "touchstone": vars(proof)}
        return orjson.dumps(body)

    def first(self) -> list[bytes]:
        """What opens a chat's stream; a completion's has no such chunk."""
        if self.kind != "chat":
            return []
        return [self._chunk({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})]

    def piece(self, text: str) -> bytes:
        choice = {"delta": {"content": text}} if self.kind == "chat" else {"text": text}
        return self._chunk({**choice, "finish_reason": None})

    def last(self, finish: str, proof: Proof) -> bytes:
        choice: dict[str, Any] = {"delta": {}} if self.kind == "chat" else {"text": ""}
        return self._chunk({**choice, "finish_reason": FINISH[finish]}, touchstone=vars(proof))

    def usage(self, usage: Usage) -> bytes:
        return orjson.dumps(self._frame("chat.completion.chunk", []) | {"usage": usage.to_object()})

    def _chunk(self, choice: dict[str, Any], **more: Any) -> bytes:
        frame = self._frame("chat.completion.chunk", [{"index": 0, "logprobs": None, **choice}])
        if self.with_usage:
            frame["usage"] = None
        return orjson.dumps(frame | more)

    def _frame(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chat = self.kind == "chat"
        return {
            "id": ("chatcmpl-" if chat else "cmpl-") + self.challenge,
            "object": name if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def model_object(identity: ModelIdentity, created: int) -> dict[str, Any]:
    """One entry of /v1/models. The root and the rest are ours."""
    return {
        "id": identity.name,
        "object": "model",
        "created": created,
        "owned_by": "touchstone",
        "touchstone": {
            "root": identity.root,
            "dtype": identity.dtype,
            "context_length": identity.context_length,
        },
    }
