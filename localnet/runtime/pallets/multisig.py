"""Multisig: an account that several others own together; some number of them, the threshold, has to agree to a call.

    as_multi_threshold_1    one of them is enough: dispatched at once
    approve_as_multi        agree to a call by its hash
    as_multi                agree and show the call; the last one needed dispatches it
    cancel_as_multi         who began takes it back

An operation is known by the account and the hash of its call, and by the place (`Timepoint`: block and extrinsic)
where it began, which everybody after the first has to name. Who begins pays the deposit until it is over.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from localnet.errors import DispatchError
from localnet.rules.accounts import multisig_account
from localnet.runtime.framework import FEE_WAIVED, Origin, Pallet, Signed, StorageMap, call, ensure_signed
from localnet.runtime.runtime_call import split_call

Timepoint = dict[str, int]  # height, index


class Multisig(Pallet):
    name = "Multisig"

    Multisigs = StorageMap[dict[str, Any] | None]()  # multisig account, call hash

    def _constant(self, name: str) -> int:
        return int(self.rt.document.constants[self.name, name])

    def _deposit(self, threshold: int) -> int:
        return self._constant("DepositBase") + self._constant("DepositFactor") * threshold

    def _account(self, who: bytes, others: list[bytes], threshold: int) -> bytes:
        """The account of `who` and the others. Raises TooFewSignatories, TooManySignatories, SignatoriesOutOfOrder,
        SenderInSignatories.
        """
        if not others:
            raise self.error("TooFewSignatories")
        if len(others) >= self._constant("MaxSignatories"):
            raise self.error("TooManySignatories")
        last: bytes | None = None
        for other in others:
            if last is not None and last >= other:
                raise self.error("SignatoriesOutOfOrder")
            if other == who:
                raise self.error("SenderInSignatories")
            last = other
        return multisig_account(sorted([*others, who]), threshold)

    def _shared_account(self, who: bytes, others: list[bytes], threshold: int) -> bytes:
        """Raises MinimumThreshold and what `_account` raises."""
        if threshold < 2:
            raise self.error("MinimumThreshold")
        return self._account(who, others, threshold)

    def _execute(self, account: bytes, inner: Any) -> Any:
        try:
            self.rt.dispatch_inner(Signed(account), inner)
        except DispatchError as error:
            return ("Err", error.value)
        return ("Ok", ())

    @call(own_fee=True)
    def as_multi_threshold_1(self, origin: Origin, other_signatories: list[bytes], call: Any) -> None:
        """Fails as the call inside fails."""
        account = self._account(ensure_signed(origin), other_signatories, 1)
        self.rt.dispatch_inner(Signed(account), call)

    @call(own_fee=True)
    def as_multi(
        self,
        origin: Origin,
        threshold: int,
        other_signatories: list[bytes],
        maybe_timepoint: Timepoint | None,
        call: Any,
        max_weight: dict[str, int],
    ) -> None:
        who = ensure_signed(origin)
        account = self._shared_account(who, other_signatories, threshold)
        encoded = self.rt.document.registry.encode(self.rt.document.call_type, call)
        call_hash = blake2b(encoded, digest_size=32).digest()
        entry = self.Multisigs[account, call_hash]
        if entry is None:
            self._begin(who, account, call_hash, threshold, maybe_timepoint)
            return
        self._ensure_timepoint(entry, maybe_timepoint)
        approved = len(entry["approvals"]) + (who not in entry["approvals"])
        if approved < threshold:
            self._approve(who, account, call_hash, entry, threshold)
            return
        info = self.rt.call_info(*split_call(call))
        if info.ref_time > max_weight["ref_time"] or info.proof_size > max_weight["proof_size"]:
            raise self.error("MaxWeightTooLow")
        del self.Multisigs[account, call_hash]
        self.rt.balances.unreserve(entry["depositor"], entry["deposit"])
        result = self._execute(account, call)
        self.emit(
            "MultisigExecuted", approving=who, timepoint=entry["when"], multisig=account, call_hash=call_hash,
            result=result,
        )  # fmt: skip

    @call()
    def approve_as_multi(
        self,
        origin: Origin,
        threshold: int,
        other_signatories: list[bytes],
        maybe_timepoint: Timepoint | None,
        call_hash: bytes,
        max_weight: dict[str, int],
    ) -> None:
        who = ensure_signed(origin)
        account = self._shared_account(who, other_signatories, threshold)
        entry = self.Multisigs[account, call_hash]
        if entry is None:
            self._begin(who, account, call_hash, threshold, maybe_timepoint)
            return
        self._ensure_timepoint(entry, maybe_timepoint)
        self._approve(who, account, call_hash, entry, threshold)

    def _ensure_timepoint(self, entry: dict[str, Any], timepoint: Timepoint | None) -> None:
        """Raises NoTimepoint, WrongTimepoint."""
        if timepoint is None:
            raise self.error("NoTimepoint")
        if entry["when"] != timepoint:
            raise self.error("WrongTimepoint")

    def _begin(self, who: bytes, account: bytes, call_hash: bytes, threshold: int, timepoint: Timepoint | None) -> None:
        """Raises UnexpectedTimepoint and what `reserve` raises."""
        if timepoint is not None:
            raise self.error("UnexpectedTimepoint")
        deposit = self._deposit(threshold)
        self.rt.balances.reserve(who, deposit)
        when = {"height": self.rt.number, "index": self.rt.system.extrinsic_index}
        self.Multisigs[account, call_hash] = {"when": when, "deposit": deposit, "depositor": who, "approvals": [who]}
        self.emit("NewMultisig", approving=who, multisig=account, call_hash=call_hash)

    def _approve(self, who: bytes, account: bytes, call_hash: bytes, entry: dict[str, Any], threshold: int) -> None:
        """Raises AlreadyApproved, also when nobody else is needed."""
        approvals = entry["approvals"]
        if who in approvals or len(approvals) >= threshold:
            raise self.error("AlreadyApproved")
        self.Multisigs[account, call_hash] = {**entry, "approvals": sorted([*approvals, who])}
        self.emit(
            "MultisigApproval", approving=who, timepoint=entry["when"], multisig=account, call_hash=call_hash
        )  # fmt: skip

    def _own(
        self, who: bytes, threshold: int, others: list[bytes], call_hash: bytes, timepoint: Timepoint | None = None
    ) -> tuple[bytes, dict[str, Any]]:
        """(account, operation) that `who` began. Raises NotFound, WrongTimepoint, NotOwner."""
        account = self._shared_account(who, others, threshold)
        entry = self.Multisigs[account, call_hash]
        if entry is None:
            raise self.error("NotFound")
        if timepoint is not None and entry["when"] != timepoint:
            raise self.error("WrongTimepoint")
        if entry["depositor"] != who:
            raise self.error("NotOwner")
        return account, entry

    @call()
    def cancel_as_multi(
        self, origin: Origin, threshold: int, other_signatories: list[bytes], timepoint: Timepoint, call_hash: bytes
    ) -> None:
        who = ensure_signed(origin)
        account, entry = self._own(who, threshold, other_signatories, call_hash, timepoint)
        self.rt.balances.unreserve(who, entry["deposit"])
        del self.Multisigs[account, call_hash]
        self.emit("MultisigCancelled", cancelling=who, timepoint=timepoint, multisig=account, call_hash=call_hash)

    @call()
    def poke_deposit(
        self, origin: Origin, threshold: int, other_signatories: list[bytes], call_hash: bytes
    ) -> str | None:
        """Make the deposit what it would be if the operation began now."""
        who = ensure_signed(origin)
        account, entry = self._own(who, threshold, other_signatories, call_hash)
        before, now = entry["deposit"], self._deposit(threshold)
        if before == now:
            return None
        self.rt.balances.reserve(who, max(now - before, 0))
        self.rt.balances.unreserve(who, max(before - now, 0))
        self.Multisigs[account, call_hash] = {**entry, "deposit": now}
        self.emit("DepositPoked", who=who, call_hash=call_hash, old_deposit=before, new_deposit=now)
        return FEE_WAIVED
