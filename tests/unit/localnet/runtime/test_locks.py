"""Conviction locks, what they hold back, who owns a subnet by them; voting power.

Where a docstring names a Rust test, the case and its figures are those of `tests/locks.rs` of the public chain.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import pytest

from localnet.rules import locks as rules
from localnet.rules.locks import LockState, Mode, Rates
from localnet.runtime.subtensor import conviction, distribution, lock_store, locks, registration, staking, voting_power
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh

ONE = 1 << 64
GENERAL, PERPETUAL, OWNER = Mode(False, False), Mode(False, True), Mode(True, True)
RATES = Rates(200_000, 240_000)
OTHER_HOT = bytes(31) + b"\3"  # of Charlie


@pytest.fixture
def m() -> Market:
    """Charlie has stake on Bob's hotkey, and a hotkey of his own."""
    market = fresh()
    market.call(CHARLIE, "add_stake", hotkey=BOB_HOT, netuid=market.net, amount_staked=10 * TAO)
    market.call(CHARLIE, "try_associate_hotkey", hotkey=OTHER_HOT)
    return market


def lock(m: Market, amount: int, who: bytes = CHARLIE, hotkey: bytes = BOB_HOT) -> None:
    m.call(who, "lock_stake", hotkey=hotkey, netuid=m.net, amount=amount)


def held(m: Market, who: bytes = CHARLIE, hotkey: bytes = BOB_HOT) -> int:
    return staking.stake_of(m.p, hotkey, who, m.net)


def put(m: Market, who: bytes, hotkey: bytes, mass: int, built: int, *, perpetual: bool = True) -> None:
    """A lock and its sum, written into storage as of now."""
    if perpetual:
        m.p.DecayingLock[who, m.net] = False
    entry = lock_store.entry_of(m.p, who, m.net, hotkey)
    entry.lock = LockState(mass, built * ONE, m.rt.number)
    entry.add_to_sum(entry.lock)
    entry.save()


# -- rules ------------------------------------------------------------------------------------------------------------


def test_decay() -> None:
    """exp_decay_zero_dt, _zero_tau, _one_tau, _clamps_large_dt_to_min_ratio."""
    assert rules.exp_decay(0, 216_000) == ONE
    assert rules.exp_decay(1_000, 0) == 0
    assert abs(rules.exp_decay(216_000, 216_000) / ONE - math.exp(-1)) < 1e-15
    assert rules.exp_decay(100 * 216_000, 216_000) == rules.exp_decay(40 * 216_000, 216_000) == 78


def test_dust_is_below_a_hundred_of_both() -> None:
    """lock_state_is_zero_uses_dust_threshold, roll_forward_normalizes_dust_to_zero."""
    assert LockState(99, 99 * ONE, 0).is_dust
    assert not LockState(100, 0, 0).is_dust and not LockState(0, 100 * ONE, 0).is_dust
    assert rules.roll(LockState(99, 99 * ONE, 100), 100, RATES, GENERAL) == LockState(0, 0, 100)
    kept = LockState(10_000, 1_234 * ONE, 100)
    assert rules.roll(kept, 100, RATES, GENERAL) == kept


@pytest.mark.parametrize(
    "unlock, maturity, mass, blocks, mass_error, conviction_error",
    [
        (200_000, 240_000, 10_000, 10_000, 1, 1e-7),  # conviction_uses_unequal_rate_closed_form
        (1_142_108, 1_142_109, 21 * 10**15, 1_142_108, 2_000, 50_000),  # adjacent_large_rates_and_large_mass
        (200_000, 240_000, 10_000, 218_786, 1, 1e-7),  # decaying_conviction_peak_is_below_original_lock
    ],
)
def test_a_decaying_lock_follows_the_closed_form(
    unlock: int, maturity: int, mass: int, blocks: int, mass_error: float, conviction_error: float
) -> None:
    rolled = rules.roll(LockState(mass, 0, 0), blocks, Rates(unlock, maturity), GENERAL)
    with localcontext() as context:
        context.prec = 60  # near rates cancel nearly all digits of a float
        left, old = (Decimal(-blocks) / Decimal(unlock)).exp(), (Decimal(-blocks) / Decimal(maturity)).exp()
        exact = mass * unlock * (left - old) / (unlock - maturity)
        assert abs(rolled.locked_mass - mass * left) <= mass_error
        assert abs(Decimal(rolled.conviction) / ONE - exact) <= conviction_error
    assert rolled.conviction < mass * ONE


def test_two_steps_are_as_good_as_one() -> None:
    """roll_forward_chunked_update_matches_single_update."""
    start = LockState(1_000_000_000, 0, 0)
    once = rules.roll(start, 20_000, RATES, GENERAL)
    twice = rules.roll(rules.roll(start, 10_000, RATES, GENERAL), 20_000, RATES, GENERAL)
    assert abs(once.locked_mass - twice.locked_mass) <= 1
    assert abs(once.conviction - twice.conviction) <= ONE // 10


def test_a_perpetual_lock_keeps_its_mass_and_matures() -> None:
    """perpetual_mass_does_not_decay_and_conviction_matures, perpetual_conviction_never_exceeds_lock."""
    for blocks in (1, 1_000, 240_000, 2_400_000, 240_000_000):
        rolled = rules.roll(LockState(10_000, 0, 0), blocks, RATES, PERPETUAL)
        assert rolled.locked_mass == 10_000 and 0 < rolled.conviction <= 10_000 * ONE
    assert rules.roll(LockState(10_000, 0, 0), 9, RATES, OWNER) == LockState(10_000, 10_000 * ONE, 9)


@pytest.mark.parametrize("mode", [GENERAL, PERPETUAL])
def test_a_member_leaves_its_sum_whole(mode: Mode) -> None:
    """The sum is newer than the member; what is left of it without the member is what the others alone would be."""
    mine, others = LockState(10_000_000, 0, 0), LockState(30_000_000, 5_000_000 * ONE, 0)
    together = rules.roll(others.plus(mine.locked_mass, 0), 5_000, RATES, mode)
    own, bucket = rules.roll_bucket(mine, together, 9_000, RATES, mode)
    assert own == rules.roll(rules.roll(mine, 5_000, RATES, mode), 9_000, RATES, mode)
    rest, alone = bucket.minus(own.locked_mass, own.conviction), rules.roll(others, 9_000, RATES, mode)
    assert abs(rest.locked_mass - alone.locked_mass) <= 2
    assert abs(rest.conviction - alone.conviction) <= ONE


@pytest.mark.parametrize("mode", [GENERAL, PERPETUAL])
def test_a_member_newer_than_its_sum_leaves_it_whole(mode: Mode) -> None:
    """The others are brought to the member's block before it is taken out of the sum."""
    mine, others = LockState(10_000_000, 0, 0), LockState(30_000_000, 5_000_000 * ONE, 0)
    together, mine = others.plus(mine.locked_mass, 0), rules.roll(mine, 5_000, RATES, mode)
    own, bucket = rules.roll_bucket(mine, together, 9_000, RATES, mode)
    assert own == rules.roll(mine, 9_000, RATES, mode) and bucket.last_update == 9_000
    rest, alone = bucket.minus(own.locked_mass, own.conviction), rules.roll(others, 9_000, RATES, mode)
    assert abs(rest.locked_mass - alone.locked_mass) <= 2
    assert abs(rest.conviction - alone.conviction) <= ONE


def test_the_gate_is_more_than_18_percent() -> None:
    assert not rules.clears_gate(1_800 * ONE, 10_000)
    assert rules.clears_gate(1_800 * ONE + 1, 10_000)


# -- lock_stake -------------------------------------------------------------------------------------------------------


def test_a_lock_counts_in_the_sum_of_its_hotkey(m: Market) -> None:
    """lock_stake_creates_new_lock, _defaults_to_decaying_lock, _emits_event, _topup, locking_coldkeys_added_once."""
    lock(m, 10_000)
    assert m.last("StakeLocked") == {"coldkey": CHARLIE, "hotkey": BOB_HOT, "netuid": m.net, "amount": 10_000}
    state = {"locked_mass": 10_000, "conviction": {"bits": 0}, "last_update": m.rt.number}
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT] == m.p.DecayingHotkeyLock[m.net, BOB_HOT] == state
    assert m.p.HotkeyLock[m.net, BOB_HOT] is None
    assert list(m.p.LockingColdkeys.keys(m.net, BOB_HOT)) == [CHARLIE]
    m.at(m.rt.number + 1_000)
    lock(m, 5_000)
    rolled = rules.roll(LockState(10_000, 0, 0), 1_000, lock_store.rates(m.p), GENERAL)
    state = {
        "locked_mass": rolled.locked_mass + 5_000, "conviction": {"bits": rolled.conviction},
        "last_update": m.rt.number,
    }  # fmt: skip
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT] == m.p.DecayingHotkeyLock[m.net, BOB_HOT] == state
    assert list(m.p.LockingColdkeys.keys(m.net, BOB_HOT)) == [CHARLIE]


def test_a_lock_on_the_owners_hotkey_has_its_conviction_at_once(m: Market) -> None:
    """lock_to_subnet_owner_hotkey_gets_immediate_conviction_for_non_owner_coldkey, decaying_lock_to_subnet_owner_…"""
    lock(m, 10_000, hotkey=HOT)
    assert m.p.Lock[CHARLIE, m.net, HOT]["conviction"] == {"bits": 10_000 * ONE}  # type: ignore[index]
    assert m.p.DecayingOwnerLock[m.net] == m.p.Lock[CHARLIE, m.net, HOT]
    assert m.p.DecayingHotkeyLock[m.net, HOT] is None
    m.at(m.rt.number + 100_000)
    now = locks.current(m.p, CHARLIE, m.net)
    assert now is not None and now.locked_mass < 10_000 and now.conviction == now.locked_mass * ONE


def test_what_a_lock_refuses_in_the_chains_order(m: Market) -> None:
    """lock_stake_zero_amount, _exceeds_total_alpha, _wrong_hotkey, _topup_exceeds_total."""
    refuse = lambda **change: m.refusal(  # noqa: E731
        CHARLIE, "lock_stake", **{"hotkey": BOB_HOT, "netuid": m.net, "amount": 5_000, **change}
    )
    assert refuse(netuid=99, amount=0) == "SubnetNotExists"
    assert refuse(amount=0, hotkey=bytes(32)) == "AmountTooLow"
    assert refuse(hotkey=bytes(31) + b"\7", amount=10**18) == "HotKeyAccountNotExists"
    assert refuse(amount=held(m) + 1) == "InsufficientStakeForLock"
    lock(m, held(m) - 100)
    assert refuse(amount=101) == "InsufficientStakeForLock"
    assert refuse(hotkey=HOT, amount=10**18) == "LockHotkeyMismatch"


# -- what locked alpha cannot do --------------------------------------------------------------------------------------


def test_locked_alpha_stays_where_it_is(m: Market) -> None:
    """unstake_blocked_by_lock, unstake_allowed_up_to_available, move_stake_cross_subnet_blocked_by_lock,
    move_stake_same_coldkey_same_subnet_allowed, recycle_alpha_checks_lock, burn_alpha_checks_lock."""
    other = m.subnet(ALICE, bytes(31) + b"\4")
    everything = held(m)
    lock(m, everything // 2)
    free = everything - everything // 2
    base = {"hotkey": BOB_HOT, "netuid": m.net}
    assert m.refusal(CHARLIE, "remove_stake", amount_unstaked=free + 1, **base) == "StakeUnavailable"
    assert m.refusal(CHARLIE, "recycle_alpha", amount=free + 1, **base) == "StakeUnavailable"
    assert m.refusal(CHARLIE, "burn_alpha", amount=free + 1, **base) == "StakeUnavailable"
    move = {
        "origin_hotkey": BOB_HOT, "destination_hotkey": BOB_HOT, "origin_netuid": m.net, "destination_netuid": other,
        "alpha_amount": free + 1,
    }  # fmt: skip
    assert m.refusal(CHARLIE, "move_stake", **move) == "StakeUnavailable"
    m.call(CHARLIE, "move_stake", **{**move, "destination_netuid": m.net, "destination_hotkey": OTHER_HOT})
    m.call(CHARLIE, "move_stake", **{
        **move, "destination_netuid": m.net, "origin_hotkey": OTHER_HOT, "destination_hotkey": BOB_HOT,
        "alpha_amount": held(m, hotkey=OTHER_HOT),
    })  # fmt: skip
    m.call(CHARLIE, "remove_stake", amount_unstaked=free - 10, **base)


def test_unstake_all_leaves_a_position_with_a_lock(m: Market) -> None:
    lock(m, 1_000)
    before = held(m)
    m.call(CHARLIE, "unstake_all", hotkey=BOB_HOT)
    assert held(m) == before


def test_a_lock_that_decayed_to_dust_is_forgotten_when_stake_moves(m: Market) -> None:
    """unstake_roll_forward_collects_decaying_lock_dust_from_hotkey_aggregate."""
    m.p.UnlockRate.put(10)
    m.p.MaturityRate.put(10)
    lock(m, 1_000)
    m.at(m.rt.number + 100)
    m.call(CHARLIE, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=held(m))
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT] is None and m.p.DecayingHotkeyLock[m.net, BOB_HOT] is None
    assert list(m.p.LockingColdkeys.keys(m.net)) == []


def transfer(m: Market, to: bytes, amount: int) -> dict[str, Any]:
    return {
        "destination_coldkey": to, "hotkey": BOB_HOT, "origin_netuid": m.net, "destination_netuid": m.net,
        "alpha_amount": amount,
    }  # fmt: skip


def test_a_transfer_takes_the_lock_along_to_those_who_accept_it(m: Market) -> None:
    """do_transfer_stake_same_subnet_transfers_lock_to_destination_coldkey, _rejects_locked_alpha_to_flagged_…,
    _allows_unlocked_alpha_to_flagged_…, account_flags_default_to_zero_…"""
    everything = held(m)
    put(m, CHARLIE, BOB_HOT, everything // 2, everything // 4)
    free = everything - everything // 2
    m.call(CHARLIE, "transfer_stake", **transfer(m, ALICE, 1_000_000))  # what is free needs nobody's consent
    assert m.p.Lock[ALICE, m.net, BOB_HOT] is None
    amount = free - 1_000_000 + everything // 4
    assert m.refusal(CHARLIE, "transfer_stake", **transfer(m, ALICE, amount)) == "AccountRejectsLockedAlpha"
    m.call(ALICE, "set_reject_locked_alpha", enabled=False)
    assert m.p.AccountFlags[ALICE] == 1
    assert m.last("RejectLockedAlphaUpdated") == {"coldkey": ALICE, "enabled": False}
    m.call(CHARLIE, "transfer_stake", **transfer(m, ALICE, amount))
    mine, hers = (locks.current(m.p, who, m.net) for who in (CHARLIE, ALICE))
    assert mine is not None and hers is not None
    assert hers.locked_mass == pytest.approx(everything // 4, abs=2)
    assert mine.locked_mass + hers.locked_mass == everything // 2
    assert hers.conviction / ONE == pytest.approx(everything // 8, abs=2)  # in proportion to the mass
    m.call(ALICE, "set_reject_locked_alpha", enabled=True)
    assert ALICE not in m.p.AccountFlags


@pytest.mark.parametrize("owner, survives", [(BOB, True), (CHARLIE, False)])
def test_conviction_goes_along_to_a_hotkey_of_the_same_owner_only(m: Market, owner: bytes, survives: bool) -> None:
    """do_transfer_stake_and_hotkey_same_subnet_moves_lock_to_destination_hotkey, _same_owner_preserves_conviction."""
    target, everything = bytes(31) + b"\5", held(m)
    m.call(owner, "try_associate_hotkey", hotkey=target)
    m.call(ALICE, "set_reject_locked_alpha", enabled=False)
    m.p.DecayingLock[ALICE, m.net] = False
    mass, built = everything // 2, everything // 4
    put(m, CHARLIE, BOB_HOT, mass, built)
    onto = {"destination_coldkey": ALICE, "origin_hotkey": BOB_HOT, "destination_hotkey": target}
    within = {"origin_netuid": m.net, "destination_netuid": m.net, "alpha_amount": everything}
    m.call(CHARLIE, "transfer_stake_and_hotkey", **onto, **within)
    state = {
        "locked_mass": mass, "conviction": {"bits": built * ONE if survives else 0}, "last_update": m.rt.number,
    }  # fmt: skip
    assert m.p.Lock[ALICE, m.net, target] == m.p.HotkeyLock[m.net, target] == state
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT] is None and m.p.HotkeyLock[m.net, BOB_HOT] is None
    assert m.p.Lock[ALICE, m.net, BOB_HOT] is None


def test_locked_alpha_does_not_go_to_a_lock_on_another_hotkey(m: Market) -> None:
    everything = held(m)
    lock(m, everything)
    m.call(ALICE, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=10 * TAO)
    lock(m, 1_000, ALICE, HOT)
    m.call(ALICE, "set_reject_locked_alpha", enabled=False)
    assert m.refusal(CHARLIE, "transfer_stake", **transfer(m, ALICE, everything // 2)) == "LockHotkeyMismatch"


def test_a_small_nomination_that_is_cleared_takes_its_lock_with_it(m: Market) -> None:
    """clear_small_nomination_checks_lock. Locked alpha cannot be sold, so nothing is paid for it."""
    lock(m, held(m))
    free = m.rt.balances.free(CHARLIE)
    m.root("AdminUtils", "sudo_set_nominator_min_required_stake", min_stake=10**11)
    assert m.rt.balances.free(CHARLIE) == free
    assert held(m) == 0 and m.p.Lock[CHARLIE, m.net, BOB_HOT] is None
    assert m.p.DecayingHotkeyLock[m.net, BOB_HOT] is None


# -- modes and moves --------------------------------------------------------------------------------------------------


def test_perpetual_is_a_choice_of_the_coldkey_and_moves_its_lock_between_sums(m: Market) -> None:
    """set_perpetual_lock_is_per_coldkey_and_rolls_lock_at_boundary, mixed_perpetual_and_decaying_non_owner_locks_…"""
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=m.net, amount_staked=10 * TAO)
    lock(m, 20_000_000)
    lock(m, 7_000_000, BOB)
    m.at(m.rt.number + 1_000)
    m.call(CHARLIE, "set_perpetual_lock", netuid=m.net, enabled=True)
    assert m.last("PerpetualLockUpdated") == {"coldkey": CHARLIE, "netuid": m.net, "enabled": True}
    assert m.p.DecayingLock[CHARLIE, m.net] is False and (BOB, m.net) not in m.p.DecayingLock
    decayed = rules.roll(LockState(20_000_000, 0, 0), 1_000, lock_store.rates(m.p), GENERAL)
    assert m.p.HotkeyLock[m.net, BOB_HOT] == lock_store.encode(
        LockState(decayed.locked_mass, decayed.conviction, m.rt.number)
    )
    bobs = locks.current(m.p, BOB, m.net)
    rest = lock_store.decode(m.p.DecayingHotkeyLock[m.net, BOB_HOT])  # type: ignore[arg-type]
    assert bobs is not None and abs(rest.locked_mass - bobs.locked_mass) <= 2
    m.at(m.rt.number + 50_000)
    later = locks.current(m.p, CHARLIE, m.net)
    assert later is not None and later.locked_mass == decayed.locked_mass and later.conviction > decayed.conviction
    m.call(CHARLIE, "set_perpetual_lock", netuid=m.net, enabled=False)
    assert (CHARLIE, m.net) not in m.p.DecayingLock and m.p.HotkeyLock[m.net, BOB_HOT] is None
    assert m.refusal(CHARLIE, "set_perpetual_lock", netuid=99, enabled=True) == "SubnetNotExists"


def test_a_moved_lock_keeps_its_conviction_only_with_its_owner(m: Market) -> None:
    """moving_lock, moving_partial_lock, moving_lock_to_subnet_owner_hotkey_gets_owner_conviction_…"""
    put(m, CHARLIE, OTHER_HOT, 5_000, 1_234)
    mine = bytes(31) + b"\5"
    m.call(CHARLIE, "try_associate_hotkey", hotkey=mine)
    m.call(CHARLIE, "move_lock", destination_hotkey=mine, netuid=m.net)
    state = {"locked_mass": 5_000, "conviction": {"bits": 1_234 * ONE}, "last_update": m.rt.number}
    assert m.p.Lock[CHARLIE, m.net, mine] == m.p.HotkeyLock[m.net, mine] == state
    assert m.p.HotkeyLock[m.net, OTHER_HOT] is None and m.p.Lock[CHARLIE, m.net, OTHER_HOT] is None
    m.call(CHARLIE, "move_lock", destination_hotkey=BOB_HOT, netuid=m.net)
    assert m.last("LockMoved") == {
        "coldkey": CHARLIE, "origin_hotkey": mine, "destination_hotkey": BOB_HOT, "netuid": m.net,
    }  # fmt: skip
    assert m.p.HotkeyLock[m.net, BOB_HOT] == {**state, "conviction": {"bits": 0}}
    m.call(CHARLIE, "move_lock", destination_hotkey=HOT, netuid=m.net)
    assert m.p.OwnerLock[m.net] == {**state, "conviction": {"bits": 5_000 * ONE}}


def test_moving_refuses_in_the_chains_order(m: Market) -> None:
    nobody = bytes(31) + b"\7"
    assert m.refusal(CHARLIE, "move_lock", destination_hotkey=nobody, netuid=99) == "SubnetNotExists"
    assert m.refusal(CHARLIE, "move_lock", destination_hotkey=nobody, netuid=m.net) == "HotKeyAccountNotExists"
    assert m.refusal(CHARLIE, "move_lock", destination_hotkey=HOT, netuid=m.net) == "NoExistingLock"


def test_locks_follow_a_swapped_coldkey(m: Market) -> None:
    """coldkey_swap_swaps_lock, _rejects_destination_lock, _rejects_locked_alpha_to_flagged_destination."""
    new = bytes(31) + b"\6"
    put(m, CHARLIE, BOB_HOT, 5_000, 1_234)
    with pytest.raises(Exception, match="AccountRejectsLockedAlpha"):
        locks.move_to_coldkey(m.p, CHARLIE, new)
    m.p.AccountFlags[new] = locks.ACCEPTS_LOCKED_ALPHA
    before = m.p.HotkeyLock[m.net, BOB_HOT]
    locks.move_to_coldkey(m.p, CHARLIE, new)
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT] is None and m.p.HotkeyLock[m.net, BOB_HOT] == before
    assert m.p.Lock[new, m.net, BOB_HOT] == before and m.p.DecayingLock[new, m.net] is False
    assert list(m.p.LockingColdkeys.keys(m.net, BOB_HOT)) == [new]
    with pytest.raises(Exception, match="ActiveLockExists"):
        locks.move_to_coldkey(m.p, CHARLIE, new)


def test_locks_follow_a_swapped_hotkey(m: Market) -> None:
    """hotkey_swap_moves_lock_and_conviction_to_new_hotkey, swap_hotkey_v2_on_subnet_moves_lock_…"""
    put(m, CHARLIE, BOB_HOT, 5_000, 1_234)
    put(m, ALICE, BOB_HOT, 3_000, 200, perpetual=False)
    locks.move_to_hotkey(m.p, BOB_HOT, OTHER_HOT, [m.net])
    assert m.p.Lock[CHARLIE, m.net, OTHER_HOT] == m.p.HotkeyLock[m.net, OTHER_HOT]
    assert m.p.Lock[ALICE, m.net, OTHER_HOT] == m.p.DecayingHotkeyLock[m.net, OTHER_HOT]
    assert conviction.of_hotkey(m.p, m.net, OTHER_HOT) == 1_434 * ONE and not conviction.of_hotkey(m.p, m.net, BOB_HOT)
    assert sorted(m.p.LockingColdkeys.keys(m.net, OTHER_HOT)) == sorted([CHARLIE, ALICE])


# -- the owner's cut --------------------------------------------------------------------------------------------------


def test_the_owners_cut_is_locked_where_the_subnet_says_so(m: Market) -> None:
    """auto_lock_owner_cut_is_disabled_by_default_and_can_be_enabled, epoch_distribution_auto_locks_owner_cut."""
    pending = distribution.Pending(0, 0, 0, 7_000)
    distribution.run(m.p, m.net, pending)
    assert locks.current(m.p, ALICE, m.net) is None
    m.admin(ALICE, "sudo_set_owner_cut_auto_lock_enabled", netuid=m.net, enabled=True)
    before = held(m, ALICE, HOT)
    distribution.run(m.p, m.net, pending)
    assert held(m, ALICE, HOT) == before + 7_000
    cut = locks.current(m.p, ALICE, m.net)
    assert cut == LockState(7_000, 7_000 * ONE, m.rt.number)
    assert m.last("StakeLocked") == {"coldkey": ALICE, "hotkey": HOT, "netuid": m.net, "amount": 7_000}


# -- takeover ---------------------------------------------------------------------------------------------------------


def old_subnet(m: Market, alpha_out: int = 10_000) -> None:
    m.at(rules.ONE_YEAR + 1)
    m.p.NetworkRegisteredAt[m.net] = 1
    m.p.SubnetAlphaOut[m.net] = alpha_out


def test_conviction_takes_a_subnet_over_and_its_sums_change_sides(m: Market) -> None:
    """change_subnet_owner_if_needed_reassigns_to_subnet_king, _rebuilds_old_owner_hotkey_by_lock_mode; with the later
    gate of 18 % of what is not the chain's own or burned."""
    old_subnet(m, 12_000)
    m.p.SubnetProtocolAlpha[m.net] = 1_500
    m.rt.alpha_assets.AlphaBurned[m.net] = 500
    put(m, CHARLIE, HOT, 400, 400)
    put(m, ALICE, HOT, 300, 300, perpetual=False)
    put(m, BOB, BOB_HOT, 3_000, 1_800)
    conviction.change_owner(m.p, m.net)
    assert m.p.SubnetOwner[m.net] == ALICE  # exactly 18 % is not enough
    m.p.SubnetAlphaOut[m.net] -= 1
    conviction.change_owner(m.p, m.net)
    assert (m.p.SubnetOwner[m.net], m.p.SubnetOwnerHotkey[m.net]) == (BOB, BOB_HOT)
    assert m.last("SubnetOwnerChanged") == {"netuid": m.net, "old_coldkey": ALICE, "new_coldkey": BOB}
    assert m.p.HotkeyLock[m.net, HOT]["locked_mass"] == 400  # type: ignore[index]
    assert m.p.DecayingHotkeyLock[m.net, HOT]["locked_mass"] == 300  # type: ignore[index]
    assert m.p.OwnerLock[m.net] == {
        "locked_mass": 3_000, "conviction": {"bits": 3_000 * ONE}, "last_update": m.rt.number,
    }  # fmt: skip
    assert m.p.HotkeyLock[m.net, BOB_HOT] is None and m.p.DecayingOwnerLock[m.net] is None


def test_an_epoch_hands_the_subnet_over(m: Market) -> None:
    """run_coinbase_reassigns_subnet_owner_by_conviction_on_epoch."""
    old_subnet(m)
    put(m, BOB, BOB_HOT, 3_000 * TAO, 2_500 * TAO)
    epoch = m.rt.number + m.p.Tempo[m.net]
    m.p.LastEpochBlock[m.net] = m.rt.number
    while m.rt.number < epoch:
        assert m.p.SubnetOwner[m.net] == ALICE
        number = m.rt.number
        m.rt.call("BlockBuilder_finalize_block", b"", m.rt.state)
        m.rt.open_block(number + 1, number.to_bytes(32, "big"))
    assert m.p.LastEpochBlock[m.net] == epoch and m.p.SubnetOwner[m.net] == BOB


def test_the_owner_stays_while_a_condition_is_missing(m: Market) -> None:
    """change_subnet_owner_if_needed_does_not_reassign_when_required_condition_is_missing."""
    old_subnet(m)
    m.p.NetworkRegisteredAt[m.net] = 2
    put(m, BOB, BOB_HOT, 3_000, 2_500)
    conviction.change_owner(m.p, m.net)
    assert m.p.SubnetOwner[m.net] == ALICE  # a block younger than a year
    m.at(m.rt.number + 1)
    put(m, CHARLIE, HOT, 4_000, 4_000)
    conviction.change_owner(m.p, m.net)
    assert m.p.SubnetOwner[m.net] == ALICE  # its own hotkey has more
    assert conviction.most_convicted(m.p, m.net) == HOT


def test_a_new_owner_without_a_uid_gets_one_for_nothing(m: Market) -> None:
    old_subnet(m)
    put(m, CHARLIE, OTHER_HOT, 3_000, 2_000)
    free = m.rt.balances.free(CHARLIE)
    conviction.change_owner(m.p, m.net)
    assert m.p.SubnetOwner[m.net] == CHARLIE and m.p.Uids[m.net, OTHER_HOT] == 2
    assert m.rt.balances.free(CHARLIE) == free


def test_a_pruned_neuron_keeps_its_lock(m: Market) -> None:
    """neuron_replacement_does_not_affect_lock."""
    lock(m, 5_000)
    before = (m.p.Lock[CHARLIE, m.net, BOB_HOT], m.p.DecayingHotkeyLock[m.net, BOB_HOT], held(m))
    m.p.MaxAllowedUids[m.net] = 2
    m.p.ImmunityPeriod[m.net] = 0
    m.p.MinNonImmuneUids[m.net] = 0
    registration.seat(m.p, m.net, OTHER_HOT)
    assert m.p.Uids[m.net, BOB_HOT] is None and m.p.Uids[m.net, OTHER_HOT] == 1
    assert (m.p.Lock[CHARLIE, m.net, BOB_HOT], m.p.DecayingHotkeyLock[m.net, BOB_HOT], held(m)) == before


# -- runtime APIs -----------------------------------------------------------------------------------------------------


def ask(m: Market, name: str, *arguments: Any) -> Any:
    """An answer of StakeInfoRuntimeApi through its bytes."""
    name = f"StakeInfoRuntimeApi_{name}"
    method, registry = m.rt.document.apis[name], m.rt.document.registry
    data = b"".join(registry.encode(kind, value) for kind, value in zip(method.inputs, arguments, strict=True))
    return registry.decode(method.output, m.rt.call(name, data, m.rt.state))


def test_clients_are_told_of_locks_as_of_now(m: Market) -> None:
    """get_coldkey_lock_rolls_forward, stake_availability_for_coldkeys_uses_rolled_forward_lock,
    hotkey_conviction_multiple_lockers, subnet_king_highest_conviction_wins."""
    assert ask(m, "get_coldkey_lock", CHARLIE, m.net) is None
    assert ask(m, "get_hotkey_conviction", BOB_HOT, m.net) == {"bits": 0}
    assert ask(m, "get_most_convicted_hotkey_on_subnet", m.net) is None
    lock(m, 20_000_000)
    put(m, ALICE, BOB_HOT, 30_000, 500)
    put(m, BOB, OTHER_HOT, 30_000, 20_000)
    m.at(m.rt.number + 1_000)
    now = rules.roll(LockState(20_000_000, 0, 0), 1_000, lock_store.rates(m.p), GENERAL)
    told = {
        "locked_mass": now.locked_mass, "conviction": {"bits": now.conviction}, "last_update": m.rt.number,
    }  # fmt: skip
    assert ask(m, "get_coldkey_lock", CHARLIE, m.net) == told
    assert m.p.Lock[CHARLIE, m.net, BOB_HOT]["locked_mass"] == 20_000_000  # type: ignore[index]
    both = ask(m, "get_hotkey_conviction", BOB_HOT, m.net)["bits"]
    assert now.conviction + 500 * ONE < both < now.conviction + 700 * ONE
    assert ask(m, "get_most_convicted_hotkey_on_subnet", m.net) == BOB_HOT
    row = {"total": held(m), "locked": now.locked_mass, "available": held(m) - now.locked_mass}
    assert ask(m, "get_stake_availability_for_coldkeys", [CHARLIE], [m.net]) == [(CHARLIE, [(m.net, row)])]


# -- voting power -----------------------------------------------------------------------------------------------------


def test_voting_power_is_tracked_until_two_weeks_after_it_is_switched_off(m: Market) -> None:
    who = {"netuid": m.net}
    assert m.refusal(BOB, "enable_voting_power_tracking", **who) == "BadOrigin"
    assert m.refusal(ALICE, "disable_voting_power_tracking", **who) == "VotingPowerTrackingNotEnabled"
    m.call(ALICE, "enable_voting_power_tracking", **who)
    assert m.p.VotingPowerTrackingEnabled[m.net] and m.last("VotingPowerTrackingEnabled") == who
    m.call(ALICE, "disable_voting_power_tracking", **who)
    end = m.rt.number + 100_800
    assert m.last("VotingPowerTrackingDisableScheduled") == {**who, "disable_at_block": end}
    m.call(ALICE, "enable_voting_power_tracking", **who)  # calls it off
    assert m.p.VotingPowerDisableAtBlock[m.net] == 0
    m.call(ALICE, "disable_voting_power_tracking", **who)
    m.p.VotingPower[m.net, HOT], m.p.TotalVotingPower[m.net] = 5, 5
    m.at(end - 1)
    voting_power.update(m.p, m.net, {}, set())
    assert m.p.VotingPower[m.net, HOT] == 5
    m.at(end)
    voting_power.update(m.p, m.net, {HOT: 9}, set())
    assert not m.p.VotingPowerTrackingEnabled[m.net] and (m.net, HOT) not in m.p.VotingPower
    assert m.p.TotalVotingPower[m.net] == 0 and m.last("VotingPowerTrackingDisabled") == who


def test_the_average_moves_every_epoch_for_validators_only(m: Market) -> None:
    """The stake of a validator with a permit, by the epoch itself."""
    assert m.refusal(ALICE, "sudo_set_voting_power_ema_alpha", netuid=m.net, alpha=1) == "BadOrigin"
    assert m.refusal(None, "sudo_set_voting_power_ema_alpha", netuid=m.net, alpha=10**18 + 1) == (
        "InvalidVotingPowerEmaAlpha"
    )
    m.root("SubtensorModule", "sudo_set_voting_power_ema_alpha", netuid=m.net, alpha=10**17)
    m.call(ALICE, "enable_voting_power_tracking", netuid=m.net)
    m.p.StakeThreshold.put(1)
    distribution.run(m.p, m.net, distribution.Pending(0, 0, 0, 0))
    stake = staking.stake_of(m.p, BOB_HOT, CHARLIE, m.net)
    power = stake // 10
    assert m.p.ValidatorPermit[m.net] == [True, True]  # the owner's has no stake: no power
    assert m.p.VotingPower[m.net, BOB_HOT] == m.p.TotalVotingPower[m.net] == power
    distribution.run(m.p, m.net, distribution.Pending(0, 0, 0, 0))
    assert m.p.VotingPower[m.net, BOB_HOT] == (stake * 10**17 + power * 9 * 10**17) // 10**18
    m.p.StakeThreshold.put(power)  # the next average is above: it stays
    distribution.run(m.p, m.net, distribution.Pending(0, 0, 0, 0))
    kept = m.p.VotingPower[m.net, BOB_HOT]
    voting_power.update(m.p, m.net, {BOB_HOT: 0}, {HOT})
    assert m.p.VotingPower[m.net, BOB_HOT] == kept * 9 // 10
    m.p.StakeThreshold.put(kept * 9 // 10)
    voting_power.update(m.p, m.net, {BOB_HOT: 0}, {HOT})  # it was above and falls below
    assert (m.net, BOB_HOT) not in m.p.VotingPower and m.p.TotalVotingPower[m.net] == 0
    voting_power.update(m.p, m.net, {BOB_HOT: 100}, {HOT})  # one that grows from below is kept
    assert m.p.VotingPower[m.net, BOB_HOT] == 10
    voting_power.update(m.p, m.net, {}, {BOB_HOT, HOT})
    assert (m.net, BOB_HOT) not in m.p.VotingPower
