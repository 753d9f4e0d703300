"""Versions, logs, and the functions that only say what they are not."""

from __future__ import annotations

import logging

import pytest
import zstandard

from localnet.codec.scale import opaque
from localnet.errors import RuntimeCodeError
from localnet.node import repeats
from localnet.wasm.format import MAGIC, leb, named
from localnet.wasm.host import misc, offchain
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.sections import COMPRESSED, read_version, unpack
from tests.support.wasm_memory import MemoryHost

LOGGER = "localnet.runtime.wasm"


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


# -- versions

CORE = bytes.fromhex("df6acb689907609b")  # sp-api: the first 8 bytes of BLAKE2b-64("Core")
HEAD = opaque(b"node-subtensor") + opaque(b"impl") + bytes((1, 0, 0, 0, 0x2C, 1, 0, 0, 1, 0, 0, 0))
TAIL = b"\7\0\0\0\1"
APIS = CORE + b"\5\0\0\0" + b"otherapi" + b"\1\0\0\0"


def module(**sections: bytes) -> bytes:
    parts = (named(name) + content for name, content in sections.items())
    return MAGIC + b"".join(b"\0" + leb(len(part)) + part for part in parts)


def version(host: MemoryHost, code: bytes) -> bytes:
    return host.spans("ext_misc_runtime_version_version_1", code)


def test_the_version_of_code_has_its_apis_put_in(host: MemoryHost) -> None:
    code = module(runtime_version=HEAD + b"\0" + TAIL, runtime_apis=APIS)
    expected = b"\1" + opaque(HEAD + b"\x08" + APIS + TAIL)
    assert version(host, code) == expected
    assert version(host, COMPRESSED + zstandard.compress(code)) == expected


def test_old_versions_get_what_they_do_not_have_yet(host: MemoryHost) -> None:
    """sp_version's decode_with_version_hint: a transaction version since Core 3, a state version since Core 4."""
    for core, tail, expected in (2, b"", b"\1\0\0\0\0"), (3, TAIL[:4], b"\7\0\0\0\0"), (4, TAIL, TAIL):
        apis = CORE + bytes((core, 0, 0, 0))
        code = module(runtime_version=HEAD + b"\0" + tail, runtime_apis=apis)
        assert version(host, code) == b"\1" + opaque(HEAD + b"\4" + apis + expected)


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"no code at all",
        MAGIC[:4] + b"\2\0\0\0",
        module(runtime_version=HEAD),
        module(runtime_version=HEAD + b"\0" + TAIL[:3], runtime_apis=APIS),
        module(runtime_version=HEAD + b"\xfc" + TAIL, runtime_apis=APIS),
        module(runtime_version=b"\4\xff" + HEAD + b"\0" + TAIL),
        module(runtime_version=HEAD + b"\0" + TAIL, runtime_apis=APIS[:-1]),
        module(runtime_version=HEAD + b"\0" + TAIL)[:-1],
        COMPRESSED,
        COMPRESSED + b"garbage",
        COMPRESSED + zstandard.compress(module(runtime_version=HEAD + b"\0" + TAIL))[:-1],
        COMPRESSED + zstandard.compress(module(runtime_version=HEAD + b"\0" + TAIL)) + b"more",
        COMPRESSED + zstandard.compress(bytes(51 * 1024 * 1024)),
    ],
    ids=lambda code: f"{len(code)} bytes",
)
def test_damaged_code_has_no_version(host: MemoryHost, code: bytes) -> None:
    assert version(host, code) == b"\0"


def test_a_frame_that_ends_too_early_is_not_unpacked() -> None:
    whole = COMPRESSED + zstandard.compress(bytes(range(256)) * 20)
    assert unpack(whole) == bytes(range(256)) * 20
    for cut in range(len(COMPRESSED), len(whole)):
        with pytest.raises(RuntimeCodeError, match="compressed, and"):
            unpack(whole[:cut])


def test_code_without_a_version_section_is_not_called_to_ask(host: MemoryHost) -> None:
    with pytest.raises(HostTrap, match=r"runtime_version.*Core_version"):
        version(host, module(other=b""))


# -- logs


def log(host: MemoryHost, level: int, text: bytes, target: bytes = b"runtime") -> None:
    host.call("ext_logging_log_version_1", level, host.span(target), host.span(text))


@pytest.mark.parametrize(
    ("level", "shown"),
    [(0, logging.ERROR), (1, logging.WARNING), (2, logging.INFO), (3, logging.DEBUG), (4, 5), (0xFF00, logging.ERROR)],
)
def test_lines_are_kept_and_passed_on(
    host: MemoryHost, caplog: pytest.LogCaptureFixture, level: int, shown: int
) -> None:
    with caplog.at_level(1, LOGGER):
        log(host, level, b"panicked at 'no'", b"pallet")
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [(shown, "pallet: panicked at 'no'")]
    assert list(host.lines) == ["pallet: panicked at 'no'"]


def test_what_a_runtime_complains_about_in_every_block_is_shown_once(
    host: MemoryHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MOST", 3)
    with caplog.at_level(logging.DEBUG, LOGGER):
        for slot in range(3):
            log(host, 1, b"slot %d is not 0" % slot, b"babe")
        for name in (b"a", b"b", b"c"):
            log(host, 0, name, b"x")
        log(host, 2, b"said", b"x")
        log(host, 2, b"said", b"x")
    shown = [one.levelno for one in caplog.records]
    assert shown == [logging.WARNING, *[logging.DEBUG] * 2, *[logging.ERROR] * 2, logging.DEBUG, *[logging.INFO] * 2]


def test_a_line_is_kept_when_nobody_listens(host: MemoryHost, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, LOGGER):
        log(host, 2, b"seen later")
    assert not caplog.records
    assert list(host.lines) == ["runtime: seen later"]


def test_a_line_is_one_line_that_is_safe_to_show(host: MemoryHost) -> None:
    log(host, 2, "a\nb\x1b[31m\x9b\u202e\u2028%s {} \N{SNOWMAN}".encode() + b"\xff" + b"x" * 100_000, b"t" * 5000)
    (line,) = host.lines
    assert line.startswith(
        "t" * 100 + "..: a\\nb\\x1b[31m\\x9b\\u202e\\u2028%s {} \N{SNOWMAN}\N{REPLACEMENT CHARACTER}xx"
    )
    assert line.isprintable() and len(line) < 2200


def test_an_unknown_level_breaks_off(host: MemoryHost) -> None:
    with pytest.raises(HostTrap, match="log level 5"):
        log(host, 5, b"x")


@pytest.mark.parametrize(
    ("level", "wanted"),
    [(1, 5), (5, 5), (logging.DEBUG, 4), (logging.INFO, 3), (logging.WARNING, 2), (logging.CRITICAL, 2)],
)
def test_a_runtime_formats_what_is_read(
    host: MemoryHost, caplog: pytest.LogCaptureFixture, level: int, wanted: int
) -> None:
    with caplog.at_level(level, LOGGER):
        assert host.call("ext_logging_max_level_version_1") == wanted


def test_prints(host: MemoryHost) -> None:
    host.call("ext_misc_print_num_version_1", -1)
    host.call("ext_misc_print_utf8_version_1", host.span(b"text"))
    host.call("ext_misc_print_hex_version_1", host.span(b"\0\xff"))
    assert list(host.lines) == ["runtime: 18446744073709551615", "runtime: text", "runtime: 00ff"]


def test_a_panic_is_the_message_of_the_trap(host: MemoryHost) -> None:
    with pytest.raises(HostTrap, match=r"the runtime panicked: at lib\.rs:1"):
        host.call("ext_panic_handler_abort_on_panic_version_1", host.span(b"at lib.rs:1"))
    assert list(host.lines) == ["panic: at lib.rs:1"]


# -- what does nothing, and what is not there


def test_no_proof_is_recorded(host: MemoryHost) -> None:
    assert host.call("ext_storage_proof_size_storage_proof_size_version_1") == (1 << 64) - 1


def test_what_a_node_without_its_database_ignores(host: MemoryHost) -> None:
    host.call("ext_offchain_index_set_version_1", host.span(b"k"), host.span(b"v"))
    host.call("ext_offchain_index_clear_version_1", host.span(b"k"))
    host.call("ext_transaction_index_index_version_1", 0, 10, host.pointer(bytes(32)))
    host.call("ext_transaction_index_renew_version_1", 0, host.pointer(bytes(32)))
    assert host.call("ext_wasm_tracing_enabled_version_1", host.span(b"metadata")) == 0
    assert not list(host.state.keys(b""))


@pytest.mark.parametrize("name", [*offchain.WORKER_ONLY, *misc.BENCHMARKING, *misc.SPANS])
def test_what_is_not_there_says_so_by_name(host: MemoryHost, name: str) -> None:
    with pytest.raises(HostTrap, match=f"{name} is not available"):
        host.functions[name](0, 0, 0)


def test_a_section_lists_only_so_many_apis() -> None:
    with pytest.raises(RuntimeCodeError, match="more than 1000 runtime APIs"):
        read_version(module(runtime_version=HEAD + TAIL, runtime_apis=APIS * 501))
