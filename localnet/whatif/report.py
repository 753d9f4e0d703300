"""The answer about other weights: as JSON, and as sentences and tables.

In the JSON shares are u16 of 65535, as the chain has them (under "clipped" fractions of 1), and emissions rao. In the
text they are fractions of 1, and whole units of the subnet's alpha, where it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import bittensor_core

from localnet.whatif.answer import Answer, Check, Epoch
from localnet.whatif.rules import RESULTS, U16_MAX, Change, Cut, cell, compare, cuts, moved

SHOWN = (("Incentive", "incentive"), ("Consensus", "consensus"), ("Trust", "trust"), ("ValidatorTrust", "vtrust"),
         ("Dividends", "dividends"), ("Emission", "emission"))  # fmt: skip
"""Result -> column."""
OWN = (("ValidatorTrust", "Validator trust"), ("Dividends", "Dividends"), ("Emission", "Emission"))
MOST = 8  # uids in a sentence
RAO = 10**9
LEAST_CUT = 1e-4  # of the row, that is worth a word


def as_json(answer: Answer) -> dict[str, Any]:
    question, check = answer.question, answer.check
    return {
        "netuid": question.netuid,
        "mechanism": question.mecid,
        "spec_version": answer.spec,
        "fork": answer.fork,
        "uid": answer.uid,
        "hotkey": _address(answer.hotkeys[answer.uid]),
        "preview": question.ahead,
        "check": {"faithful": check.faithful, **asdict(check)},
        "row": [list(pair) for pair in answer.row],
        "commits_left_out": answer.opened,
        "epochs": [_epoch_json(answer, *pair) for pair in zip(answer.before, answer.after, strict=True)],
        "explain": answer.explained or None,
    }  # fmt: skip


def _epoch_json(answer: Answer, before: Epoch, after: Epoch) -> dict[str, Any]:
    def one(epoch: Epoch) -> dict[str, Any]:
        cut = [{"uid": c.uid, "share": c.share, "consensus": c.consensus, "cut": c.cut} for c in _cuts(answer, epoch)]
        own = {name: cell(vector, answer.uid) for name, vector in epoch.results.items()}
        return {"results": dict(epoch.results), "validator": own, "weights": epoch.weights, "bonds": epoch.bonds,
                "clipped": cut}  # fmt: skip

    return {
        "block": before.block,
        "changed": [
            {
                "uid": one.uid,
                "hotkey": _address(_hotkey(answer, one.uid)),
                **{k: list(v) for k, v in one.values.items()},
            }
            for one in compare(before.results, after.results)
        ],
        "before": one(before),
        "after": one(after),
    }


def _address(hotkey: bytes) -> str:
    return str(bittensor_core.ss58_encode(hotkey, 42)) if len(hotkey) == 32 else ""


def _hotkey(answer: Answer, uid: int) -> bytes:
    return answer.hotkeys[uid] if uid < len(answer.hotkeys) else b""


def _cuts(answer: Answer, epoch: Epoch) -> list[Cut]:
    own = None if answer.uid == answer.owner else answer.uid
    return cuts(epoch.weights, epoch.results["Consensus"], own)


# -- in words -------------------------------------------------------------------------------------------------------


def sentences(answer: Answer) -> list[str]:
    question, before, after = answer.question, answer.before[-1], answer.after[-1]
    which = f"subnet {question.netuid}" + (f", mechanism {question.mecid}" if question.mecid else "")
    when = "that comes" if question.ahead else "that ran"
    more = "" if len(answer.before) == 1 else f" and the {len(answer.before) - 1} after it, if nothing else happens"
    lines = [
        f"Epoch of {which} {when} in block {answer.before[0].block}{more} (spec {answer.spec}): "
        f"uid {answer.uid}, {_address(answer.hotkeys[answer.uid])}, "
        f"with weights on {len(answer.row)} of {len(answer.hotkeys)} uids.",
        faithfulness(answer.check, question.ahead),
    ]
    if answer.opened:
        lines.append("A sealed commit of its own, which this epoch opens, was left out for the weights given.")
    if not compare(before.results, after.results):
        return [*lines, *_trust(answer, before, after), "Nothing changes, for nobody."]
    return [*lines, *_trust(answer, before, after), *_bonds(before, after), *_money(answer, before, after)]


def faithfulness(check: Check, ahead: bool) -> str:
    if ahead:
        return "A forecast: nothing else happens before that block, so nothing is there to compare it with."
    if check.undone is not None:
        return f"NOT CHECKED against the chain: {check.undone}."
    if not check.faithful:
        names = sorted({f"{one.get('pallet')}.{one.get('item')}" for one in check.differing})
        named = ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more items" if len(names) > MOST else "")
        return f"NOT WHAT THE CHAIN HAS: the block made again differs in {named}. Take the rest with care."
    text = (
        f"Checked: the block made again with its {check.extrinsics} extrinsics has the {check.values} values that the "
    )
    text += "chain has after it"
    text += f", but for {check.rooted} that hold the state's root, which a fork does not have." if check.rooted else "."
    if check.results:
        text += f" (Its extrinsics changed {', '.join(check.results)} after the epoch; what follows is of the epoch.)"
    return text


def _trust(answer: Answer, before: Epoch, after: Epoch) -> Iterator[str]:
    for epoch, when in ((before, "Before"), (after, "After")):
        row = _cuts(answer, epoch)
        if not row:
            yield f"{when}: its row has no weight that counts."
            continue
        cut = sorted((one for one in row if one.cut > LEAST_CUT), key=lambda one: -one.cut)
        total = sum(one.cut for one in cut)
        text = f"{when}: the consensus cut {total:.2%} of its row" + (": " if cut else "")
        text += ", ".join(f"uid {one.uid} from {one.share:.4f} to {one.consensus:.4f}" for one in cut[:MOST])
        text += f" and {len(cut) - MOST} more" if len(cut) > MOST else ""
        yield f"{text}{_uncounted(epoch, answer.uid, 1 - total)}."


def _uncounted(epoch: Epoch, uid: int, left: float) -> str:
    """Why nothing of a row counts, where it is not the consensus. `left`: what that leaves of the row, 0 to 1."""
    if cell(epoch.results.get("ValidatorTrust", ()), uid):
        return ""
    if "Active" in epoch.results and not cell(epoch.results["Active"], uid):
        return "; nothing of it counts: the validator is not active, its last weights are too old"
    return "; nothing of it counts: the validator has no permit, or too little stake" if left > LEAST_CUT else ""


def _bonds(before: Epoch, after: Epoch) -> Iterator[str]:
    found = moved(before.bonds, after.bonds)
    if found:
        told = ", ".join(f"uid {uid} {old / U16_MAX:.4f} -> {new / U16_MAX:.4f}" for uid, old, new in found[:MOST])
        more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
        yield f"Its bonds, which dividends follow: {told}{more}."


def _money(answer: Answer, before: Epoch, after: Epoch) -> Iterator[str]:
    for name, words in OWN:
        if name in before.results:
            old, new = cell(before.results[name], answer.uid), cell(after.results[name], answer.uid)
            yield f"{words}: {shown(name, old)} -> {shown(name, new)}" + (
                f" ({(new - old) / old:+.2%})." if old else "."
            )


def shown(name: str, value: int) -> str:
    if name == "Emission":
        return f"{value / RAO:,.9f}"
    return str(bool(value)) if name in ("ValidatorPermit", "Active") else f"{value / U16_MAX:.5f}"


# -- as a table -----------------------------------------------------------------------------------------------------


def table(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: neurons that the last epoch left otherwise, the largest move of emission first."""
    before, after = answer.before[-1], answer.after[-1]
    changes = sorted(compare(before.results, after.results), key=_weight)
    names = [name for name in RESULTS if any(name in one.values for one in changes)]
    titles = dict(SHOWN)
    rows = [[str(one.uid), _address(_hotkey(answer, one.uid))[:8], *_cells(one, names)] for one in changes]
    return ["uid", "hotkey", *(titles.get(name, name) for name in names)], rows


def _weight(change: Change) -> tuple[int, int]:
    old, new = change.values.get("Emission", (0, 0))
    return -abs(new - old), change.uid


def _cells(change: Change, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        pair = change.values.get(name)
        yield "" if pair is None else f"{shown(name, pair[0])} -> {shown(name, pair[1])}"
