"""A rehearsal of a runtime upgrade: the chain's life before and after, and what the upgrade does to its state.

    play the scenario on the old runtime
    upgrade: `System.set_code` as root; wait for the new code, and for migrations that take several blocks
    look at the state: storage versions, items that came and went, values that the new metadata cannot decode
    compare the metadata, and say which changes somebody uses (see uses.py)
    play the scenario again, on the new runtime
    undo all that, wait as long, and play it again on the old one: the control, a second life without an upgrade
    compare the two second lives step by step

`Rehearsal.broken` lists what broke: the upgrade itself, a chain that stopped, a value that cannot be decoded, a call
that worked and does not any more, something in use that is gone or has another form. What else changed is told, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localnet.codec.compare import NEW_DEFAULT, Change, compare
from localnet.codec.document import KEY_BYTES, Document, twox128
from localnet.errors import ConfigError, LocalnetError, ScaleError
from localnet.net import Localnet
from localnet.node.runtime_api import CODE
from localnet.rehearsal.differential import essential
from localnet.rehearsal.scenario import Played, Step, perform
from localnet.rehearsal.stage import Said, Solo, Want, by_names, play, spec_version
from localnet.rehearsal.uses import Use, ensure_exists, scan

MAX_MIGRATION = 500  # blocks that migrations in parts may take here
BREAKING = ("storage", "call", "api")  # kinds of things that do not work any more when they change
VERSION_KEY = twox128(b":__STORAGE_VERSION__:")
MAX_EXAMPLES = 3  # values shown of an item that cannot be decoded
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """What a state holds, by name. `undecodable`: item -> (how many values, what was said of some)."""

    versions: Mapping[str, int]
    items: Mapping[str, int]
    unknown: Mapping[str, int]
    undecodable: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class StepChange:
    """A step that went otherwise on the new runtime. `broke`: something worked before and does not now."""

    step: str
    what: str
    before: str
    after: str
    broke: bool


@dataclass
class Rehearsal:
    names: tuple[str, str]
    specs: tuple[int, int | None] = (0, None)
    """None where the chain never ran the new code."""
    blocks: int = 0
    """That the upgrade took, migrations included."""
    failed: str | None = None
    """Why the upgrade did not happen."""
    before: Contents | None = None
    after: Contents | None = None
    steps: list[StepChange] = field(default_factory=list)
    played: tuple[list[Played], list[Played]] = field(default_factory=lambda: ([], []))
    """The control, and the scenario after the upgrade."""
    changes: tuple[Change, ...] = ()
    used: dict[str, list[Change]] = field(default_factory=dict)
    """Who -> changes of what it uses."""

    @property
    def versions(self) -> dict[str, tuple[int | None, int | None]]:
        """Pallet -> storage version before and after, where it changed."""
        if self.before is None or self.after is None:
            return {}
        old, new = self.before.versions, self.after.versions
        return {
            pallet: (old.get(pallet), new.get(pallet))
            for pallet in sorted({*old, *new})
            if old.get(pallet) != new.get(pallet)
        }

    def moved(self, come: bool) -> dict[str, int]:
        """Items that hold something only after the upgrade (`come`), or only before it: name -> values."""
        if self.before is None or self.after is None:
            return {}
        have, had = (self.after, self.before) if come else (self.before, self.after)
        return {name: count for name, count in sorted(have.items.items()) if name not in had.items}

    @property
    def broken(self) -> list[str]:
        """One sentence each; nothing is broken when there is none."""
        said = [] if self.failed is None else [f"the upgrade failed: {self.failed}"]
        if self.after is not None:
            said += [
                f"{count} values of {item} cannot be decoded by the new metadata: {examples[0]}"
                for item, (count, examples) in self.after.undecodable.items()
            ]
        said += [f"{one.step}: {one.what} gave {one.before}, now {one.after}" for one in self.steps if one.broke]
        for who, changes in self.used.items():
            hurt = [change for change in changes if breaks(change)]
            said += [f"{who} uses what changed: {change}" for change in hurt]
        return said


async def rehearse(
    net: Localnet,
    code: bytes,
    names: tuple[str, str],
    sources: Mapping[str, Sequence[Path]] | None = None,
    *,
    steps: Sequence[Step] = (),
    progress: Progress = lambda text: None,
) -> Rehearsal:
    """On a chain that runs the old runtime in manual mode, at genesis. `code`: of the new one, as a chain stores it;
    `sources`: who -> the source files whose uses of the chain count.

    Raises ConfigError when the scenario does not get through on the old runtime, and for sources that are not there.
    """
    for path in (path for paths in (sources or {}).values() for path in paths):
        ensure_exists(path)
    report = Rehearsal(names, (spec_version(net), None))
    old = net.client.document
    progress(f"the scenario on {names[0]}")
    _whole(names[0], await perform(Solo(net), steps))
    mark, start = net.snapshot(), net.block
    report.before = contents(net)
    progress(f"the upgrade to {names[1]}")
    report.failed = await _upgrade(net, code)
    report.blocks = net.block - start
    if report.failed is not None:
        return report
    report.specs = (report.specs[0], spec_version(net))
    report.after = contents(net, old)
    new = net.client.document
    report.changes = compare(old, new).changes
    report.used = {who: using(scan(paths, (old, new)), report.changes) for who, paths in (sources or {}).items()}
    progress(f"the scenario on {names[1]}")
    report.played[1].extend(await perform(Solo(net), steps))
    progress(f"the scenario again on {names[0]}: the control")
    await net.revert(mark)
    await net.mine(report.blocks)
    report.played[0].extend(_whole(names[0], await perform(Solo(net), steps)))
    report.steps = step_changes(*report.played)
    return report


def _whole(name: str, played: list[Played]) -> list[Played]:
    broke = next((step for step in played if step.broke), None)
    if broke is not None:
        raise ConfigError(f"{name} does not get through the scenario, {broke.name!r} broke: {broke.broke}")
    return played


async def _upgrade(net: Localnet, code: bytes) -> str | None:
    """Why it failed; None when the chain runs the new code and its migrations are done."""
    try:
        said = await play(net, Want("set_code", "root", by_names("System", "set_code", code=code)))
        if said.error is not None:
            return said.error
        await net.mine()
        if net.chain.storage(CODE) != code:
            return "set_code succeeded, and the code is not in the state"
        for _ in range(MAX_MIGRATION):
            await net.mine()
            if not _migrating(net):
                return None
    except LocalnetError as error:
        return f"{type(error).__name__}: {error}"
    return f"migrations were not done after {MAX_MIGRATION} blocks"


def _migrating(net: Localnet) -> bool:
    """Migrations in parts keep a cursor while they are under way."""
    cursors = [entry for entry in net.client.document.storage.values() if (entry.pallet, entry.name) in CURSORS]
    return any(net.chain.storage(entry.prefix) is not None for entry in cursors)


CURSORS = (("MultiBlockMigrations", "Cursor"),)


# -- what a state holds ---------------------------------------------------------------------------------------------


def contents(net: Localnet, before: Document | None = None) -> Contents:
    """All of the head's state, under the metadata of the runtime that makes the next block. `before`: of the one before
    it, for the names of pallets that are gone."""
    words = net.client.vocabulary
    pallets = {**_pallet_prefixes(before or words.document), **_pallet_prefixes(words.document)}
    versions, items, unknown = {}, Counter[str](), Counter[str]()
    bad: dict[str, list[str]] = {}
    for key, value in net.chain.state.head.items():
        pallet = pallets.get(key[:16])
        if pallet is not None and key[16:] == VERSION_KEY:
            versions[pallet] = int.from_bytes(value, "little")
            continue
        entry = words.document.by_prefix.get(key[:32])
        if entry is None:
            if not key.startswith(b":"):  # the state's own keys, such as :code
                unknown[pallet or "0x" + key[:16].hex()] += 1
            continue
        name = f"{entry.pallet}.{entry.name}"
        items[name] += 1
        try:
            if all(hasher in KEY_BYTES for hasher in entry.hashers):  # others do not tell their keys
                words.document.read_keys(entry, key)
            words.stored(entry, value)
        except ScaleError as error:
            bad.setdefault(name, []).append(f"0x{key.hex()} holds 0x{value[:32].hex()}: {error}")
    undecodable = {name: (len(said), tuple(said[:MAX_EXAMPLES])) for name, said in sorted(bad.items())}
    return Contents(versions, items, unknown, undecodable)


def _pallet_prefixes(document: Document) -> dict[bytes, str]:
    """The first 16 bytes of a pallet's keys -> its name."""
    prefixes = {twox128(name.encode()): name for name in document.pallet_index}
    return prefixes | {entry.prefix[:16]: entry.pallet for entry in document.storage.values()}


# -- comparing ------------------------------------------------------------------------------------------------------


def breaks(change: Change) -> bool:
    """Whether what uses the item does not work any more as it did. Storage with another default does."""
    return change.what != "added" and change.kind in BREAKING and change.detail != NEW_DEFAULT


def using(uses: set[Use], changes: Sequence[Change]) -> list[Change]:
    """The changes of what is used."""
    return [change for change in changes if (change.kind, change.name) in uses]


def step_changes(control: Sequence[Played], after: Sequence[Played]) -> list[StepChange]:
    """What went otherwise, step by step and call by call. Calls are paired by their place among those of one name."""
    found = []
    now = {step.name: step for step in after}
    for step in control:
        other = now.get(step.name)
        if other is None:
            found.append(StepChange(step.name, "the step", "was played", "the chain had stopped before it", True))
            continue
        ends = [one.broke or (f"no call: {one.skipped}" if one.skipped else "played") for one in (step, other)]
        if ends[0] != ends[1]:
            found.append(StepChange(step.name, "the step", ends[0], ends[1], ends[0] == "played"))
        found += _call_changes(step, other)
    return found


def _call_changes(step: Played, other: Played) -> list[StepChange]:
    pairs: dict[tuple[str, int], list[Said | None]] = {}
    for side, played in enumerate((step, other)):
        counted: Counter[str] = Counter()
        for said in played.said:
            place = pairs.setdefault((said.what, counted[said.what]), [None, None])
            place[side] = said
            counted[said.what] += 1
    found = []
    for (what, _), (before, after) in pairs.items():
        shown = [_shown(said) for said in (before, after)]
        if shown[0] != shown[1]:
            worked = before is not None and before.error is None
            failed = after is None or after.error is not None
            found.append(StepChange(step.name, what, shown[0], shown[1], worked and failed))
    return found


def _shown(said: Said | None) -> str:
    if said is None:
        return "no such call"
    if said.error is not None:
        return said.error
    return ", ".join(essential(said.events)) or "success"
