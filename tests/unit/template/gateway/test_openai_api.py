"""From OpenAI's requests to ours: what is mapped, what is neutral, and what is refused by name."""

import json
from typing import Any

import pytest

from protocol.generation import MAX_ANSWER_TOKENS, MAX_MESSAGE_CHARACTERS, MAX_MESSAGES
from protocol.sampling import Sampler
from template.gateway.errors import ApiError
from template.gateway.openai_api import Defaults, Wanted, fit, read_chat, read_completion

USER = {"role": "user", "content": "hello"}


def chat(**fields: Any) -> Wanted:
    return read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_plain_request_gets_the_samplers_default_of_the_protocol() -> None:
    wanted = chat()
    assert wanted.sampler == Sampler() and wanted.max_tokens is None and not wanted.stream
    assert [(m.role, m.content) for m in wanted.messages] == [("user", "hello")]


def test_what_is_given_is_mapped() -> None:
    wanted = chat(
        temperature=0.7, top_p=0.9, top_k=40, max_tokens=7, stream=True, stream_options={"include_usage": True}
    )
    assert wanted.sampler == Sampler(temperature=0.7, top_k=40, top_p=0.9)
    assert wanted.max_tokens == 7 and wanted.stream and wanted.include_usage
    assert chat(max_completion_tokens=9).max_tokens == 9
    assert chat(temperature=0).sampler == Sampler(temperature=0.0, top_k=0, top_p=1.0), "as validators ask for greedy"


def test_roles_and_parts() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": "d\n\te"},
    ]
    found = [(m.role, m.content) for m in chat(messages=messages).messages]
    assert found == [("system", "be brief"), ("user", "ab"), ("assistant", "c"), ("user", "d\n\te")]


def test_neutral_values_and_words_about_the_caller_change_nothing() -> None:
    plain = chat()
    assert plain == chat(
        n=1,
        stop=[],
        logprobs=False,
        frequency_penalty=0.0,
        presence_penalty=0,
        logit_bias={},
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        user="somebody",
        metadata={"a": "b"},
        seed=None,
        store=False,
        stream=False,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop", ["\n"]),
        ("stop", "END"),
        ("seed", 7),
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -0.5),
        ("logit_bias", {"5": 1}),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("store", True),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.param == field and error.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", 1e-310),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 10**9),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", MAX_ANSWER_TOKENS + 1),
        ("max_tokens", 10**30),
        ("max_tokens", "7"),
        ("model", 7),
        ("messages", []),
        ("messages", [USER] * (MAX_MESSAGES + 1)),
        ("messages", "hello"),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
    ],
)
def test_absurd_values_are_refused_by_name(field: str, value: Any) -> None:
    assert refused(**{field: value}).param == field


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": %s}' % number.encode()
    with pytest.raises(ApiError) as caught:
        read_chat(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"role": "user", "content": ""}, "empty_string"),
        ({"role": "user", "content": " \n "}, "empty_string"),
        ({"role": "user", "content": []}, "empty_string"),
        ({"role": "user", "content": "a\x00b"}, "control_character"),
        ({"role": "user", "content": "a\x1b[2Jb"}, "control_character"),
        ({"role": "user", "content": "a\x85b"}, "control_character"),
        ({"role": "user", "content": "a" * (MAX_MESSAGE_CHARACTERS + 1)}, "string_above_max_length"),
        ({"role": "tool", "content": "a"}, "invalid_value"),
        ({"role": "root", "content": "a"}, "invalid_value"),
        ({"role": "assistant", "content": "a"}, "invalid_value"),
        ({"role": "user", "content": None}, "invalid_value"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "invalid_value"),
        ({"role": "user", "content": "a", "name": "b"}, "unknown_parameter"),
        ({"content": "a"}, "missing_required_parameter"),
    ],
)
def test_bad_messages(message: Any, code: str) -> None:
    error = refused(messages=[message])
    assert error.code == code
    assert error.to_object()["error"]["code"] == code  # type: ignore[index]
    assert "\x1b" not in error.message and "\x00" not in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model": "m"}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read_chat(body)
    assert caught.value.status == 400


def test_unknown_fields_are_refused_with_their_name() -> None:
    assert refused(top_kk=5).param == "top_kk"
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_completion_tokens"


def test_a_completion_is_one_user_message() -> None:
    wanted = read_completion(b'{"model": "m", "prompt": ["hello"], "max_tokens": 3, "echo": false, "best_of": 1}')
    assert wanted.kind == "completion" and wanted.max_tokens == 3
    assert [(m.role, m.content) for m in wanted.messages] == [("user", "hello")]


@pytest.mark.parametrize(
    "fields",
    [{"prompt": ""}, {"prompt": []}, {"prompt": ["a", "b"]}, {"prompt": [1, 2, 3]}, {"prompt": None}, {},
     {"prompt": "a", "echo": True}, {"prompt": "a", "suffix": "b"}, {"prompt": "a", "best_of": 2},
     {"prompt": "a", "logprobs": 5}, {"prompt": "a", "messages": []}],
)  # fmt: skip
def test_bad_completions(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        read_completion(json.dumps({"model": "m", **fields}).encode())
    assert caught.value.status == 400


def test_the_answer_has_to_fit_into_the_context() -> None:
    defaults = Defaults(max_tokens=256, max_context=1000)
    assert fit(chat(), 100, defaults, 2048) == 256
    assert fit(chat(), 900, defaults, 2048) == 100, "what is not said is what is left"
    assert fit(chat(max_tokens=900), 100, defaults, 2048) == 900
    for wanted, prompt, context in ((chat(), 1000, 2048), (chat(max_tokens=901), 100, 2048), (chat(), 100, 100)):
        with pytest.raises(ApiError) as caught:
            fit(wanted, prompt, defaults, context)
        assert caught.value.code == "context_length_exceeded"
