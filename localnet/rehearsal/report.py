"""What a differential or a rehearsal found, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localnet.rehearsal.differential import Difference, Findings, StateDifference
from localnet.rehearsal.epochs import Compared
from localnet.rehearsal.rehearse import Rehearsal

MAX_LINES = 40  # of one kind, for people; JSON has all


def epochs_text(compared: Compared) -> list[str]:
    """An epoch comparison for people."""
    first, second = compared.names
    values = sum(compared.items.values())
    lines = [
        f"epochs: {compared.states} subnets on {first} and {second}, {values} values of {len(compared.items)} items"
    ]
    lines += [
        f"  taken out of the subnets, as only one has it: {rule.what} (spec {rule.since})" for rule in compared.rules
    ]
    lines += _some([f"  {failure}" for failure in compared.failures])
    lines += _some([f"  {one.text(compared.names)}" for one in compared.differences])
    lines.append(f"  {'all agree' if compared.agree else f'{sum(compared.unlike.values())} values differ'}")
    return lines


def epochs_json(compared: Compared) -> dict[str, Any]:
    return {
        "names": list(compared.names), "states": compared.states, "items": compared.items, "agree": compared.agree,
        "unlike": compared.unlike, "failures": compared.failures, "left_out": compared.left_out,
        "differences": [asdict(one) for one in compared.differences],
        "rules": [{"name": r.name, "since": r.since, "what": r.what, "source": r.source} for r in compared.rules],
    }  # fmt: skip


def scenario_text(found: Findings) -> list[str]:
    """A differential for people: every unexplained difference, and how many each known change explains."""
    first, second = found.names
    skipped = [step for step in found.played if step.skipped]
    lines = [
        f"scenario: {len(found.played)} steps in {found.blocks} blocks on {first} and {second}, {found.values} values "
        f"of {len(found.compared)} items compared, {len(found.apart)} items apart"
    ]
    lines += [f"  skipped: {step.name}: {step.skipped}" for step in skipped]
    lines += [f"  broke: {step.name}: {step.broke}" for step in found.played if step.broke]
    known = Counter(one.explained.what for one in found.differences if one.explained is not None)
    lines += [f"  {count} explained: {what}" for what, count in known.most_common()]
    lines += _some([line for one in found.unexplained for line in difference_text(one, found.names)])
    lines.append(
        f"  {'no unexplained difference' if found.agree else f'{len(found.unexplained)} unexplained differences'}"
    )
    return lines


def difference_text(one: Difference, names: Sequence[str]) -> list[str]:
    """One difference: where, what, and what each side's events said."""
    if isinstance(one, StateDifference):
        keys = f"[{', '.join(map(str, one.keys))}]" if one.keys else ""
        lines = [f"  block {one.block}, {one.cause}: {one.item}{keys}"]
        told = [str(value) for value in one.values]
    else:
        lines = [f"  block {one.block}, {one.call}: ends differently"]
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
            {"kind": "state" if isinstance(one, StateDifference) else "outcome", **asdict(one)}
            for one in found.differences
        ],
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
    lines = [f"{report.names[0]} (spec {report.specs[0]}) -> {report.names[1]} (spec {report.specs[1]})"]
    if report.failed is None:
        lines.append(f"the upgrade took {report.blocks} blocks")
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
    kinds = Counter(f"{change.kind}s {change.what}" for change in report.changes)
    lines.append("metadata: " + (", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "the same"))
    lines.append("nothing broke" if not report.broken else f"{len(report.broken)} things broke")
    return lines


def _some(lines: list[str]) -> list[str]:
    left = len(lines) - MAX_LINES
    return lines if left <= 0 else [*lines[:MAX_LINES], f"  .. and {left} lines more: --json has them all"]
