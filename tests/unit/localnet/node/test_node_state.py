"""The versioned state against a plain model: a dictionary per block."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from localnet.errors import ReadOnlyState, StateDiscarded
from localnet.node.state import VersionedState

KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(b % 3 + (253 if b > 250 else 0) for b in key))
VALUES = st.one_of(st.none(), st.binary(max_size=2))


class AgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = VersionedState()
        self.live: list[dict[bytes, bytes]] = [{}]  # the open block, then nested transactions
        self.blocks: list[dict[bytes, bytes]] = []
        self.oldest = 0

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes | None) -> None:
        self.state.put(key, value)
        if value is None:
            self.live[-1].pop(key, None)
        else:
            self.live[-1][key] = value

    @rule()
    def begin(self) -> None:
        self.state.begin()
        self.live.append(dict(self.live[-1]))

    @precondition(lambda self: len(self.live) > 1)
    @rule()
    def commit(self) -> None:
        self.state.commit()
        top = self.live.pop()
        self.live[-1] = top

    @precondition(lambda self: len(self.live) > 1)
    @rule()
    def rollback(self) -> None:
        self.state.rollback()
        self.live.pop()

    @precondition(lambda self: len(self.live) == 1)
    @rule()
    def seal(self) -> None:
        before = self.blocks[-1] if self.blocks else {}
        diff = self.state.seal(len(self.blocks))
        after = dict(self.live[0])
        assert diff == {k: after.get(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        self.blocks.append(after)

    @precondition(lambda self: self.blocks)
    @rule(back=st.integers(0, 4))
    def revert(self, back: int) -> None:
        number = max(len(self.blocks) - 1 - back, self.oldest)
        newest = self.blocks[-1]
        undone = self.state.revert(number)
        del self.blocks[number + 1 :]
        self.live = [dict(self.blocks[-1])]
        changed = {k for k in newest.keys() | self.live[0].keys() if newest.get(k) != self.live[0].get(k)}
        assert changed <= undone.keys()
        assert all(self.live[0].get(k) == v for k, v in undone.items())

    @precondition(lambda self: self.blocks)
    @rule()
    def abandon(self) -> None:
        self.state.abandon()
        self.live = [dict(self.blocks[-1])]

    @precondition(lambda self: self.blocks and not self.state.depth and not self.state._journals[0])
    @rule(keep=st.integers(0, 3))
    def discard(self, keep: int) -> None:
        self.oldest = max(self.oldest, len(self.blocks) - 1 - keep)
        self.state.discard(self.oldest)

    @precondition(lambda self: self.blocks and len(self.live) == 1 and self.live[0] == self.blocks[-1])
    @rule()
    def store_and_restore(self) -> None:
        """What persistence keeps is enough to go on."""
        undo = {}
        probe = VersionedState()
        for number, block in enumerate(self.blocks):
            for key in set(probe.head) - set(block):
                probe.put(key, None)
            for key, value in block.items():
                probe.put(key, value)
            probe.seal(number)
            if number > self.oldest:
                undo[number] = probe.before(number)
        self.state = VersionedState.restore(dict(self.blocks[-1]), len(self.blocks) - 1, undo)

    @invariant()
    def same_values(self) -> None:
        live = self.live[-1]
        assert list(self.state.keys(b"")) == sorted(live)
        for prefix in (b"\0", b"\1", b"\xff", b"\xff\xff", b"\0\1"):
            assert list(self.state.keys(prefix)) == sorted(k for k in live if k.startswith(prefix))
        assert all(self.state.get(k) == v for k, v in live.items())

    @precondition(lambda self: len(self.live) == 1 and self.blocks and self.live[0] == self.blocks[-1])
    @invariant()
    def same_history(self) -> None:
        for number in range(self.oldest, len(self.blocks)):
            model, view = self.blocks[number], self.state.at(number)
            assert list(view.keys(b"")) == sorted(model)
            assert all(view.get(k) == model.get(k) for k in self.blocks[-1].keys() | model.keys())
            keys = sorted(k for k in model if k.startswith(b"\1"))
            for start in (None, b"\1", b"\1\1"):
                expected = [k for k in keys if start is None or k > start]
                assert self.state.keys_paged(b"\1", 2, start, number) == expected[:2]


AgainstModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAgainstModel = AgainstModel.TestCase


def _state(*blocks: dict[bytes, bytes | None]) -> VersionedState:
    state = VersionedState()
    for number, changes in enumerate(blocks):
        for key, value in changes.items():
            state.put(key, value)
        state.seal(number)
    return state


def test_writing_while_iterating_is_allowed() -> None:
    state = _state({bytes((i,)): b"v" for i in range(5)})
    for key in state.keys(b""):
        state.put(key, None)
        state.put(key + b"x", b"new")
    assert list(state.keys(b"")) == [bytes((i,)) + b"x" for i in range(5)]


def test_a_view_takes_writes_only_inside_a_transaction_and_keeps_them_to_itself() -> None:
    state = _state({b"k": b"0"}, {b"k": b"1"})
    view = state.at(0)
    with pytest.raises(ReadOnlyState):
        view.put(b"k", b"2")
    view.begin()
    view.put(b"k", None)
    view.put(b"new", b"2")
    assert (view.get(b"k"), list(view.keys(b""))) == (None, [b"new"])
    view.rollback()
    assert (view.get(b"k"), state.get(b"k"), state.get(b"new")) == (b"0", b"1", None)


def test_discarded_states_are_refused_not_guessed() -> None:
    state = _state(*({b"k": bytes((i,))} for i in range(6)))
    state.discard(3)
    assert state.at(3).get(b"k") == b"\3"
    for gone in (2, 6):
        with pytest.raises(StateDiscarded):
            state.at(gone)
    with pytest.raises(StateDiscarded):
        state.revert(2)


def test_a_block_cannot_be_sealed_with_an_open_transaction() -> None:
    state = VersionedState()
    state.begin()
    with pytest.raises(ReadOnlyState):
        state.seal(0)
