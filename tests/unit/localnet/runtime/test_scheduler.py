"""Root's calls for later blocks, and the byte strings that long ones are kept as."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest

from localnet.runtime.framework import FEE_WAIVED, Root, Signed
from tests.support.market import ALICE, BOB, TAO, Market, fresh

NAME = b"n" * 32


@pytest.fixture
def m() -> Market:
    return fresh()


def write(value: bytes) -> Any:
    return ("System", ("set_storage", {"items": [(b"key", value)]}))


FAILING = ("Balances", ("transfer_keep_alive", {"dest": ("Id", BOB), "value": 1}))  # nobody signed it


def schedule(
    m: Market, when: int, inner: Any, priority: int = 0, periodic: Any = None, name: bytes | None = None
) -> None:
    given = {"when": when, "maybe_periodic": periodic, "priority": priority, "call": inner}
    if name is None:
        m.root("Scheduler", "schedule", **given)
    else:
        m.root("Scheduler", "schedule_named", id=name, **given)


def refusal(m: Market, function: str, pallet: str = "Scheduler", who: bytes | None = None, **arguments: Any) -> str:
    return m.refusal(who, function, pallet=pallet, **arguments)


def run(m: Market, number: int) -> list[tuple[str, Any]]:
    """The scheduler's events of block `number`."""
    m.at(number)
    m.rt.events.clear()
    m.rt.scheduler.on_initialize(number)
    return m.events("Scheduler")


def test_a_call_runs_at_the_start_of_its_block_and_then_is_gone(m: Market) -> None:
    schedule(m, 3, write(b"v"))
    assert m.last("Scheduled", "Scheduler") == {"when": 3, "index": 0}
    for number in (2, 3):
        m.rt.call("BlockBuilder_finalize_block", b"", m.rt.state)
        m.rt.open_block(number)
        assert (m.rt.state.get(b"key") == b"v") is (number == 3)
    assert m.last("Dispatched", "Scheduler") == {"task": (3, 0), "id": None, "result": ("Ok", ())}
    assert 3 not in m.rt.scheduler.Agenda
    assert refusal(m, "schedule", when=3, maybe_periodic=None, priority=0, call=FAILING) == "TargetBlockNumberInPast"
    given = {"when": 9, "maybe_periodic": None, "priority": 0, "call": FAILING}
    assert refusal(m, "schedule", who=ALICE, **given) == "BadOrigin"


def test_an_agenda_is_worked_off_by_priority_and_is_bounded(m: Market) -> None:
    for place in range(50):
        schedule(m, 5, write(bytes((place,))), priority=10 - place % 10)
    given = {"when": 5, "maybe_periodic": None, "priority": 0, "call": FAILING}
    assert refusal(m, "schedule", **given) == "Exhausted"
    m.root("Scheduler", "cancel", when=5, index=20)
    schedule(m, 5, write(b"hole"), priority=0)
    assert m.last("Scheduled", "Scheduler")["index"] == 20
    order = [value["task"][1] for name, value in run(m, 5) if name == "Dispatched"]
    assert order[:3] == [20, 9, 19] and len(order) == 50 and order[-1] == 40


def test_names_are_unique_and_lead_to_the_task(m: Market) -> None:
    m.root("Scheduler", "schedule_named_after", id=NAME, after=0, maybe_periodic=None, priority=0, call=write(b"v"))
    assert m.rt.scheduler.Lookup[NAME] == (2, 0)
    given = {"id": NAME, "when": 9, "maybe_periodic": None, "priority": 0, "call": FAILING}
    assert refusal(m, "schedule_named", **given) == "FailedToSchedule"
    m.root("Scheduler", "cancel_named", id=NAME)
    assert m.last("Canceled", "Scheduler") == {"when": 2, "index": 0}
    assert NAME not in m.rt.scheduler.Lookup and 2 not in m.rt.scheduler.Agenda
    assert refusal(m, "cancel_named", id=NAME) == refusal(m, "cancel", when=2, index=0) == "NotFound"


def test_a_periodic_task_comes_back_until_its_count_is_up(m: Market) -> None:
    schedule(m, 4, write(b"v"), periodic=(10, 3), name=NAME)
    for number in (4, 14, 24):
        told = run(m, number)
        assert [name for name, _ in told] == ["Dispatched", "Scheduled"][: 2 - (number == 24)]
        assert told[0][1]["id"] == NAME
    assert NAME not in m.rt.scheduler.Lookup and not list(m.rt.scheduler.Agenda.keys())


def test_a_failed_task_is_tried_again_as_often_as_was_said(m: Market) -> None:
    schedule(m, 4, FAILING, name=NAME)
    assert refusal(m, "set_retry", task=(4, 1), retries=2, period=3) == "NotFound"
    m.root("Scheduler", "set_retry_named", id=NAME, retries=2, period=3)
    assert m.last("RetrySet", "Scheduler") == {"task": (4, 0), "id": NAME, "period": 3, "retries": 2}
    for number, left in ((4, 1), (7, 0)):
        told = run(m, number)
        assert told[0] == ("Dispatched", {"task": (number, 0), "id": NAME if number == 4 else None,
                                          "result": ("Err", "BadOrigin")})  # fmt: skip
        assert told[1] == ("Scheduled", {"when": number + 3, "index": 0})
        assert m.rt.scheduler.Retries[number + 3, 0] == {"total_retries": 2, "remaining": left, "period": 3}
    assert [name for name, _ in run(m, 10)] == ["Dispatched"]
    assert not list(m.rt.scheduler.Retries.keys())
    schedule(m, 40, FAILING)
    m.root("Scheduler", "set_retry", task=(40, 0), retries=1, period=1)
    m.root("Scheduler", "cancel_retry", task=(40, 0))
    assert m.last("RetryCancelled", "Scheduler") == {"task": (40, 0), "id": None}
    assert [name for name, _ in run(m, 40)] == ["Dispatched"]


def test_a_long_call_is_kept_as_a_preimage(m: Market) -> None:
    inner = write(bytes(300))
    data = m.rt.document.registry.encode(m.rt.document.call_type, inner)
    key = blake2b(data, digest_size=32).digest()
    schedule(m, 4, inner)
    assert m.rt.preimage.PreimageFor[key, len(data)] == data
    assert m.last("Noted", "Preimage") == {"hash": key}
    run(m, 4)
    assert m.rt.state.get(b"key") == bytes(300)
    schedule(m, 9, ("System", ("remark", {"remark": bytes(400)})))
    stored = m.rt.scheduler.Agenda[9][0]
    assert stored is not None
    lookup = stored["call"][1]
    del m.rt.preimage.PreimageFor[lookup["hash"], lookup["len"]]
    assert [name for name, _ in run(m, 9)] == ["CallUnavailable"]
    assert m.rt.scheduler.Agenda[9] == [stored]


# -- preimages --------------------------------------------------------------------------------------------------------

DATA = b"d" * 200
KEY = blake2b(DATA, digest_size=32).digest()
HELD = 104_000_000 + 200 * 1_000_000  # rao: the chain's base and byte deposits


def reserved(m: Market, who: bytes) -> int:
    return int(m.rt.system.Account[who]["data"]["reserved"])


def test_who_notes_bytes_pays_for_them_until_they_go(m: Market) -> None:
    free = m.rt.balances.free(ALICE)
    m.dispatch(Signed(ALICE), "Preimage", "note_preimage", bytes=DATA)
    assert m.rt.preimage.RequestStatusFor[KEY] == ("Unrequested", {"ticket": (ALICE, HELD), "len": 200})
    assert reserved(m, ALICE) == HELD == free - m.rt.balances.free(ALICE)
    assert m.rt.balances.Holds[ALICE] == [{"id": ("Preimage", "Preimage"), "amount": HELD}]
    assert refusal(m, "note_preimage", "Preimage", BOB, bytes=DATA) == "AlreadyNoted"
    assert refusal(m, "unnote_preimage", "Preimage", BOB, hash=KEY) == "NotAuthorized"
    m.dispatch(Signed(ALICE), "Preimage", "unnote_preimage", hash=KEY)
    assert m.last("Cleared", "Preimage") == {"hash": KEY} and (KEY, 200) not in m.rt.preimage.PreimageFor
    assert m.rt.balances.free(ALICE) == free and ALICE not in m.rt.balances.Holds
    assert refusal(m, "unnote_preimage", "Preimage", ALICE, hash=KEY) == "NotNoted"


def test_what_root_requests_stays_and_is_free_to_note(m: Market) -> None:
    m.root("Preimage", "request_preimage", hash=KEY)
    m.root("Preimage", "request_preimage", hash=KEY)
    assert [name for name, _ in m.events("Preimage")] == ["Requested"]
    assert m.rt.dispatch(Signed(ALICE), "Preimage", "note_preimage", {"bytes": DATA}) == FEE_WAIVED
    assert reserved(m, ALICE) == 0
    for count in (1, 0):
        m.root("Preimage", "unrequest_preimage", hash=KEY)
        assert ((KEY, 200) in m.rt.preimage.PreimageFor) is (count == 1)
    assert refusal(m, "unrequest_preimage", "Preimage", hash=KEY) == "NotRequested"
    assert refusal(m, "request_preimage", "Preimage", ALICE, hash=KEY) == "BadOrigin"


def test_a_noted_preimage_that_was_requested_goes_back_to_its_owner(m: Market) -> None:
    m.dispatch(Signed(ALICE), "Preimage", "note_preimage", bytes=DATA)
    m.root("Preimage", "request_preimage", hash=KEY)
    m.root("Preimage", "unrequest_preimage", hash=KEY)
    assert m.rt.preimage.RequestStatusFor[KEY] == ("Unrequested", {"ticket": (ALICE, HELD), "len": 200})
    m.root("Preimage", "request_preimage", hash=KEY)
    m.dispatch(Signed(ALICE), "Preimage", "unnote_preimage", hash=KEY)
    assert reserved(m, ALICE) == 0 and (KEY, 200) in m.rt.preimage.PreimageFor


def test_bounds_of_preimages(m: Market) -> None:
    assert refusal(m, "note_preimage", "Preimage", ALICE, bytes=bytes(4096 * 1024 + 1)) == "TooBig"
    assert refusal(m, "ensure_updated", "Preimage", ALICE, hashes=[]) == "TooFew"
    assert refusal(m, "ensure_updated", "Preimage", ALICE, hashes=[KEY] * 1025) == "TooMany"
    m.rt.balances.mint(b"p" * 32, TAO // 10)
    assert refusal(m, "note_preimage", "Preimage", b"p" * 32, bytes=DATA) == "FundsUnavailable"
    m.rt.dispatch(Root(), "Preimage", "ensure_updated", {"hashes": [KEY]})
