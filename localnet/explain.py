"""An explanation in words: why a neuron's weight, incentive, dividends and emission are what they are.

`sentences(report)` turns the report of `Developer.explain` (dev_explain; the numbers come from the epoch itself, see
localnet.runtime.explain) into a list of short paragraphs, in the order in which an epoch works: who is heard, what they
say, what consensus leaves of it, and who is paid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Report = Mapping[str, Any]

MOST = 8  # weights and bonds that are listed one by one
ALPHA = 10**9  # rao


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def alpha(rao: int) -> str:
    return f"{rao / ALPHA:,.6f} alpha"


def sentences(report: Report) -> list[str]:
    """One paragraph a topic."""
    lines = [_head(report)]
    several = len(report["mechanisms"]) > 1
    for mechanism in report["mechanisms"]:
        if several:
            lines.append(f"Mechanism {mechanism['mecid']}, which divides {alpha(mechanism['alpha'])}:")
        lines += [
            _activity(mechanism["activity"]),
            _stake(mechanism["stake"]),
            _permit(mechanism["permit"]),
            *_incentive(report, mechanism),
            *_sent(mechanism),
            *_dividends(mechanism, report["hyperparameters"]["yuma3"]),
            _emission(mechanism),
        ]
    return [*lines, *_commits(report), *_paid(report)]


def _head(report: Report) -> str:
    when = "would run now, in block" if report["preview"] else "ran in block"
    text = (
        f"uid {report['uid']} of subnet {report['netuid']}, hotkey {report['hotkey']}, registered in block "
        f"{report['registered_at']}: the epoch that {when} {report['block']}."
    )
    if report["as_on_chain"] is False:
        text += " The chain holds other numbers now: they were written over since, or the uid went to another hotkey."
    return text


# -- who is heard ---------------------------------------------------------------------------------------------------


def _activity(a: Report) -> str:
    state = "active" if a["active"] else "inactive, so its stake does not count"
    return (
        f"Activity: last update in block {a['last_update']}, {a['silent_for']} blocks before the epoch; "
        f"the cutoff is {a['cutoff']}: {state}."
    )


def _stake(s: Report) -> str:
    weight = f"Stake: its weight is {s['weight'] / ALPHA:,.3f} (own stake, parents and root TAO after children)"
    if s["weight"] < s["threshold"]:
        return f"{weight}, below the threshold of {s['threshold'] / ALPHA:,.3f}: it counts as nothing."
    return f"{weight}: {percent(s['share'])} of the subnet's, {percent(s['heard'])} of what is heard."


def _permit(p: Report) -> str:
    rank = f"rank {p['rank']} by stake, {p['places']} permits"
    if p["as_owner"]:
        return f"Permit: always, as the subnet owner's hotkey ({rank})."
    before = "held one, so its weights count" if p["had"] else "held none, so its weights do not count"
    after = "has one" if p["has"] else "has none" if p["rank"] > p["places"] else "has none, for want of stake"
    return f"Permit: {before}; after the epoch it {after} ({rank})."


# -- incentive ------------------------------------------------------------------------------------------------------


def _incentive(report: Report, m: Report) -> Iterator[str]:
    received = m["received"]
    heard = [one for one in received if one["unheard"] is None]
    if not received:
        yield "Incentive: 0, because nobody has set a weight on it."
        return
    yield _consensus(report, m, heard)
    for one in sorted(heard, key=lambda one: -one["stake"])[:MOST]:
        yield f"  {_weight_on(one, one['from'])}"
    if len(heard) > MOST:
        yield f"  and {len(heard) - MOST} more."
    unheard = [one for one in received if one["unheard"] is not None]
    if unheard:
        reasons = ", ".join(f"uid {one['from']} ({one['unheard']})" for one in unheard[:MOST])
        yield f"  Not counted: {reasons}{' and more' if len(unheard) > MOST else ''}."
    yield _rank(m, heard)


def _consensus(report: Report, m: Report, heard: list[Report]) -> str:
    kappa = report["hyperparameters"]["kappa"] / 65535
    support = sum(one["stake"] for one in heard if one["normalised"] > 0)
    text = f"Weights: {percent(support)} of the stake that is heard puts weight on it. Consensus {m['consensus']:.6f}: "
    if m["consensus"]:
        return text + f"the largest weight that {percent(kappa)} of that stake supports; what exceeds it is clipped."
    return text + f"no weight above 0 has the support of {percent(kappa)} of that stake."


def _weight_on(one: Report, sender: int) -> str:
    text = f"uid {sender}: {one['normalised']:.6f} with {percent(one['stake'])} of the stake"
    return f"{text}, clipped to {one['clipped']:.6f}" if one["clipped"] < one["normalised"] else text


def _rank(m: Report, heard: list[Report]) -> str:
    rank = sum(one["stake"] * one["clipped"] for one in heard)
    if not m["incentive"]:
        return "Incentive: 0, because consensus leaves nothing of these weights."
    return (
        f"Incentive {m['incentive']:.6f} ({m['u16']['incentive']} of 65535): stake times clipped weight adds up to "
        f"{rank:.6f}, as a share of the same sum over all uids."
    )


# -- dividends ------------------------------------------------------------------------------------------------------


def _sent(m: Report) -> Iterator[str]:
    sent = m["sent"]
    if not sent:
        return
    counted = [one for one in sent if one["unheard"] is None]
    cut = sum(one["normalised"] - one["clipped"] for one in counted)
    reasons = sorted({one["unheard"] for one in sent if one["unheard"]})
    text = f"Own weights: {len(sent)} set, {len(counted)} counted"
    if reasons:
        text += f" (others: {', '.join(reasons)})"
    if counted:
        text += f"; consensus clipped {percent(cut)} of them, validator trust {m['u16']['validator_trust'] / 65535:.4f}"
    yield text + "."


def _dividends(m: Report, yuma3: bool) -> Iterator[str]:
    bonds = sorted(m["bonds"], key=lambda one: -one["share"] * one["incentive"])
    if not bonds:
        yield "Dividends: 0, because it holds no bonds: only counted weights of a validator with stake buy them."
        return
    for one in bonds[:MOST]:
        share = percent(one["share"])
        yield f"  Bond on uid {one['on']}: {share} of the bonds on it, its incentive {one['incentive']:.6f}"
    if len(bonds) > MOST:
        yield f"  and on {len(bonds) - MOST} more."
    if not m["dividends"]:
        yield "Dividends: 0, because no uid it is bonded to has any incentive, or its stake is not heard."
        return
    stake = ", times its stake (Yuma 3)" if yuma3 else " (Yuma 2: stake is in the bonds)"
    yield (
        f"Dividends {m['dividends']:.6f} ({m['u16']['dividends']} of 65535): its shares of the bonds, each times that "
        f"uid's incentive{stake}, as a share of the same sum over all validators."
    )


# -- money ----------------------------------------------------------------------------------------------------------


def _emission(m: Report) -> str:
    if m["by_stake"]:
        return (
            f"Emission: nobody has incentive or dividends, so {alpha(m['alpha'])} is divided by stake: "
            f"its share is {percent(m['emission_share'])}."
        )
    return (
        f"Emission: of {alpha(m['alpha'])}, {alpha(m['server_alpha'])} for incentive; its share of the "
        f"validators' part is {percent(m['dividend_share'])}, before what goes to its parents and to root."
    )


def _commits(report: Report) -> Iterator[str]:
    c = report["commit_reveal"]
    if not c["enabled"]:
        return
    waiting = [f"block {one['block']}{' (expired)' if one['expired'] else ''}" for one in c["waiting"]]
    text = f"Commit-reveal is on: weights count once revealed, {c['period_epochs']} epochs after the commit."
    yield f"{text} Waiting: {', '.join(waiting) or 'none'}."


def _paid(report: Report) -> Iterator[str]:
    p = report["paid"]
    server = sum(one["server_alpha"] for one in report["mechanisms"])
    if p["is_owners"] and server:
        what = "recycled" if p["withheld_is"] == "Recycle" else "burned"
        yield (
            f"Owner: the hotkey belongs to the subnet's owner, so its incentive of {alpha(server)} is {what}, not paid "
            f"({percent(p['miner_burned'])} of all incentive went that way)."
        )
    elif p["incentive_to"] and server:
        yield f"The incentive is staked on {p['incentive_to']}, where its coldkey stakes automatically."
    if report["uid"] == report["owner_uid"]:
        yield "The subnet owner's cut of the emission is staked on this hotkey, too."
    grown = p["hotkey_alpha_after"] - p["hotkey_alpha_before"]
    yield f"Paid: the stake on its hotkey grew by {alpha(grown)}; an alpha is worth {p['alpha_price']:.6f} TAO."
    if p["alpha_dividend"]:
        yield (
            f"  Dividends: {alpha(p['alpha_dividend'])}; after a take of {percent(p['take'])} "
            f"({alpha(p['alpha_take'])}) all stake on it, its owner's too, shares {alpha(p['to_alpha_stakers'])}."
        )
    if p["root_dividend"]:
        yield (
            f"  For its stake on root: {alpha(p['root_dividend'])}; after a take of {alpha(p['root_take'])}, "
            f"{alpha(p['to_root_stakers'])} are for the basket of its root stakers."
        )
    if p["parents"] or p["children"]:
        yield f"  It shares dividends with {p['parents']} parents and has {p['children']} children."
