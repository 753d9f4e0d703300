"""Replays vectors of kind "epoch": a small subnet, operations on it, and what each epoch must have computed.

    set_weights  block, uid, dests, values        stored as the chain stores them (scaled to 65535), LastUpdate = block
    epoch        block, emission                  runs `epoch.run_epoch`, keeps bonds and permits for the next one
    replace      block, uid                       a new registration takes the uid: no stake, no permit, no rows
    stake        uid, value                       stake weight in whole units
    hyper        the settings to change
    reset_bonds  uid                              every validator's bond on that uid is removed

`expected.after_epoch["k"]` names what to compare after the k-th epoch; null means "do not compare". Tolerances are per
field, in the field's unit, under the field's name or the name with `_u16`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any

from localnet.rules.coinbase import activity_cutoff
from localnet.rules.constants import DEFAULTS
from localnet.rules.epoch import EpochHyper, EpochInput, EpochResult, run_epoch
from localnet.rules.errors import RuleError
from localnet.rules.fixed import from_float64
from localnet.rules.sparse import Row, pairs
from localnet.rules.weights import max_upscale

FIELDS = tuple(f.name for f in fields(EpochResult) if f.name != "bonds")
_HYPER = {f.name for f in fields(EpochHyper)}


@dataclass
class _Subnet:
    """The subnet as the operations leave it. `stake` in I64F64 bits; `cutoff` None follows the tempo."""

    n: int
    hyper: EpochHyper
    cutoff: int | None
    stake: list[int]
    registered_at: list[int]
    last_update: list[int]
    permits: list[bool]
    owner_uid: int | None = None
    last_step: int = 0
    weights: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    bonds: dict[int, Row] = field(default_factory=dict)


def _stake_bits(value: float) -> int:
    return value << 64 if isinstance(value, int) else from_float64(value)


def _set_hyper(subnet: _Subnet, changes: Mapping[str, Any]) -> None:
    unknown = sorted(set(changes) - _HYPER)
    if unknown:
        raise RuleError(
            f"unknown hyperparameter {', '.join(map(repr, unknown))}; there are {', '.join(sorted(_HYPER))}"
        )
    subnet.cutoff = changes.get("activity_cutoff", subnet.cutoff)
    subnet.hyper = replace(subnet.hyper, **changes)


def _start(inputs: Mapping[str, Any]) -> _Subnet:
    unknown = sorted(set(inputs) - {"n", "hyper", "stake", "registered_at", "ops", "owner_uid", "last_step", "permits"})
    if unknown:
        raise RuleError(f"unknown input {', '.join(map(repr, unknown))}")
    n, registered = inputs["n"], inputs["registered_at"]
    blocks = [registered] * n if isinstance(registered, int) else list(registered)
    subnet = _Subnet(
        n=n,
        hyper=EpochHyper(),
        cutoff=None,
        stake=[_stake_bits(value) for value in inputs["stake"]],
        registered_at=blocks,
        last_update=list(blocks),
        permits=list(inputs.get("permits", [False] * n)),
        owner_uid=inputs.get("owner_uid"),
        last_step=inputs.get("last_step", 0),
    )
    _set_hyper(subnet, inputs.get("hyper", {}))
    return subnet


def _set_weights(subnet: _Subnet, op: Mapping[str, Any]) -> None:
    if len(op["dests"]) != len(op["values"]):
        raise RuleError(f"{len(op['dests'])} dests and {len(op['values'])} values")
    subnet.weights[op["uid"]] = list(zip(op["dests"], max_upscale(op["values"]), strict=True))
    subnet.last_update[op["uid"]] = op["block"]


def _replace(subnet: _Subnet, op: Mapping[str, Any]) -> None:
    uid = op["uid"]
    subnet.weights.pop(uid, None)
    subnet.bonds.pop(uid, None)
    for row, entries in subnet.weights.items():
        subnet.weights[row] = [(dest, 0 if dest == uid else value) for dest, value in entries]
    subnet.registered_at[uid] = subnet.last_update[uid] = op["block"]
    subnet.permits[uid] = False
    subnet.stake[uid] = _stake_bits(op.get("stake", 0))


def _reset_bonds(subnet: _Subnet, op: Mapping[str, Any]) -> None:
    for row, entries in subnet.bonds.items():
        subnet.bonds[row] = tuple(entry for entry in pairs(entries) if entry[0] != op["uid"])


def _hyper(subnet: _Subnet, op: Mapping[str, Any]) -> None:
    if "name" in op:
        _set_hyper(subnet, {op["name"]: op["value"]})
    else:
        _set_hyper(subnet, op.get("hyper", {key: value for key, value in op.items() if key not in ("op", "block")}))


def _epoch(subnet: _Subnet, op: Mapping[str, Any]) -> EpochResult:
    cutoff = subnet.cutoff
    if cutoff is None:
        cutoff = activity_cutoff(DEFAULTS.activity_cutoff_factor, subnet.hyper.tempo)
    result = run_epoch(
        EpochInput(
            n=subnet.n,
            block=op["block"],
            emission=op["emission"],
            stake=subnet.stake,
            last_update=subnet.last_update,
            registered_at=subnet.registered_at,
            permits=subnet.permits,
            weights=subnet.weights,
            bonds=subnet.bonds,
            hyper=replace(subnet.hyper, activity_cutoff=cutoff),
            last_step=subnet.last_step,
            owner_uid=subnet.owner_uid,
        )
    )
    subnet.permits = list(result.permits)
    subnet.bonds.update(result.bonds)
    return result


def _apply(subnet: _Subnet, op: Mapping[str, Any]) -> EpochResult | None:
    kind = op["op"]
    if kind == "epoch":
        return _epoch(subnet, op)
    if kind == "stake":
        subnet.stake[op["uid"]] = _stake_bits(op["value"])
        return None
    steps = {"set_weights": _set_weights, "replace": _replace, "hyper": _hyper, "reset_bonds": _reset_bonds}
    if kind not in steps:
        raise RuleError(f"unknown operation {kind!r}; there are epoch, stake, {', '.join(steps)}")
    steps[kind](subnet, op)
    return None


def _tolerance(tolerances: Any, name: str) -> float:
    chosen = tolerances.get(name, tolerances.get(f"{name}_u16", 0)) if isinstance(tolerances, Mapping) else tolerances
    if not isfinite(chosen):
        raise RuleError(f"a tolerance of {chosen} for {name} compares nothing")
    return float(chosen)


def _differs(expected: Any, actual: Any, tolerance: float) -> bool:
    """Apart by more than the tolerance; True and 1 are different values."""
    return isinstance(expected, bool) != isinstance(actual, bool) or not abs(expected - actual) <= tolerance


def _compare_bonds(expected: Mapping[str, Any], subnet: _Subnet, tolerance: float, where: str) -> Iterator[str]:
    for uid, columns in expected.items():
        row = dict(pairs(subnet.bonds.get(int(uid), ())))
        for column, want in columns.items():
            got = row.get(int(column), 0)
            if want is not None and _differs(want, got, tolerance):
                yield f"{where} bonds of {uid} on {column}: expected {want}, got {got} (allowed {tolerance:g})"


def _compare(
    expected: Mapping[str, Any], result: EpochResult, subnet: _Subnet, tolerances: Any, where: str
) -> Iterator[str]:
    if not expected:
        yield f"{where} nothing is expected of it"
    for name, want in expected.items():
        if name == "bonds":
            yield from _compare_bonds(want, subnet, _tolerance(tolerances, "bonds"), where)
            continue
        if name not in FIELDS:
            yield f"{where} unknown field {name!r}; there are bonds, {', '.join(FIELDS)}"
            continue
        if want is None:
            continue
        got, allowed = getattr(result, name), _tolerance(tolerances, name)
        if len(want) != len(got):
            yield f"{where} {name}: expected {len(want)} entries, got {len(got)}"
        for uid, (a, b) in enumerate(zip(want, got)):  # noqa: B905 - a length mismatch is reported above
            if a is not None and _differs(a, b, allowed):
                yield f"{where} {name} of {uid}: expected {a}, got {b} (allowed {allowed:g})"


def replay_epoch(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines for everything that did not agree. Raises RuleError for operations or settings it does not know."""
    inputs, expected = document["inputs"], dict(document["expected"]["after_epoch"])
    if not expected:
        yield "nothing is expected of any epoch"
    subnet, count = _start(inputs), 0
    for op in inputs["ops"]:
        result = _apply(subnet, op)
        if result is None:
            continue
        wanted = expected.pop(str(count), None)
        if wanted is not None:
            yield from _compare(wanted, result, subnet, document.get("tolerance", {}), f"epoch {count}:")
        count += 1
    for number in expected:
        yield f"epoch {number} is expected, only {count} ran"
