"""MevShield: extrinsics that stay sealed until their place in a block is fixed.

    announce_next_key    inherent: the author's ML-KEM-768 public key enters, the earlier ones move up
                         author's key -> NextKey (what clients seal to) -> PendingKey -> CurrentKey
    submit_encrypted     the carrier: an event, nothing else

The keys themselves, opening a carrier and placing the inner extrinsic behind it are the author's work
(`localnet.node.shield`); `localnet.runtime.apis.shield` answers its questions. Calls stored on chain for later
(`store_encrypted` and its limits) are not implemented.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from localnet.codec.scale import opaque, read_compact
from localnet.errors import ScaleError
from localnet.runtime.framework import Origin, Pallet, StorageMap, StorageValue, call, ensure_none, ensure_signed

INHERENT = b"shieldpk"
KEY_SIZE = 1184  # bytes of an ML-KEM-768 encapsulation key
PENDING_FOR, NEXT_FOR = 2, 3  # blocks a key in that place is good for


class MevShield(Pallet):
    name = "MevShield"

    CurrentKey = StorageValue[bytes | None]()
    PendingKey = StorageValue[bytes | None]()
    NextKey = StorageValue[bytes | None]()
    AuthorKeys = StorageMap[bytes | None]()  # author
    PendingKeyExpiresAt = StorageValue[int | None]()
    NextKeyExpiresAt = StorageValue[int | None]()

    def inherent(self, items: Mapping[bytes, bytes]) -> tuple[str, str, dict[str, Any]] | None:
        """The announcement for inherent data `Option<Vec<u8>>`. Raises ScaleError."""
        data = items.get(INHERENT)
        if data is None:
            return None
        if data == b"\0":
            return self.name, "announce_next_key", {"enc_key": None}
        size, start = read_compact(data, 1)
        if data[:1] != b"\1" or start + size != len(data):
            raise ScaleError("the shield key in the inherent data is not an Option<Vec<u8>>")
        return self.name, "announce_next_key", {"enc_key": data[start:]}

    def _author(self, ahead: int = 0) -> bytes:
        """Who authors the block `ahead` slots from here. Raises Unreachable on a chain without authors."""
        authorities = self.rt.aura.Authorities.get()
        if not authorities:
            raise self.error("Unreachable")
        return authorities[(self.rt.aura.CurrentSlot.get() + ahead) % len(authorities)]

    @call(ref_time=793_661_000, proof_size=9753)
    def announce_next_key(self, origin: Origin, enc_key: bytes | None) -> None:
        ensure_none(origin)
        author = self._author()
        _move(self.PendingKey.get(), self.CurrentKey)
        _move(self.NextKey.get(), self.PendingKey)
        _move(self.AuthorKeys[self._author(ahead=2)], self.NextKey)
        if enc_key is None:
            del self.AuthorKeys[author]
        else:
            if len(enc_key) != KEY_SIZE:
                raise self.error("BadEncKeyLen")
            self.AuthorKeys[author] = enc_key
        _expire(self.PendingKey, self.PendingKeyExpiresAt, self.rt.number + PENDING_FOR)
        _expire(self.NextKey, self.NextKeyExpiresAt, self.rt.number + NEXT_FOR)

    @call(ref_time=14_000_000)
    def submit_encrypted(self, origin: Origin, ciphertext: bytes) -> None:
        who = ensure_signed(origin)
        self.emit("EncryptedSubmitted", id=blake2b(who + opaque(ciphertext), digest_size=32).digest(), who=who)


def _move(key: bytes | None, to: StorageValue[bytes | None]) -> None:
    if key is None:
        to.kill()
    else:
        to.put(key)


def _expire(key: StorageValue[bytes | None], at: StorageValue[int | None], block: int) -> None:
    if key.get() is None:
        at.kill()
    else:
        at.put(block)
