"""One mechanism's epoch: from weights and stake to consensus, incentive, dividends, bonds and emission.

Read `work_out` first; it is the table of contents (`run_epoch` is it plus what is stored and paid):

    activity, stake        who is heard, and with what share of the stake
    permits                the top stakers; the *old* permits decide this epoch, the new ones are stored
    weights                rows of permitted validators, without self-weights and without weights on replaced uids
    consensus              per uid the largest weight that a kappa-majority of active stake supports; excess is clipped
    bonds                  a validator's slowly moving claim on each miner: Yuma 2 (column-normalised averages), or
                           Yuma 3 (per-entry averages, optionally with a rate that depends on agreement: liquid alpha)
    emission               half by incentive, half by dividends; by stake when there is no consensus

The arithmetic is in `yuma`; here is what is heard, what is stored and what is paid. Results are exact to the last unit.
Matrices have a row per *participant* (a uid with weights, bonds or active stake) and a column per uid. `aggregate`
combines several mechanisms; the winner-decides alternative to Yuma is `localnet.rules.null_consensus`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from localnet.rules import vectorised as v
from localnet.rules import yuma
from localnet.rules.errors import RuleError
from localnet.rules.fixed import ONE64, div64, mul32, u16_proportion
from localnet.rules.sparse import Matrix, Row, build, stored_rows
from localnet.rules.vectorised import Bools, Ints
from localnet.rules.yuma import EpochHyper

_FAR_FUTURE = (1 << 63) - 1


@dataclass(frozen=True)
class EpochInput:
    """Everything one epoch reads. Per-uid sequences have length n; blocks are u64."""

    n: int
    block: int
    emission: int
    """Alpha to divide, u64."""
    stake: Sequence[int]
    """Total stake weight per uid, I64F64 bits (`stake.stake_weight`)."""
    last_update: Sequence[int]
    """Of this mechanism."""
    registered_at: Sequence[int]
    permits: Sequence[bool]
    """As stored before this epoch."""
    weights: Mapping[int, Row]
    bonds: Mapping[int, Row]
    hyper: EpochHyper = field(default_factory=EpochHyper)
    last_step: int = 0
    """Block of the subnet's previous epoch (LastMechansimStepBlock); 0 if there was none."""
    owner_uid: int | None = None
    """The subnet owner hotkey's uid: exempt from the stake threshold, always permitted, may weight itself."""
    commit_blocks: Mapping[int, int] = field(default_factory=dict)
    """uid -> block of its earliest unexpired weight commit; leave empty when commit-reveal is off."""
    previous_consensus: Sequence[int] = ()
    """This mechanism's consensus of the epoch before, u16 as stored: read by some modes of liquid alpha."""


@dataclass(frozen=True)
class EpochResult:
    """What the chain stores and pays. Per-uid tuples of length n; u16 fields are fractions of 65535."""

    active: tuple[bool, ...]
    permits: tuple[bool, ...]
    stake_weight: tuple[int, ...]
    consensus: tuple[int, ...]
    incentive: tuple[int, ...]
    dividends: tuple[int, ...]
    validator_trust: tuple[int, ...]
    server_emission: tuple[int, ...]
    validator_emission: tuple[int, ...]
    emission: tuple[int, ...]
    """Combined (server and validator together), u64: what is stored."""
    bonds: Mapping[int, bytes]
    """Rows to write, as stored (`sparse.pairs` reads them): every uid with a new permit, and an empty row for those
    that lost it. Others stay untouched."""


def _with_owner(permits: Sequence[bool], owner_uid: int | None) -> list[bool]:
    return [permit or uid == owner_uid for uid, permit in enumerate(permits)]


def conditions(inputs: EpochInput, uids: Sequence[int]) -> dict[str, Bools]:
    """What a weight of one of `uids` (rows) on a uid (columns) must satisfy to count, beside its row's permit: not on
    oneself (but for the owner), not set before the weighted uid was registered, not committed before that either."""
    rows = np.array(uids, dtype=np.int64)[:, None]
    columns = np.arange(inputs.n, dtype=np.int64)
    registered = np.array(inputs.registered_at, dtype=np.int64)
    updated = np.array([inputs.last_update[uid] for uid in uids], dtype=np.int64)[:, None]
    committed = np.array([inputs.commit_blocks.get(uid, _FAR_FUTURE) for uid in uids], dtype=np.int64)[:, None]
    return {
        "self-weight": (rows != columns) | (columns == (-1 if inputs.owner_uid is None else inputs.owner_uid)),
        "set before registration": updated > registered,
        "committed before registration": committed >= registered,
    }


def _masked_weights(inputs: EpochInput, uids: Sequence[int], permits: Sequence[bool]) -> Matrix:
    """Weights that count: permitted rows, entries that satisfy all `conditions`, each row normalised."""
    permitted = {uid: inputs.weights.get(uid, ()) for uid in uids if permits[uid]}
    raw = build(permitted, uids, inputs.n, "weights")
    own, fresh, committed = conditions(inputs, uids).values()
    kept = raw.keep(own & fresh & committed)
    sums = kept.values.sum(axis=1, keepdims=True)
    return Matrix(v.div32(kept.values << np.int64(32), sums << np.int64(32)), kept.present, kept.order)


def _masked_bonds(inputs: EpochInput, uids: Sequence[int]) -> Matrix:
    """Stored bonds, without columns of uids registered at or after the subnet's previous step."""
    last_tempo = inputs.last_step + 1 if inputs.last_step else max(inputs.block - inputs.hyper.tempo, 0)
    registered = np.array(inputs.registered_at, dtype=np.int64)
    return build(inputs.bonds, uids, inputs.n, "bonds").keep(
        np.broadcast_to(last_tempo > registered, (len(uids), inputs.n))
    )


@dataclass(frozen=True)
class _Shares:
    """Emission shares per uid."""

    server: Ints
    validator: Ints
    combined: Ints


def _emission_shares(incentive: Ints, dividends: Ints, stake: Ints, active_stake: Ints) -> _Shares:
    """Incentive and dividends over their common sum; without any, validators by active stake, or by all stake when no
    active validator has any."""
    combined = incentive + dividends
    total = np.int64(combined.sum())
    if total == 0:
        fallback = active_stake if active_stake.any() else stake
        return _Shares(incentive, fallback, fallback)
    return _Shares(v.div32(incentive, total), v.div32(dividends, total), v.normalise(combined))


def _amounts(shares: Ints, emission: int) -> tuple[int, ...]:
    return tuple(mul32(share, emission << 32) >> 32 for share in shares.tolist())


def _u16s(values: Ints) -> tuple[int, ...]:
    return tuple(v.to_u16(values).tolist())


def _spread(values: Ints, uids: Sequence[int], n: int) -> Ints:
    """Values of the participants' rows as a vector over all uids."""
    full = np.zeros(n, dtype=np.int64)
    full[list(uids)] = values
    return full


def _check_shape(inputs: EpochInput) -> None:
    for name in ("stake", "last_update", "registered_at", "permits"):
        if len(getattr(inputs, name)) != inputs.n:
            raise RuleError(f"epoch of {inputs.n} uids got {len(getattr(inputs, name))} values of {name}")


@dataclass(frozen=True)
class EpochTerms:
    """Everything between an epoch's input and its result. Vectors are over all uids or, where it says so, over the
    participants `uids`; numbers are I32F32 bits."""

    active: list[bool]
    stake: Ints
    """Shares of those at or above the stake threshold."""
    permits: list[bool]
    """Those that decide this epoch."""
    new_permits: list[bool]
    active_stake: Ints
    """Shares of those that are active and permitted."""
    uids: list[int]
    """The participants: rows of the matrices."""
    weights: Matrix
    consensus: Ints
    clipped: Matrix
    incentive: Ints
    bond_weights: Matrix
    bonds: Matrix
    dividends: Ints
    shares: _Shares


def run_epoch(inputs: EpochInput) -> EpochResult:
    """One mechanism's epoch.

    Raises RuleError when a per-uid sequence does not have n entries or a row names a uid twice.
    """
    return result_of(inputs, work_out(inputs))


def work_out(inputs: EpochInput) -> EpochTerms:
    """The terms of one mechanism's epoch. Raises what `run_epoch` raises."""
    _check_shape(inputs)
    hyper, n = inputs.hyper, inputs.n
    active = [updated + hyper.activity_cutoff >= inputs.block for updated in inputs.last_update]

    shares = yuma.normalised_stake(inputs.stake, hyper.stake_threshold, inputs.owner_uid)
    stake = np.array(shares, dtype=np.int64)
    permits = _with_owner(inputs.permits, inputs.owner_uid)
    top = [chosen and share > 0 for chosen, share in zip(yuma.top_k(shares, hyper.max_validators), shares, strict=True)]
    new_permits = _with_owner(top, inputs.owner_uid)
    active_stake = v.normalise(np.where(np.array(active, bool) & np.array(permits, bool), stake, 0))

    rows = {uid for uid in range(n) if inputs.bonds.get(uid) or (permits[uid] and inputs.weights.get(uid))}
    uids = sorted(rows | set(np.flatnonzero(active_stake).tolist()))
    row_stake = active_stake[uids]
    weights = _masked_weights(inputs, uids, permits)
    consensus = yuma.consensus_of_active(row_stake, weights.values, u16_proportion(hyper.kappa))
    clipped = yuma.clip(weights, consensus)
    incentive = v.normalise(v.mul32(clipped.values, row_stake[:, None]).sum(axis=0))

    bond_weights = yuma.bond_weights(weights, clipped, u16_proportion(hyper.bonds_penalty))
    old = _masked_bonds(inputs, uids)
    if hyper.yuma3:
        row_dividends, bonds = yuma.bonds_yuma3(
            bond_weights, old, row_stake, incentive, consensus, inputs.previous_consensus, hyper
        )
    else:
        row_dividends, bonds = yuma.bonds_yuma2(bond_weights, old, row_stake, incentive, hyper)

    dividends = _spread(row_dividends, uids, n)
    return EpochTerms(
        active=active,
        stake=stake,
        permits=permits,
        new_permits=new_permits,
        active_stake=active_stake,
        uids=uids,
        weights=weights,
        consensus=consensus,
        clipped=clipped,
        incentive=incentive,
        bond_weights=bond_weights,
        bonds=bonds,
        dividends=dividends,
        shares=_emission_shares(incentive, dividends, stake, active_stake),
    )


def result_of(inputs: EpochInput, terms: EpochTerms) -> EpochResult:
    """What the chain keeps of an epoch's terms."""
    n, emission, permits, new_permits = inputs.n, inputs.emission, terms.permits, terms.new_permits
    stored = dict(zip(terms.uids, stored_rows(terms.bonds), strict=True))
    return EpochResult(
        active=tuple(terms.active),
        permits=tuple(new_permits),
        stake_weight=_u16s(terms.stake),
        consensus=_u16s(terms.consensus),
        incentive=_u16s(terms.incentive),
        dividends=_u16s(terms.dividends),
        validator_trust=_u16s(_spread(terms.clipped.values.sum(axis=1), terms.uids, n)),
        server_emission=_amounts(terms.shares.server, emission),
        validator_emission=_amounts(terms.shares.validator, emission),
        emission=_amounts(terms.shares.combined, emission),
        bonds={
            uid: stored.get(uid, b"") if new_permits[uid] else b""
            for uid in range(n)
            if new_permits[uid] or permits[uid]
        },
    )


# --- several mechanisms ---------------------------------------------------------------------------


def aggregate(results: Sequence[EpochResult], emissions: Sequence[int]) -> EpochResult:
    """One set of per-uid values out of several mechanisms' epochs, mechanism m weighted by its part of the emission
    (all on mechanism 0 when nothing is emitted).

    Dividends, consensus, validator trust, stake weight and stored emission are weighted sums, floored after each step;
    server and validator emission plain sums; permits and activity OR; incentive is mechanism 0's, weighted. Bonds stay
    with their mechanisms: `bonds` is empty.
    """
    if not results or len(results) != len(emissions):
        raise RuleError(f"{len(results)} epochs and {len(emissions)} emissions cannot be aggregated")
    total = sum(emissions)
    parts = [div64(e << 64, total << 64) if total else (ONE64 if m == 0 else 0) for m, e in enumerate(emissions)]

    def weighted(name: str, cap: int) -> tuple[int, ...]:
        sums = [0] * len(results[0].active)
        for result, part in zip(results, parts, strict=True):
            values = getattr(result, name)
            sums = [min(((s << 64) + value * part) >> 64, cap) for s, value in zip(sums, values, strict=True)]
        return tuple(sums)

    def summed(name: str) -> tuple[int, ...]:
        return tuple(sum(column) for column in zip(*(getattr(result, name) for result in results), strict=True))

    def any_of(name: str) -> tuple[bool, ...]:
        return tuple(any(column) for column in zip(*(getattr(result, name) for result in results), strict=True))

    return EpochResult(
        active=any_of("active"),
        permits=any_of("permits"),
        stake_weight=weighted("stake_weight", 0xFFFF),
        consensus=weighted("consensus", 0xFFFF),
        incentive=tuple(value * parts[0] >> 64 for value in results[0].incentive),
        dividends=weighted("dividends", 0xFFFF),
        validator_trust=weighted("validator_trust", 0xFFFF),
        server_emission=summed("server_emission"),
        validator_emission=summed("validator_emission"),
        emission=weighted("emission", (1 << 64) - 1),
        bonds={},
    )


__all__ = [
    "EpochHyper", "EpochInput", "EpochResult", "EpochTerms", "Row",
    "aggregate", "conditions", "result_of", "run_epoch", "work_out",
]  # fmt: skip
