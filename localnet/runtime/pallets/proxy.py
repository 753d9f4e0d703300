"""Proxy: accounts that act for other accounts.

    add_proxy, remove_proxy, remove_proxies    who may act for me, within a type (`proxy_types`) and after a delay
    create_pure, kill_pure                     an account without a key that lives by its proxies
    proxy                                      act, at once
    announce, .. , proxy_announced             act, after the account had `delay` blocks to object
    set_real_pays_fee                          the account pays its delegate's fees

The acting call runs under the account's own origin, through a filter that every call inside it meets as well. What
became of it is in `ProxyExecuted`; the outer call succeeds. Deposits are reserved, `poke_deposit` corrects them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from typing import Any

from localnet.errors import DispatchError
from localnet.rules import accounts
from localnet.runtime.framework import FEE_WAIVED, CallFilter, Origin, Pallet, Signed, StorageMap, call, ensure_signed
from localnet.runtime.pallets import proxy_types
from localnet.runtime.pallets.balances import account_of
from localnet.runtime.runtime_call import BATCHES, split_call

PROXIES, ANNOUNCEMENTS = "Proxies", "Announcements"  # kinds of deposit, and the storage items they are for
DEPOSITS = {PROXIES: ("ProxyDepositBase", "ProxyDepositFactor"),
            ANNOUNCEMENTS: ("AnnouncementDepositBase", "AnnouncementDepositFactor")}  # fmt: skip
Definition = dict[str, Any]  # delegate, proxy_type, delay
Listed = tuple[list[dict[str, Any]], int]  # entries and the deposit reserved for them


def _order(definition: Definition) -> tuple[bytes, int, int]:
    return definition["delegate"], proxy_types.TYPES.index(definition["proxy_type"]), definition["delay"]


class Proxy(Pallet):
    name = "Proxy"

    Proxies = StorageMap[Listed]()  # real
    Announcements = StorageMap[Listed]()  # delegate
    LastCallResult = StorageMap[Any]()  # real; within a block
    RealPaysFeeConsentV1 = StorageMap[tuple[()] | None]()  # real, delegate

    _called = False  # since the last block ended

    @cached_property
    def table(self) -> proxy_types.Table:
        """What each type allows."""
        return proxy_types.make_table(self.rt.document.calls)

    def on_finalize(self, number: int) -> None:
        if self._called:
            self.LastCallResult.clear()
            self._called = False

    # -- deposits ---------------------------------------------------------------------------------------------------

    def _constant(self, name: str) -> int:
        return int(self.rt.document.constants[self.name, name])

    def _store(self, kind: str, who: bytes, entries: list[dict[str, Any]]) -> tuple[int, int]:
        """Write a list and make the deposit fit it; (deposit before, now). Raises what `reserve` raises."""
        items: StorageMap[Listed] = getattr(self, kind)
        base, factor = DEPOSITS[kind]
        before = items[who][1]
        now = self._constant(base) + self._constant(factor) * len(entries) if entries else 0
        self.rt.balances.reserve(who, max(now - before, 0))
        self.rt.balances.unreserve(who, max(before - now, 0))
        if entries:
            items[who] = (entries, now)
        else:
            del items[who]
        return before, now

    @call()
    def poke_deposit(self, origin: Origin) -> str | None:
        who = ensure_signed(origin)
        changed = False
        for kind in (PROXIES, ANNOUNCEMENTS):
            before, now = self._store(kind, who, getattr(self, kind)[who][0])
            if before != now:
                changed = True
                self.emit("DepositPoked", who=who, kind=kind, old_deposit=before, new_deposit=now)
        return FEE_WAIVED if changed else None

    # -- who may act ------------------------------------------------------------------------------------------------

    def find(self, real: bytes, delegate: bytes, kind: str | None = None) -> Definition:
        """The first definition of that delegate, of that type if one is given. Raises NotProxy."""
        for definition in self.Proxies[real][0]:
            if definition["delegate"] == delegate and kind in (None, definition["proxy_type"]):
                return definition
        raise self.error("NotProxy")

    def add(self, who: bytes, delegate: bytes, proxy_type: str, delay: int) -> None:
        """Let `delegate` act for `who`. Raises NoSelfProxy, Duplicate, TooMany and what `reserve` raises."""
        if who == delegate:
            raise self.error("NoSelfProxy")
        definition = {"delegate": delegate, "proxy_type": proxy_type, "delay": delay}
        definitions = self.Proxies[who][0]
        if definition in definitions:
            raise self.error("Duplicate")
        if len(definitions) >= self._constant("MaxProxies"):
            raise self.error("TooMany")
        self._store(PROXIES, who, sorted([*definitions, definition], key=_order))
        self.emit("ProxyAdded", delegator=who, delegatee=delegate, proxy_type=proxy_type, delay=delay)

    def remove(self, who: bytes, delegate: bytes, proxy_type: str, delay: int) -> None:
        """Raises NotFound."""
        definition = {"delegate": delegate, "proxy_type": proxy_type, "delay": delay}
        definitions = self.Proxies[who][0]
        if definition not in definitions:
            raise self.error("NotFound")
        self._store(PROXIES, who, [one for one in definitions if one != definition])
        del self.RealPaysFeeConsentV1[who, delegate]
        self.emit("ProxyRemoved", delegator=who, delegatee=delegate, proxy_type=proxy_type, delay=delay)

    @call()
    def add_proxy(self, origin: Origin, delegate: Any, proxy_type: str, delay: int) -> None:
        self.add(ensure_signed(origin), account_of(delegate), proxy_type, delay)

    @call()
    def remove_proxy(self, origin: Origin, delegate: Any, proxy_type: str, delay: int) -> None:
        self.remove(ensure_signed(origin), account_of(delegate), proxy_type, delay)

    @call()
    def remove_proxies(self, origin: Origin) -> None:
        who = ensure_signed(origin)
        self._store(PROXIES, who, [])
        self.RealPaysFeeConsentV1.clear(who)

    # -- accounts without a key -------------------------------------------------------------------------------------

    @call()
    def create_pure(self, origin: Origin, proxy_type: str, delay: int, index: int) -> None:
        """The spawner's deposit pays for the new account's one proxy: the spawner."""
        who = ensure_signed(origin)
        kind = proxy_types.TYPES.index(proxy_type)
        pure = accounts.pure_account(who, self.rt.number, self.rt.system.extrinsic_index, kind, index)
        if pure in self.Proxies:
            raise self.error("Duplicate")
        deposit = self._constant("ProxyDepositBase") + self._constant("ProxyDepositFactor")
        self.rt.balances.reserve(who, deposit)
        self.Proxies[pure] = ([{"delegate": who, "proxy_type": proxy_type, "delay": delay}], deposit)
        self.emit("PureCreated", pure=pure, who=who, proxy_type=proxy_type, disambiguation_index=index)

    @call()
    def kill_pure(self, origin: Origin, spawner: Any, proxy_type: str, index: int, height: int, ext_index: int) -> None:
        who, creator = ensure_signed(origin), account_of(spawner)
        kind = proxy_types.TYPES.index(proxy_type)
        if who != accounts.pure_account(creator, height, ext_index, kind, index):
            raise self.error("NoPermission")
        self.rt.balances.unreserve(creator, self.Proxies[who][1])
        del self.Proxies[who]
        self.emit("PureKilled", pure=who, spawner=creator, proxy_type=proxy_type, disambiguation_index=index)

    # -- acting -----------------------------------------------------------------------------------------------------

    def _filter(self, kind: str) -> CallFilter:
        """What a call made by a proxy of this type meets, and every call inside it."""

        def admits(pallet: str, function: str, arguments: dict[str, Any]) -> bool:
            if pallet == self.name:
                if function in ("add_proxy", "remove_proxy"):
                    if not proxy_types.is_superset(kind, arguments["proxy_type"]):
                        return False
                elif function in ("remove_proxies", "kill_pure") and kind != "Any":
                    return False
            return proxy_types.allows(self.table, kind, pallet, function, arguments)

        return admits

    def _act(self, definition: Definition, real: bytes, inner: Any) -> None:
        origin = Signed(real, (self._filter(definition["proxy_type"]),))
        try:
            self.rt.dispatch_inner(origin, inner)
            result: Any = ("Ok", ())
        except DispatchError as error:
            result = ("Err", error.value)
        self.LastCallResult[real] = result
        self._called = True
        self.emit("ProxyExecuted", result=result)

    @call()
    def proxy(self, origin: Origin, real: Any, force_proxy_type: str | None, call: Any) -> None:
        definition = self.find(account_of(real), ensure_signed(origin), force_proxy_type)
        if definition["delay"]:
            raise self.error("Unannounced")
        self._act(definition, account_of(real), call)

    @call(own_fee=True)
    def proxy_announced(
        self, origin: Origin, delegate: Any, real: Any, force_proxy_type: str | None, call: Any
    ) -> None:
        """Anybody may carry an announced call out, with its text, once its time has come."""
        ensure_signed(origin)
        who, account = account_of(delegate), account_of(real)
        definition = self.find(account, who, force_proxy_type)
        encoded = self.rt.document.registry.encode(self.rt.document.call_type, call)
        call_hash = blake2b(encoded, digest_size=32).digest()

        def is_due(one: dict[str, Any]) -> bool:
            is_this = one["real"] == account and one["call_hash"] == call_hash
            return bool(is_this and self.rt.number - one["height"] >= definition["delay"])

        self._drop_announcements(who, is_due, "Unannounced")
        self._act(definition, account, call)

    # -- announcements ----------------------------------------------------------------------------------------------

    def _drop_announcements(self, who: bytes, drop: Callable[[dict[str, Any]], bool], error: str = "NotFound") -> None:
        """Raises `error` when there is nothing to drop."""
        entries = self.Announcements[who][0]
        kept = [one for one in entries if not drop(one)]
        if len(kept) == len(entries):
            raise self.error(error)
        self._store(ANNOUNCEMENTS, who, kept)

    @call()
    def announce(self, origin: Origin, real: Any, call_hash: bytes) -> None:
        who, account = ensure_signed(origin), account_of(real)
        self.find(account, who)
        entries = self.Announcements[who][0]
        if len(entries) >= self._constant("MaxPending"):
            raise self.error("TooMany")
        announcement = {"real": account, "call_hash": call_hash, "height": self.rt.number}
        self._store(ANNOUNCEMENTS, who, [*entries, announcement])
        self.emit("Announced", real=account, proxy=who, call_hash=call_hash)

    @call()
    def remove_announcement(self, origin: Origin, real: Any, call_hash: bytes) -> None:
        account = account_of(real)
        self._drop_announcements(
            ensure_signed(origin), lambda one: one["real"] == account and one["call_hash"] == call_hash
        )

    @call()
    def reject_announcement(self, origin: Origin, delegate: Any, call_hash: bytes) -> None:
        account = ensure_signed(origin)
        self._drop_announcements(
            account_of(delegate), lambda one: one["real"] == account and one["call_hash"] == call_hash
        )

    # -- fees -------------------------------------------------------------------------------------------------------

    @call()
    def set_real_pays_fee(self, origin: Origin, delegate: Any, pays_fee: bool) -> None:
        real, who = ensure_signed(origin), account_of(delegate)
        self.find(real, who)
        if pays_fee:
            self.RealPaysFeeConsentV1[real, who] = ()
        else:
            del self.RealPaysFeeConsentV1[real, who]
        self.emit("RealPaysFeeSet", real=real, delegate=who, pays_fee=pays_fee)

    def fee_payer(self, signer: bytes, pallet: str, function: str, arguments: dict[str, Any]) -> bytes:
        """Who pays for an extrinsic: its signer, or the account it acts for when that agreed to.

        The account behind a proxy inside the proxy pays if it agreed too, and so does the one account behind all
        calls of a batch inside the proxy. Announced calls are paid by who sends them.
        """
        real = self._payer(signer, (pallet, function, arguments))
        if real is None:
            return signer
        inner = split_call(arguments["call"])
        if inner[0] == "Utility" and inner[1] in BATCHES:
            payers = {self._payer(real, split_call(one)) for one in inner[2]["calls"]}
            return (payers.pop() if len(payers) == 1 else None) or real
        return self._payer(real, inner) or real

    def _payer(self, delegate: bytes, inner: tuple[str, str, dict[str, Any]]) -> bytes | None:
        """The account that a `proxy` call acts for, if it agreed to pay for this delegate."""
        pallet, function, arguments = inner
        if (pallet, function) != (self.name, "proxy") or arguments["real"][0] != "Id":
            return None
        real = account_of(arguments["real"])
        return real if (real, delegate) in self.RealPaysFeeConsentV1 else None
