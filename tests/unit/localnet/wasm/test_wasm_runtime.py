"""The core that runs a Wasm runtime, on one written by hand (tests/support/wat_runtime.py)."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import wasmtime
import xxhash

from localnet.codec.document import Document
from localnet.codec.scale import opaque
from localnet.errors import (
    ChainError,
    ForkError,
    PoolRejected,
    RuntimeApiMissing,
    RuntimeCodeError,
    RuntimeTimeout,
    RuntimeTrap,
)
from localnet.fork.chain import ForkedChain
from localnet.fork.transport import Stats
from localnet.node.chain import Chain
from localnet.node.marks import FAKE_SIGNATURE, Impersonated, unsigned
from localnet.node.replay import trace
from localnet.node.state import VersionedState
from localnet.wasm import engine
from localnet.wasm.limits import PAGE, Limits
from localnet.wasm.runtime import WasmRuntime
from localnet.wasm.watchdog import TICKS, PosixTicker, ThreadTicker
from tests.support import wat_runtime as wat

APPLY = "BlockBuilder_apply_extrinsic"
SMALL = 32 * 1024 * 1024  # bytes of memory in these tests
PAYLOAD = bytes(range(40))


def runtime(code: bytes | None = None, *, seconds: float = 30.0, fast: bool = True) -> WasmRuntime:
    limits = Limits(seconds=seconds, memory=SMALL)
    return WasmRuntime(wat.code() if code is None else code, compiled=False, limits=limits, fast=fast)


def opened(code: bytes | None = None) -> VersionedState:
    """A state inside a block."""
    state = VersionedState()
    state.put(b":code", wat.code() if code is None else code)
    state.seal(0)
    state.begin()
    return state


WAYS = ["fast", "without a kernel timer", "public"]


def made(way: str, seconds: float = 30.0) -> WasmRuntime:
    """A runtime with its host functions bound in one of the three ways, as systems have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("localnet.wasm.runtime.KERNEL_TIMER", way == "fast")
        one = runtime(fast=way != "public", seconds=seconds)
    assert isinstance(one._lane.ticker, PosixTicker) == (way == "fast" and sys.platform.startswith("linux"))
    return one


@pytest.fixture(scope="module", params=WAYS)
def bound(request: pytest.FixtureRequest) -> WasmRuntime:
    return made(request.param)


# -- a chain on it


def test_a_chain_is_made_on_it_and_its_roots_are_those_of_the_state(bound: WasmRuntime) -> None:
    chain = Chain(bound)
    chain.submit(wat.bare("append"))
    block = chain.author()
    assert chain.storage(wat.LOG) == b"\4" + bytes((wat.NUMBER["append"],)) and len(block.extrinsics or []) == 1
    assert block.header.state_root == chain.state.root(1) != chain.blocks[0].header.state_root
    assert chain.author().header.parent_hash == block.hash
    assert chain.storage(wat.GENESIS) == opaque(b"{}")


def test_an_extrinsic_that_traps_costs_itself_and_not_the_block() -> None:
    chain = Chain(runtime())
    for op in ("trap", "append", "panic"):
        chain.submit(wat.bare(op))
    block = chain.author()
    assert block.extrinsics == [wat.bare("append")]
    assert chain.storage(wat.LOG) == b"\4" + bytes((wat.NUMBER["append"],))


def test_traps_need_no_signals_that_others_could_take_away() -> None:
    """As pytest does inside pytest: what handled signals before wasmtime came is put back."""
    code = (
        "import faulthandler; faulthandler.enable(); from tests.unit.localnet.wasm.test_wasm_runtime import *; "
        "made = runtime(); faulthandler.disable(); faulthandler.enable()\n"
        "for op in 'trap', 'access out of range', 'recurse':\n"
        "    with pytest.raises(RuntimeTrap):\n"
        "        made.call(APPLY, wat.bare(op), opened())"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False, capture_output=True)
    assert done.returncode == 0 and b"Fatal" not in done.stderr, done.stderr


def test_a_raw_genesis_is_the_state_and_takes_no_patch() -> None:
    raw = {b":code": wat.code(), b"key": b"value"}
    chain = Chain(WasmRuntime(wat.code(), raw, compiled=False))
    assert chain.storage(b"key") == b"value" and chain.storage(wat.GENESIS) is None
    with pytest.raises(ChainError, match="takes no patch"):
        Chain(WasmRuntime(wat.code(), raw, compiled=False), genesis={"sudo": {}})


def test_new_code_runs_from_the_block_after_it_and_old_blocks_keep_theirs() -> None:
    chain = Chain(runtime())
    newer = wat.code(2, slot_ms=500)
    chain.author({b":code": newer})
    chain.author()
    said = [chain.call("Core_version", b"", number) for number in (0, 1, 2)]
    assert said == [wat.runtime_version(spec) for spec in (1, 2, 2)]
    chain.revert(0)
    assert chain.call("Core_version", b"") == wat.runtime_version(1)


def test_code_that_cannot_run_is_said_and_the_block_before_still_works() -> None:
    chain = Chain(runtime())
    chain.author({b":code": b"no code at all"})
    with pytest.raises(RuntimeCodeError, match="not Wasm code"):
        chain.author()
    chain.revert(0)
    chain.author()


# -- what a call leaves behind


def test_nothing_is_left_of_a_call_in_the_next(bound: WasmRuntime) -> None:
    state = opened()
    for _ in range(3):
        assert bound.call(APPLY, wat.bare("count"), state) == b"\0\0"
        assert state.get(wat.STORED) == (1).to_bytes(4, "little") * 2  # mutable global and static memory


@pytest.mark.parametrize("op", ["leave a transaction open", "trap in a transaction"])
def test_transactions_left_open_are_rolled_back(bound: WasmRuntime, op: str) -> None:
    state = opened()
    state.put(b"mine", b"1")
    if "trap" in op:
        with pytest.raises(RuntimeTrap):
            bound.call(APPLY, wat.bare(op), state)
    else:
        bound.call(APPLY, wat.bare(op), state)
    assert state.depth == 1 and state.get(wat.LOG) is None and state.get(b"mine") == b"1"


def test_a_runtime_cannot_close_the_transactions_of_the_node(bound: WasmRuntime) -> None:
    state = opened()
    with pytest.raises(RuntimeTrap, match="no open storage transaction to commit"):
        bound.call(APPLY, wat.bare("commit what is not open"), state)
    assert state.depth == 1


PUBLISHED = [  # start in the answer, data, digest: xxHash, RFC 7693; twox as @polkadot/util-crypto has them
    (0, b"", "99e9d85137db46ef"),
    (8, b"", "99e9d85137db46ef4bbea33613baafd5"),
    (8, b"System", "26aa394eea5630e07c48ae0c9558cef7"),
    (24, b"abc", "990977adf52cbc440889329981caa9bef7da5770b2b8a05303b75d95360dd62b"),
    (56, b"abc", "cf4ab791c62b8d2b2109c90275287816"),
    (72, b"abc", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"),
]


@pytest.mark.parametrize(("start", "data", "digest"), PUBLISHED)
def test_its_hashes_are_the_published_ones(bound: WasmRuntime, start: int, data: bytes, digest: str) -> None:
    state = opened()
    bound.call(APPLY, wat.bare("hash", data), state)
    assert (state.get(wat.STORED) or b"")[start : start + len(digest) // 2].hex() == digest


def test_its_hashes_are_those_of_the_libraries(bound: WasmRuntime) -> None:
    state = opened()
    for size in (0, 1, 3, 4, 7, 8, 31, 32, 33, 63, 64, 100, 127, 128, 129, 255, 256, 300, 1000):
        data = bytes(i * 7 % 251 for i in range(size))
        bound.call(APPLY, wat.bare("hash", data), state)
        twox = [xxhash.xxh64_intdigest(data, seed).to_bytes(8, "little") for seed in range(4)]
        blake = [hashlib.blake2b(data, digest_size=size).digest() for size in (16, 32)]
        assert state.get(wat.STORED) == b"".join((twox[0], *twox[:2], *twox, *blake)), size


def test_memory_that_was_freed_is_used_again(bound: WasmRuntime) -> None:
    for _ in range(3):  # 10,000 allocations of up to 70 kB in 32 MiB
        assert bound.call(APPLY, wat.bare("allocate and free"), opened()) == b"\0\0"


# -- hostile code


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("trap", "the runtime panicked"),
        ("panic", wat.PANIC.decode()),
        ("recurse", "too deep"),
        ("read out of range", "are not in the memory"),
        ("write out of range", "are not in the memory"),
        ("answer out of range", "are not in the memory"),
        ("answer too much", "more than the runtime can have allocated"),
        ("open without end", "more than 1,024 storage transactions"),
        ("access out of range", "memory that it does not have"),
        ("allocate", "memory is used up"),
        ("allocate too much", "more than 32 MiB"),
        ("free twice", "freed it twice"),
        ("free what is not", "what was not allocated"),
        ("overwrite a header", "header of a free block"),
        ("call what is missing", wat.MISSING),
    ],
)
def test_a_broken_call_is_explained_and_the_next_one_works(bound: WasmRuntime, op: str, said: str) -> None:
    state = opened()
    state.put(wat.LOG, b"\4x")
    with pytest.raises(RuntimeTrap) as caught:
        bound.call(APPLY, wat.bare(op), state)
    assert str(caught.value).startswith(APPLY) and said in str(caught.value)
    assert bound.call(APPLY, wat.bare("append"), state) == b"\0\0"


@pytest.mark.parametrize("op", ["loop", "loop over the host"])
@pytest.mark.parametrize("way", WAYS)
def test_a_call_without_end_is_stopped(op: str, way: str) -> None:
    impatient = made(way, seconds=0.05)
    with pytest.raises(RuntimeTrap, match=r"longer than 0\.05 seconds"):
        impatient.call(APPLY, wat.bare(op), opened())
    assert impatient.call(APPLY, wat.bare("append"), opened()) == b"\0\0"


def test_a_start_function_without_end_is_stopped() -> None:
    code = wat.code(extra="(func $start (loop $l (br $l))) (start $start)")
    with pytest.raises(RuntimeCodeError, match="cannot be instantiated"):
        runtime(code, seconds=0.05).call("Core_version", b"", opened(code))


@pytest.mark.parametrize("op", ["write without end", "append without end"])
def test_a_call_writes_only_so_much(op: str) -> None:
    state = opened()
    small = WasmRuntime(wat.code(), compiled=False, limits=Limits(memory=SMALL, written=1 << 20))
    with pytest.raises(RuntimeTrap, match="writes more to storage"):
        small.call(APPLY, wat.bare(op), state)
    written = max(len(state.get(key) or b"") for key in (wat.STORED, wat.LOG))
    assert 0 < written < (1 << 20) + 8  # the length of a vector
    assert small.call(APPLY, wat.bare("count"), state) == b"\0\0"


def test_a_start_function_has_no_storage() -> None:
    code = wat.code(extra="(func $start (call $storage_start_transaction)) (start $start)")
    with pytest.raises(RuntimeCodeError, match="uses storage outside of a call"):
        runtime(code).call("Core_version", b"", opened(code))
    assert runtime().call(APPLY, wat.bare("append"), opened()) == b"\0\0"


def test_a_library_that_panics_is_a_trap() -> None:
    class PanicException(BaseException): ...  # as PyO3's

    class Broken(VersionedState):
        def get(self, key: bytes) -> bytes | None:
            if key == wat.LOG:
                raise PanicException("index out of bounds")
            return super().get(key)

    with pytest.raises(RuntimeTrap, match="PanicException: index out of bounds"):
        runtime().call(APPLY, wat.bare("append"), Broken())


def test_code_that_cannot_be_used_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(code: bytes, *arguments: object) -> bytes:
        tried.append(code)
        raise RuntimeCodeError("the code does not compile within 120 seconds")

    mine, bad = runtime(), wat.code(77)
    mine.call("Core_version", b"", opened())
    with monkeypatch.context() as patch:
        patch.setattr(engine, "compile_code", fail)
        for _ in range(3):
            with pytest.raises(RuntimeCodeError, match="does not compile within 120"):
                mine.call("Core_version", b"", opened(bad))
    assert len(tried) == 1
    assert mine.call("Core_version", b"", opened()) == wat.runtime_version(1)


def test_a_panic_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    chain = Chain(runtime())
    with caplog.at_level(logging.INFO):
        for number in range(3):
            chain.submit(wat.bare("panic", bytes((number,))))
            chain.author()
    errors = [record.name for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["localnet.runtime.wasm", "localnet.node.author"]


def test_memory_stays_within_the_limit(bound: WasmRuntime) -> None:
    state = opened()
    bound.call(APPLY, wat.bare("grow"), state)
    pages = int.from_bytes(state.get(wat.STORED) or b"", "little")
    assert 0 < SMALL - pages * PAGE < 16 * PAGE


def test_an_instance_that_has_grown_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, state = runtime(), opened()
    mine.call(APPLY, wat.bare("append"), state)
    first = mine._of(state).instance
    mine.call(APPLY, wat.bare("append"), state)
    assert mine._of(state).instance is first
    monkeypatch.setattr("localnet.wasm.instance.LARGE", SMALL // 2)
    mine.call(APPLY, wat.bare("grow"), state)
    assert not first.alive and mine._of(state).instance is not first


def test_a_late_tick_does_not_end_the_next_call() -> None:
    """Ticks of other calls make a limit shorter, and there are fewer of them than it has."""
    patient = runtime()
    lane = patient._lane
    for _ in range(TICKS):
        lane.engine.increment_epoch()  # late, before the call
    assert patient.call(APPLY, wat.bare("count"), opened()) == b"\0\0"
    ticks = []

    class Late:  # during the call
        holds_gil = True

        def start(self, seconds: float) -> None:
            ticks.append(seconds)
            for _ in range(TICKS - 1):
                lane.engine.increment_epoch()

        def stop(self) -> None: ...

    kept, lane.ticker = lane.ticker, Late()
    try:
        assert patient.call(APPLY, wat.bare("allocate and free"), opened()) == b"\0\0"
    finally:
        lane.ticker = kept
    assert ticks == [30.0 / TICKS]


@pytest.mark.parametrize("kind", [PosixTicker, ThreadTicker])
def test_a_ticker_ticks_until_it_is_stopped(kind: type) -> None:
    if kind is PosixTicker and not sys.platform.startswith("linux"):
        pytest.skip("POSIX timers are used on Linux")
    lane = engine.Lane(1 << 20, False)
    engine._kept.append(lane)
    ticker = kind(lane.engine)
    store = wasmtime.Store(lane.engine)
    loop = wasmtime.Instance(store, wasmtime.Module(lane.engine, '(module (func (export "f") (loop (br 0))))'), [])

    def run() -> None:
        with pytest.raises(wasmtime.Trap):
            loop.exports(store)["f"](store)

    store.set_epoch_deadline(3)
    ticker.start(0.005)
    run()
    ticker.stop()
    time.sleep(0.03)  # no tick any more: a call of one tick's length gets through
    store.set_epoch_deadline(1)
    quick = wasmtime.Instance(store, wasmtime.Module(lane.engine, '(module (func (export "f")))'), [])
    quick.exports(store)["f"](store)


def test_an_exception_from_a_signal_handler_leaves_by_the_front_door() -> None:
    """Ctrl-C arrives while Wasm runs; the next Python code that runs is a host function."""

    class Pressed(BaseException): ...

    def handler(number: int, frame: object) -> None:
        raise Pressed

    class Watched(VersionedState):
        def get(self, key: bytes) -> bytes | None:
            if key == wat.LOG and not signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
            return None

    busy = runtime(seconds=3.0)
    before = signal.signal(signal.SIGVTALRM, handler)
    try:
        for _ in range(20):
            with pytest.raises(Pressed):
                busy.call(APPLY, wat.bare("loop over the host"), Watched())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert busy.call(APPLY, wat.bare("append"), opened()) == b"\0\0"


def test_what_a_remote_state_raises_is_not_the_runtimes_trap() -> None:
    class Remote(VersionedState):
        def get(self, key: bytes) -> bytes | None:
            if key == wat.LOG:
                raise ForkError("the node does not answer")
            return super().get(key)

    state = Remote()
    with pytest.raises(ForkError, match="does not answer"):
        runtime().call(APPLY, wat.bare("append"), state)


@pytest.mark.parametrize("waits", [True, False])
def test_a_call_that_waited_for_a_remote_node_too_long_is_no_trap(waits: bool) -> None:
    stats = Stats()

    class Slow(VersionedState):
        def get(self, key: bytes) -> bytes | None:
            stats.requests += key == wat.LOG and waits
            return super().get(key)

    chain = object.__new__(ForkedChain)
    chain.base = SimpleNamespace(stats=stats, take_failure=lambda: None)  # type: ignore[assignment]
    chain.runtime = runtime(seconds=0.05)
    with pytest.raises(ForkError if waits else RuntimeTimeout, match="waited for the node" if waits else "longer than"):
        chain.run(APPLY, wat.bare("loop over the host"), Slow())


def test_a_runtime_is_not_called_from_inside_itself() -> None:
    again = runtime()

    class Reentrant(VersionedState):
        def get(self, key: bytes) -> bytes | None:
            if key == wat.LOG:
                again.call("Core_version", b"", self)
            return super().get(key)

    with pytest.raises(RuntimeTrap, match="from inside one of its calls"):
        again.call(APPLY, wat.bare("append"), Reentrant())
    assert again.call("Core_version", b"", opened()) == wat.runtime_version(1)


def test_a_child_process_has_a_time_limit_of_its_own() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = (
        "import os, sys, warnings; warnings.simplefilter('ignore');"
        "from tests.unit.localnet.wasm.test_wasm_runtime import *;"
        "r = runtime(seconds=0.05); r.call(APPLY, wat.bare('append'), opened());"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: r.call(APPLY, wat.bare('loop'), opened())\n"
        "    except RuntimeTrap: os._exit(7)\n"
        "    os._exit(1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 7


def test_where_the_c_functions_are_not_as_expected_the_public_ones_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("localnet.wasm.bridge.UNCHECKED", ("wasmtime_has_no_such_function",))
    with caplog.at_level(logging.WARNING, "localnet.wasm.bridge"):
        assert runtime().call(APPLY, wat.bare("append"), opened()) == b"\0\0"
    assert "bound the slow way: wasmtime has no wasmtime_has_no_such_function" in caplog.text


# -- what a module may be


def test_a_module_with_a_memory_of_its_own_runs_as_well() -> None:
    code = wat.code(own_memory=True)
    state = opened(code)
    mine = runtime(code)
    assert mine.call(APPLY, wat.bare("append"), state) == b"\0\0"
    assert state.get(wat.LOG) == b"\4" + bytes((wat.NUMBER["append"],))


def test_imports_that_nobody_has_are_listed_and_do_not_matter_until_they_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "localnet.wasm.runtime"):
        mine = runtime()
        mine.call("Core_version", b"", opened())
    assert mine.missing == (wat.MISSING,)
    assert sum(wat.MISSING in record.getMessage() for record in caplog.records) == 1


def test_a_function_that_is_not_exported_is_named() -> None:
    with pytest.raises(RuntimeApiMissing, match=r"^Exported method Nothing_like_it is not found$"):
        runtime().call("Nothing_like_it", b"", opened())


def test_two_chains_in_two_threads_do_not_stop_each_other() -> None:
    failures: list[BaseException] = []

    def work(patient: WasmRuntime, op: str) -> None:
        try:
            state = opened()
            for _ in range(20):
                patient.call(APPLY, wat.bare(op), state)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(runtime(), op)) for op in ("append", "allocate and free")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


# -- impersonation


def test_an_account_is_impersonated_for_one_call_only() -> None:
    state, mine = opened(), runtime()
    one = unsigned(bytes(range(32)), b"\3\0", 7, b"\0\x1c")
    assert FAKE_SIGNATURE in one.raw
    assert mine.call("DevApi_apply_extrinsic", one.argument, state) == b"\0\0"
    assert mine.call(APPLY, one.raw, state) == b"\1\0\4"  # BadProof


def test_root_is_the_sudo_key_of_the_moment() -> None:
    state, mine = opened(), runtime()
    call = b"\x09\x08"
    with pytest.raises(RuntimeApiMissing, match="no sudo key"):
        mine.call("DevApi_apply_extrinsic", unsigned("root", call).argument, state)
    for key in (bytes(range(32)), bytes(32)):
        state.put(wat.SUDO_KEY, key)
        assert mine.call("DevApi_apply_extrinsic", unsigned("root", call).argument, state) == b"\0\0"
        extra = b"\0" + bytes((wat.NONCE << 2,))
        assert state.get(wat.STORED) == unsigned(key, b"\3\0" + call, wat.NONCE, extra).raw


def test_a_sudo_key_that_cannot_pay_is_named() -> None:
    state = opened()
    state.put(wat.SUDO_KEY, wat.POOR)
    with pytest.raises(PoolRejected, match=r"root is the sudo key 5\w+ here, and it cannot pay"):
        runtime().call("DevApi_apply_extrinsic", unsigned("root", b"\x09\x08").argument, state)


def test_a_block_with_root_comes_out_the_same_when_it_is_made_again() -> None:
    chain = Chain(runtime())
    chain.author({wat.SUDO_KEY: bytes(range(32))})
    block = chain.author(impersonated=[unsigned("root", b"\x09\x08")])
    assert block.extrinsics == [unsigned("root", b"\x09\x08").raw]
    steps = trace(chain, block.number)
    assert [one.name for one in steps] == ["initialization", "extrinsic", "finalization"]
    assert wat.STORED in steps[1].changes


def test_nobody_is_the_bare_extrinsic() -> None:
    state = opened()
    bare = Impersonated("none", wat.bare("append"))
    assert runtime().call("DevApi_apply_extrinsic", bare.argument, state) == b"\0\0"
    assert state.get(wat.LOG) == b"\4" + bytes((wat.NUMBER["append"],))
    with pytest.raises(RuntimeTrap, match="no kind 09"):
        runtime().call("DevApi_apply_extrinsic", b"\x09" + bare.raw, state)


def test_the_hand_written_metadata_is_metadata() -> None:
    document = Document.read(wat.metadata_v14(), b"")
    assert document.call_index["Sudo", "sudo"] == 0 and document.extensions[1] == "CheckNonce"
