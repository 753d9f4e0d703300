"""Order, replacement and limits of the pool, by the tags of the transactions alone."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import PoolRejected
from localnet.node.extrinsic import parse
from localnet.node.pool import Entry, Pool
from localnet.node.validity import Validity, read_apply_result, read_validity
from tests.unit.localnet.node.tiny_runtime import extrinsic, put

FOREVER = 2**64 - 1


def _add(pool: Pool, name: int, requires: str = "", provides: str = "", priority: int = 1, **more: Any) -> Entry:
    tags = [tuple(tag.encode() for tag in text.split()) for text in (requires, provides)]
    validity = Validity(priority, tags[0], tags[1], more.pop("longevity", FOREVER))
    return pool.add(parse(extrinsic(name, 0, put(b"k", b"v"))), validity, more.pop("head", 0), **more)


def _names(pool: Pool) -> list[int]:
    return [entry.xt.who[0] for entry in pool.ordered() if entry.xt.who]


def test_dependents_follow_what_they_require_whatever_their_priority_or_age() -> None:
    pool = Pool()
    _add(pool, 3, "b", "c", priority=9)
    _add(pool, 2, "a", "b", priority=5)
    _add(pool, 9, "", "z")
    assert _names(pool) == [9]
    _add(pool, 1, "", "a")
    assert _names(pool) == [9, 1, 2, 3]


def test_higher_priority_goes_first_then_the_older() -> None:
    pool = Pool()
    for name, priority in ((1, 1), (2, 7), (3, 1)):
        _add(pool, name, "", f"t{name}", priority)
    assert _names(pool) == [2, 1, 3]


def test_a_newcomer_replaces_only_with_more_priority() -> None:
    pool, heard = Pool(), []
    _add(pool, 1, "", "a", priority=3, watcher=heard.append)
    with pytest.raises(PoolRejected) as refused:
        _add(pool, 2, "", "a", priority=3)
    assert (refused.value.code, refused.value.message) == (1014, "Priority is too low: (3 vs 3)")
    new = _add(pool, 2, "", "a", priority=4)
    assert heard == ["ready", {"usurped": "0x" + new.xt.hash.hex()}]
    assert _names(pool) == [2]


def test_the_same_transaction_twice_is_refused() -> None:
    pool = Pool()
    _add(pool, 1, "", "a")
    with pytest.raises(PoolRejected) as refused:
        _add(pool, 1, "", "a")
    assert refused.value.code == 1013
    with pytest.raises(PoolRejected):
        pool.check_new(parse(extrinsic(1, 0, put(b"k", b"v"))).hash, 0)


def test_inclusion_promotes_and_dropping_demotes() -> None:
    pool, heard = Pool(), []
    first = _add(pool, 1, "", "a")
    second = _add(pool, 2, "a", "b", watcher=heard.append)
    pool.drop(first, "invalid", ban_until=10)
    assert heard == ["ready", "future"] and not pool.has_ready and pool.futures() == [second]
    with pytest.raises(PoolRejected) as refused:
        pool.check_new(first.xt.hash, 9)
    assert refused.value.code == 1012
    pool.check_new(first.xt.hash, 10)
    again = _add(pool, 1, "", "a")
    pool.included(again)
    assert heard[-1] == "ready" and _names(pool) == [2]


def test_the_pool_is_bounded() -> None:
    pool = Pool(max_count=8)
    for name in range(1, 3):
        _add(pool, name, "never", f"t{name}")
    with pytest.raises(PoolRejected) as refused:
        _add(pool, 3, "never", "t3")
    assert refused.value.code == 1016
    for name in range(4, 10):
        _add(pool, name, "", f"t{name}")
    with pytest.raises(PoolRejected):
        _add(pool, 20, "", "t20")
    small = Pool(max_bytes=len(extrinsic(1, 0, put(b"k", b"v"))))
    _add(small, 1, "", "a")
    with pytest.raises(PoolRejected):
        _add(small, 2, "", "b")
    pool.drop(next(iter(pool.entries.values())), "dropped")
    assert pool.size == sum(len(entry.xt.raw) for entry in pool.entries.values())


def test_mortal_transactions_expire() -> None:
    pool = Pool()
    entry = _add(pool, 1, "", "a", longevity=4, head=10)
    assert pool.expired(13) == [] and pool.expired(14) == [entry]


def test_refusals_read_as_the_released_node_writes_them() -> None:
    texts = {
        b"\1\0\3": (1010, "Transaction is outdated"),
        b"\1\0\4": (1010, "Transaction has a bad signature"),
        b"\1\0\1": (1010, "Inability to pay some fees (e.g. account balance too low)"),
        b"\1\0\7\6": (1010, "Custom error: 6"),
        b"\1\1\1": (1011, "Could not find an unsigned validator for the unsigned transaction"),
    }
    for raw, (code, data) in texts.items():
        verdict = read_validity(raw)
        assert not isinstance(verdict, Validity)
        assert (verdict.rejected().code, verdict.rejected().data) == (code, data)


def test_an_apply_result_says_whether_the_extrinsic_is_in_the_block() -> None:
    assert read_apply_result(b"\0\0") == (None, True)
    assert read_apply_result(b"\0\1\2") == (None, False)
    refusal, _ = read_apply_result(b"\1\0\6")
    assert refusal is not None and refusal.exhausted
