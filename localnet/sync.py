"""`Localnet` for code without asyncio: the same arguments and names, the chain in a thread with a loop of its own.

    with SyncLocalnet(mining="instant") as net:
        subnet = net.subnet(miners=3, validators=2)
        with net.snapshot():
            subnet.set_weights(0, {uid: 1 for uid in subnet.uids("miner")})
            subnet.epochs()

Any client, in this process or another, reaches the chain at `net.url`, also while the caller waits for something else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from localnet.client import Outcome
from localnet.developer import Trial
from localnet.errors import ChainError
from localnet.net import TAO, Account, Localnet, Signer
from localnet.snapshots import SyncSnapshot
from localnet.subnets import SyncSubnet
from localnet.timeline import DEFAULT_EPOCHS

T = TypeVar("T")


async def _cancel_others() -> None:
    """Tasks that were interrupted clean up; there are none after a stop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class SyncLocalnet:
    """`Localnet` for synchronous code: same arguments, same names, the chain in a thread with its own event loop."""

    def __init__(self, **options: Any) -> None:
        self.net = Localnet(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = "the localnet is not running: use it inside `with`, or call start()"

    def start(self) -> SyncLocalnet:
        """Raises what `Localnet.start` raises."""
        if self._loop is not None:
            raise ChainError(f"the localnet runs already, at {self.net.url}: start() is part of `with`")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="localnet", daemon=True)
        self._thread.start()
        try:
            self._run(self.net.start())
        except BaseException:
            self._end()
            raise
        return self

    def stop(self, why: str | None = None) -> None:
        """Safe to call twice. `why`: what the error says when the chain is used later."""
        self._stopped = why or self._stopped
        if self._loop is not None:
            try:
                self._run(self.net.stop())
            finally:
                self._end()

    def _end(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def interrupt(self, for_good: bool = True) -> None:
        """See `Localnet.interrupt`; for another thread than the one that waits."""
        self.net.interrupt(for_good)

    def __enter__(self) -> SyncLocalnet:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise ChainError(self._stopped)
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            self.net.interrupt(for_good=False)  # or the loop does not come to cancel it
            running.cancel()
            raise

    def _read(self, work: Callable[[], T]) -> T:
        async def read() -> T:
            return work()

        return self._run(read())

    @property
    def url(self) -> str:
        return self.net.url

    @property
    def block(self) -> int:
        return self._read(lambda: self.net.block)

    @property
    def block_hash(self) -> str:
        return self._read(lambda: self.net.block_hash)

    @property
    def genesis_hash(self) -> str:
        return self.net.genesis_hash

    @property
    def timestamp(self) -> int:
        return self._read(lambda: self.net.timestamp)

    @property
    def next_timestamp(self) -> int:
        return self._read(lambda: self.net.next_timestamp)

    def mine(self, blocks: int = 1) -> int:
        return self._run(self.net.mine(blocks))

    def mine_to(self, number: int) -> int:
        return self._run(self.net.mine_to(number))

    def mine_epoch(self, netuid: int) -> int:
        return self._run(self.net.mine_epoch(netuid))

    def travel(self, timestamp: int) -> int:
        return self._run(self.net.travel(timestamp))

    def snapshot(self) -> SyncSnapshot:
        taken = self._read(self.net.snapshot)
        return SyncSnapshot(taken, taken.serial, self.revert)

    def revert(self, snapshot: int) -> None:
        self._run(self.net.revert(snapshot))

    def set_head(self, block: int) -> None:
        self._run(self.net.set_head(block))

    def query(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> Any:
        return self._read(lambda: self.net.query(pallet, item, *keys, block=block))

    def query_map(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> dict[Any, Any]:
        return self._read(lambda: self.net.query_map(pallet, item, *keys, block=block))

    def call(self, api: str, method: str, *arguments: Any, block: int | None = None) -> Any:
        return self._read(lambda: self.net.call(api, method, *arguments, block=block))

    def events(self, block: int | None = None) -> list[dict[str, Any]]:
        return self._read(lambda: self.net.events(block))

    def balance(self, account: Account) -> int:
        return self._read(lambda: self.net.balance(account))

    def seal(self, plaintext: bytes, reveal_round: int) -> bytes:
        return self._read(lambda: self.net.seal(plaintext, reveal_round))

    def drand_round(self, ahead: float = 0.0) -> int:
        return self._read(lambda: self.net.drand_round(ahead))

    def extrinsic(
        self, signer: Signer, pallet: str, call: str, /, *, check: bool = True, tip: int = 0, **arguments: Any
    ) -> Outcome:
        return self._run(self.net.extrinsic(signer, pallet, call, check=check, tip=tip, **arguments))

    def sudo(self, pallet: str, call: str, /, *, check: bool = True, **arguments: Any) -> Outcome:
        return self._run(self.net.sudo(pallet, call, check=check, **arguments))

    def fund(self, account: Account, rao: int) -> None:
        self._run(self.net.fund(account, rao))

    def set_storage(self, pallet: str, item: str, *keys: Any, value: Any) -> None:
        self._run(self.net.set_storage(pallet, item, *keys, value=value))

    def impersonate(
        self, origin: Account, pallet: str, call: str, /, *, check: bool = True, **arguments: Any
    ) -> Outcome:
        return self._run(self.net.impersonate(origin, pallet, call, check=check, **arguments))

    def dry_run(
        self, origin: Account, pallet: str, call: str, /, *, block: int | None = None, **arguments: Any
    ) -> Trial:
        return self._read(lambda: self.net.dry_run(origin, pallet, call, block=block, **arguments))

    def trace(self, block: int | None = None) -> dict[str, Any]:
        return self._read(lambda: self.net.trace(block))

    def explain(self, netuid: int, uid: int, *, block: int | None = None, preview: bool = False) -> dict[str, Any]:
        return self._read(lambda: self.net.explain(netuid, uid, block=block, preview=preview))

    def timeline(self, netuid: int, epochs: int = DEFAULT_EPOCHS) -> dict[str, Any]:
        return self._read(lambda: self.net.timeline(netuid, epochs))

    def export_state(self, path: str | Path | None = None, *, block: int | None = None) -> dict[str, Any]:
        return self._read(lambda: self.net.export_state(path, block=block))

    def import_state(self, source: str | Path | Mapping[str, Any]) -> int:
        return self._run(self.net.import_state(source))

    def subnet(
        self,
        *,
        miners: int = 3,
        validators: int = 2,
        stake: int | Sequence[int] = 100 * TAO,
        tempo: int | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        label: str | None = None,
        epochs: int = 1,
    ) -> SyncSubnet:
        made = self.net.subnet(
            miners=miners, validators=validators, stake=stake, tempo=tempo, hyperparameters=hyperparameters,
            label=label, epochs=epochs,
        )  # fmt: skip
        return SyncSubnet(self._run(made), self._run, self._read)
