"""Utility: several calls in one extrinsic, and calls under another origin.

A call inside is dispatched as if it came alone: it passes the filters of its origin and the chain's checks on
extrinsics. Root's calls pass everything.
"""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError
from localnet.rules.accounts import derivative_account
from localnet.runtime.framework import Origin, Pallet, Root, Signed, Unsigned, call, ensure_root, ensure_signed


def _is_no_batch_all(pallet: str, function: str, arguments: dict[str, Any]) -> bool:
    return (pallet, function) != ("Utility", "batch_all")


def origin_of(value: Any) -> Origin:
    """The origin that an OriginCaller names. Raises DispatchError for those this runtime does not have."""
    match value:
        case ("system", "Root"):
            return Root()
        case ("system", ("Signed", who)):
            return Signed(who)
        case ("system", "None"):
            return Unsigned()
    raise DispatchError("Other", f"NotImplemented: calls with the origin {value!r}")


class Utility(Pallet):
    name = "Utility"

    def _checked(self, origin: Origin, calls: list[Any]) -> list[Any]:
        """Raises BadOrigin, TooManyCalls."""
        self._ensure_somebody(origin)
        if len(calls) > self.rt.document.constants["Utility", "batched_calls_limit"]:
            raise self.error("TooManyCalls")
        return calls

    def _ensure_somebody(self, origin: Origin) -> None:
        if isinstance(origin, Unsigned):
            raise DispatchError("BadOrigin")

    @call(ref_time=8_000_000, proof_size=0)
    def batch(self, origin: Origin, calls: list[Any]) -> None:
        """Run calls in order until one fails; what ran before it stays."""
        for index, inner in enumerate(self._checked(origin, calls)):
            try:
                self.rt.dispatch_inner(origin, inner)
            except DispatchError as error:
                self.emit("BatchInterrupted", index=index, error=error.value)
                return
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def batch_all(self, origin: Origin, calls: list[Any]) -> None:
        """Run all calls or none: the first failure is the batch's failure."""
        for inner in self._checked(origin, calls):
            inside = Signed(origin.who, (*origin.filters, _is_no_batch_all)) if isinstance(origin, Signed) else origin
            self.rt.dispatch_inner(inside, inner)
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def force_batch(self, origin: Origin, calls: list[Any]) -> None:
        """Run all calls, failures included."""
        failed = False
        for inner in self._checked(origin, calls):
            try:
                self.rt.dispatch_inner(origin, inner)
                self.emit("ItemCompleted")
            except DispatchError as error:
                failed = True
                self.emit("ItemFailed", error=error.value)
        self.emit("BatchCompletedWithErrors" if failed else "BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def with_weight(self, origin: Origin, call: Any, weight: Any) -> None:
        ensure_root(origin)
        self.rt.dispatch_inner(origin, call)

    @call(ref_time=8_000_000, proof_size=0, own_fee=True)
    def as_derivative(self, origin: Origin, index: int, call: Any) -> None:
        """Run a call as the sender's numbered child account; the filters of the sender hold."""
        who = derivative_account(ensure_signed(origin), index)
        assert isinstance(origin, Signed)
        self.rt.dispatch_inner(Signed(who, origin.filters), call)

    @call(ref_time=8_000_000, proof_size=0, own_fee=True)
    def dispatch_as(self, origin: Origin, as_origin: Any, call: Any) -> None:
        """Root runs a call as anybody; its failure is reported, not raised."""
        ensure_root(origin)
        caller = origin_of(as_origin)
        try:
            self.rt.dispatch_inner(caller, call, bypass=True)
            result: Any = ("Ok", ())
        except DispatchError as error:
            result = ("Err", error.value)
        self.emit("DispatchedAs", result=result)

    @call(ref_time=8_000_000, proof_size=0, own_fee=True)
    def dispatch_as_fallible(self, origin: Origin, as_origin: Any, call: Any) -> None:
        ensure_root(origin)
        self.rt.dispatch_inner(origin_of(as_origin), call, bypass=True)
        self.emit("DispatchedAs", result=("Ok", ()))

    @call(ref_time=8_000_000, proof_size=0, own_fee=True)
    def if_else(self, origin: Origin, main: Any, fallback: Any) -> None:
        """Run `main`; when it fails, `fallback`. Fails when both do, as the fallback did."""
        self._ensure_somebody(origin)
        try:
            self.rt.dispatch_inner(origin, main)
        except DispatchError as error:
            self.rt.dispatch_inner(origin, fallback)
            self.emit("IfElseFallbackCalled", main_error=error.value)
            return
        self.emit("IfElseMainSuccess")
