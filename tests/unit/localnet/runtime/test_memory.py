"""The state in memory: what it says is what a plain dictionary says, and it forgets what was deleted."""

from __future__ import annotations

import random

from localnet.runtime.memory import MemoryState


def test_it_is_a_dictionary_whose_transactions_are_copies() -> None:
    rng, state = random.Random(3), MemoryState({b"a1": b"0", b"b2": None})
    models: list[dict[bytes, bytes]] = [{b"a1": b"0"}]
    for _ in range(2_000):
        kind = rng.choice(("put", "put", "put", "delete", "begin", "commit", "rollback"))
        key = b"ab"[rng.randrange(2) :][:1] + bytes((rng.randrange(20),))
        if kind == "put":
            models[-1][key] = value = bytes((rng.randrange(3),))
            state.put(key, value)
        elif kind == "delete":
            models[-1].pop(key, None)
            state.put(key, None)
        elif kind == "begin":
            models.append(dict(models[-1]))
            state.begin()
        elif len(models) > 1:
            last = models.pop()
            if kind == "commit":
                models[-1] = last
                state.commit()
            else:
                state.rollback()
        assert state.get(key) == models[-1].get(key)
        assert list(state.keys(b"a")) == sorted(key for key in models[-1] if key[:1] == b"a")
        assert list(state.keys(b"")) == sorted(models[-1])


def test_deleted_keys_are_forgotten_and_passed_over_while_one_iterates() -> None:
    state = MemoryState({bytes((n,)): b"v" for n in range(5)})
    seen = []
    for key in state.keys(b""):
        seen.append(key)
        state.put(bytes((key[0] + 1,)), None)
    assert seen == [bytes((n,)) for n in (0, 2, 4)] == state._order
    for n in range(1_000):  # what comes once, as a block's hash
        state.put(n.to_bytes(4, "big"), b"v")
        state.put(n.to_bytes(4, "big"), None)
    assert len(state._order) == 3
