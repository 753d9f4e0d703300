"""BLS12-381 for runtimes: what pallet-drand verifies pulses with, and opens timelocked commits.

Arguments and results are those of sp-crypto-ec-utils on arkworks 0.4 (`ark-scale`, neither compressed nor validated):

    list                length (u64, little-endian), then the items
    affine point        as Zcash has it: 48 bytes a coordinate, big-endian, a point of G2 with c1 before c0; the three
                        top bits are flags (compressed, infinity, sign)
    projective point    Jacobian x, y, z: 48 bytes each, 96 of G2 with c0 before c1, little-endian; z = 0 is infinity
    scalar              32 bytes, little-endian, below the group order; for a multiplication a list of u64
    Fq12                12 times 48 bytes, little-endian

A result is Result<Vec<u8>, ()>: Err for what does not decode. What decodes and cannot be computed here breaks off.

The library has no Miller loop by itself, so `multi_miller_loop` gives the whole pairing and `final_exponentiation`
nothing but what it is given. It takes only what `multi_miller_loop` gave, as code that computes a pairing does: the
exponentiation of anything else would be another number. Projective results are normalised, arkworks' are not; as
points they are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from localnet.codec.scale import opaque
from localnet.errors import ConfigError
from localnet.rules.timelock import curve
from localnet.wasm.host.interface import Functions, Host, HostTrap

FIELD = 48  # bytes of a base field element
MODULUS = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
SCALAR = 32  # bytes
ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001  # of G1, G2 and GT
COMPRESSED, INFINITY, FLAGS = 0x80, 0x40, 0xE0
TARGET = 12 * FIELD
MAX_POINTS = 1024  # 0.4 ms each in a pairing; a pulse needs two
MAX_LIMBS = 16  # of a multiplier: a check of the subgroup multiplies by the order, which has four
MAX_REMEMBERED = 64  # pairings that may still be exponentiated
ERR = b"\1"


class Undecodable(Exception):
    """The argument is no encoding of its type: the function's own Err."""


class Group(NamedTuple):
    """G1 or G2. `degree`: base field elements in a coordinate."""

    name: str
    degree: int

    @property
    def point(self) -> Any:
        return getattr(curve(), self.name)

    @property
    def coordinate(self) -> int:
        return FIELD * self.degree


G1, G2 = Group("G1Point", 1), Group("G2Point", 2)


# -- decoding ---------------------------------------------------------------------------------------------------------


def items(data: bytes, size: int, most: int) -> list[bytes]:
    """Of a list. Raises Undecodable, and HostTrap for more than `most`."""
    count = int.from_bytes(data[:8], "little")
    if len(data) < 8 or count * size > len(data) - 8:
        raise Undecodable
    if count > most:
        raise HostTrap(f"{count} items in one bls12_381 function: at most {most} are computed here")
    return [data[8 + at * size : 8 + (at + 1) * size] for at in range(count)]


def _elements(data: bytes, count: int, order: str) -> list[int]:
    """Base field elements. Raises Undecodable."""
    if len(data) < count * FIELD:
        raise Undecodable
    found = [int.from_bytes(data[at * FIELD : (at + 1) * FIELD], order) for at in range(count)]  # type: ignore[arg-type]
    if max(found) >= MODULUS:
        raise Undecodable
    return found


def _little(elements: list[int]) -> bytes:
    return b"".join(one.to_bytes(FIELD, "little") for one in elements)


def _on_curve(group: Group, xy: bytes) -> Any:
    """x and y, little-endian, c0 first. Raises HostTrap."""
    try:
        return group.point.from_xy_bytes_unchecked_le(xy)
    except ValueError as error:
        raise HostTrap(f"bls12_381 with what is no point: {error}") from error


def affine(group: Group, data: bytes) -> Any:
    """Raises Undecodable, and HostTrap for what is not on the curve."""
    if len(data) < 2 * group.coordinate or data[0] & COMPRESSED:
        raise Undecodable
    bare = bytes((data[0] & ~FLAGS & 0xFF,)) + data[1:]
    found = _elements(bare, 2 * group.degree, "big")
    if data[0] & INFINITY:
        return group.point.identity()
    if group.degree == 2:
        found = [found[1], found[0], found[3], found[2]]
    return _on_curve(group, _little(found))


def _squared(group: Group, value: list[int]) -> list[int]:
    return _product(group, value, value)


def _product(group: Group, one: list[int], other: list[int]) -> list[int]:
    """In the coordinates' field; of G2 it is Fq[u] / (u^2 + 1)."""
    if group.degree == 1:
        return [one[0] * other[0] % MODULUS]
    (a, b), (c, d) = one, other
    return [(a * c - b * d) % MODULUS, (a * d + b * c) % MODULUS]


def _inverse(group: Group, value: list[int]) -> list[int]:
    if group.degree == 1:
        return [pow(value[0], -1, MODULUS)]
    a, b = value
    norm = pow(a * a + b * b, -1, MODULUS)
    return [a * norm % MODULUS, -b * norm % MODULUS]


def projective(group: Group, data: bytes) -> Any:
    """Raises Undecodable, and HostTrap for what is not on the curve."""
    degree = group.degree
    found = _elements(data, 3 * degree, "little")
    x, y, z = (found[at * degree : (at + 1) * degree] for at in range(3))
    if not any(z):
        return group.point.identity()
    inverse = _inverse(group, z)
    square = _squared(group, inverse)
    return _on_curve(group, _little(_product(group, x, square) + _product(group, y, _product(group, square, inverse))))


def encode_projective(group: Group, point: Any) -> bytes:
    one = (1).to_bytes(group.coordinate, "little")
    if point == group.point.identity():
        return one + one + bytes(group.coordinate)
    return bytes(point.to_xy_bytes_le()) + one


def multiply(group: Group, point: Any, factor: int) -> Any:
    """Double and add: the point may lie outside the subgroup, where a factor must not be reduced."""
    result = group.point.identity()
    for bit in f"{factor:b}":
        result = result + result
        if bit == "1":
            result = result + point
    return result


# -- functions --------------------------------------------------------------------------------------------------------


def functions(host: Host) -> Functions:
    """`ext_host_calls_bls12_381_*`."""
    read, give_span = host.read, host.give_span
    multi_miller_loop, final_exponentiation = _pairing()

    def answer(rule: Callable[..., bytes], *spans: int) -> int:
        arguments = [read(span) for span in spans]
        try:
            return give_span(b"\0" + opaque(rule(*arguments)))
        except Undecodable:
            return give_span(ERR)
        except ConfigError as error:  # no library for this Python
            raise HostTrap(f"bls12_381: {error}") from error

    name = "ext_host_calls_bls12_381"
    return {
        f"{name}_multi_miller_loop_version_1": lambda g1, g2: answer(multi_miller_loop, g1, g2),
        f"{name}_final_exponentiation_version_1": lambda value: answer(final_exponentiation, value),
        f"{name}_mul_projective_g1_version_1": lambda base, factor: answer(partial(multiplied, G1), base, factor),
        f"{name}_mul_projective_g2_version_1": lambda base, factor: answer(partial(multiplied, G2), base, factor),
        f"{name}_msm_g1_version_1": lambda bases, scalars: answer(partial(summed, G1), bases, scalars),
        f"{name}_msm_g2_version_1": lambda bases, scalars: answer(partial(summed, G2), bases, scalars),
    }


def _pairing() -> tuple[Callable[[bytes, bytes], bytes], Callable[[bytes], bytes]]:
    """The two halves of a pairing, which know of each other what was given."""
    given: OrderedDict[bytes, None] = OrderedDict()

    def multi_miller_loop(first: bytes, second: bytes) -> bytes:
        left = [affine(G1, one) for one in items(first, 2 * G1.coordinate, MAX_POINTS)]
        right = [affine(G2, one) for one in items(second, 2 * G2.coordinate, MAX_POINTS)]
        if len(left) != len(right):
            raise HostTrap(f"a pairing of {len(left)} points with {len(right)}")
        result = bytes.fromhex(str(curve().GT.multi_pairing(left, right)))
        given[result] = None
        given.move_to_end(result)
        if len(given) > MAX_REMEMBERED:
            given.popitem(last=False)
        return result

    def final_exponentiation(value: bytes) -> bytes:
        _elements(value, 12, "little")
        if value[:TARGET] not in given:
            raise HostTrap("final_exponentiation of what multi_miller_loop did not give is not implemented")
        return value[:TARGET]

    return multi_miller_loop, final_exponentiation


def multiplied(group: Group, base: bytes, factor: bytes) -> bytes:
    point = projective(group, base)
    limbs = items(factor, 8, MAX_LIMBS)
    return encode_projective(group, multiply(group, point, int.from_bytes(b"".join(limbs), "little")))


def summed(group: Group, bases: bytes, scalars: bytes) -> bytes:
    points = [affine(group, one) for one in items(bases, 2 * group.coordinate, MAX_POINTS)]
    factors = [int.from_bytes(one, "little") for one in items(scalars, SCALAR, MAX_POINTS)]
    if any(one >= ORDER for one in factors) or len(points) != len(factors):
        raise Undecodable
    result = group.point.identity()
    for point, one in zip(points, factors, strict=True):
        result = result + multiply(group, point, one)
    return encode_projective(group, result)
