"""System: accounts, block numbers and hashes, events, remarks."""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import Any

from localnet.codec.scale import compact
from localnet.errors import DispatchError
from localnet.runtime.framework import Origin, Pallet, StorageMap, StorageValue, call, ensure_root, ensure_signed

BLOCK_HASH_COUNT = 2400  # how many hashes back a mortal era can reach


class System(Pallet):
    name = "System"

    Account = StorageMap[dict[str, Any]]()
    Number = StorageValue[int]()
    ParentHash = StorageValue[bytes]()
    BlockHash = StorageMap[bytes]()
    Digest = StorageValue[dict[str, Any]]()
    Events = StorageValue[list[Any]]()
    EventCount = StorageValue[int]()
    ExtrinsicCount = StorageValue[int | None]()
    LastRuntimeUpgrade = StorageValue[dict[str, Any] | None]()

    def open_block(self, number: int, parent: bytes, digest: dict[str, Any]) -> None:
        self.Number.put(number)
        self.ParentHash.put(parent)
        self.BlockHash[number - 1] = parent
        if number > BLOCK_HASH_COUNT + 1:  # block 0 stays: every signature needs the genesis hash
            del self.BlockHash[number - BLOCK_HASH_COUNT - 1]
        self.Digest.put(digest)
        self.ExtrinsicCount.put(0)

    def look_ahead(self, head: bytes) -> None:
        """Make the state look as the next block will see it; the caller rolls this back. `head`: the newest hash."""
        number = self.Number.get()
        self.BlockHash[number] = head
        self.Number.put(number + 1)

    def next_extrinsic(self) -> int:
        """Index of the extrinsic that starts now."""
        index = self.ExtrinsicCount.get() or 0
        self.ExtrinsicCount.put(index + 1)
        return index

    def drop_extrinsic(self) -> None:
        """The extrinsic turned out invalid and does not become part of the block."""
        self.ExtrinsicCount.put((self.ExtrinsicCount.get() or 1) - 1)

    @property
    def extrinsic_index(self) -> int:
        """Of the extrinsic that is being applied; 0 outside of extrinsics."""
        return max((self.ExtrinsicCount.get() or 0) - 1, 0)

    def inc_providers(self, who: bytes) -> None:
        """One more reason for the account to exist; the first one creates it."""
        account = self.Account[who]
        self.Account[who] = {**account, "providers": account["providers"] + 1}
        if not account["providers"] and not account["sufficients"]:
            self.emit("NewAccount", account=who)

    def dec_providers(self, who: bytes) -> None:
        """One reason less; the last one removes the account. Raises ConsumerRemaining."""
        account = self.Account[who]
        left = account["providers"] - 1
        if left <= 0 and account["consumers"]:
            raise DispatchError("ConsumerRemaining")
        if left > 0 or account["sufficients"]:
            self.Account[who] = {**account, "providers": max(left, 0)}
        else:
            del self.Account[who]
            self.emit("KilledAccount", account=who)

    def bump_nonce(self, who: bytes) -> None:
        account = self.Account[who]
        self.Account[who] = {**account, "nonce": account["nonce"] + 1}

    def store_events(self, events: list[bytes]) -> None:
        self.rt.state.put(self.Events.entry.prefix, compact(len(events)) + b"".join(events))
        self.EventCount.put(len(events))
        self.ExtrinsicCount.kill()

    @call(ref_time=110_000_000, proof_size=0)
    def remark(self, origin: Origin, remark: bytes) -> None:
        """Nothing on chain changes: the bytes are in the block."""

    @call(ref_time=110_000_000, proof_size=0)
    def remark_with_event(self, origin: Origin, remark: bytes) -> None:
        who = ensure_signed(origin)
        self.emit("Remarked", sender=who, hash=blake2b(remark, digest_size=32).digest())

    @call(dispatch_class="Operational")
    def set_storage(self, origin: Origin, items: list[tuple[bytes, bytes]]) -> None:
        ensure_root(origin)
        for key, value in items:
            self.rt.state.put(key, value)

    @call(dispatch_class="Operational")
    def kill_storage(self, origin: Origin, keys: list[bytes]) -> None:
        ensure_root(origin)
        for key in keys:
            self.rt.state.put(key, None)

    @call(dispatch_class="Operational")
    def kill_prefix(self, origin: Origin, prefix: bytes, subkeys: int) -> None:
        """Remove the first `subkeys` keys that start with the prefix."""
        ensure_root(origin)
        for key in list(islice(self.rt.state.keys(prefix), subkeys)):
            self.rt.state.put(key, None)
