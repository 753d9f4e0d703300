"""What a differential or a rehearsal found, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localnet.rehearsal.changes import Versioned
from localnet.rehearsal.differential import Difference, Findings, StateDifference
from localnet.rehearsal.epochs import Compared
from localnet.rehearsal.rehearse import Rehearsal

PLURALS = {"storage": "storage items", "api": "runtime APIs", "extrinsic": "formats of extrinsics"}
MAX_LINES = 120  # of one kind, for people; JSON has all


def epochs_text(compared: Compared) -> list[str]:
    """An epoch comparison for people."""
    first, second = compared.names
    values = sum(compared.items.values())
    lines = [
        f"epochs: {_counted(compared.states, 'subnet')} on {first} and {second}, {values} values of "
        f"{len(compared.items)} items"
    ]
    if compared.rules:
        lines.append("  taken out of the subnets, as only one of the two has it:")
        lines += [f"    spec {rule.since}: {rule.what}" for rule in compared.rules]
    lines += _left_out_text(compared)
    lines += _some([f"  {failure}" for failure in compared.failures])
    lines += _some([f"  {one.text(compared.names)}" for one in compared.differences])
    lines.append(f"  {'all agree' if compared.agree else f'{sum(compared.unlike.values())} values differ'}")
    return lines


def _left_out_text(compared: Compared) -> list[str]:
    """What one of the two did not get of a subnet, and the other did."""
    missing = [set(compared.left_out.get(name, ())) for name in compared.names]
    both = missing[0] & missing[1]
    return [
        f"  {name} has no storage for, or in another form: {', '.join(sorted(mine - both))}"
        for name, mine in zip(compared.names, missing, strict=True)
        if mine - both
    ]


def epochs_json(compared: Compared) -> dict[str, Any]:
    return {
        "names": list(compared.names), "states": compared.states, "items": compared.items, "agree": compared.agree,
        "unlike": compared.unlike, "failures": compared.failures, "left_out": compared.left_out,
        "differences": [asdict(one) for one in compared.differences],
        "rules": [{"name": r.name, "since": r.since, "what": r.what, "source": r.source} for r in compared.rules],
    }  # fmt: skip


def scenario_text(found: Findings) -> list[str]:
    """A differential for people: how many differences each known change accounts for, and what none accounts for."""
    first, second = found.names
    skipped = [step for step in found.played if step.skipped]
    lines = [
        f"scenario: {len(found.played)} steps in {found.blocks} blocks on {first} and {second}, {found.values} values "
        f"of {len(found.compared)} items compared, {len(found.apart)} items apart"
    ]
    lines += [f"  skipped: {step.name}: {step.skipped}" for step in skipped]
    lines += [f"  broke: {step.name}: {step.broke}" for step in found.played if step.broke]
    if found.unknown:
        lines.append(f"  left alone, as one does not know them: {', '.join(found.unknown)}")
    lines += _known_text(found)
    kinds: dict[tuple[str, str], list[Difference]] = {}
    for one in found.unexplained:
        kinds.setdefault(_kind(one), []).append(one)
    lines += _some([line for alike in kinds.values() for line in _first_text(alike, found.names)])
    lines.append(_verdict(found))
    return lines


def _known_text(found: Findings) -> list[str]:
    known = Counter(one.explained for one in found.differences if one.explained is not None)
    if not known:
        return []
    checked = sum(count for row, count in known.items() if row.checked)
    lines = [
        f"  {known.total()} differences are accounted for by what is known to differ; of {checked} the values were "
        f"checked, of the other {known.total() - checked} only which item or call it is and what changed it:"
    ]
    return lines + [
        f"    {count}{', checked' if row.checked else ''}: {row.what}" for row, count in known.most_common()
    ]


def _verdict(found: Findings) -> str:
    if found.stopped:
        return "  an unexplained difference: the scenario was stopped there, --all goes on"
    count = len(found.unexplained)
    if count:
        return f"  {_counted(count, 'unexplained difference')}"
    return "  no unexplained difference" if found.agree else "  no unexplained difference until it broke"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _kind(one: Difference) -> tuple[str, str]:
    return (one.item, one.cause) if isinstance(one, StateDifference) else (one.call, "")


def _first_text(alike: Sequence[Difference], names: Sequence[str]) -> list[str]:
    """The first difference of an item by a cause, and how many more there are."""
    lines = difference_text(alike[0], names)
    return lines if len(alike) == 1 else [*lines, f"    and {len(alike) - 1} more of this kind"]


def difference_text(one: Difference, names: Sequence[str]) -> list[str]:
    """One difference: where, what, and what each side's events said."""
    if isinstance(one, StateDifference):
        keys = f"[{', '.join(map(str, one.keys))}]" if one.keys else ""
        lines = [f"  block {one.block}, step '{one.step}', {one.cause}: {one.item}{keys}"]
        told = [str(value) for value in one.values]
    else:
        lines = [f"  block {one.block}, step '{one.step}', {one.call}: ends differently"]
        told = [error or "success" for error in one.errors]
    for name, value, events in zip(names, told, one.events, strict=True):
        lines.append(f"    {name}: {value}" + (f"   events: {', '.join(events)}" if events else ""))
    return lines


def scenario_json(found: Findings) -> dict[str, Any]:
    return {
        "names": list(found.names), "specs": list(found.specs), "agree": found.agree, "blocks": found.blocks,
        "values": found.values, "compared": list(found.compared), "apart": found.apart, "aligned": found.aligned,
        "steps": [asdict(step) for step in found.played],
        "differences": [
            {
                "kind": "state" if isinstance(one, StateDifference) else "outcome",
                **{name: value for name, value in vars(one).items() if name != "explained"},
                "explained": _row_json(one.explained),
            }
            for one in found.differences
        ],
        "unknown": list(found.unknown), "stopped": found.stopped,
    }  # fmt: skip


def _row_json(row: Versioned | None) -> dict[str, Any] | None:
    return None if row is None else {
        "what": row.what, "since": row.since, "source": row.source, "values_checked": row.checked
    }  # fmt: skip


def rehearsal_json(report: Rehearsal) -> dict[str, Any]:
    """Everything, as one document."""
    return {
        "from": report.names[0], "to": report.names[1], "specs": list(report.specs), "blocks": report.blocks,
        "broken": report.broken, "failed": report.failed,
        "storage_versions": {pallet: list(pair) for pallet, pair in report.versions.items()},
        "appeared": report.moved(True), "vanished": report.moved(False),
        "unknown_to_the_new_metadata": dict(report.after.unknown) if report.after else {},
        "undecodable": {k: list(v) for k, v in (report.after.undecodable if report.after else {}).items()},
        "steps": [asdict(one) for one in report.steps],
        "changes": [asdict(one) for one in report.changes],
        "used": {who: [asdict(one) for one in changes] for who, changes in report.used.items()},
    }  # fmt: skip


def rehearsal_text(report: Rehearsal) -> list[str]:
    """For people."""
    new = report.names[1] if report.specs[1] is None else f"{report.names[1]} (spec {report.specs[1]})"
    lines = [f"{report.names[0]} (spec {report.specs[0]}) -> {new}"]
    if report.failed is None:
        lines.append(f"the upgrade took {_counted(report.blocks, 'block')}")
    for title, found in (
        ("storage versions", [f"{pallet}: {a} -> {b}" for pallet, (a, b) in report.versions.items()]),
        ("items that hold values since the upgrade", [f"{n}: {c}" for n, c in report.moved(True).items()]),
        ("items that hold none any more", [f"{n}: {c} before" for n, c in report.moved(False).items()]),
        ("values that no item of the new metadata has", [
            f"{pallet}: {count}" for pallet, count in sorted(report.after.unknown.items())
        ] if report.after else []),
        ("went otherwise", [f"{one.step}: {one.what}: {one.before} -> {one.after}" for one in report.steps]),
        *((f"used by {who}", [str(change) for change in changes]) for who, changes in report.used.items()),
        ("BROKEN", report.broken),
    ):  # fmt: skip
        if found:
            lines += [f"{title}:", *(f"  {line}" for line in found)]
    kinds = Counter(f"{PLURALS.get(change.kind, change.kind + 's')} {change.what}" for change in report.changes)
    if report.failed is None:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "the same"
        lines.append(f"metadata: {told}")
    lines.append("nothing broke" if not report.broken else f"{_counted(len(report.broken), 'thing')} broke")
    return lines


def _some(lines: list[str]) -> list[str]:
    left = len(lines) - MAX_LINES
    return lines if left <= 0 else [*lines[:MAX_LINES], f"  .. and {left} lines more: --json has them all"]
