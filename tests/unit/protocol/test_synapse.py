"""Synapses and their messages: strict, finite, closed, and refused when defined wrongly."""

import math

import pytest

from protocol.errors import MalformedMessage, Refusal, RefusalCode, SynapseError
from protocol.synapse import (
    Message,
    RefusalBody,
    Synapse,
    decode,
    decode_refusal,
    encode,
    parse_route,
    safe_text,
)


class Ask(Message):
    prompt: str
    scores: tuple[float, ...] = ()
    count: int = 0


class Answer(Message):
    text: str


def test_message_survives_the_wire():
    ask = Ask(prompt="héllo\n", scores=(0.1, 2.0), count=3)
    assert decode(Ask, encode(ask)) == ask


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"prompt":"a"} trailing',
        b'{"prompt":1}',
        b'{"prompt":"a","count":"3"}',
        b'{"prompt":"a","count":1.5}',
        b'{"prompt":"a","count":true}',
        b'{"prompt":"a","unknown":1}',
        b'{"prompt":"a","scores":[NaN]}',
        b'{"prompt":"a","scores":[Infinity]}',
        b'{"prompt":"a","scores":[1e999]}',
        b'{"prompt":"\xff"}',
        b"[" * 100_000,
        b'{"prompt":"a","scores":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_anything_but_the_message_is_malformed(body):
    with pytest.raises(MalformedMessage) as error:
        decode(Ask, body)
    assert len(str(error.value)) <= 300


def test_error_text_names_the_field_and_never_the_value():
    with pytest.raises(MalformedMessage, match="count") as error:
        decode(Ask, b'{"prompt":"s3cret","count":"s3cret"}')
    assert "s3cret" not in str(error.value)


def test_messages_hold_no_nan_and_do_not_change():
    with pytest.raises(ValueError):
        Ask(prompt="a", scores=(math.nan,))
    with pytest.raises(ValueError):
        Ask(prompt="a").prompt = "b"


def test_route_and_its_parts():
    synapse = Synapse("echo", 3, Ask, Answer)
    assert synapse.route == "/v3/echo"
    assert parse_route(synapse.route) == ("echo", 3)
    for path in ("/echo", "/v0/echo", "/v1/Echo", "/v1/echo/", "/v1/echo?x=1", "/v1/../etc", "/v1/echo\n"):
        assert parse_route(path) is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "Echo"},
        {"name": ""},
        {"name": "a/b"},
        {"version": 0},
        {"request": dict},
        {"response": str},
        {"chunk": Answer},
        {"max_request_bytes": 0},
        {"timeout": 0},
    ],
)
def test_a_wrong_definition_is_refused(arguments):
    right = {"name": "echo", "version": 1, "request": Ask, "response": Answer}
    with pytest.raises(SynapseError):
        Synapse(**{**right, **arguments})


def test_refusals_cross_the_wire():
    refusal = Refusal(RefusalCode.BUSY, "wait", retry_after=1.5)
    back = decode_refusal(encode(RefusalBody.of(refusal)))
    assert (back.code, back.message, back.retry_after) == (RefusalCode.BUSY, "wait", 1.5)
    with pytest.raises(MalformedMessage, match="unknown refusal code"):
        decode_refusal(b'{"code":"new","message":"","retry_after":null}')


def test_every_refusal_code_has_a_status():
    assert all(400 <= code.status < 600 for code in RefusalCode)


def test_peer_text_cannot_disturb_a_terminal():
    assert safe_text("a\x1b[31m\r\nb\u202e") == "a?[31m??b?"
    assert len(safe_text("x" * 10_000)) == 300
