"""Off-chain workers, which this node does not run.

A runtime imports these functions because its code holds workers, and calls them only from there
(`OffchainWorkerApi_offchain_worker`), which nobody here calls. A call from anywhere else breaks off, as it does in a
released node. Writes to the off-chain index are part of block execution and change nothing on chain: they are dropped,
as by a node without `--enable-offchain-indexing`.
"""

from __future__ import annotations

from localnet.wasm.host.interface import Functions, Host
from localnet.wasm.host.misc import refuse

WORKER_ONLY = tuple(
    f"ext_offchain_{name}_version_1"
    for name in (
        "http_request_add_header", "http_request_start", "http_request_write_body", "http_response_headers",
        "http_response_read_body", "http_response_wait", "is_validator", "local_storage_clear",
        "local_storage_compare_and_set", "local_storage_get", "local_storage_set", "network_state", "random_seed",
        "set_authorized_nodes", "sleep_until", "submit_transaction", "timestamp",
    )
)  # fmt: skip


def functions(host: Host) -> Functions:
    """`ext_offchain_*` and `ext_offchain_index_*`."""
    read = host.read

    def index_set(key: int, value: int) -> None:
        read(key)
        read(value)

    def index_clear(key: int) -> None:
        read(key)

    why = "it belongs to off-chain workers, which this node does not run"
    return {
        "ext_offchain_index_set_version_1": index_set,
        "ext_offchain_index_clear_version_1": index_clear,
        **{name: refuse(name, why) for name in WORKER_ONLY},
    }
