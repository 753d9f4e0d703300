"""What `Localnet` can do beyond a chain's rules: the developer's part of its interface (developer.py does the work).

    await net.fund("//Zoe", 5 * TAO)
    async with net.snapshot(): ...                                          # undone afterwards; nests
    net.dry_run("//Zoe", "Balances", "transfer_all", dest="//Bob", keep_alive=True).fee
    subnet = await net.subnet(miners=3, validators=2)                       # see subnets.py
    await net.impersonate("root", "AdminUtils", "sudo_set_kappa", netuid=subnet.netuid, kappa=40_000)
    print("\\n".join(net.explain(subnet.netuid, uid=1)["words"]))
    net.seal(payload, net.drand_round(ahead=60))                            # opens with that round of the beacon

Every change makes a block, and the block's header says that a developer made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localnet import state_file
from localnet.client import Outcome
from localnet.developer import Account, Developer, Trial
from localnet.explain import sentences
from localnet.node.chain import Chain
from localnet.node.mining import Miner
from localnet.snapshots import Number, Snapshot
from localnet.timeline import DEFAULT_EPOCHS, timeline


class Powers:
    """Base of `Localnet`."""

    chain: Chain
    developer: Developer
    miner: Miner

    # -- back and forth ---------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What `revert` takes to come back here; also `async with net.snapshot():`. Any number of them, nested."""
        return Snapshot(self.chain.head.number, self.developer.snapshots.take(), self.revert)

    async def revert(self, snapshot: int) -> None:
        """Undo everything since `snapshot`: blocks, time travel, and what happened to the pool (transactions that came
        later are dropped, those that waited then wait again). Any other number is a block's, as for `set_head`.

        Raises ChainError for a snapshot whose block was itself reverted, StateDiscarded, UnknownBlock.
        """
        if isinstance(snapshot, Number):
            await self.developer.revert(snapshot.serial)
        else:
            await self.set_head(snapshot)

    async def set_head(self, block: int) -> None:
        """Back to any block whose state is kept. The transactions in the pool stay there and are checked again; those
        in the blocks above are gone; chain time stays as far from wall time as it is.

        Raises StateDiscarded, UnknownBlock.
        """
        await self.miner.revert(block)

    def export_state(self, path: str | Path | None = None, *, block: int | None = None) -> dict[str, Any]:
        """The state after a block (default: the newest) as a document; with `path` also written there.

        Raises UnknownBlock, StateDiscarded, StateFileError.
        """
        document = self.developer.export(block)
        if path is not None:
            state_file.write(Path(path), document)
        return document

    async def import_state(self, source: str | Path | Mapping[str, Any]) -> int:
        """Go on from an exported state, a file or a document; the block that holds it.

        Raises StateFileError, StateFileVersion, StateFileMismatch, each with what to do about it.
        """
        document = state_file.read(Path(source)) if isinstance(source, str | Path) else source
        return (await self.developer.restore(document)).number

    # -- past the rules ---------------------------------------------------------------------------------------------

    async def fund(self, account: Account, rao: int) -> None:
        """Add to an account's free balance, as root (total issuance grows)."""
        await self.developer.fund(account, rao)

    async def set_storage(self, pallet: str, item: str, *keys: Any, value: Any) -> None:
        """Write a storage value by name in a new block; None removes it. It bypasses every rule of the chain."""
        key, raw = self.developer.client.storage_write(pallet, item, keys, value)
        await self.developer.write({key: raw})

    async def impersonate(
        self, origin: Account, pallet: str, call: str, /, *, check: bool = True, **arguments: Any
    ) -> Outcome:
        """A call of `origin` ("root", "none" or any account) without a signature, in a new block that says so. What an
        account has waiting in the pool under the same nonce becomes invalid.

        Raises PoolRejected when it cannot get into a block; CallFailed when it failed on chain, unless `check` is
        False.
        """
        outcome = await self.developer.call_as(origin, pallet, call, arguments)
        return outcome.checked() if check else outcome

    # -- looking ----------------------------------------------------------------------------------------------------

    def dry_run(
        self, origin: Account, pallet: str, call: str, /, *, block: int | None = None, **arguments: Any
    ) -> Trial:
        """What a call of `origin` would do on top of a block (default: the newest). Nothing changes."""
        return self.developer.try_call(origin, self.developer.client.encode_call(pallet, call, arguments), block)

    def trace(self, block: int | None = None) -> dict[str, Any]:
        """What each part of a block (default: the newest) changed in storage and reported in events."""
        return self.developer.trace(block)

    def explain(self, netuid: int, uid: int, *, block: int | None = None, preview: bool = False) -> dict[str, Any]:
        """Why a neuron's weight, incentive, dividends and emission are what they are: numbers, and "words".

        Of the newest epoch at `block`; with `preview` of the epoch as it would run now. Raises ChainError.
        """
        report = self.developer.explain(netuid, uid, block, preview)
        return {**report, "words": sentences(report)}

    def timeline(self, netuid: int, epochs: int = DEFAULT_EPOCHS) -> dict[str, Any]:
        """The subnet's last epochs: weights, consensus, incentive, dividends, price. See localnet.timeline."""
        return timeline(self.developer.client, netuid, epochs)

    # -- timelocks ---------------------------------------------------------------------------------------------------

    def seal(self, plaintext: bytes, reveal_round: int) -> bytes:
        """A ciphertext that opens with the drand round, sealed to the beacon that this chain follows.

        For weights, seal what `localnet.rules.weights.timelock_payload` makes of them. Raises ConfigError on Python
        3.10, for which there is no BLS12-381 library.
        """
        from localnet.rules import timelock

        return timelock.seal(plaintext, self._beacon()["public_key"], reveal_round)

    def drand_round(self, ahead: float = 0.0) -> int:
        """The first drand round that is published later than `ahead` seconds of chain time from now."""
        from localnet.rules import timelock

        config, now = self._beacon(), self.chain.head.timestamp / 1000
        return timelock.round_at(now + ahead, config["genesis_time"], config["period"]) + 1

    def _beacon(self) -> dict[str, Any]:
        config: dict[str, Any] = self.developer.client.query("Drand", "BeaconConfig")
        return config
