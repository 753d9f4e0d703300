"""StakeInfoRuntimeApi and DelegateInfoRuntimeApi: positions, what of them can be withdrawn, and who delegates to whom.

A position is a holder's floored part of a hotkey's share pool. Conviction locks and miners' collateral reduce what of
them can be withdrawn; locks are answered as of now, storage has them as of when they were last touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.rules.fixed import ONE64, U16_MAX, div64, mul64, sub_floor0, to_u64
from localnet.rules.swap import fee_amount
from localnet.runtime.apis import common
from localnet.runtime.apis.registry import api
from localnet.runtime.subtensor import conviction, lock_store, locks, staking

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

BLOCKS_PER_DAY = 7_200
THOUSAND_TAO = 1_000 * 10**9


# -- positions ------------------------------------------------------------------------------------------------------


def _position(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> dict[str, Any]:
    return {
        "hotkey": hotkey,
        "coldkey": coldkey,
        "netuid": netuid,
        "stake": staking.stake_of(p, hotkey, coldkey, netuid),
        "locked": 0,  # these three are the chain's own answer: kept for old clients
        "emission": p.AlphaDividendsPerSubnet[netuid, hotkey],  # of the whole hotkey, not of this holder
        "tao_emission": 0,
        "drain": 0,
        "is_registered": (netuid, hotkey) in p.Uids,
    }


@api("StakeInfoRuntimeApi_get_stake_info_for_coldkey")
def get_stake_info_for_coldkey(rt: SpecRuntime, coldkey: bytes) -> list[dict[str, Any]]:
    """Positions that are not empty, subnet by subnet."""
    p = rt.subtensor
    hotkeys = p.StakingHotkeys[coldkey]
    rows = (_position(p, hotkey, coldkey, netuid) for netuid in common.netuids(p) for hotkey in hotkeys)
    return [row for row in rows if row["stake"]]


@api("StakeInfoRuntimeApi_get_stake_info_for_coldkeys")
def get_stake_info_for_coldkeys(rt: SpecRuntime, coldkeys: list[bytes]) -> list[tuple[bytes, list[dict[str, Any]]]]:
    return [(coldkey, get_stake_info_for_coldkey(rt, coldkey)) for coldkey in coldkeys]


@api("StakeInfoRuntimeApi_get_stake_info_for_hotkey_coldkey_netuid")
def get_stake_info_for_position(rt: SpecRuntime, hotkey: bytes, coldkey: bytes, netuid: int) -> dict[str, Any]:
    return _position(rt.subtensor, hotkey, coldkey, netuid)


@api("StakeInfoRuntimeApi_get_stake_fee")
def get_stake_fee(rt: SpecRuntime, origin: Any, _from: bytes, destination: Any, _to: bytes, amount: int) -> int:
    """Swap fee of moving `amount` from one (hotkey, netuid) to another; either end may be None for free TAO."""
    if origin == destination:
        return 0
    netuid = (destination or origin)[1]
    p = rt.subtensor
    return 0 if staking.is_stable(p, netuid) else fee_amount(amount, staking.fee_rate(p, netuid))


# -- locks ----------------------------------------------------------------------------------------------------------


@api("StakeInfoRuntimeApi_get_stake_availability_for_coldkeys")
def get_stake_availability_for_coldkeys(
    rt: SpecRuntime, coldkeys: list[bytes], wanted: list[int] | None
) -> list[tuple[bytes, list[tuple[int, dict[str, int]]]]]:
    """Per coldkey and subnet: total, locked, available. Empty rows are left out; so is everything when the list of
    subnets is empty or longer than there are subnets.
    """
    p = rt.subtensor
    known = common.netuids(p)
    chosen = known if wanted is None else sorted(set(wanted))
    if wanted is not None:
        chosen = [netuid for netuid in chosen if common.exists(p, netuid)] if 0 < len(chosen) <= len(known) else []
    answer = []
    for coldkey in sorted(set(coldkeys)):
        rows = ((netuid, _availability(p, coldkey, netuid)) for netuid in sorted(chosen))
        answer.append((coldkey, [(netuid, row) for netuid, row in rows if row["total"] or row["locked"]]))
    return answer


def _availability(p: Subtensor, coldkey: bytes, netuid: int) -> dict[str, int]:
    """`locked` is conviction's alone; `available` is without collateral too."""
    have = locks.availability(p, coldkey, netuid)
    return {"total": have.total, "locked": have.locked, "available": have.available}


@api("StakeInfoRuntimeApi_get_coldkey_lock")
def get_coldkey_lock(rt: SpecRuntime, coldkey: bytes, netuid: int) -> dict[str, Any] | None:
    lock = locks.current(rt.subtensor, coldkey, netuid)
    return None if lock is None else lock_store.encode(lock)


@api("StakeInfoRuntimeApi_get_hotkey_conviction")
def get_hotkey_conviction(rt: SpecRuntime, hotkey: bytes, netuid: int) -> dict[str, int]:
    """U64F64, all lockers together."""
    return {"bits": conviction.of_hotkey(rt.subtensor, netuid, hotkey)}


@api("StakeInfoRuntimeApi_get_most_convicted_hotkey_on_subnet")
def get_most_convicted_hotkey_on_subnet(rt: SpecRuntime, netuid: int) -> bytes | None:
    """None where nobody has locked anything."""
    return conviction.most_convicted(rt.subtensor, netuid)


# -- delegates ------------------------------------------------------------------------------------------------------


def _positions(p: Subtensor, hotkey: bytes, *coldkey: bytes) -> list[Any]:
    """The remaining key of each position on a hotkey; shares in the legacy format count too."""
    return list(dict.fromkeys([*p.AlphaV2.keys(hotkey, *coldkey), *p.Alpha.keys(hotkey, *coldkey)]))


def _nominators(p: Subtensor, hotkey: bytes) -> list[tuple[bytes, list[tuple[int, int]]]]:
    stakes: dict[bytes, list[tuple[int, int]]] = {}
    for coldkey, netuid in _positions(p, hotkey):
        if common.exists(p, netuid) and not staking.share_of(p, hotkey, coldkey, netuid).is_zero:
            stakes.setdefault(coldkey, []).append((netuid, staking.stake_of(p, hotkey, coldkey, netuid)))
    return sorted(stakes.items())


def _delegate(p: Subtensor, hotkey: bytes, with_nominators: bool = True) -> dict[str, Any]:
    registrations = [netuid for netuid, member in p.IsNetworkMember.items(hotkey) if member]
    permits, daily = [], 0  # daily: U64F64 rao
    for netuid in registrations:
        uid, tempo = p.Uids[netuid, hotkey], p.Tempo[netuid]
        if uid is None:
            continue
        if common.at(p.ValidatorPermit[netuid], uid, False):
            permits.append(netuid)
        if tempo:
            daily += common.at(p.Emission[netuid], uid) * div64(BLOCKS_PER_DAY << 64, tempo << 64)
    take = p.Delegates[hotkey]
    return {
        "delegate_ss58": hotkey,
        "take": take,
        "nominators": _nominators(p, hotkey) if with_nominators else [],
        "owner_ss58": p.Owner[hotkey],
        "registrations": registrations,
        "validator_permits": permits,
        "return_per_1000": _return_per_1000(daily, take, p.TotalHotkeyAlpha[hotkey, common.ROOT]),
        "total_daily_return": to_u64(daily, 64),
    }


def _return_per_1000(daily: int, take: int, root_stake: int) -> int:
    """Rao a day on 1000 root TAO after the delegate's take; 0 without root stake."""
    kept = sub_floor0(ONE64, div64(take << 64, U16_MAX << 64))
    return to_u64(div64(mul64(daily, kept), div64(root_stake << 64, THOUSAND_TAO << 64)), 64)


@api("DelegateInfoRuntimeApi_get_delegate")
def get_delegate(rt: SpecRuntime, hotkey: bytes) -> dict[str, Any] | None:
    return _delegate(rt.subtensor, hotkey) if hotkey in rt.subtensor.Delegates else None


@api("DelegateInfoRuntimeApi_get_delegates")
def get_delegates(rt: SpecRuntime) -> list[dict[str, Any]]:
    return [_delegate(rt.subtensor, hotkey) for hotkey in rt.subtensor.Delegates.keys()]


@api("DelegateInfoRuntimeApi_get_delegated")
def get_delegated(rt: SpecRuntime, coldkey: bytes) -> list[tuple[dict[str, Any], tuple[int, int]]]:
    """Delegates this coldkey stakes with, one row per subnet: (delegate, (netuid, alpha))."""
    p = rt.subtensor
    return [
        (_delegate(p, hotkey, with_nominators=False), (netuid, staking.stake_of(p, hotkey, coldkey, netuid)))
        for hotkey in p.Delegates.keys()
        for netuid in _positions(p, hotkey, coldkey)
    ]
