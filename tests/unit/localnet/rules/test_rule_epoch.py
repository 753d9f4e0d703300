"""The vectorised epoch equals a literal one to the last unit, and behaves as the chain does at its edges."""

from __future__ import annotations

import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.rules import vectorised as v
from localnet.rules.epoch import EpochHyper, EpochInput, EpochResult, aggregate, run_epoch
from localnet.rules.errors import RuleError
from localnet.rules.fixed import ONE32, div32, exp32, mul32
from localnet.rules.null_consensus import null_epoch, share_out
from localnet.rules.sparse import pairs
from tests.support.reference_epoch import reference_epoch

BLOCK = 1_000
U16 = st.one_of(st.sampled_from([0, 1, 32_767, 65_535]), st.integers(0, 65_535))


def readable(result: EpochResult) -> dict[str, object]:
    """All fields, bonds as pairs."""
    return asdict(replace(result, bonds={uid: pairs(row) for uid, row in result.bonds.items()}))  # type: ignore[misc]


def hypers() -> st.SearchStrategy[EpochHyper]:
    low = st.integers(0, 40_000)
    return st.builds(
        EpochHyper,
        tempo=st.sampled_from([0, 1, 10, 360]),
        activity_cutoff=st.sampled_from([5, 100, 5_000]),
        kappa=st.sampled_from([0, 20_000, 32_767, 50_000, 65_535]),
        max_validators=st.integers(0, 9),
        stake_threshold=st.sampled_from([0, 3, 10**9]),
        bonds_moving_average=st.sampled_from([0, 900_000, 975_000, 1_000_000]),
        bonds_penalty=st.sampled_from([0, 1, 30_000, 65_535]),
        yuma3=st.booleans(),
        liquid_alpha=st.booleans(),
        alpha_low=low,
        alpha_high=st.integers(40_000, 65_535),
        steepness=st.sampled_from([1_000, 1, 0, 32_767, -500]),
        consensus_mode=st.sampled_from(["Current", "Previous", "Auto"]),
    )


@st.composite
def epochs(draw: st.DrawFn) -> EpochInput:
    n = draw(st.integers(1, 9))

    def per_uid(values: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(values, min_size=n, max_size=n))

    def rows() -> dict[int, list[tuple[int, int]]]:
        columns = st.lists(st.integers(0, n), unique=True, max_size=n)
        if draw(st.booleans()):
            columns = columns.map(sorted)
        row = columns.flatmap(lambda js: st.tuples(*[st.tuples(st.just(j), U16) for j in js]).map(list))
        return draw(st.dictionaries(st.integers(0, n - 1), row, max_size=n))

    blocks = st.sampled_from([1, BLOCK - 10, BLOCK - 1, BLOCK])
    stake = st.one_of(st.just(0), st.integers(1, 10).map(lambda x: x << 64), st.integers(0, 2**114))
    return EpochInput(
        n=n,
        block=BLOCK,
        emission=draw(st.sampled_from([0, 1, 10**9, 2**63])),
        stake=per_uid(stake),
        last_update=per_uid(blocks),
        registered_at=per_uid(blocks),
        permits=[bool(x) for x in per_uid(st.integers(0, 1))],
        weights=rows(),
        bonds=rows(),
        hyper=draw(hypers()),
        last_step=draw(st.sampled_from([0, BLOCK - 10, BLOCK - 2])),
        owner_uid=draw(st.one_of(st.none(), st.integers(0, n - 1))),
        commit_blocks=draw(st.dictionaries(st.integers(0, n - 1), blocks, max_size=3)),
        previous_consensus=draw(st.lists(U16, max_size=n + 1)),
    )


@settings(max_examples=120)
@given(epochs())
def test_equals_the_literal_epoch(inputs: EpochInput) -> None:
    result = readable(run_epoch(inputs))
    for name, want in reference_epoch(inputs).items():
        assert result[name] == want, name


@settings(max_examples=60)
@given(epochs())
def test_never_pays_more_than_the_emission(inputs: EpochInput) -> None:
    result = run_epoch(inputs)
    assert sum(result.server_emission) + sum(result.validator_emission) <= inputs.emission
    assert sum(result.emission) <= inputs.emission


def busy(n: int = 40, validators: int = 12, **hyper: object) -> EpochInput:
    """A subnet where every validator weights everybody, differently."""
    rng = np.random.default_rng(7)
    weights = {i: [(j, int(rng.integers(0, 65_536))) for j in range(n) if j != i] for i in range(validators)}
    bonds = {i: [(j, int(rng.integers(0, 65_536))) for j in range(n)] for i in range(validators)}
    return EpochInput(
        n=n,
        block=BLOCK,
        emission=10**11,
        stake=[int(rng.integers(1, 2**50)) << 64 if i < validators else 0 for i in range(n)],
        last_update=[BLOCK - 5] * n,
        registered_at=[1] * n,
        permits=[i < validators for i in range(n)],
        weights=weights,
        bonds=bonds,
        hyper=EpochHyper(max_validators=validators, **hyper),  # type: ignore[arg-type]
    )


LIQUID = {"yuma3": True, "liquid_alpha": True}


@pytest.mark.parametrize("hyper", [{}, {"yuma3": True}, {**LIQUID, "bonds_penalty": 9_999}])
def test_equals_the_literal_epoch_on_a_busy_subnet(hyper: dict[str, object]) -> None:
    inputs = busy(**hyper)
    assert readable(run_epoch(inputs)) == reference_epoch(inputs)


@pytest.mark.parametrize(
    "mode, penalty, by_previous",
    [("Current", 65_535, False), ("Previous", 9_999, True), ("Auto", 9_999, False), ("Auto", 65_535, True)],
)
def test_liquid_alpha_measures_by_the_consensus_of_its_mode(mode: str, penalty: int, by_previous: bool) -> None:
    inputs = busy(**LIQUID, bonds_penalty=penalty)
    plain = run_epoch(inputs)
    chosen = replace(inputs, hyper=replace(inputs.hyper, consensus_mode=mode))
    assert run_epoch(chosen) == plain  # nothing before the first epoch
    earlier = replace(chosen, previous_consensus=plain.consensus[::-1])
    assert (run_epoch(earlier) != plain) == by_previous
    assert readable(run_epoch(earlier)) == reference_epoch(earlier)


def test_rows_read_the_same_as_pairs_and_as_stored_bytes() -> None:
    inputs = busy(yuma3=True)
    packed = {uid: b"".join(struct.pack("<HH", *pair) for pair in row) for uid, row in inputs.weights.items()}
    assert run_epoch(replace(inputs, weights=packed)) == run_epoch(inputs)


def test_a_duplicate_uid_in_a_row_is_refused() -> None:
    with pytest.raises(RuleError, match="weights of uid 0 name a uid twice"):
        run_epoch(replace(busy(), weights={0: [(3, 1), (3, 2)]}))


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(RuleError, match="39 values of permits"):
        run_epoch(replace(busy(), permits=[True] * 39))


def test_an_empty_subnet_has_an_empty_epoch() -> None:
    empty = EpochInput(0, 1, 10, [], [], [], [], {}, {})
    assert run_epoch(empty).emission == ()


def test_a_replaced_uid_loses_weights_and_bonds_on_it() -> None:
    inputs = busy(tempo=10)
    registered = list(inputs.registered_at)
    registered[20] = BLOCK - 1
    result = run_epoch(replace(inputs, registered_at=registered, last_step=BLOCK - 10))
    assert result.incentive[20] == 0
    assert all(20 not in dict(pairs(row)) for row in result.bonds.values())
    assert run_epoch(inputs).incentive[20] > 0


def test_a_commit_older_than_the_weighted_uid_does_not_count_for_it() -> None:
    inputs = replace(busy(), weights={i: [(20, 9), (21, 9)] for i in range(12)}, bonds={})
    registered = [*inputs.registered_at[:20], 500, *inputs.registered_at[21:]]

    def incentive(committed: int) -> int:
        commits = dict.fromkeys(range(12), committed)
        return run_epoch(replace(inputs, registered_at=registered, commit_blocks=commits)).incentive[20]

    assert incentive(499) == 0
    assert incentive(500) == incentive(900) > 0


def test_losing_the_permit_empties_the_bonds() -> None:
    inputs = busy()
    weakest = min(range(12), key=lambda i: inputs.stake[i])
    result = run_epoch(replace(inputs, hyper=replace(inputs.hyper, max_validators=11)))
    assert not result.permits[weakest] and result.bonds[weakest] == b""
    assert 30 not in result.bonds


def test_aggregate_of_one_mechanism_keeps_everything_but_bonds() -> None:
    result = run_epoch(busy())
    assert asdict(aggregate([result], [10**11])) == asdict(replace(result, bonds={}))


def test_aggregate_weights_by_emission_and_sums_what_is_paid() -> None:
    one = run_epoch(replace(busy(), emission=750))
    two = run_epoch(replace(busy(yuma3=True), emission=250))
    both = aggregate([one, two], [750, 250])
    for uid in range(40):
        assert both.server_emission[uid] == one.server_emission[uid] + two.server_emission[uid]
        exact = one.dividends[uid] * 0.75 + two.dividends[uid] * 0.25
        assert exact - 2 < both.dividends[uid] <= exact
        assert both.incentive[uid] == int(one.incentive[uid] * 0.75)


def test_aggregate_without_emission_counts_mechanism_zero() -> None:
    one, two = run_epoch(busy()), run_epoch(busy(yuma3=True))
    assert aggregate([one, two], [0, 0]).dividends == one.dividends


@settings(max_examples=200)
@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_share_out_loses_nothing(budget: int, shares: list[int]) -> None:
    parts = share_out(budget, shares)
    assert sum(parts) == (budget if sum(shares) else 0)
    for part, share in zip(parts, shares, strict=True):
        assert abs(part * sum(shares) - budget * share) <= sum(shares)


def test_null_epoch_follows_the_largest_permitted_stake_and_ties_go_to_the_lowest_uid() -> None:
    rows = {0: [(2, 1)], 1: [(0, 1)]}
    assert null_epoch([5, 9, 0], [True, False, False], rows, 10)[0] == [0, 0, 5]
    assert null_epoch([5, 5, 0], [True, True, False], rows, 10)[0] == [0, 0, 5]
    assert null_epoch([5, 6, 0], [True, True, False], rows, 10)[0] == [5, 0, 0]


# --- the arithmetic below the epoch ---------------------------------------------------------------

WIDE = st.integers(-(2**47), 2**47)


@given(st.lists(st.tuples(WIDE, st.integers(-(2**46), 2**46)), min_size=1, max_size=20))
def test_vector_products_equal_scalar_products(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    assert v.mul32(a, b).tolist() == [mul32(x, y) for x, y in pairs]


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), min_size=1, max_size=20))
def test_vector_quotients_equal_scalar_quotients(pairs: list[tuple[int, int]]) -> None:
    fitting = [(x, y) for x, y in pairs if div32(x, y) < 2**63] or [(1, 1)]
    a, b = (np.array(column, dtype=np.int64) for column in zip(*fitting, strict=True))
    assert v.div32(a, b).tolist() == [div32(x, y) for x, y in fitting]


@given(st.lists(st.integers(-(30 << 32), 30 << 32), min_size=1, max_size=50))
def test_vector_exponential_equals_scalar_exponential(xs: list[int]) -> None:
    values = [*xs, 0, ONE32, -ONE32, 20 << 32, -(20 << 32)]
    assert v.exp32(np.array(values, dtype=np.int64)).tolist() == [exp32(x) for x in values]
