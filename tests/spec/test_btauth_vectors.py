"""Signed requests against the vectors published with the SDK (btauth/1), and the layouts of our signed responses."""

import hashlib

import pytest
from bittensor import http_auth

from protocol import auth
from protocol.errors import Refusal
from template.keys import Hotkey, authenticate, sign_request
from template.limits import ReplayStore

NONCE = 1_752_076_800_000_000_000
BODY = b'{"prompt": "hello"}'
PATH = "/generate?stream=false"
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_ED = "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
PAYLOAD = b"""btauth/1
sr25519
POST
/generate?stream=false
341c57448e531310fbbe83f44cea2a5e838bd9e8a6b82b269f01d0dbbc23c3cc
1752076800000000000
5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY
5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"""
ED_SIGNATURE = (
    "0x1a6b631988bf1f7ea093ab9d5acf61f05c316d0b0e428b24b487b75a5f6ee0e1"
    "a56a26918fdf871b6cf09437e6588023a4ce423cf622621b2a7feee17612f704"
)


def test_development_keys_have_their_known_addresses():
    assert Hotkey.from_uri("//Alice").ss58 == ALICE
    assert Hotkey.from_uri("//Alice", "ed25519").ss58 == ALICE_ED
    assert Hotkey.from_uri("//Bob").ss58 == BOB


def test_our_request_payload_is_the_golden_one_and_the_sdk_s():
    fields = {"scheme": "sr25519", "method": "post", "path": PATH, "body": BODY, "nonce_ns": NONCE}
    ours = auth.request_payload(**fields, sender=ALICE, receiver=BOB)
    assert ours == PAYLOAD
    assert ours == http_auth.build_payload(**fields, sender_ss58=ALICE, receiver_ss58=BOB)
    assert auth.request_digest(ours) == hashlib.sha256(PAYLOAD).digest()


def test_golden_ed25519_signature():
    headers = sign_request(Hotkey.from_uri("//Alice", "ed25519"), path=PATH, body=BODY, receiver=BOB, nonce_ns=NONCE)
    assert headers["X-Bittensor-Signature"] == ED_SIGNATURE
    assert headers["X-Bittensor-Crypto"] == "ed25519"


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
def test_our_headers_are_the_sdk_s(scheme):
    sender = Hotkey.from_uri("//Alice", scheme)
    ours = sign_request(sender, path=PATH, body=BODY, receiver=BOB, nonce_ns=NONCE)
    theirs = http_auth.sign(sender.keypair, method="POST", path=PATH, body=BODY, receiver_ss58=BOB, nonce_ns=NONCE)
    if scheme == "sr25519":  # signs with randomness
        del ours["X-Bittensor-Signature"], theirs["X-Bittensor-Signature"]
    assert ours == theirs


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
def test_round_trip(scheme):
    sender = Hotkey.from_uri("//Alice", scheme)
    headers = sign_request(sender, path=PATH, body=BODY, receiver=BOB, nonce_ns=NONCE)
    caller = authenticate(
        headers, BODY, path=PATH, receiver=BOB, nonces=ReplayStore(clock_ns=lambda: NONCE), now_ns=NONCE + 1_000_000
    )
    assert caller.hotkey_ss58 == sender.ss58


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("stale", {"now_ns": NONCE + 11 * 10**9}),
        ("stale", {"now_ns": NONCE - 3 * 10**9}),
        ("unauthenticated", {"body": b"tampered"}),
        ("unauthenticated", {"path": "/admin"}),
        ("unauthenticated", {"method": "DELETE"}),
        ("unauthenticated", {"headers": {"X-Bittensor-Nonce": str(NONCE + 1)}}),
        ("wrong_receiver", {"receiver": ALICE}),
        ("wrong_receiver", {"drop": "X-Bittensor-Receiver"}),
        ("malformed", {"drop": "X-Bittensor-Nonce"}),
        ("malformed", {"drop": "X-Bittensor-Version"}),
        ("malformed", {"drop": "X-Bittensor-Signature"}),
        ("malformed", {"headers": {"X-Bittensor-Nonce": "not-a-number"}}),
        ("malformed", {"headers": {"X-Bittensor-Crypto": "ecdsa"}}),
        ("malformed", {"headers": {"X-Bittensor-Signature": "0xnothex"}}),
        ("malformed", {"headers": {"X-Bittensor-Version": "2"}}),
        ("malformed", {"headers": {"X-Bittensor-Hotkey": "5Nonsense"}}),
        ("unauthenticated", {"headers": {"X-Bittensor-Crypto": "ed25519"}}),
    ],
)
def test_each_way_to_be_wrong_has_its_code(code, change):
    headers = sign_request(Hotkey.from_uri("//Alice"), path=PATH, body=BODY, receiver=BOB, nonce_ns=NONCE)
    headers.update(change.pop("headers", {}))
    headers.pop(change.pop("drop", None), None)
    arguments = {"body": BODY, "path": PATH, "receiver": BOB, "now_ns": NONCE + 10**6, **change}
    with pytest.raises(Refusal) as refused:
        authenticate(headers, nonces=ReplayStore(clock_ns=lambda: NONCE), **arguments)
    assert refused.value.code == code


def test_response_and_stream_layouts_are_these_bytes():
    digest = bytes(range(32))
    assert auth.response_payload(scheme="sr25519", digest=digest, status=200, body=b"{}", hotkey=BOB) == (
        b"touchstone-response/1\nsr25519\n"
        b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n200\n"
        b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n" + BOB.encode()
    )
    assert auth.stream_payload(
        scheme="ed25519", digest=digest, status=200, frames=3, running_digest=b"\xff" * 32, hotkey=BOB
    ) == (
        b"touchstone-stream/1\ned25519\n"
        b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n200\n3\n"
        + b"ff" * 32
        + b"\n"
        + BOB.encode()
    )
