"""The requests we accept in OpenAI's form, and the one strict way from them to what miners are asked.

    wanted = read_chat(body, defaults)           # or read_completion; raises ApiError
    wanted.messages, wanted.sampler, wanted.max_tokens, wanted.stream, ...
    limits = fit(wanted, prompt_tokens, defaults, context)      # the answer's length, or ApiError

Nothing that would change the answer is ignored: a parameter is mapped, or has its neutral value, or is refused by name.

mapped     messages, prompt, model, max_tokens, max_completion_tokens, temperature, top_p, stream,
           stream_options.include_usage, and top_k (an extension: `extra_body={"top_k": 50}`)
no effect  user, safety_identifier, metadata, prompt_cache_key: they say nothing about the answer
neutral    n=1, best_of=1, stop empty, logprobs off, penalties 0, logit_bias empty, tools empty, echo off, store off,
           response_format text, ...
refused    everything else. `stop`: a miner signs its whole answer, so a cut one could not be checked. `seed`: it
           follows from a fresh nonce and the miner's hotkey, so a caller's could not give the same answer twice.

Roles are system, user and assistant; developer is system's newer name. Content is text, or a list of text parts, which
are joined. A raw completion is asked as one user message through the model's chat template, because a prompt must be
what the verifier's own tokenization of the messages gives. What is not said has the protocol's own default
(`Sampler()`, what validators use most), so that requests of users and of validators look alike.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.generation import MAX_ANSWER_TOKENS, MAX_MESSAGE_CHARACTERS, MAX_MESSAGES, MAX_PROMPT_TOKENS, ChatMessage
from protocol.sampling import COLDEST, Sampler
from protocol.synapse import safe_text
from template.gateway.errors import ApiError

Neutral: TypeAlias = Literal[0] | None
Kind: TypeAlias = Literal["chat", "completion"]


class _Form(BaseModel):
    """Strict JSON: no unknown field, no coercion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class TextPart(_Form):
    type: Literal["text"]
    text: str


class ChatInput(_Form):
    """One message as clients send it; answers of ours come back with their empty fields."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class StreamOptions(_Form):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class TextFormat(_Form):
    type: Literal["text"]


class _Common(_Form):
    model: str = Field(max_length=200)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=512)
    n: Literal[1] | None = None
    stop: Literal[""] | Annotated[list[Any], Field(max_length=0)] | None = None
    seed: None = None
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class ChatForm(_Common):
    """Body of POST /v1/chat/completions."""

    messages: list[ChatInput]
    max_completion_tokens: int | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Neutral = None
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none"] | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    safety_identifier: str | None = Field(default=None, max_length=512)
    prompt_cache_key: str | None = Field(default=None, max_length=512)


class CompletionForm(_Common):
    """Body of POST /v1/completions."""

    prompt: str | list[str]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    logprobs: None = None


@dataclass(frozen=True)
class Defaults:
    """What a request gets that does not say."""

    max_tokens: int = 256
    max_context: int = 4096  # prompt and answer together; miners' engines take no more


@dataclass(frozen=True)
class Wanted:
    """A request as understood. `max_tokens` None: not said."""

    kind: Kind
    model: str
    messages: tuple[ChatMessage, ...]
    sampler: Sampler
    max_tokens: int | None
    stream: bool
    include_usage: bool


def read_chat(body: bytes) -> Wanted:
    """Raises ApiError (400) naming the parameter."""
    form = _parse(ChatForm, body)
    if form.max_tokens is not None and form.max_completion_tokens not in (None, form.max_tokens):
        raise _bad("give max_tokens or max_completion_tokens, not both", "max_completion_tokens")
    if not form.messages:
        raise _bad("messages must hold at least one message", "messages", "empty_array")
    if len(form.messages) > MAX_MESSAGES:
        detail = f"{len(form.messages)} messages; at most {MAX_MESSAGES} are taken"
        raise _bad(detail, "messages", "array_above_max_length")
    if form.messages[-1].role == "assistant":
        raise _bad("the last message is the assistant's: there is nothing to answer", "messages")
    messages = tuple(_message(index, message) for index, message in enumerate(form.messages))
    limit = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    name = "max_completion_tokens" if form.max_completion_tokens is not None else "max_tokens"
    return _wanted("chat", form, messages, limit, name)


def read_completion(body: bytes) -> Wanted:
    """Raises ApiError (400) naming the parameter."""
    form = _parse(CompletionForm, body)
    prompts = [form.prompt] if isinstance(form.prompt, str) else form.prompt
    if len(prompts) != 1:
        raise _bad(f"{len(prompts)} prompts; exactly one is taken a request", "prompt")
    message = ChatMessage(role="user", content=_text(prompts[0], "prompt"))
    return _wanted("completion", form, (message,), form.max_tokens, "max_tokens")


def fit(wanted: Wanted, prompt_tokens: int, defaults: Defaults, context: int) -> int:
    """Tokens the answer may have, for a prompt of `prompt_tokens` and a model of `context`. Raises ApiError."""
    context = min(context, defaults.max_context)
    room = min(context - prompt_tokens, MAX_ANSWER_TOKENS)
    asked = wanted.max_tokens
    if prompt_tokens > MAX_PROMPT_TOKENS or room < (asked or 1):
        field = "prompt" if wanted.kind == "completion" else "messages"
        detail = f"the context is {context} tokens; this is {prompt_tokens} of prompt and {asked or 1} of answer"
        raise _bad(detail, field, "context_length_exceeded")
    return min(room, defaults.max_tokens) if asked is None else asked


def _wanted(kind: Kind, form: _Common, messages: tuple[ChatMessage, ...], limit: int | None, limit_name: str) -> Wanted:
    if limit is not None and not 1 <= limit <= MAX_ANSWER_TOKENS:
        raise _bad(f"{limit_name} must be 1 to {MAX_ANSWER_TOKENS}", limit_name)
    if form.stream_options is not None and not form.stream:
        raise _bad("stream_options is only for stream=true", "stream_options")
    usage = form.stream_options is not None and form.stream_options.include_usage
    return Wanted(kind, form.model, messages, _sampler(form), limit, bool(form.stream), usage)


def _sampler(form: _Common) -> Sampler:
    plain = Sampler()
    temperature = plain.temperature if form.temperature is None else form.temperature
    top_p = plain.top_p if form.top_p is None else form.top_p
    top_k = plain.top_k if form.top_k is None else form.top_k
    if temperature != 0.0 and not COLDEST <= temperature <= 2.0:
        raise _bad(f"temperature must be 0 or {COLDEST:g} to 2", "temperature")
    if not 0.0 < top_p <= 1.0:
        raise _bad("top_p must be above 0 and at most 1", "top_p")
    if not 0 <= top_k <= 1000:
        raise _bad("top_k must be 0 (the whole vocabulary) to 1000", "top_k")
    if temperature == 0.0:  # the form in which validators ask for greedy; the rule ignores both
        return Sampler(temperature=0.0, top_k=0, top_p=1.0)
    return Sampler(temperature=float(temperature), top_k=top_k, top_p=float(top_p))


def _message(index: int, message: ChatInput) -> ChatMessage:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    role: Any = "system" if message.role == "developer" else message.role
    return ChatMessage(role=role, content=_text(text, f"messages[{index}].content"))


def _text(text: str, where: str) -> str:
    if not text.strip():
        raise _bad(f"{where} has no text", where, "empty_string")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        detail = f"{where} has {len(text)} characters; at most {MAX_MESSAGE_CHARACTERS} are taken"
        raise _bad(detail, where, "string_above_max_length")
    # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 does not have.
    bad = next((c for c in text if c not in "\n\r\t" and unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise _bad(f"{where} holds the control character U+{ord(bad):04X}", where, "control_character")
    return text


AnyForm = TypeVar("AnyForm", bound=_Form)


def _parse(model: type[AnyForm], body: bytes) -> AnyForm:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
    path: list[Any] = [part for part in problem["loc"] if isinstance(part, int) or part in _NAMES]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    kind = problem["type"]
    if kind.startswith("json"):
        raise _bad("the body is not JSON", None, "invalid_json")
    if kind == "extra_forbidden":
        name = safe_text(str(problem["loc"][-1])[:80])
        raise _bad(f"unrecognized request argument: {name}", name, "unknown_parameter")
    if kind == "missing":
        raise _bad(f"missing required parameter: {where}", where, "missing_required_parameter")
    if path and path[0] in _UNSUPPORTED:
        raise _bad(_UNSUPPORTED[path[0]], path[0], "unsupported_parameter")
    raise _bad(f"invalid value for {where or 'the body'}: {problem['msg']}", where or None)


_UNSUPPORTED = {
    "stop": "stop is not supported: miners sign whole answers, and a cut answer could not be verified",
    "seed": "seed is not supported: it follows from a fresh nonce and the miner's hotkey, so that answers cannot be "
    "prepared",
    "n": "only n=1 is supported",
    "best_of": "only best_of=1 is supported",
    "logprobs": "logprobs are not supported: miners return tokens only",
    "top_logprobs": "logprobs are not supported: miners return tokens only",
    "frequency_penalty": "penalties are not part of the protocol's sampler",
    "presence_penalty": "penalties are not part of the protocol's sampler",
    "logit_bias": "logit_bias is not part of the protocol's sampler",
    "tools": "tools are not supported",
    "functions": "functions are not supported",
    "tool_choice": "tools are not supported",
    "function_call": "functions are not supported",
    "response_format": "only response_format text is supported",
    "modalities": "only text is supported",
    "store": "answers are not stored for callers",
    "suffix": "suffix is not supported",
    "echo": "echo is not supported",
}


# Names that may stand in an error's path; pydantic puts the branches of unions there as well.
_NAMES = frozenset(
    name for form in (ChatForm, CompletionForm, ChatInput, TextPart, StreamOptions, TextFormat)
    for name in form.model_fields
)  # fmt: skip


def _bad(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)
