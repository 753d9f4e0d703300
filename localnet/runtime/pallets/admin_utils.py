"""AdminUtils: hyperparameters. One table row per call, one function that carries a row out.

    who      "root", "owner" (the subnet's owner or root), "owner, limited" (an owner only now and then)
    order    origin, the owner's rate limit, the freeze window, the subnet's existence, the bounds, the write, the event

Calls that do more than check and write one item are methods below the table. Every other call of this pallet that the
metadata knows is refused by the runtime as not implemented, by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules.weights import storage_index
from localnet.runtime.framework import (
    CallInfo,
    Origin,
    Pallet,
    Root,
    StorageMap,
    StorageValue,
    call,
    ensure_root,
    ensure_signed,
)
from localnet.runtime.pallets.settings import SETTINGS, Setting
from localnet.runtime.subtensor import limits, positions, trimming

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

LEAST_ALPHA = 1638  # floor(65535 / 40): lowest liquid-alpha bound
CALL_INFO = CallInfo(ref_time=25_000_000)
OPERATIONAL = frozenset(  # calls that the chain lets pass before the others
    f"sudo_set_{name}"
    for name in ("burn_half_life", "burn_increase_mult", "owner_cut_enabled", "owner_cut_auto_lock_enabled")
)


class AdminUtils(Pallet):
    name = "AdminUtils"

    def __init__(self, rt: SpecRuntime) -> None:
        super().__init__(rt)
        for setting in SETTINGS:
            self._check_call(setting.call, self._handler(setting))

    @property
    def _subtensor(self) -> Subtensor:
        return self.rt.subtensor

    # -- the table --------------------------------------------------------------------------------------------------

    def _handler(self, setting: Setting) -> Callable[..., None]:
        """A call for a table row; its signature is compared with the metadata like a written one's."""

        def handle(origin: Origin, **arguments: Any) -> None:
            self._apply(setting, origin, arguments.get("netuid", 0), arguments[setting.argument])

        names = ["origin", *(["netuid"] if setting.per_subnet else []), setting.argument]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        handle.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
        kind_of_call = "Operational" if setting.call in OPERATIONAL else "Normal"
        handle.call_info = replace(CALL_INFO, dispatch_class=kind_of_call)  # type: ignore[attr-defined]
        return handle

    def _apply(self, setting: Setting, origin: Origin, netuid: int, value: Any) -> None:
        p = self._subtensor
        owner = self._admit(origin, setting, netuid)
        for bound in setting.bounds:
            if not bound.holds(p, netuid, value) and (owner is not None or not bound.owner_only):
                raise (self if bound.ours else p).error(bound.error)
        item = getattr(p, setting.item)
        if isinstance(item, StorageMap):
            item[netuid] = value
        else:
            assert isinstance(item, StorageValue)
            item.put(value)
        if setting.stale is not None:
            getattr(p, setting.stale).kill()
        self._tell(setting, netuid, value)
        if owner is not None and setting.limit is not None:
            setting.limit.record(p, owner, netuid)

    def _admit(self, origin: Origin, setting: Setting, netuid: int) -> bytes | None:
        """Who asks: the subnet's owner, or None for root. Raises BadOrigin and what `_gate` raises."""
        if setting.who == "root":
            ensure_root(origin)
            owner = None
        else:
            owner = self._owner_or_root(origin, netuid)
        self._gate(owner, netuid, setting.limit, window=setting.window, exists=setting.exists)
        if setting.not_root and netuid == 0:
            raise self.error("NotPermittedOnRootSubnet")
        return owner

    def _owner_or_root(self, origin: Origin, netuid: int) -> bytes | None:
        if isinstance(origin, Root):
            return None
        who = ensure_signed(origin)
        if self._subtensor.SubnetOwner[netuid] != who:
            raise DispatchError("BadOrigin")
        return who

    def _gate(
        self, owner: bytes | None, netuid: int, limit: limits.Limit | None, *, window: bool = True, exists: bool = True
    ) -> None:
        p = self._subtensor
        if owner is not None and limit is not None:
            limit.ensure(p, owner, netuid)
        if window:
            limits.ensure_window_open(p, netuid)
        if exists and not p.NetworksAdded[netuid]:
            raise self.error("SubnetDoesNotExist")

    def _tell(self, setting: Setting, netuid: int, value: Any) -> None:
        if setting.event is None:
            return
        if setting.first_event is not None:
            self._subtensor.emit(setting.first_event, netuid, value)
        emitter: Pallet = self if setting.named_event else self._subtensor
        if setting.named_event:
            named = {setting.argument: value}
            emitter.emit(setting.event, **({"netuid": netuid, **named} if setting.per_subnet else named))
        else:
            emitter.emit(setting.event, *((netuid, value) if setting.per_subnet else (value,)))

    # -- calls that are more than one write -------------------------------------------------------------------------

    @call(ref_time=45_000_000)
    def sudo_set_tempo(self, origin: Origin, netuid: int, tempo: int) -> None:
        """The cycle starts anew with the tempo. Root may set any; 0 stops epochs. An owner stays within MinTempo and
        MaxTempo, and waits MinTempo blocks between two changes.
        """
        p, limit = self._subtensor, limits.TEMPO_UPDATE
        owner = self._owner_or_root(origin, netuid)
        if not p.NetworksAdded[netuid]:
            raise p.error("SubnetNotExists")
        least, most = (self.rt.document.constants[p.name, name] for name in ("MinTempo", "MaxTempo"))
        if owner is not None and not least <= tempo <= most:
            raise p.error("TempoOutOfBounds")
        limits.ensure_window_open(p, netuid)
        if owner is not None:
            limit.ensure(p, owner, netuid)
            limit.record(p, owner, netuid)
        p.Tempo[netuid] = tempo
        p.LastEpochBlock[netuid] = self.rt.number
        p.emit("TempoSet", netuid, tempo)

    @call(ref_time=45_000_000)
    def sudo_set_activity_cutoff_factor(self, origin: Origin, netuid: int, factor_milli: int) -> None:
        """Per mille of the tempo. Root is bound by neither the freeze window nor the rate limit."""
        p, limit = self._subtensor, limits.hyperparameter("ActivityCutoffFactorMilli")
        owner = self._owner_or_root(origin, netuid)
        bounds = ("MinActivityCutoffFactorMilli", "MaxActivityCutoffFactorMilli")
        least, most = (self.rt.document.constants[p.name, name] for name in bounds)
        if not least <= factor_milli <= most:
            raise p.error("ActivityCutoffFactorMilliOutOfBounds")
        if owner is not None:
            limits.ensure_window_open(p, netuid)
            limit.ensure(p, owner, netuid)
            limit.record(p, owner, netuid)
        p.ActivityCutoffFactorMilli[netuid] = factor_milli
        p.emit("ActivityCutoffFactorMilliSet", netuid=netuid, factor_milli=factor_milli)

    @call(ref_time=32_000_000)
    def sudo_trim_to_max_allowed_uids(self, origin: Origin, netuid: int, max_n: int) -> None:
        owner = self._owner_or_root(origin, netuid)
        self._gate(owner, netuid, limits.UIDS_TRIMMING, exists=False)
        trimming.trim(self._subtensor, netuid, max_n)
        if owner is not None:
            limits.UIDS_TRIMMING.record(self._subtensor, owner, netuid)

    @call(ref_time=20_000_000)
    def sudo_set_alpha_values(self, origin: Origin, netuid: int, alpha_low: int, alpha_high: int) -> None:
        p, limit = self._subtensor, limits.hyperparameter("AlphaValues")
        owner = self._owner_or_root(origin, netuid)
        self._gate(owner, netuid, limit, exists=False)
        if not p.LiquidAlphaOn[netuid]:
            raise p.error("LiquidAlphaDisabled")
        if alpha_high < LEAST_ALPHA:
            raise p.error("AlphaHighTooLow")
        if not LEAST_ALPHA <= alpha_low <= alpha_high:
            raise p.error("AlphaLowOutOfRange")
        p.AlphaValues[netuid] = (alpha_low, alpha_high)
        if owner is not None:
            limit.record(p, owner, netuid)

    @call(ref_time=20_000_000)
    def sudo_set_nominator_min_required_stake(self, origin: Origin, min_stake: int) -> None:
        """Nominations that fall below a raised minimum are paid out at once."""
        p = self._subtensor
        ensure_root(origin)
        before = p.NominatorMinRequiredStake.get()
        p.NominatorMinRequiredStake.put(min_stake)
        if min_stake > before:
            for hotkey, coldkey, netuid in sorted({*p.Alpha.keys(), *p.AlphaV2.keys()}):
                positions.clear_small_nomination(p, hotkey, coldkey, netuid)

    @call(ref_time=20_000_000)
    def sudo_set_sn_owner_hotkey(self, origin: Origin, netuid: int, hotkey: bytes) -> None:
        from localnet.runtime.subtensor import networks  # at call time: it imports modules that import this pallet

        p = self._subtensor
        self._owner_or_root(origin, netuid)
        if not p.NetworksAdded[netuid]:
            raise p.error("SubnetNotExists")
        limits.OWNER_HOTKEY.ensure(p, b"", netuid)
        limits.OWNER_HOTKEY.record(p, b"", netuid)
        networks.set_owner_hotkey(p, netuid, hotkey)

    @call(ref_time=15_000_000)
    def sudo_set_mechanism_count(self, origin: Origin, netuid: int, mechanism_count: int) -> None:
        p = self._subtensor
        owner = self._owner_or_root(origin, netuid)
        self._gate(owner, netuid, limits.MECHANISM_COUNT, exists=False)
        if not p.NetworksAdded[netuid]:
            raise p.error("MechanismDoesNotExist")
        if not 0 < mechanism_count <= p.MaxMechanismCount.get():
            raise p.error("InvalidValue")
        if p.MaxAllowedUids[netuid] * mechanism_count > self.rt.document.constants[p.name, "InitialMaxAllowedUids"]:
            raise p.error("TooManyUIDsPerMechanism")
        self._set_mechanism_count(netuid, mechanism_count)
        if owner is not None:
            limits.MECHANISM_COUNT.record(p, owner, netuid)

    def _set_mechanism_count(self, netuid: int, count: int) -> None:
        """Removed mechanisms lose their weights, bonds, commits; the emission split goes back to even."""
        p = self._subtensor
        before = p.MechanismCountCurrent[netuid]
        if before == count:
            return
        for mechanism in range(count, before):
            index = storage_index(netuid, mechanism)
            for per_uid in (p.Weights, p.Bonds, p.WeightCommits, p.TimelockedWeightCommits):
                per_uid.clear(index)
            for vector in (p.Incentive, p.LastUpdate, p.ConsensusByMechanism):
                del vector[index]
        p.MechanismCountCurrent[netuid] = count
        del p.MechanismEmissionSplit[netuid]

    @call(ref_time=15_000_000)
    def sudo_set_mechanism_emission_split(self, origin: Origin, netuid: int, maybe_split: list[int] | None) -> None:
        p = self._subtensor
        owner = self._owner_or_root(origin, netuid)
        self._gate(owner, netuid, limits.MECHANISM_EMISSION, exists=False)
        if not p.NetworksAdded[netuid]:
            raise p.error("MechanismDoesNotExist")
        if maybe_split is None:
            del p.MechanismEmissionSplit[netuid]
        else:
            if not 0 < len(maybe_split) <= p.MechanismCountCurrent[netuid] or sum(maybe_split) != 65535:
                raise p.error("InvalidValue")
            p.MechanismEmissionSplit[netuid] = maybe_split
        if owner is not None:
            limits.MECHANISM_EMISSION.record(p, owner, netuid)

    @call(ref_time=20_000_000)
    def sudo_set_basket_trading_frozen(self, origin: Origin, hotkey: bytes, frozen: bool) -> None:
        """Stops one validator's trades; its stakers may still claim and buy."""
        ensure_root(origin)
        if frozen:
            self._subtensor.BasketTradingFrozen[hotkey] = ()
        else:
            del self._subtensor.BasketTradingFrozen[hotkey]
        self.emit("BasketTradingFrozenSet", hotkey=hotkey, frozen=frozen)

    @call()
    def sudo_set_network_pow_registration_allowed(
        self, origin: Origin, netuid: int, registration_allowed: bool
    ) -> None:
        raise self.error("POWRegistrationDisabled")

    @call()
    def sudo_set_total_issuance(self, origin: Origin, total_issuance: int) -> None:
        raise self.error("Deprecated")
