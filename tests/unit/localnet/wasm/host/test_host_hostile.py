"""Whatever a runtime passes, a function returns or breaks the call off: no other exception, no endless work."""

from __future__ import annotations

import inspect
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localnet.codec.scale import compact, opaque
from localnet.node.state import VersionedState
from localnet.wasm.host import keystore
from localnet.wasm.host.interface import HostTrap
from tests.support.wasm_memory import MemoryHost

HUGE = compact((1 << 536) - 1)
BYTES = (b"", b"\0", b"\1", b"\2", b"\1\1\0\0\0", b"\xff" * 600, b":", HUGE, b"\1" + HUGE, compact(1 << 30), bytes(700))
NUMBERS = (0, 1, -1, 3, 1 << 31, 1 << 32, (1 << 64) - 1, -(1 << 63), 1 << 70, 0xFFFFFFFF << 32, 1 | 0xFFFFFFFF << 32)
NAMES = sorted(MemoryHost().functions)


def fresh() -> MemoryHost:
    state = VersionedState()
    for key in (b"", b"k", b":child_storage:default:", b"\xff" * 600):
        state.put(key, b"\xff" * 40)
    state.seal(0)
    return MemoryHost(state)


def arity(host: MemoryHost, name: str) -> int:
    """How many arguments a function takes; three where it takes any, which only those do that trap."""
    parameters = inspect.signature(host.functions[name]).parameters.values()
    return 3 if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_survives_every_kind_of_argument(name: str) -> None:
    host = fresh()
    count = arity(host, name)
    starts = [host.span(data) for data in BYTES]
    for one in (*starts, *NUMBERS):
        for other in (one, starts[1], starts[5], NUMBERS[2]):
            with suppress(HostTrap):
                host.call(name, *[one, other, one, other][:count])
    while host.transactions:
        host.call("ext_storage_rollback_transaction_version_1")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_sequence_of_calls_survives(data: st.DataObject) -> None:
    host = fresh()
    argument = st.one_of(
        st.binary(max_size=70).map(host.span),
        st.binary(min_size=65, max_size=700).map(host.pointer),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.integers(0, 2),
    )
    for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        count = arity(host, name)
        arguments = data.draw(st.lists(argument, min_size=count, max_size=count))
        with suppress(HostTrap):
            host.call(name, *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_span_out_of_bounds_breaks_off_where_one_is_read(name: str) -> None:
    host = fresh()
    count = arity(host, name)
    if not count or name.endswith(("print_num_version_1", "storage_root_version_2")):  # numbers only
        return
    outside = (1 << 31) | 1 << 32  # neither as a pointer nor as a span
    with pytest.raises(HostTrap):
        host.call(name, *[outside, outside, outside, 0][:count])


def test_a_list_of_nothing_does_not_fill_the_memory() -> None:
    host = MemoryHost()
    many = (1 << 20) << 2 | 2
    with pytest.raises(HostTrap, match="a list of 1,048,576 items"):
        host.spans("ext_trie_blake2_256_ordered_root_version_1", many.to_bytes(4, "little") + bytes(1 << 20))


def test_a_runtime_does_not_fill_the_keystore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "MAX_KEYS", 2)
    host = MemoryHost()
    for name in (b"//a", b"//b"):
        host.keystore.insert(b"aura", "sr25519", name.decode())
    with pytest.raises(HostTrap, match="at most 2 keys"):
        host.call("ext_crypto_ecdsa_generate_version_1", host.pointer(b"gran"), host.span(b"\1" + opaque(b"//c")))
