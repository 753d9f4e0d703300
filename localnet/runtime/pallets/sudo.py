"""Sudo: one key may act as the chain itself. The outer extrinsic succeeds; `Sudid` carries what became of the call.

Who else tries is refused by the pool. The sudo key gets its fee back.
"""

from __future__ import annotations

from typing import Any

from localnet.errors import DispatchError, InvalidTransaction
from localnet.runtime.framework import Origin, Pallet, Root, Signed, StorageValue, call, ensure_signed
from localnet.runtime.pallets.balances import account_of


class Sudo(Pallet):
    name = "Sudo"

    Key = StorageValue[bytes | None]()

    def _require_sudo(self, origin: Origin) -> None:
        if not isinstance(origin, Root) and ensure_signed(origin) != self.Key.get():
            raise self.error("RequireSudo")

    def validate(self, who: bytes, function: str, arguments: dict[str, Any]) -> None:
        """Only the sudo key's extrinsics get into the pool. Raises InvalidTransaction BadSigner."""
        if who != self.Key.get():
            raise InvalidTransaction("BadSigner")

    def _result(self, origin: Origin, inner: Any) -> Any:
        try:
            self.rt.dispatch_inner(origin, inner, bypass=True)
        except DispatchError as error:
            return ("Err", error.value)
        return ("Ok", ())

    @call(ref_time=20_000_000, proof_size=1517, refunded=True)
    def sudo(self, origin: Origin, call: Any) -> None:
        self._require_sudo(origin)
        self.emit("Sudid", sudo_result=self._result(Root(), call))

    @call(ref_time=20_000_000, proof_size=1517, refunded=True)
    def sudo_unchecked_weight(self, origin: Origin, call: Any, weight: Any) -> None:
        self._require_sudo(origin)
        self.emit("Sudid", sudo_result=self._result(Root(), call))

    @call(ref_time=20_000_000, proof_size=1517, refunded=True)
    def sudo_as(self, origin: Origin, who: Any, call: Any) -> None:
        self._require_sudo(origin)
        self.emit("SudoAsDone", sudo_result=self._result(Signed(account_of(who)), call))

    @call(ref_time=20_000_000, proof_size=1517, refunded=True)
    def set_key(self, origin: Origin, new: Any) -> None:
        self._require_sudo(origin)
        before = self.Key.get()
        self.Key.put(account_of(new))
        self.emit("KeyChanged", old=before, new=account_of(new))

    @call(ref_time=20_000_000, proof_size=1517, refunded=True)
    def remove_key(self, origin: Origin) -> None:
        """From here on nobody can act as the chain."""
        self._require_sudo(origin)
        self.emit("KeyRemoved")
        self.Key.kill()
