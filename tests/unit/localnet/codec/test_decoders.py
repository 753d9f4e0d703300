"""Any bytes at all, and valid ones with something wrong in them, into every decoder (see tests/fuzz/targets.py)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.codec.scale import MAX_DEPTH, Registry, compact
from localnet.errors import ScaleError
from tests.fuzz.targets import TARGETS, runtime, seeds, type_ids
from tests.support.fuzz_values import Sampler

EXAMPLES = 25


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """One of these with pieces cut out, changed, put in or repeated; or nothing of them at all."""
    data = bytearray(draw(st.sampled_from(whole) | st.binary(max_size=80)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.binary(max_size=4) | st.sampled_from((compact(2**30), compact(2**64), b"\xff" * 8)))
        data[at : at + draw(st.integers(0, 4))] = piece
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_are_refused_or_come_out_as_they_went_in(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(damaged(list(seeds(name))))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32), st.sampled_from(type_ids()))
def test_every_type_round_trips_its_values(seed: int, type_id: int) -> None:
    rt = runtime()
    sampler = Sampler(rt, random.Random(seed))
    encoded = rt.document.registry.encode(type_id, sampler.value(type_id))
    assert rt.document.registry.encode(type_id, rt.document.registry.decode(type_id, encoded)) == encoded


@pytest.mark.parametrize("depth", [90, 500, 20_000])
def test_calls_inside_calls_end_at_a_depth_and_not_in_the_stack(depth: int) -> None:
    registry, call = runtime().document.registry, runtime().document.call_type
    remark = runtime().encode_call("System", "remark", {"remark": b""})
    data = runtime().encode_call("Utility", "batch", {"calls": []})[:2] + compact(1)
    data = data * depth + remark
    if depth < MAX_DEPTH:
        assert registry.encode(call, registry.decode(call, data)) == data
    else:
        with pytest.raises(ScaleError, match="nested too deeply"):
            registry.decode(call, data)


def test_a_short_list_that_claims_to_be_long_is_refused_at_once() -> None:
    """Two levels of items without bytes could make billions out of a few."""
    types = [
        {"path": [], "def": {"tuple": []}},
        {"path": [], "def": {"sequence": {"type": 0}}},
        {"path": [], "def": {"sequence": {"type": 1}}},
    ]
    registry = Registry(types)
    for type_id, data in ((1, compact(2**29)), (2, compact(300) + compact(1000) * 300)):
        with pytest.raises(ScaleError, match="longer than its input"):
            registry.decode(type_id, data)


def test_compact_nothing_takes_no_bytes() -> None:
    """MultiAddress::Index holds a Compact<()>."""
    rt = runtime()
    call = ("Balances", ("transfer_keep_alive", {"dest": ("Index", ()), "value": 1}))
    encoded = rt.document.registry.encode(rt.document.call_type, call)
    assert encoded[2:] == b"\1\4"
    assert rt.document.registry.decode(rt.document.call_type, encoded) == call
