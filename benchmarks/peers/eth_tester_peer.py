"""eth-tester (py-evm) doing what a chain for tests does: start, take a transfer into a block, snapshot and revert.

Runs in an environment of its own; prints one JSON object, each figure a list of times in milliseconds.
"""

import json
import time

from eth_tester import EthereumTester, PyEVMBackend

STARTS, TRANSFERS, REVERTS = 10, 200, 200


def timed(work):
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    EthereumTester(backend=PyEVMBackend())  # imports and caches do not count
    starts = [timed(lambda: EthereumTester(backend=PyEVMBackend())) for _ in range(STARTS)]
    chain = EthereumTester(backend=PyEVMBackend())
    sender, target = chain.get_accounts()[:2]
    transfer = {"from": sender, "to": target, "value": 1, "gas": 21_000, "max_fee_per_gas": 10**10}
    transfer["max_priority_fee_per_gas"] = 10**9

    def test_like() -> None:
        before = chain.take_snapshot()
        chain.send_transaction(transfer)
        chain.revert_to_snapshot(before)

    def bare() -> None:
        chain.revert_to_snapshot(chain.take_snapshot())

    empty = [timed(lambda: chain.mine_blocks(1)) for _ in range(TRANSFERS)]
    transfers = [timed(lambda: chain.send_transaction(transfer)) for _ in range(TRANSFERS)]
    reverts = [timed(bare) for _ in range(REVERTS)]
    tests = [timed(test_like) for _ in range(REVERTS)]
    print(json.dumps({
        "construct_ms": starts, "empty_block_ms": empty, "transfer_and_block_ms": transfers,
        "snapshot_and_revert_ms": reverts, "snapshot_transfer_revert_ms": tests,
    }))  # fmt: skip


main()
