"""Signatures: what the chain accepts and nothing else, against published vectors and the SDK's keys."""

from __future__ import annotations

import bittensor_core
import coincurve
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.node.blocks import blake2_256
from localnet.node.marks import FAKE_SIGNATURE
from localnet.signatures import GROUP_ORDER
from localnet.wasm.host.hashing import keccak_256
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.host.keystore import DEVELOPMENT_SEED, ecdsa_secret
from tests.support.wasm_memory import MemoryHost

SR25519, ED25519 = bittensor_core.CRYPTO_SR25519, bittensor_core.CRYPTO_ED25519
VERIFY = {
    "sr25519": ("sr25519_verify_version_1", "sr25519_verify_version_2", "sr25519_batch_verify_version_1"),
    "ed25519": ("ed25519_verify_version_1", "ed25519_batch_verify_version_1"),
    "ecdsa": ("ecdsa_verify_version_1", "ecdsa_verify_version_2", "ecdsa_batch_verify_version_1"),
}


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


def verify(host: MemoryHost, name: str, signature: bytes, message: bytes, public: bytes) -> int:
    return host.call(f"ext_crypto_{name}", host.pointer(signature), host.span(message), host.pointer(public))


def key(scheme: int, uri: str = "//Alice") -> tuple[bytes, bittensor_core.Keypair]:
    pair = bittensor_core.Keypair.create_from_uri(uri, scheme)
    return bytes(pair.public_key), pair


@pytest.mark.parametrize(("scheme", "number"), [("sr25519", SR25519), ("ed25519", ED25519)])
def test_a_signature_is_of_one_message_by_one_key(host: MemoryHost, scheme: str, number: int) -> None:
    public, pair = key(number)
    signature = bytes(pair.sign(b"message"))
    flipped = bytes((signature[0] ^ 1,)) + signature[1:]
    for name in VERIFY[scheme]:
        assert verify(host, name, signature, b"message", public) == 1
        assert verify(host, name, signature, b"massage", public) == 0
        assert verify(host, name, flipped, b"message", public) == 0
        assert verify(host, name, signature, b"message", key(number, "//Bob")[0]) == 0
        assert verify(host, name, signature, b"message", b"\xff" * 32) == 0


@pytest.mark.parametrize(("scheme", "number"), [("sr25519", SR25519), ("ed25519", ED25519)])
def test_a_wrapped_message_is_another_message(host: MemoryHost, scheme: str, number: int) -> None:
    """Wallets sign <Bytes>..</Bytes>, and the SDK's `verify` lets it pass. The chain does not."""
    public, pair = key(number)
    signature = bytes(pair.sign(b"<Bytes>message</Bytes>"))
    assert bittensor_core.verify(b"message", signature, bittensor_core.ss58_encode(public, 42), number)
    for name in VERIFY[scheme]:
        assert verify(host, name, signature, b"message", public) == 0
        assert verify(host, name, signature, b"<Bytes>message</Bytes>", public) == 1


def test_ed25519_vectors(host: MemoryHost) -> None:
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # RFC 8032, 7.1, test 1
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b"
    )
    assert verify(host, "ed25519_verify_version_1", signature, b"", public) == 1
    # A key of small order: taken by ed25519-zebra (ZIP 215), so by the chain (sp-io, use_dalek_ext_works).
    assert verify(host, "ed25519_verify_version_1", bytes(64), b"", bytes(32)) == 1
    assert verify(host, "ed25519_verify_version_1", bytes(63) + b"\xe0", b"", bytes(32)) == 0


def test_a_signature_from_before_schnorrkel_0_8_is_not_judged(host: MemoryHost) -> None:
    public, pair = key(SR25519)
    unmarked = bytearray(pair.sign(b"m"))
    unmarked[63] &= 0x7F
    assert verify(host, "sr25519_verify_version_2", bytes(unmarked), b"m", public) == 0
    with pytest.raises(HostTrap, match=r"schnorrkel 0\.8"):
        verify(host, "sr25519_verify_version_1", bytes(unmarked), b"m", public)


def test_the_fake_signature_is_good_only_while_impersonating(host: MemoryHost) -> None:
    public, _ = key(SR25519)
    for name in VERIFY["sr25519"]:
        host.impersonating = False
        assert verify(host, name, FAKE_SIGNATURE, b"m", public) == 0
        host.impersonating = True
        assert verify(host, name, FAKE_SIGNATURE, b"m", public) == 1
        assert verify(host, name, FAKE_SIGNATURE[:-1] + b"\xce", b"m", public) == 0
    assert verify(host, "ed25519_verify_version_1", FAKE_SIGNATURE, b"m", public) == 0
    assert verify(host, "ecdsa_verify_version_2", FAKE_SIGNATURE + b"\0", b"m", b"\2" + public) == 0


def test_a_batch_is_good_when_all_of_it_is(host: MemoryHost) -> None:
    public, pair = key(SR25519)
    good = bytes(pair.sign(b"m"))
    name = "sr25519_batch_verify_version_1"
    for signatures, expected in ([good, good], 1), ([good, bytes(64), good], 0), ([], 1):
        host.call("ext_crypto_start_batch_verify_version_1")
        for one in signatures:
            verify(host, name, one, b"m", public)
        assert host.call("ext_crypto_finish_batch_verify_version_1") == expected
    verify(host, name, bytes(64), b"m", public)  # outside a batch
    with pytest.raises(HostTrap, match="without start_batch_verify"):
        host.call("ext_crypto_finish_batch_verify_version_1")


# -- ecdsa

GENERATOR_X = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798  # SEC 2, secp256k1
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # sp-core, ecdsa.rs,
ECDSA_PUBLIC = bytes.fromhex("028db55b05db86c0b1786ca49f095d76344c9e6056b2f02701a7e7f3c20aabfd91")  # test_vector_
ECDSA_SIGNATURE = bytes.fromhex(  # should_work: of the empty message
    "3dde91174bd9359027be59a428b8146513df80a2a3c7eda2194f64de04a69ab97b753169e94db6ffd50921a2668a48b94ca11e3d32c1ff19cfe8"
    "8890aa7e8f3c00"
)


def test_the_ecdsa_vector_of_substrate(host: MemoryHost) -> None:
    for name in VERIFY["ecdsa"]:
        assert verify(host, name, ECDSA_SIGNATURE, b"", ECDSA_PUBLIC) == 1
        assert verify(host, name, ECDSA_SIGNATURE, b"x", ECDSA_PUBLIC) == 0
        for wrong in (b"\1", b"\x1b", b"\4", b"\xff"):  # Ethereum's 27 is not taken here
            assert verify(host, name, ECDSA_SIGNATURE[:64] + wrong, b"", ECDSA_PUBLIC) == 0
    prehashed = "ext_crypto_ecdsa_verify_prehashed_version_1"
    for digest, expected in (blake2_256(b""), 1), (bytes(32), 0):
        pointers = [host.pointer(data) for data in (ECDSA_SIGNATURE, digest, ECDSA_PUBLIC)]
        assert host.call(prehashed, *pointers) == expected


def test_a_mirrored_signature_is_taken_as_libsecp256k1_recovers_it(host: MemoryHost) -> None:
    s = GROUP_ORDER - int.from_bytes(ECDSA_SIGNATURE[32:64], "big")
    mirrored = ECDSA_SIGNATURE[:32] + s.to_bytes(32, "big") + b"\1"
    assert verify(host, "ecdsa_verify_version_2", mirrored, b"", ECDSA_PUBLIC) == 1


def recovered(host: MemoryHost, version: int, signature: bytes, digest: bytes, compressed: str = "") -> bytes:
    name = f"ext_crypto_secp256k1_ecdsa_recover{compressed}_version_{version}"
    return host.result(name, host.pointer(signature), host.pointer(digest))


ETHEREUM = (  # go-ethereum, core/vm/contracts_test.go and its precompile vectors: ValidKey
    bytes.fromhex("18c547e4f7b0f325ad1e56f57e26c745b09a3e503d86e00e5255ff7f715d3d1c"),
    bytes.fromhex(
        "73b1693892219d736caba55bdb67216e485557ea6b6af75f37096c9aa6a5a75feeb940b1d03b21e36b0e47e79769f095fe2ab855bd91e3a3"
        "8756b7d75a9c4549"
    ),
    28,
    bytes.fromhex("a94f5374fce5edbc8e2a8697c15331677e6ebf0b"),
)


@pytest.mark.parametrize("version", [1, 2])
def test_recover_names_an_ethereum_address(host: MemoryHost, version: int) -> None:
    digest, rs, v, address = ETHEREUM
    for last in (v, v - 27):
        answer = recovered(host, version, rs + bytes((last,)), digest)
        assert answer[0] == 0 and len(answer) == 65
        assert keccak_256(answer[1:])[12:] == address
        short = recovered(host, version, rs + bytes((last,)), digest, "_compressed")
        assert short == b"\0" + coincurve.PublicKey(b"\4" + answer[1:]).format()


@pytest.mark.parametrize("compressed", ["", "_compressed"])
def test_why_nothing_is_recovered(host: MemoryHost, compressed: str) -> None:
    digest, rs, _, _ = ETHEREUM
    order = GROUP_ORDER.to_bytes(32, "big")
    for version in (1, 2):
        for v in (4, 26, 31, 255):
            assert recovered(host, version, rs + bytes((v,)), digest, compressed) == b"\1\1"  # BadV
        for bad in (bytes(64), bytes(32) + rs[32:], rs[:32] + bytes(32)):
            assert recovered(host, version, bad + b"\0", digest, compressed) == b"\1\2"  # BadSignature
    for bad in (order + rs[32:], rs[:32] + order, b"\xff" * 64):
        assert recovered(host, 2, bad + b"\0", digest, compressed) == b"\1\0"  # BadRS
    assert recovered(host, 1, order + rs[32:] + b"\0", digest, compressed) == b"\1\2"  # zero, modulo the order


def test_version_1_takes_numbers_above_the_group_order(host: MemoryHost) -> None:
    digest = blake2_256(b"")
    rs = [GENERATOR_X.to_bytes(32, "big"), (5).to_bytes(32, "big")]  # r is a point's x: of 1 times the generator
    over = [rs[0], (5 + GROUP_ORDER).to_bytes(32, "big")]
    plain = recovered(host, 1, b"".join(rs) + b"\0", digest)
    assert plain[0] == 0
    assert recovered(host, 2, b"".join(rs) + b"\x1b", digest) == plain  # 27
    assert (
        recovered(host, 1, b"".join(over) + b"\0", digest) == plain == recovered(host, 2, b"".join(rs) + b"\0", digest)
    )
    assert recovered(host, 2, b"".join(over) + b"\0", digest) == b"\1\0"


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=65, max_size=65), st.binary(min_size=32, max_size=32))
def test_any_bytes_give_a_result(signature: bytes, digest: bytes) -> None:
    host = MemoryHost()
    for version in (1, 2):
        answer = recovered(host, version, signature, digest)
        assert (answer[0], len(answer)) == (0, 65) or answer in (b"\1\0", b"\1\1", b"\1\2")


# -- keystore


@pytest.mark.parametrize(
    ("scheme", "public"),
    [
        ("sr25519", "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"),
        ("ed25519", "88dc3417d5058ec4b4503e0c12ea1a0a89be200fe98922423d4334014fa6b0ee"),
        ("ecdsa", "020a1091341fe5664bfa1782d5e04779689068c916b04cb365ec3153755684d9a1"),
    ],
)
def test_keys_from_seeds_sign(host: MemoryHost, scheme: str, public: str) -> None:
    """Public keys of //Alice as `subkey inspect` gives them."""
    raw, kind, none = bytes.fromhex(public), host.pointer(b"aura"), host.pointer(b"gran")
    listed = lambda where: host.result(f"ext_crypto_{scheme}_public_keys_version_1", where)  # noqa: E731
    sign = lambda where, who: host.result(  # noqa: E731
        f"ext_crypto_{scheme}_sign_version_1", where, host.pointer(who), host.span(b"message")
    )
    assert listed(kind) == b"\0"
    assert sign(kind, raw) == b"\0"
    found = host.call(f"ext_crypto_{scheme}_generate_version_1", kind, host.span(b"\1\x1c//Alice"))
    assert host.read_at(found, len(raw)) == raw
    assert listed(kind) == b"\4" + raw
    assert listed(none) == sign(none, raw) == sign(kind, bytes(len(raw))) == b"\0"
    answer = sign(kind, raw)
    assert answer[:1] == b"\1"
    for name in VERIFY[scheme]:
        assert verify(host, name, answer[1:], b"message", raw) == 1


def test_ecdsa_signs_a_digest_as_substrate_does(host: MemoryHost) -> None:
    kind, seed = host.pointer(b"test"), b"0x" + SECRET.hex().encode()
    host.call("ext_crypto_ecdsa_generate_version_1", kind, host.span(b"\1\x09\1" + seed))
    public, digest = host.pointer(ECDSA_PUBLIC), host.pointer(blake2_256(b""))
    signed = host.result("ext_crypto_ecdsa_sign_prehashed_version_1", kind, public, digest)
    assert signed == host.result("ext_crypto_ecdsa_sign_version_1", kind, public, host.span(b""))
    assert signed == b"\1" + ECDSA_SIGNATURE


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519", "ecdsa"])
@pytest.mark.parametrize(
    "seed",
    [b"\0", b"\1\x08\xff\xfe", b"\1\x10nope", b"\1\x1c//Alic", b"\1\xff", b"", b"\2", b"\1\xa1\x1f" + b"/" * 2024],
)
def test_a_key_comes_from_a_seed_or_not_at_all(host: MemoryHost, scheme: str, seed: bytes) -> None:
    with pytest.raises(HostTrap):
        host.call(f"ext_crypto_{scheme}_generate_version_1", host.pointer(b"aura"), host.span(seed))
    assert host.result(f"ext_crypto_{scheme}_public_keys_version_1", host.pointer(b"aura")) == b"\0"


def test_ecdsa_paths_take_numbers_and_long_names() -> None:
    paths = ["", "//Alice", "//1", "//01x", "//Alice//stash", "//" + "long" * 20, "0x" + SECRET.hex() + "//1"]
    assert len({ecdsa_secret(path) for path in paths}) == len(paths)
    for wrong in ("Alice", "//Alice/soft", "0x00", "word word", "//"):
        with pytest.raises(ValueError, match="ecdsa key"):
            ecdsa_secret(wrong)
    code = blake2_256(b"\x80" + b"x" * 32)  # one byte too long with its length in front, so it is hashed
    root = blake2_256(b"\x34Secp256k1HDKD" + DEVELOPMENT_SEED + code)
    assert ecdsa_secret("//" + "x" * 32) == root
