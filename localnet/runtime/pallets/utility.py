"""Utility: several calls in one extrinsic."""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError
from localnet.runtime.framework import Origin, Pallet, Root, call, ensure_root
from localnet.runtime.runtime_call import split_call


class Utility(Pallet):
    name = "Utility"

    def _checked(self, calls: list[Any]) -> list[tuple[str, str, dict[str, Any]]]:
        if len(calls) > self.rt.document.constants["Utility", "batched_calls_limit"]:
            raise self.error("TooManyCalls")
        return [split_call(value) for value in calls]

    @call(ref_time=8_000_000, proof_size=0)
    def batch(self, origin: Origin, calls: list[Any]) -> None:
        """Run calls in order until one fails; what ran before it stays."""
        for index, inner in enumerate(self._checked(calls)):
            try:
                self.rt.dispatch(origin, *inner)
            except DispatchError as error:
                self.emit("BatchInterrupted", index=index, error=error.value)
                return
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def batch_all(self, origin: Origin, calls: list[Any]) -> None:
        """Run all calls or none: the first failure is the batch's failure."""
        for inner in self._checked(calls):
            if inner[:2] == ("Utility", "batch_all") and not isinstance(origin, Root):
                raise self.rt.system.error("CallFiltered")
            self.rt.dispatch(origin, *inner)
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def force_batch(self, origin: Origin, calls: list[Any]) -> None:
        """Run all calls, failures included."""
        failed = False
        for inner in self._checked(calls):
            try:
                self.rt.dispatch(origin, *inner)
                self.emit("ItemCompleted")
            except DispatchError as error:
                failed = True
                self.emit("ItemFailed", error=error.value)
        self.emit("BatchCompletedWithErrors" if failed else "BatchCompleted")

    @call(ref_time=8_000_000, proof_size=0)
    def with_weight(self, origin: Origin, call: Any, weight: Any) -> None:
        ensure_root(origin)
        self.rt.dispatch(origin, *split_call(call))
