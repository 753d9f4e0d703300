"""The trie against public vectors, and against the definition of its root written out another way."""

from __future__ import annotations

import random
from hashlib import blake2b, sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.codec.scale import compact
from localnet.errors import ConfigError, RuntimeTrap
from localnet.node.trie import EMPTY_ROOT, Trie, header, ordered_root, root


def blake(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def closed_form(pairs: dict[str, bytes], version: int) -> bytes:
    """Encoding of the top node over keys in hexadecimal: recursion over the sets of keys, nothing kept."""
    if not pairs:
        return b"\0"
    keys = sorted(pairs)
    size = next((i for i, (a, b) in enumerate(zip(keys[0], keys[-1], strict=False)) if a != b), len(keys[0]))
    value, stem = pairs.get(keys[0][:size]), keys[0][:size]
    below = {d: {k[size + 1 :]: pairs[k] for k in keys if k[size : size + 1] == d} for d in "0123456789abcdef"}
    hashed = version == 1 and value is not None and len(value) > 32
    if any(below.values()):
        prefix, bits = (0x80, 6) if value is None else (0x10, 4) if hashed else (0xC0, 6)
    else:
        prefix, bits = (0x20, 5) if hashed else (0x40, 6)
    first = min(size, 2**bits - 1)
    out, rest = bytes((prefix + first,)), size - first
    while first == 2**bits - 1:
        out += bytes((min(rest, 255),))
        if rest < 255:
            break
        rest -= 255
    out += bytes.fromhex("0" * (size % 2) + stem)
    if any(below.values()):
        out += sum(1 << int(d, 16) for d, part in below.items() if part).to_bytes(2, "little")
    if value is not None:
        out += blake(value) if hashed else compact(len(value)) + value
    for part in below.values():
        if part:
            node = closed_form(part, version)
            out += compact(len(node)) + node if len(node) < 32 else b"\x80" + blake(node)
    return out


def expected(pairs: dict[bytes, bytes], version: int) -> bytes:
    return blake(closed_form({key.hex(): value for key, value in pairs.items()}, version))


def test_public_vectors() -> None:
    """sp-trie's encodings of small tries, and roots from sp-state-machine's tests."""
    assert EMPTY_ROOT.hex() == "03170a2e7597b7b7e3d84c05391d139a62b157e78786d8c082f29dcf4c111314"
    assert root({}, 0) == root({}, 1) == ordered_root([], 1) == EMPTY_ROOT
    assert root({b"\xaa": b"\xbb"}, 1) == blake(bytes.fromhex("42aa04bb"))
    disjoint = bytes.fromhex("8012001443031404ff1443081904fe")
    assert root({b"\x48\x19": b"\xfe", b"\x13\x14": b"\xff"}, 1) == blake(disjoint)
    animals = {b"doe": b"reindeer", b"dog": b"puppy", b"dogglesworth": b"cat"}
    assert root(animals, 1).hex() == "39245109cef3758c2eed2ccba8d9b370a917850af3824bc8348d505df2c298fa"
    animals[b"doug2"] = b"yes"
    assert root(animals, 1).hex() == "5c0a4e35cb967de785e1cb8743e6f24b6ff6d45155317f2078f6eb3fc4ff3e3d"


def test_the_number_of_nibbles_overflows_into_bytes() -> None:
    assert [header((0x40, 6), n).hex() for n in (0, 62, 63, 317, 318, 573)] == [
        "40", "7e", "7f00", "7ffe", "7fff00", "7fffff00"
    ]  # fmt: skip
    assert header((0x10, 4), 15).hex() == "1f00"
    for size in (7, 15, 31, 32, 158, 159, 160, 400):
        pairs = {b"\xab" * size: b"v" * 40, b"\xab" * size + b"\x11": b"w", b"\xab" * (2 * size): b"x" * 33}
        for version in (0, 1):
            assert root(pairs, version) == expected(pairs, version)


def test_values_from_33_bytes_on_are_hashed_in_version_1_only() -> None:
    for size in (0, 32, 33, 70_000):
        pairs = {b"k": bytes(size), b"k2": bytes(size)}
        assert [root(pairs, v) for v in (0, 1)] == [expected(pairs, v) for v in (0, 1)]
        assert (root(pairs, 0) == root(pairs, 1)) is (size < 33)
    with pytest.raises(ConfigError, match="state version 2"):
        root({}, 2)


def test_a_list_is_keyed_by_compact_positions_and_the_hash_is_a_parameter() -> None:
    items = [bytes((i % 251,)) * (i % 50) for i in range(300)]
    assert ordered_root(items, 1) == expected({compact(i): item for i, item in enumerate(items)}, 1)
    assert ordered_root([b"x"], 0, lambda data: sha256(data).digest()) == sha256(bytes.fromhex("42000478")).digest()


KEYS = st.one_of(
    st.binary(max_size=3),
    st.binary(max_size=4).map(lambda key: bytes(b & 0x11 for b in key)),
    st.binary(min_size=2, max_size=2).map(lambda key: b"\xff" * 40 + key),
)
VALUES = st.one_of(st.none(), st.sampled_from((b"", b"v", b"w" * 32, b"x" * 33)))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from((0, 1)), st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=12), max_size=6))
def test_any_changes_in_any_order_give_the_root_of_what_is_there(
    version: int, batches: list[dict[bytes, bytes | None]]
) -> None:
    pairs: dict[bytes, bytes] = {}
    trie, states = Trie(version), [(Trie(version), dict(pairs))]
    for batch in batches:
        pairs = {key: value for key, value in {**pairs, **batch}.items() if value is not None}
        trie = trie.updated(sorted(batch), pairs.get)
        states.append((trie, dict(pairs)))
    for older, had in states:  # an older trie is as good as it was
        assert older.root(had.get) == root(had, version) == expected(had, version)


def test_a_larger_state_through_many_blocks() -> None:
    chance = random.Random(1)
    items = [chance.randbytes(32) for _ in range(5)]
    pairs = {chance.choice(items) + chance.randbytes(20): chance.randbytes(chance.choice((4, 40))) for _ in range(2000)}
    trie = Trie.build(sorted(pairs), pairs.get, 1)
    for _ in range(20):
        changed = chance.sample(sorted(pairs), 15) + [chance.choice(items) + chance.randbytes(20) for _ in range(5)]
        for key in changed:
            if chance.random() < 0.4:
                pairs.pop(key, None)
            else:
                pairs[key] = chance.randbytes(8)
        trie = trie.updated(sorted(changed), pairs.get)
        assert trie.root(pairs.get) == root(pairs, 1)
    assert trie.root(pairs.get) == expected(pairs, 1)
    everything = sorted(pairs)
    pairs.clear()
    assert trie.updated(everything, pairs.get).root(pairs.get) == EMPTY_ROOT


def test_keys_nested_without_end_are_refused() -> None:
    pairs = {b"\1" * size: b"v" for size in range(1, 3000)}
    with pytest.raises(RuntimeTrap, match="nested too deeply"):
        root(pairs, 1)
