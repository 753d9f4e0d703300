"""Balances: free balance per account, transfers, the existential deposit, total issuance. Amounts in rao."""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError
from localnet.runtime.framework import Origin, Pallet, StorageValue, call, ensure_root, ensure_signed

EXISTENTIAL_DEPOSIT = 500  # rao; the chain's constant Balances.ExistentialDeposit
NEW_LOGIC_FLAG = 1 << 127  # AccountData.flags of every account the released chain creates

TRANSFER_REF_TIME = 224_051_000  # picoseconds, recorded from a spec-461 node
TRANSFER_PROOF = 7791


def account_of(address: Any) -> bytes:
    """The account a MultiAddress names. Raises CannotLookup for the forms this chain does not use."""
    kind, value = address
    if kind != "Id":
        raise DispatchError("CannotLookup")
    return bytes(value)


def token_error(name: str) -> DispatchError:
    return DispatchError(("Token", name), name)


class Balances(Pallet):
    name = "Balances"

    TotalIssuance = StorageValue[int]()

    def free(self, who: bytes) -> int:
        return int(self.rt.system.Account[who]["data"]["free"])

    def reducible(self, who: bytes, keep_alive: bool = True) -> int:
        """What can leave the account; with `keep_alive` the existential deposit stays."""
        data = self.rt.system.Account[who]["data"]
        floor = max(data["frozen"] - data["reserved"], EXISTENTIAL_DEPOSIT if keep_alive else 0, 0)
        return int(max(0, data["free"] - floor))

    def _set_free(self, who: bytes, free: int) -> None:
        account = self.rt.system.Account[who]
        data = {**account["data"], "free": free}
        if free < EXISTENTIAL_DEPOSIT and not data["reserved"] and not account["consumers"]:
            self._reap(who, account, free)
            return
        if not account["providers"]:
            data["flags"] = data["flags"] | NEW_LOGIC_FLAG
            self.rt.system.Account[who] = {**account, "providers": 1, "data": data}
            self.rt.system.emit("NewAccount", account=who)
            self.emit("Endowed", account=who, free_balance=free)
        else:
            self.rt.system.Account[who] = {**account, "data": data}

    def _reap(self, who: bytes, account: dict[str, Any], dust: int) -> None:
        if dust:
            self.TotalIssuance.put(self.TotalIssuance.get() - dust)
            self.emit("DustLost", account=who, amount=dust)
        if account["providers"]:
            self.rt.system.emit("KilledAccount", account=who)
        if account["sufficients"]:
            empty = {**account["data"], "free": 0}
            self.rt.system.Account[who] = {**account, "providers": 0, "data": empty}
        else:
            del self.rt.system.Account[who]

    def mint(self, who: bytes, amount: int) -> None:
        """Create `amount` in `who`'s free balance; issuance grows with it."""
        self.TotalIssuance.put(self.TotalIssuance.get() + amount)
        self._set_free(who, self.free(who) + amount)

    def burn(self, who: bytes, amount: int) -> None:
        """Destroy `amount` of `who`'s free balance. Raises FundsUnavailable."""
        free = self.free(who)
        if free < amount:
            raise token_error("FundsUnavailable")
        self.TotalIssuance.put(self.TotalIssuance.get() - amount)
        self._set_free(who, free - amount)

    def transfer(self, source: bytes, dest: bytes, amount: int, *, keep_alive: bool) -> None:
        """Move `amount` rao. Raises FundsUnavailable, NotExpendable, BelowMinimum (Token errors)."""
        free = self.free(source)
        if free < amount:
            raise token_error("FundsUnavailable")
        if self.reducible(source, keep_alive) < amount:
            raise token_error("NotExpendable" if keep_alive else "Frozen")
        if source == dest:
            return
        if self.free(dest) + amount < EXISTENTIAL_DEPOSIT:
            raise token_error("BelowMinimum")
        self._set_free(source, free - amount)
        self._set_free(dest, self.free(dest) + amount)
        self.emit("Transfer", **{"from": source, "to": dest, "amount": amount})

    @call(ref_time=TRANSFER_REF_TIME, proof_size=TRANSFER_PROOF)
    def transfer_keep_alive(self, origin: Origin, dest: Any, value: int) -> None:
        self.transfer(ensure_signed(origin), account_of(dest), value, keep_alive=True)

    @call(ref_time=TRANSFER_REF_TIME, proof_size=TRANSFER_PROOF)
    def transfer_allow_death(self, origin: Origin, dest: Any, value: int) -> None:
        self.transfer(ensure_signed(origin), account_of(dest), value, keep_alive=False)

    @call(ref_time=TRANSFER_REF_TIME, proof_size=TRANSFER_PROOF)
    def transfer_all(self, origin: Origin, dest: Any, keep_alive: bool) -> None:
        who = ensure_signed(origin)
        self.transfer(who, account_of(dest), self.reducible(who, keep_alive), keep_alive=keep_alive)

    @call(ref_time=TRANSFER_REF_TIME, proof_size=TRANSFER_PROOF)
    def force_transfer(self, origin: Origin, source: Any, dest: Any, value: int) -> None:
        ensure_root(origin)
        self.transfer(account_of(source), account_of(dest), value, keep_alive=False)

    @call()
    def force_set_balance(self, origin: Origin, who: Any, new_free: int) -> None:
        ensure_root(origin)
        account = account_of(who)
        wanted = new_free if new_free >= EXISTENTIAL_DEPOSIT else 0
        before = self.free(account)
        self.TotalIssuance.put(self.TotalIssuance.get() + wanted - before)
        self._set_free(account, wanted)
        self.emit("BalanceSet", who=account, free=wanted)

    @call()
    def burn_(self, origin: Origin, value: int, keep_alive: bool) -> None:
        who = ensure_signed(origin)
        if self.reducible(who, keep_alive) < value:
            raise token_error("FundsUnavailable")
        self.burn(who, value)
        self.emit("Burned", who=who, amount=value)
