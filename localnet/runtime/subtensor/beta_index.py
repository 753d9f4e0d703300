"""The index of baskets: prices of funds made comparable, and two levels that say how the average fund did.

    advance     one page of a pass over all funds with a baseline; a finished pass moves the levels and publishes them
    stamp       a fund's first mint freezes where its prices start: on the levels of that block
    accrue      a dividend compounds the fund's total return
    retire, move_display    a fund's life ends; a fund goes to another hotkey

For display only: nothing here sizes a mint or a payout. What becomes permanent is measured at what the holdings would
fetch (`basket_values.nav`), what is only shown at spot prices. The formulas are in `localnet.rules.baskets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.rules import baskets as rules
from localnet.rules.fixed import ONE64, U64F64
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import basket_values

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def levels(p: Subtensor) -> tuple[U64F64, U64F64]:
    """(bag, stake) level of the index; one before the first pass is over."""
    snapshot = p.BetaIndexSnapshot.get()
    return (ONE64, ONE64) if snapshot is None else (snapshot["bag_level"]["bits"], snapshot["stake_level"]["bits"])


def baseline_of(p: Subtensor, hotkey: bytes) -> rules.Baseline | None:
    stored = p.BetaBaseline[hotkey]
    return None if stored is None else _baseline(stored)


def _baseline(stored: dict[str, Any]) -> rules.Baseline:
    return rules.Baseline(
        stored["price_divisor"]["bits"], stored["rate0"]["bits"], stored["tr_splice"]["bits"], stored["first_block"]
    )


def marks(p: Subtensor, hotkey: bytes, raw: U64F64) -> rules.Marks:
    """A fund's prices, given its NAV per share."""
    baseline = baseline_of(p, hotkey)
    if baseline is None:
        return rules.provisional_marks(raw, *levels(p))
    return rules.marks(raw, p.BasketRate[hotkey]["bits"], p.BasketTwr[hotkey]["bits"], baseline)


# -- a fund's life --------------------------------------------------------------------------------------------------


def stamp(p: Subtensor, hotkey: bytes) -> None:
    """Freeze a fund's baseline, unless it has one or there is no index or no value to measure by yet."""
    shares = p.BasketShares[hotkey]
    if not shares or p.BetaIndexSnapshot.get() is None or p.BetaBaseline[hotkey] is not None:
        return
    raw = rules.raw_price(_worth(p, basket_values.holdings(p, hotkey)), shares)
    if not raw:
        return
    bag, stake = levels(p)
    new = rules.stamped(raw, bag, stake, p.BasketRate[hotkey]["bits"], p.BasketTwr[hotkey]["bits"], p.rt.number)
    p.BetaBaseline[hotkey] = {
        "price_divisor": {"bits": new.price_divisor},
        "rate0": {"bits": new.rate},
        "tr_splice": {"bits": new.tr_splice},
        "first_block": new.first_block,
    }
    p.emit("BetaBaselineStamped", hotkey=hotkey)


def accrue(p: Subtensor, hotkey: bytes, value: int, stakers_root: int) -> None:
    """Compound the total return of a rao of root stake by a dividend of `value` rao on `stakers_root` rao."""
    p.BasketTwr[hotkey] = {"bits": rules.compounded(p.BasketTwr[hotkey]["bits"], value, stakers_root)}


def retire(p: Subtensor, hotkey: bytes) -> None:
    """The last share is gone, or a drained fund starts anew: its history describes another fund."""
    for item in (p.BetaBaseline, p.BasketTwr, p.BetaIndexFundSample):
        del item[hotkey]


def move_display(p: Subtensor, old: bytes, new: bytes) -> None:
    """A fund goes to another hotkey; its history goes along."""
    items: tuple[StorageMap[Any], ...] = (p.BetaBaseline, p.BasketTwr, p.BetaIndexFundSample)
    for item in items:
        if old in item:
            item[new] = item[old]
            del item[old]


# -- the pass over all funds ----------------------------------------------------------------------------------------


def advance(p: Subtensor) -> int:
    """One page of a pass; a new pass starts 600 blocks after the last one. Returns how many rows were looked at."""
    stored = p.BetaIndexSweep.get()
    if stored is None:
        snapshot = p.BetaIndexSnapshot.get()
        if snapshot is not None and p.rt.number - snapshot["block"] < rules.REFRESH_BLOCKS:
            return 0
        cursor, sweep = b"", rules.Sweep()
    else:
        cursor = bytes(stored["cursor"])
        sweep = rules.Sweep(stored["weight_sum"], stored["rel_bag_sum"]["bits"], stored["rel_stake_sum"]["bits"])
    return _page(p, cursor, sweep)


def _page(p: Subtensor, cursor: bytes, sweep: rules.Sweep) -> int:
    rows = 0
    for hotkey in p.BetaBaseline.keys_after(cursor):
        seen, sweep = _visit(p, hotkey, sweep)
        rows += seen
        if rows >= rules.SWEEP_ROWS:
            sums = {"rel_bag_sum": {"bits": sweep.bag}, "rel_stake_sum": {"bits": sweep.stake}}
            p.BetaIndexSweep.put({"cursor": p.BetaBaseline.key(hotkey), "weight_sum": sweep.weight, **sums})
            return rows
    bag, stake = rules.next_levels(levels(p), sweep)
    p.BetaIndexSnapshot.put({"bag_level": {"bits": bag}, "stake_level": {"bits": stake}, "block": p.rt.number})
    p.BetaIndexSweep.kill()
    return rows


def _visit(p: Subtensor, hotkey: bytes, sweep: rules.Sweep) -> tuple[int, rules.Sweep]:
    """Take a fund's sample and chain it to the one before. Returns (rows looked at, the pass so far)."""
    shares = p.BasketShares[hotkey]
    held = basket_values.holdings(p, hotkey) if shares else []
    nav = _worth(p, held)
    seen = marks(p, hotkey, rules.raw_price(nav, shares))
    if not nav or not shares or not seen.display or not seen.stake:
        del p.BetaIndexFundSample[hotkey]  # nothing may be chained across a gap
        return 1 + len(held), sweep
    now, before = rules.Sample(nav, seen.display, seen.stake), p.BetaIndexFundSample[hotkey]
    if before is not None:
        was = rules.Sample(before["nav"], before["display"]["bits"], before["stake"]["bits"])
        sweep = rules.chained(sweep, was, now)
    p.BetaIndexFundSample[hotkey] = {"nav": nav, "display": {"bits": now.display}, "stake": {"bits": now.stake}}
    return 1 + len(held), sweep


def _worth(p: Subtensor, held: list[tuple[int, int]]) -> int:
    return sum(basket_values.marketable(p, netuid, alpha) for netuid, alpha in held)
