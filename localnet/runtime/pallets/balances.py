"""Balances: free and reserved balance per account, transfers, the existential deposit, total issuance. All in rao.

An account lives as long as something provides for it; a free balance of the existential deposit or more is a provider.
A reserved (or frozen) balance consumes the account: while it does, the last provider cannot go, so the existential
deposit stays in the free balance. `_write` keeps these counts and is the only place that writes balances.

    mint, burn, transfer      free balance
    reserve, unreserve        deposits of other pallets: from free to reserved and back
    hold, release             the same under a reason, as Preimage does it: `Holds` says what is held for what
"""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError
from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import (
    FEE_WAIVED,
    Origin,
    Pallet,
    StorageMap,
    StorageValue,
    call,
    ensure_root,
    ensure_signed,
)

EXISTENTIAL_DEPOSIT = 500  # rao; the chain's constant Balances.ExistentialDeposit
NEW_LOGIC_FLAG = 1 << 127  # AccountData.flags of every account the released chain creates
MOST = (1 << 64) - 1  # of any balance

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


def _consumes(data: dict[str, Any]) -> bool:
    return bool(data["reserved"] or data["frozen"])


class Balances(Pallet):
    name = "Balances"

    TotalIssuance = StorageValue[int]()
    InactiveIssuance = StorageValue[int]()
    Holds = StorageMap[list[dict[str, Any]]]()  # account
    Locks = StorageMap[list[dict[str, Any]]]()  # account

    def free(self, who: bytes) -> int:
        return int(self.rt.system.Account[who]["data"]["free"])

    def reducible(self, who: bytes, keep_alive: bool = True) -> int:
        """What can leave the free balance. The existential deposit stays with `keep_alive`, and where the account has
        something reserved and nothing else that provides for it.
        """
        account = self.rt.system.Account[who]
        data = account["data"]
        keep = keep_alive or bool(data["free"] and account["consumers"] and account["providers"] <= 1)
        floor = max(data["frozen"] - data["reserved"], EXISTENTIAL_DEPOSIT if keep else 0, 0)
        return int(max(0, data["free"] - floor))

    def _write(self, who: bytes, free: int, reserved: int | None = None, frozen: int | None = None) -> None:
        """Set the balances of an account; None: as it is. Makes, reaps and counts as described above. What an account
        that is reaped still had leaves both records of the issuance, this pallet's and SubtensorModule's.

        Raises ConsumerRemaining when the last provider would go from an account with reserved balance.
        """
        account = self.rt.system.Account[who]
        before = account["data"]
        data = {**before, "free": free, "reserved": before["reserved"] if reserved is None else reserved}
        data["frozen"] = before["frozen"] if frozen is None else frozen
        data["flags"] |= NEW_LOGIC_FLAG
        fresh = not (before["free"] or before["reserved"] or before["frozen"])
        consumed, consumes = _consumes(before), _consumes(data)
        provided = before["free"] >= EXISTENTIAL_DEPOSIT and account["providers"] > 0
        provides = free >= EXISTENTIAL_DEPOSIT
        providers = account["providers"] + provides - provided
        consumers = account["consumers"] + consumes - consumed
        if provided and not provides and not providers and consumers:
            raise DispatchError("ConsumerRemaining")
        dust = free if free < EXISTENTIAL_DEPOSIT and not data["reserved"] else 0
        data["free"] -= dust
        if not account["providers"] and not account["sufficients"] and providers:
            self.rt.system.emit("NewAccount", account=who)
        if providers or account["sufficients"]:
            self.rt.system.Account[who] = {**account, "providers": providers, "consumers": consumers, "data": data}
        else:
            del self.rt.system.Account[who]
            if account["providers"]:
                self.rt.system.emit("KilledAccount", account=who)
        if fresh:
            self.emit("Endowed", account=who, free_balance=free)
        if dust:
            self.emit("DustLost", account=who, amount=dust)
            self.TotalIssuance.put(self.TotalIssuance.get() - dust)
            counted = self.rt.subtensor.TotalIssuance  # the chain's handler of dust, SubtensorDustRemoval
            counted.put(sub_floor0(counted.get(), dust))

    def mint(self, who: bytes, amount: int) -> None:
        """Create `amount` in `who`'s free balance; issuance grows with it."""
        self.TotalIssuance.put(self.TotalIssuance.get() + amount)
        if amount:
            self._write(who, self.free(who) + amount)

    def deposit(self, who: bytes, amount: int) -> None:
        """Free balance that was created already: the caller adds it to TotalIssuance, once for many accounts."""
        self._write(who, self.free(who) + amount)
        self.emit("Deposit", who=who, amount=amount)

    def burn(self, who: bytes, amount: int) -> None:
        """Destroy `amount` of `who`'s free balance. Raises FundsUnavailable, ConsumerRemaining."""
        free = self.free(who)
        if free < amount:
            raise token_error("FundsUnavailable")
        if amount:
            self._write(who, free - amount)
        self.TotalIssuance.put(self.TotalIssuance.get() - amount)

    def transfer(self, source: bytes, dest: bytes, amount: int, *, keep_alive: bool) -> None:
        """Move `amount` rao. Raises FundsUnavailable, Frozen, NotExpendable, BelowMinimum (Token errors), and Underflow
        (Arithmetic) for more than there is altogether."""
        if amount:
            self._ensure_transferable(source, dest, amount, keep_alive)
        if source == dest:
            return
        if amount:
            self._write(source, self.free(source) - amount)
            self._write(dest, self.free(dest) + amount)
        self.emit("Transfer", **{"from": source, "to": dest, "amount": amount})

    def _ensure_transferable(self, source: bytes, dest: bytes, amount: int, keep_alive: bool) -> None:
        free = self.free(source)
        if amount > self.TotalIssuance.get():
            raise DispatchError(("Arithmetic", "Underflow"), "Arithmetic.Underflow")
        if free < amount:
            raise token_error("FundsUnavailable")
        if self.reducible(source, keep_alive=False) < amount:
            raise token_error("Frozen")
        if keep_alive and free - amount < EXISTENTIAL_DEPOSIT:
            raise token_error("NotExpendable")
        if self.free(dest) + amount < EXISTENTIAL_DEPOSIT:
            raise token_error("BelowMinimum")

    # -- reserved balance -------------------------------------------------------------------------------------------

    def reserve(self, who: bytes, amount: int) -> None:
        """Set `amount` of the free balance aside. Raises InsufficientBalance, LiquidityRestrictions (Balances) and
        ConsumerRemaining when less than the existential deposit would stay free.
        """
        if not amount:
            return
        data = self.rt.system.Account[who]["data"]
        if data["free"] < amount:
            raise self.error("InsufficientBalance")
        if data["free"] - amount < data["frozen"]:
            raise self.error("LiquidityRestrictions")
        self._write(who, data["free"] - amount, data["reserved"] + amount)
        self.emit("Reserved", who=who, amount=amount)

    def unreserve(self, who: bytes, amount: int) -> None:
        """Free up to `amount` of what is reserved; less when there is less."""
        data = self.rt.system.Account[who]["data"]
        if not amount or not data["free"] + data["reserved"]:
            return
        actual = min(amount, data["reserved"])
        self._write(who, data["free"] + actual, data["reserved"] - actual)
        self.emit("Unreserved", who=who, amount=actual)

    def hold(self, reason: Any, who: bytes, amount: int) -> None:
        """Reserve under a reason (a RuntimeHoldReason). Raises FundsUnavailable (Token)."""
        if self.reducible(who) < amount:
            raise token_error("FundsUnavailable")
        data = self.rt.system.Account[who]["data"]
        self._write(who, data["free"] - amount, data["reserved"] + amount)
        self._count_hold(reason, who, amount)

    def release(self, reason: Any, who: bytes, amount: int) -> None:
        """Free what was held under a reason."""
        self._count_hold(reason, who, -amount)
        data = self.rt.system.Account[who]["data"]
        self._write(who, data["free"] + amount, data["reserved"] - amount)

    def _count_hold(self, reason: Any, who: bytes, change: int) -> None:
        """Raises FundsUnavailable when less is held than shall be released."""
        held = {one["id"]: one["amount"] for one in self.Holds[who]}
        held[reason] = held.get(reason, 0) + change
        if held[reason] < 0:
            raise token_error("FundsUnavailable")
        entries = [{"id": key, "amount": amount} for key, amount in held.items() if amount]
        if entries:
            self.Holds[who] = entries
        else:
            del self.Holds[who]

    # -- locks: balance that stays free and cannot leave ------------------------------------------------------------

    def set_lock(self, identifier: bytes, who: bytes, amount: int) -> None:
        """Lock `amount` for all purposes, in place of the lock of that identifier (8 bytes) if there is one."""
        if amount:
            others = [one for one in self.Locks[who] if one["id"] != identifier]
            self._update_locks(who, [*others, {"id": identifier, "amount": amount, "reasons": "All"}])

    def remove_lock(self, identifier: bytes, who: bytes) -> None:
        self._update_locks(who, [one for one in self.Locks[who] if one["id"] != identifier])

    def _update_locks(self, who: bytes, locks: list[dict[str, Any]]) -> None:
        """The largest lock is what is frozen. Locks consume the account once, beside what is frozen."""
        data = self.rt.system.Account[who]["data"]
        frozen = max((one["amount"] for one in locks), default=0)
        self._write(who, data["free"], frozen=frozen)
        existed = who in self.Locks
        if locks:
            self.Locks[who] = locks
        else:
            del self.Locks[who]
        if existed != bool(locks):
            account = self.rt.system.Account[who]
            self.rt.system.Account[who] = {**account, "consumers": account["consumers"] + (1 if locks else -1)}
        if frozen != data["frozen"]:
            event = "Locked" if frozen > data["frozen"] else "Unlocked"
            self.emit(event, who=who, amount=abs(frozen - data["frozen"]))

    # -- calls ------------------------------------------------------------------------------------------------------

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
        self.TotalIssuance.put(min(self.TotalIssuance.get() + wanted - before, MOST))
        self._write(account, wanted)
        self.emit("BalanceSet", who=account, free=wanted)

    @call()
    def force_unreserve(self, origin: Origin, who: Any, amount: int) -> None:
        ensure_root(origin)
        self.unreserve(account_of(who), amount)

    @call()
    def upgrade_accounts(self, origin: Origin, who: list[bytes]) -> str | None:
        """Mark accounts of the old format. Free when nine in ten of them were of it."""
        ensure_signed(origin)
        old = [one for one in who if not self.rt.system.Account[one]["data"]["flags"] & NEW_LOGIC_FLAG]
        upgraded = sum(self._upgrade(one) for one in old)
        return FEE_WAIVED if who and upgraded * 10 >= len(who) * 9 else None

    def _upgrade(self, who: bytes) -> bool:
        account = self.rt.system.Account[who]
        data = account["data"]
        if data["flags"] & NEW_LOGIC_FLAG:
            return False
        self.rt.system.Account[who] = {
            **account,
            "providers": account["providers"] or int(_consumes(data)),
            "consumers": account["consumers"] + _consumes(data),
            "data": {**data, "flags": data["flags"] | NEW_LOGIC_FLAG},
        }
        self.emit("Upgraded", who=who)
        return True

    @call()
    def force_adjust_total_issuance(self, origin: Origin, direction: str, delta: int) -> None:
        """Correct the recorded issuance; no balance changes."""
        ensure_root(origin)
        if not delta:
            raise self.error("DeltaZero")
        old = self.TotalIssuance.get()
        new = min(old + delta, MOST) if direction == "Increase" else max(old - delta, 0)
        if self.InactiveIssuance.get() > new:
            raise self.error("IssuanceDeactivated")
        self.TotalIssuance.put(new)
        self.emit("TotalIssuanceForced", old=old, new=new)

    @call()
    def burn_(self, origin: Origin, value: int, keep_alive: bool) -> None:
        who = ensure_signed(origin)
        if self.reducible(who, keep_alive) < value:
            raise token_error("FundsUnavailable")
        self.burn(who, value)
        self.emit("Burned", who=who, amount=value)
