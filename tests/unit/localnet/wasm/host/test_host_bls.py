"""BLS12-381: pairings that the curve's own laws and a published drand pulse confirm."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.rules import timelock
from localnet.wasm.host.bls import G1, G2, MAX_LIMBS, MAX_POINTS, MODULUS, ORDER, Group
from localnet.wasm.host.interface import HostTrap
from tests.support import drand
from tests.support.wasm_memory import MemoryHost

ark = pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")

EXT = "ext_host_calls_bls12_381_"
ONE = (1).to_bytes(48, "little") + bytes(11 * 48)


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


def call(host: MemoryHost, name: str, *arguments: bytes) -> bytes:
    """What is in the Ok."""
    answer = host.spans(f"{EXT}{name}_version_1", *arguments)
    assert answer[0] == 0
    size = {0: 1, 1: 2}[answer[1] & 3]
    return answer[1 + size :]


def vector(items: list[bytes]) -> bytes:
    return len(items).to_bytes(8, "little") + b"".join(items)


def affine(point: Any) -> bytes:
    """Zcash's uncompressed form."""
    if point == type(point).identity():
        return b"\x40" + bytes(len(point.to_xy_bytes_le()) - 1)
    xy = bytes(point.to_xy_bytes_be())
    return xy if len(xy) == 96 else xy[48:96] + xy[:48] + xy[144:] + xy[96:144]


def projective(point: Any, z: int = 1) -> bytes:
    """Jacobian coordinates with this z."""
    xy = bytes(point.to_xy_bytes_le())
    degree = len(xy) // 96
    parts = [int.from_bytes(xy[at : at + 48], "little") for at in range(0, len(xy), 48)]
    parts = [n * z ** (2 if at < degree else 3) % MODULUS for at, n in enumerate(parts)]
    return b"".join(n.to_bytes(48, "little") for n in [*parts, z, *[0] * (degree - 1)])


def limbs(number: int, count: int = 4) -> bytes:
    return vector([(number >> 64 * at & (1 << 64) - 1).to_bytes(8, "little") for at in range(count)])


def pairing(host: MemoryHost, left: list[Any], right: list[Any]) -> bytes:
    loop = call(
        host, "multi_miller_loop", vector([affine(one) for one in left]), vector([affine(one) for one in right])
    )
    return call(host, "final_exponentiation", loop)


def scalar(number: int) -> Any:
    return ark.Scalar.from_le_bytes(number.to_bytes(32, "little"))


def test_the_encoding_of_points_is_that_of_the_standard_generators() -> None:
    """x of G1 and G2 in draft-irtf-cfrg-pairing-friendly-curves-11, 4.2.1."""
    assert affine(ark.G1Point())[:8].hex() == "17f1d3a73197d794"
    assert affine(ark.G2Point())[:8].hex() == "13e02b6052719f60"  # c1 comes first
    assert affine(ark.G2Point())[48:56].hex() == "024aa2b2f08f0a91"


def test_a_published_pulse_verifies(host: MemoryHost) -> None:
    key, signature = (ark.G2Point.from_compressed_bytes(drand.QUICKNET_KEY),
                      ark.G1Point.from_compressed_bytes(drand.SIGNATURE))  # fmt: skip
    for number, good in (drand.ROUND, True), (drand.ROUND + 1, False):
        hashed = ark.G1Point.hash_to_curve(timelock.message(number), timelock.DST)
        one = pairing(host, [-signature, hashed], [ark.G2Point(), key])
        assert (one == ONE) is good
        assert (pairing(host, [signature], [ark.G2Point()]) == pairing(host, [hashed], [key])) is good


def test_what_the_sdk_sealed_opens_with_the_pairings_bytes(host: MemoryHost) -> None:
    """The `tle` crate hashes the pairing as arkworks writes it: so the encoding of Fq12 is arkworks', too."""
    sealed = timelock.unwrap(drand.sdk_sealed(b"hidden"), drand.ROUND)
    shared = pairing(host, [ark.G1Point.from_compressed_bytes(drand.SIGNATURE)], [sealed.u])
    sigma = bytes(a ^ b for a, b in zip(sealed.v, sha256(shared).digest(), strict=True))
    key = bytes(a ^ b for a, b in zip(sealed.w, sha256(sigma).digest(), strict=True))
    assert ark.G2Point() * timelock._exponent(sigma, key) == sealed.u


@settings(max_examples=5, deadline=None)
@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1))
def test_pairings_are_bilinear(a: int, b: int) -> None:
    host = MemoryHost()
    p, q = ark.G1Point(), ark.G2Point()
    both = pairing(host, [p * scalar(a)], [q * scalar(b)])
    assert both == pairing(host, [p * scalar(a * b % ORDER)], [q])
    assert pairing(host, [p * scalar(a), -p * scalar(a)], [q, q]) == ONE


def test_infinity_and_no_points_pair_to_one(host: MemoryHost) -> None:
    p, q, zero = ark.G1Point(), ark.G2Point(), (ark.G1Point.identity(), ark.G2Point.identity())
    assert pairing(host, [], []) == pairing(host, [zero[0]], [q]) == pairing(host, [p], [zero[1]]) == ONE
    assert pairing(host, [p, p], [q, zero[1]]) == pairing(host, [p], [q]) != ONE


def test_a_strange_value_is_not_exponentiated(host: MemoryHost) -> None:
    one = call(host, "multi_miller_loop", vector([affine(ark.G1Point())]), vector([affine(ark.G2Point())]))
    other = MemoryHost()
    for value in (one, ONE, bytes(576)):
        with pytest.raises(HostTrap, match="not implemented"):
            call(other, "final_exponentiation", value)


@pytest.mark.parametrize(("group", "name"), [(G1, "g1"), (G2, "g2")])
def test_multiplication(host: MemoryHost, group: Group, name: str) -> None:
    base = group.point()
    for factor in (1, 2, 3, 0xDEADBEEF << 100, ORDER - 1):
        for z in (1, 7):
            product = call(host, f"mul_projective_{name}", projective(base, z), limbs(factor))
            assert product == projective(base * scalar(factor))
    infinity = (1).to_bytes(group.coordinate, "little") * 2 + bytes(group.coordinate)
    for point, factor in (projective(base), 0), (projective(base), ORDER), (infinity, 5):
        assert call(host, f"mul_projective_{name}", point, limbs(factor)) == infinity
    assert call(host, f"mul_projective_{name}", projective(base), vector([])) == infinity


def test_a_point_outside_the_subgroup_is_not_multiplied_to_zero_by_its_order(host: MemoryHost) -> None:
    """What a runtime checks a point with. 4 is the smallest x of a point on y^2 = x^3 + 4 that is not in G1."""
    y = pow(4**3 + 4, (MODULUS + 1) // 4, MODULUS)
    assert y * y % MODULUS == 4**3 + 4
    point = ark.G1Point.from_xy_bytes_unchecked_le((4).to_bytes(48, "little") + y.to_bytes(48, "little"))
    product = call(host, "mul_projective_g1", projective(point), limbs(ORDER))
    assert product[96:] == (1).to_bytes(48, "little")  # z: not at infinity


@pytest.mark.parametrize(("group", "name"), [(G1, "g1"), (G2, "g2")])
def test_multi_scalar_multiplication(host: MemoryHost, group: Group, name: str) -> None:
    points = [group.point() * scalar(n) for n in (1, 5, 9)] + [group.point.identity()]
    factors = [3, ORDER - 2, 0, 8]
    scalars = [n.to_bytes(32, "little") for n in factors]
    total = call(host, f"msm_{name}", vector([affine(one) for one in points]), vector(scalars))
    assert total == projective(group.point() * scalar((3 - 2 * 5) % ORDER))
    bases = vector([affine(one) for one in points])
    for wrong in (scalars[:3], [*scalars[:3], ORDER.to_bytes(32, "little")]):
        assert host.spans(f"{EXT}msm_{name}_version_1", bases, vector(wrong)) == b"\1"


MILLER = EXT + "multi_miller_loop_version_1"


@pytest.mark.parametrize(
    "left",
    [
        b"",
        bytes(7),
        vector([affine(ark.G1Point())])[:-1],
        (1 << 63).to_bytes(8, "little"),
        vector([b"\x97" + affine(ark.G1Point())[1:]]),  # says it is compressed
        vector([b"\x1a" + b"\xff" * 47 + bytes(48)]),  # not below the modulus
    ],
)
def test_what_does_not_decode_is_an_error_result(host: MemoryHost, left: bytes) -> None:
    assert host.spans(MILLER, left, vector([affine(ark.G2Point())])) == b"\1"


def test_what_cannot_be_computed_here_breaks_off(host: MemoryHost) -> None:
    off_curve = vector([bytes(95) + b"\1"])
    g1, g2 = affine(ark.G1Point()), affine(ark.G2Point())
    with pytest.raises(HostTrap, match="no point"):
        host.spans(MILLER, off_curve, vector([g2]))
    with pytest.raises(HostTrap, match="1 points with 2"):
        host.spans(MILLER, vector([g1]), vector([g2, g2]))
    with pytest.raises(HostTrap, match=f"at most {MAX_POINTS}"):
        host.spans(MILLER, vector([g1] * (MAX_POINTS + 1)), vector([g2]))
    with pytest.raises(HostTrap, match=f"at most {MAX_LIMBS}"):
        host.spans(EXT + "mul_projective_g1_version_1", projective(ark.G1Point()), vector([b"\xff" * 8] * 100_000))
