"""Preimage: byte strings known by their hash, for calls that are dispatched later.

    note_preimage, unnote_preimage          somebody puts bytes there, for a deposit held until they go; root for none
    request_preimage, unrequest_preimage    root wants them to stay (counted)

Other pallets store a call with `bound`: short ones stand where they are used, longer ones are noted here and counted
as requested until `drop`. `peek` gives the call back.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from localnet.errors import DispatchError, ScaleError
from localnet.runtime.framework import FEE_WAIVED, Origin, Pallet, Root, StorageMap, call, ensure_root, ensure_signed

INLINE = 128  # bytes up to which a call is not stored apart
MOST_BYTES, MOST_HASHES = 4096 * 1024, 1024
DEPOSIT, DEPOSIT_PER_BYTE = 104_000_000, 1_000_000  # rao: two items and 64 bytes; each byte
REASON = ("Preimage", "Preimage")
Bounded = Any  # ("Inline", bytes), ("Lookup", {"hash", "len"}) or ("Legacy", {"hash"})


class Preimage(Pallet):
    name = "Preimage"

    RequestStatusFor = StorageMap[Any]()  # hash
    PreimageFor = StorageMap[bytes | None]()  # (hash, length)

    def _owner(self, origin: Origin) -> bytes | None:
        """Who signed, or None for root."""
        return None if isinstance(origin, Root) else ensure_signed(origin)

    # -- bytes ------------------------------------------------------------------------------------------------------

    def note(self, data: bytes, owner: bytes | None = None) -> tuple[bytes, bool]:
        """Store bytes; (their hash, whether they are requested). Raises TooBig, AlreadyNoted, FundsUnavailable."""
        if len(data) > MOST_BYTES:
            raise self.error("TooBig")
        key = blake2b(data, digest_size=32).digest()
        status = self.RequestStatusFor[key]
        if status is not None and status[0] == "Unrequested" and owner is not None:
            raise self.error("AlreadyNoted")
        if status is None and owner is not None:
            deposit = DEPOSIT + DEPOSIT_PER_BYTE * len(data)
            self.rt.balances.hold(REASON, owner, deposit)
            status = ("Unrequested", {"ticket": (owner, deposit), "len": len(data)})
        else:
            ticket, count, _ = _parts(status)
            status = _requested(ticket, max(count, 1), len(data))
        self.RequestStatusFor[key] = status
        self.PreimageFor[key, len(data)] = data
        self.emit("Noted", hash=key)
        return key, status[0] == "Requested"

    def request(self, key: bytes) -> None:
        ticket, count, length = _parts(self.RequestStatusFor[key])
        self.RequestStatusFor[key] = _requested(ticket, count + 1, length)
        if not count:
            self.emit("Requested", hash=key)

    def unrequest(self, key: bytes) -> None:
        """Raises NotRequested."""
        ticket, count, length = _parts(self.RequestStatusFor[key])
        if not count:
            raise self.error("NotRequested")
        if count > 1:
            self.RequestStatusFor[key] = _requested(ticket, count - 1, length)
        elif length is not None and ticket is not None:
            self.RequestStatusFor[key] = ("Unrequested", {"ticket": ticket, "len": length})
        else:
            self._clear(key, length)

    def _clear(self, key: bytes, length: int | None) -> None:
        del self.RequestStatusFor[key]
        if length is not None:
            del self.PreimageFor[key, length]
            self.emit("Cleared", hash=key)

    # -- calls of other pallets -------------------------------------------------------------------------------------

    def bound(self, inner: Any) -> Bounded:
        """Store a call. Raises TooBig."""
        data = self.rt.document.registry.encode(self.rt.document.call_type, inner)
        if len(data) <= INLINE:
            return ("Inline", data)
        return ("Lookup", {"hash": self.note(data)[0], "len": len(data)})

    def peek(self, stored: Bounded) -> Any:
        """A stored call. Raises Unavailable, Corruption."""
        kind, value = stored
        data = value if kind == "Inline" else self._bytes(value)
        try:
            return self.rt.document.registry.decode(self.rt.document.call_type, data)
        except ScaleError as error:
            raise DispatchError("Corruption", f"a stored call does not decode: {error}") from error

    def _bytes(self, lookup: dict[str, Any]) -> bytes:
        key = lookup["hash"]
        length = lookup.get("len", _parts(self.RequestStatusFor[key])[2])
        data = None if length is None else self.PreimageFor[key, length]
        if data is None:
            raise DispatchError("Unavailable", "the bytes of a stored call are not there")
        return data

    def drop(self, stored: Bounded) -> None:
        """A stored call is not needed any more."""
        kind, value = stored
        if kind != "Inline" and _parts(self.RequestStatusFor[value["hash"]])[1]:
            self.unrequest(value["hash"])

    # -- calls ------------------------------------------------------------------------------------------------------

    @call()
    def note_preimage(self, origin: Origin, bytes: bytes) -> str | None:
        """Free for root and for bytes that are requested."""
        owner = self._owner(origin)
        _, requested = self.note(bytes, owner)
        return FEE_WAIVED if requested or owner is None else None

    @call()
    def unnote_preimage(self, origin: Origin, hash: bytes) -> None:
        owner = self._owner(origin)
        status = self.RequestStatusFor[hash]
        if status is None:
            raise self.error("NotNoted")
        ticket, count, length = _parts(status)
        if owner is not None and (ticket is None or ticket[0] != owner):
            raise self.error("NotAuthorized")
        if ticket is None:
            self.unrequest(hash)
            return
        self.rt.balances.release(REASON, *ticket)
        if count:
            self.RequestStatusFor[hash] = _requested(None, count, length)
        else:
            self._clear(hash, length)

    @call(refunded=True)
    def request_preimage(self, origin: Origin, hash: bytes) -> None:
        ensure_root(origin)
        self.request(hash)

    @call(refunded=True)
    def unrequest_preimage(self, origin: Origin, hash: bytes) -> None:
        ensure_root(origin)
        self.unrequest(hash)

    @call()
    def ensure_updated(self, origin: Origin, hashes: list[bytes]) -> None:
        """Bring entries of an older format up to date; a chain that began with this runtime has none."""
        self._owner(origin)
        if not hashes:
            raise self.error("TooFew")
        if len(hashes) > MOST_HASHES:
            raise self.error("TooMany")


def _parts(status: Any) -> tuple[Any, int, int | None]:
    """(ticket, requests, length) of an entry or of none."""
    if status is None:
        return None, 0, None
    kind, value = status
    if kind == "Unrequested":
        return value["ticket"], 0, value["len"]
    return value["maybe_ticket"], value["count"], value["maybe_len"]


def _requested(ticket: Any, count: int, length: int | None) -> Any:
    return ("Requested", {"maybe_ticket": ticket, "count": count, "maybe_len": length})
