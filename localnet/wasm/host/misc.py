"""Functions that belong to no larger group: versions, proofs, tracing, transaction index, panics.

ext_misc_runtime_version        reads the version of code that somebody wants to store as `:code`
ext_storage_proof_size          nobody records a proof here, which the largest number says
ext_transaction_index           marks in the node's database what an archive keeps: nothing to do for the chain
ext_wasm_tracing                nobody traces: `enabled` is false, and a runtime then opens no spans
ext_panic_handler               a runtime built to report its panics in this way
ext_benchmarking                trap: they are for a node that measures weights
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

from localnet.errors import RuntimeCodeError
from localnet.wasm import sections
from localnet.wasm.host.interface import Functions, Host, HostTrap
from localnet.wasm.host.log import readable
from localnet.wasm.host.wire import NONE, U64, some_bytes

log = logging.getLogger("localnet.runtime.wasm")

SPANS = tuple(f"ext_wasm_tracing_{name}_version_1" for name in ("enter_span", "event", "exit"))
BENCHMARKING = tuple(
    f"ext_benchmarking_{name}_version_1"
    for name in (
        "add_to_whitelist", "commit_db", "current_time", "get_read_and_written_keys", "get_whitelist", "proof_size",
        "read_write_count", "remove_from_whitelist", "reset_read_write_count", "set_whitelist", "wipe_db",
    )
)  # fmt: skip


def refuse(name: str, why: str) -> Callable[..., NoReturn]:
    """A function that exists only to say that it does not."""

    def trap(*arguments: int) -> NoReturn:
        raise HostTrap(f"{name} is not available: {why}")

    return trap


def functions(host: Host) -> Functions:
    """`ext_misc_runtime_version`, and the small groups."""
    read, give_span = host.read, host.give_span

    def runtime_version(code: int) -> int:
        try:
            return give_span(some_bytes(sections.read_version(read(code)).encode()))
        except sections.NoVersion as error:
            raise HostTrap(f"{error}; calling Core_version in it instead is not implemented") from error
        except RuntimeCodeError as error:
            log.debug("no version in the given code: %s", error)
            return give_span(NONE)

    def abort_on_panic(message: int) -> None:
        line = readable(read(message))
        host.lines.append(f"panic: {line}")
        raise HostTrap(f"the runtime panicked: {line}")

    def index(extrinsic: int, size: int, context: int) -> None:
        host.read_at(context, 32)

    def renew(extrinsic: int, context: int) -> None:
        host.read_at(context, 32)

    def enabled(metadata: int) -> int:
        read(metadata)
        return 0

    return {
        "ext_misc_runtime_version_version_1": runtime_version,
        "ext_panic_handler_abort_on_panic_version_1": abort_on_panic,
        "ext_storage_proof_size_storage_proof_size_version_1": lambda: U64,
        "ext_transaction_index_index_version_1": index,
        "ext_transaction_index_renew_version_1": renew,
        "ext_wasm_tracing_enabled_version_1": enabled,
        **{name: refuse(name, "nobody traces here, `enabled` says so") for name in SPANS},
        **{name: refuse(name, "it belongs to a node that measures weights") for name in BENCHMARKING},
    }
