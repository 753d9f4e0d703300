"""Signatures: sr25519, ed25519, ecdsa on secp256k1.

    verify             as localnet.signatures says
    generate, sign     with the host's keystore
    recover            Ethereum's way to name the signer; version 1 of it and of ecdsa_verify takes r and s modulo the
                       group order, later ones refuse what is not below it
    batch verify       of old runtimes: every signature is checked at once, `finish` says whether all were good

While `Host.impersonating` is set, `marks.FAKE_SIGNATURE` is everybody's sr25519 signature.

Digests that ecdsa signs are BLAKE2b-256 of the message, or given.
"""

from __future__ import annotations

from collections.abc import Callable

from localnet.codec.scale import compact
from localnet.node.blocks import blake2_256
from localnet.node.marks import FAKE_SIGNATURE
from localnet.signatures import Unrecoverable, ecdsa_verify, ed25519_verify, recover, sr25519_verify
from localnet.wasm.host.interface import Functions, Host, HostTrap
from localnet.wasm.host.keystore import ECDSA, ED25519, SR25519
from localnet.wasm.host.wire import NONE, read_option_bytes

MARK = 0x80  # top bit of a signature by schnorrkel since 0.8


# -- functions --------------------------------------------------------------------------------------------------------


def functions(host: Host) -> Functions:
    """`ext_crypto_*`."""
    found = {**_verify(host), **_recover(host), **_batch(host)}
    for scheme, size in ((SR25519, 32), (ED25519, 32), (ECDSA, 33)):
        found.update(_keys(host, scheme, size))
    return found


def _verify(host: Host) -> Functions:
    read, read_at = host.read, host.read_at

    def sr25519_2(signature: int, message: int, public: int) -> int:
        mark, text, key = read_at(signature, 64), read(message), read_at(public, 32)
        if mark == FAKE_SIGNATURE and host.impersonating:
            return 1
        return int(sr25519_verify(mark, text, key))

    def sr25519_1(signature: int, message: int, public: int) -> int:
        if not read_at(signature, 64)[63] & MARK:
            raise HostTrap("sr25519 signatures from before schnorrkel 0.8 cannot be verified here")
        return sr25519_2(signature, message, public)

    def ed25519_1(signature: int, message: int, public: int) -> int:
        return int(ed25519_verify(read_at(signature, 64), read(message), read_at(public, 32)))

    def ecdsa_1(signature: int, message: int, public: int) -> int:
        return int(ecdsa_verify(read_at(signature, 65), blake2_256(read(message)), read_at(public, 33), True))

    def ecdsa_2(signature: int, message: int, public: int) -> int:
        return int(ecdsa_verify(read_at(signature, 65), blake2_256(read(message)), read_at(public, 33)))

    def ecdsa_prehashed(signature: int, digest: int, public: int) -> int:
        return int(ecdsa_verify(read_at(signature, 65), read_at(digest, 32), read_at(public, 33)))

    return {
        "ext_crypto_sr25519_verify_version_1": sr25519_1,
        "ext_crypto_sr25519_verify_version_2": sr25519_2,
        "ext_crypto_ed25519_verify_version_1": ed25519_1,
        "ext_crypto_ecdsa_verify_version_1": ecdsa_1,
        "ext_crypto_ecdsa_verify_version_2": ecdsa_2,
        "ext_crypto_ecdsa_verify_prehashed_version_1": ecdsa_prehashed,
    }


def _recover(host: Host) -> Functions:
    read_at, give_span = host.read_at, host.give_span

    def run(signature: int, digest: int, compressed: bool, overflowing: bool) -> int:
        raw, hashed = read_at(signature, 65), read_at(digest, 32)
        if raw[64] > 26:  # Ethereum's 27 and 28
            raw = raw[:64] + bytes((raw[64] - 27,))
        try:
            key = recover(raw, hashed, overflowing)
        except Unrecoverable as error:
            return give_span(bytes((1, error.code)))
        return give_span(b"\0" + (key.format() if compressed else key.format(compressed=False)[1:]))

    name = "ext_crypto_secp256k1_ecdsa_recover"
    return {
        f"{name}_version_1": lambda signature, digest: run(signature, digest, False, True),
        f"{name}_version_2": lambda signature, digest: run(signature, digest, False, False),
        f"{name}_compressed_version_1": lambda signature, digest: run(signature, digest, True, True),
        f"{name}_compressed_version_2": lambda signature, digest: run(signature, digest, True, False),
    }


def _batch(host: Host) -> Functions:
    verify = _verify(host)
    good: bool | None = None  # None: no batch is open

    def start() -> None:
        nonlocal good
        good = True  # a batch that a broken call left open is over

    def finish() -> int:
        nonlocal good
        if good is None:
            raise HostTrap("finish_batch_verify without start_batch_verify")
        result, good = good, None
        return int(result)

    def batched(name: str) -> Callable[[int, int, int], int]:
        one = verify[name]

        def check(signature: int, message: int, public: int) -> int:
            nonlocal good
            result = one(signature, message, public)
            if good is not None and not result:
                good = False
            return result or 0

        return check

    return {
        "ext_crypto_start_batch_verify_version_1": start,
        "ext_crypto_finish_batch_verify_version_1": finish,
        "ext_crypto_sr25519_batch_verify_version_1": batched("ext_crypto_sr25519_verify_version_2"),
        "ext_crypto_ed25519_batch_verify_version_1": batched("ext_crypto_ed25519_verify_version_1"),
        "ext_crypto_ecdsa_batch_verify_version_1": batched("ext_crypto_ecdsa_verify_version_2"),
    }


def _keys(host: Host, scheme: str, size: int) -> Functions:
    """Of one scheme; `size` is that of its public keys."""
    read, read_at, give, give_span = host.read, host.read_at, host.give, host.give_span

    def public_keys(kind: int) -> int:
        keys = host.keystore.public_keys(read_at(kind, 4), scheme)
        return give_span(compact(len(keys)) + b"".join(keys))

    def generate(kind: int, seed: int) -> int:
        name, uri = read_at(kind, 4), read_option_bytes(read(seed))
        if uri is None:
            raise HostTrap(f"{scheme}_generate without a seed needs randomness, which a runtime here does not get")
        try:
            return give(host.keystore.insert(name, scheme, uri.decode()))
        except ValueError as error:
            raise HostTrap(f"{scheme}_generate: the seed is no secret URI: {error}") from error

    def signed(kind: int, public: int, message: bytes) -> int:
        signature = host.keystore.sign(read_at(kind, 4), scheme, read_at(public, size), message)
        return give_span(NONE if signature is None else b"\1" + signature)

    def sign(kind: int, public: int, message: int) -> int:
        data = read(message)
        return signed(kind, public, blake2_256(data) if scheme == ECDSA else data)

    found: dict[str, Callable[..., int | None]] = {
        f"ext_crypto_{scheme}_public_keys_version_1": public_keys,
        f"ext_crypto_{scheme}_generate_version_1": generate,
        f"ext_crypto_{scheme}_sign_version_1": sign,
    }
    if scheme == ECDSA:
        found["ext_crypto_ecdsa_sign_prehashed_version_1"] = lambda kind, public, digest: signed(
            kind, public, read_at(digest, 32)
        )
    return found
