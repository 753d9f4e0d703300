"""What is asked for beside a missed key, by the shape of the item's keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localnet.codec.document import Document
from localnet.fork.base import Base
from localnet.fork.prefetch import ACCOUNT, U16, Advisor, Item, items
from localnet.runtime.profile import FAST
from tests.unit.localnet.fork.test_fork_state import asked, base_over

PALLET = "SubtensorModule"
SUBNETS = (0, 1, 2, 3)


def account(kind: str, subnet: int, uid: int) -> bytes:
    return f"{kind} {subnet} {uid}".encode().ljust(32)


def u16(number: int) -> bytes:
    return number.to_bytes(2, "little")


HOT = {subnet: [account("hot", subnet, uid) for uid in range(3)] for subnet in SUBNETS[1:]}
COLD = {subnet: [account("cold", subnet, uid // 2) for uid in range(3)] for subnet in SUBNETS[1:]}


@pytest.fixture(scope="module")
def known() -> dict[str, Item]:
    document = Document.load(FAST.constants)
    return {item.entry.name: item for item in items(document).values() if item.entry.pallet == PALLET}


@pytest.fixture
def base(known: dict[str, Item]) -> Iterator[Base]:
    storage = {known["NetworksAdded"].key((u16(subnet),)): b"\1" for subnet in SUBNETS}
    for subnet, hotkeys in HOT.items():
        for uid, (hotkey, coldkey) in enumerate(zip(hotkeys, COLD[subnet], strict=True)):
            storage[known["Keys"].key((u16(subnet), u16(uid)))] = hotkey
            storage[known["Owner"].key((hotkey,))] = coldkey
    made = base_over(storage)
    made.advisor = Advisor(Document.load(FAST.constants), made)
    yield made
    made.close()


def missed(base: Base, key: bytes) -> set[bytes]:
    """The keys of the request that a missed key ends in."""
    base.get(key)
    return set(asked(base)[-1])  # type: ignore[call-overload]


def test_siblings(base: Base, known: dict[str, Item]) -> None:
    one = known["Tempo"]
    assert missed(base, one.key((u16(2),))) == {one.key((u16(subnet),)) for subnet in SUBNETS}
    one = known["BlockAtRegistration"]
    assert missed(base, one.key((u16(2), u16(1)))) == {one.key((u16(2), u16(uid))) for uid in range(3)}
    one = known["Uids"]
    assert one.shapes == (U16, ACCOUNT)
    assert missed(base, one.key((u16(2), HOT[2][0]))) == {one.key((u16(2), hotkey)) for hotkey in HOT[2]}
    one = known["TotalHotkeyAlpha"]
    assert one.shapes == (ACCOUNT, U16)
    assert missed(base, one.key((HOT[2][0], u16(2)))) == {one.key((hotkey, u16(2))) for hotkey in HOT[2]}
    assert missed(base, one.key((HOT[2][0], u16(0)))) == {one.key((hotkey, u16(0))) for hotkey in HOT[2]}  # root's
    one = known["Delegates"]
    assert missed(base, one.key((HOT[2][2],))) == {one.key((hotkey,)) for hotkey in HOT[2]}
    one = known["StakingHotkeys"]
    assert missed(base, one.key((COLD[2][0],))) == {one.key((coldkey,)) for coldkey in COLD[2]}
    one = known["AlphaV2"]
    pairs = zip(HOT[2], COLD[2], strict=True)
    assert missed(base, one.key((HOT[2][0], COLD[2][0], u16(2)))) == {one.key((*pair, u16(2))) for pair in pairs}


def test_more_subnets_at_once_the_more_often_an_item_is_missed(base: Base, known: dict[str, Item]) -> None:
    one = known["Uids"]
    sizes = [len(missed(base, one.key((u16(subnet), HOT[subnet][0])))) for subnet in (1, 2)]
    assert sizes == [3, 6]  # the second time that of the next subnet, too
    before = len(asked(base))
    base.get(one.key((u16(3), HOT[3][0])))
    assert len(asked(base)) == before


def test_accounts_that_nobody_knows_are_read_alone(base: Base, known: dict[str, Item]) -> None:
    key = known["StakingHotkeys"].key((b"\x77" * 32,))
    assert missed(base, key) == {key}
    key = known["Uids"].prefix(2) + b"short"
    assert missed(base, key) == {key}


def test_the_first_fetch_is_what_every_block_may_read(base: Base, known: dict[str, Item]) -> None:
    advisor = base.advisor
    assert isinstance(advisor, Advisor)
    cold = set(advisor.cold())
    assert known["Tempo"].key((u16(3),)) in cold and known["Keys"].key((u16(3), u16(0))) not in cold
    base.fetch(cold)
    before = len(asked(base))
    for name in ("Tempo", "Kappa", "SubnetTAO"):
        base.get(known[name].key((u16(1),)))
    base.get(advisor._document.storage["System", "Events"].prefix)
    assert len(asked(base)) == before
