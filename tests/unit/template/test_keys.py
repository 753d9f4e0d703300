"""Hotkeys from files and URIs, the coldkey warning, and stored exchanges that anyone can check."""

from dataclasses import replace

import pytest

from protocol.auth import SignedExchange
from protocol.errors import ExchangeError
from template.errors import KeyUnavailable
from template.keys import Hotkey, coldkey_warning, create_wallet, verify, verify_exchange


def test_load_reads_the_hotkey_and_needs_no_coldkey(tmp_path):
    wallet = create_wallet("w", "h", tmp_path, password=False)
    (tmp_path / "w" / "coldkey").unlink()
    (tmp_path / "w" / "coldkeypub.txt").unlink()
    hotkey = Hotkey.load("w", "h", tmp_path)
    assert hotkey.ss58 == wallet.hotkey.ss58_address
    assert verify(hotkey.ss58, b"payload", hotkey.sign(b"payload"))
    assert "keypair" not in repr(hotkey)


def test_create_keeps_what_exists_and_tells_words_once(tmp_path):
    told = []
    first = create_wallet("w", "h", tmp_path, password=False, on_mnemonic=lambda role, words: told.append(role))
    second = create_wallet("w", "h", tmp_path, password=False, on_mnemonic=lambda role, words: told.append(role))
    assert first.coldkeypub.ss58_address == second.coldkeypub.ss58_address
    assert told == ["coldkey", "hotkey"]


def test_a_missing_or_broken_hotkey_says_what_to_do(tmp_path):
    with pytest.raises(KeyUnavailable, match="btcli wallet new-hotkey"):
        Hotkey.load("w", "h", tmp_path)
    (tmp_path / "w" / "hotkeys").mkdir(parents=True)
    (tmp_path / "w" / "hotkeys" / "h").write_text("not a key")
    with pytest.raises(KeyUnavailable, match="cannot read"):
        Hotkey.load("w", "h", tmp_path)


def test_an_encrypted_hotkey_is_refused_without_asking(tmp_path):
    encrypted = create_wallet("w", "h", tmp_path, password=False)
    encrypted.create_new_hotkey(use_password=True, overwrite=True, hotkey_password="secret", suppress=True)
    with pytest.raises(KeyUnavailable, match="encrypted"):
        Hotkey.load("w", "h", tmp_path)


def test_coldkey_warning_only_when_a_private_one_is_there(tmp_path):
    assert coldkey_warning("w", tmp_path) is None
    create_wallet("w", "h", tmp_path, password=False)
    assert str(tmp_path / "w" / "coldkey") in coldkey_warning("w", tmp_path)
    (tmp_path / "w" / "coldkey").unlink()
    assert coldkey_warning("w", tmp_path) is None


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
def test_verify_knows_only_this_key_payload_and_scheme(scheme):
    alice = Hotkey.from_uri("//Alice", scheme)
    signature = alice.sign(b"payload")
    assert verify(alice.ss58, b"payload", signature, scheme)
    assert not verify(alice.ss58, b"other", signature, scheme)
    assert not verify(Hotkey.from_uri("//Bob", scheme).ss58, b"payload", signature, scheme)
    assert not verify(alice.ss58, b"payload", signature, "ed25519" if scheme == "sr25519" else "sr25519")
    assert not verify(alice.ss58, b"payload", signature[:-1], scheme)
    assert not verify("nonsense", b"payload", signature, scheme)
    assert not verify(alice.ss58, b"payload", signature, "ecdsa")


def exchange() -> SignedExchange:
    alice, bob = Hotkey.from_uri("//Alice"), Hotkey.from_uri("//Bob", "ed25519")
    unsigned = SignedExchange(
        method="POST",
        path="/v1/echo",
        sender=alice.ss58,
        receiver=bob.ss58,
        nonce_ns=7,
        request_scheme="sr25519",
        request_body=b'{"a":1}',
        request_signature=b"",
        status=200,
        response_scheme="ed25519",
        response_body=b'{"b":2}',
        response_signature=b"",
    )
    return replace(
        unsigned,
        request_signature=alice.sign(unsigned.request_payload),
        response_signature=bob.sign(unsigned.response_payload),
    )


def test_a_stored_exchange_verifies_and_survives_json():
    stored = SignedExchange.from_json(exchange().to_json())
    assert stored.request_digest == exchange().request_digest
    verify_exchange(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"response_body": b'{"b":3}'},
        {"request_body": b'{"a":2}'},
        {"status": 500},
        {"nonce_ns": 8},
        {"path": "/v2/echo"},
        {"receiver": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"},
        {"response_signature": b"x" * 64},
        {"streamed": True},
    ],
)
def test_an_altered_exchange_does_not_verify(change):
    with pytest.raises(ExchangeError):
        verify_exchange(replace(exchange(), **change))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", exchange().to_json().replace(b'"nonce_ns": 7', b'"nonce_ns": "7"')]
)
def test_a_damaged_record_is_an_error(data):
    with pytest.raises(ExchangeError):
        SignedExchange.from_json(data)
