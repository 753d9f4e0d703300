"""Coinbase, stake, registration, weights, fees: the edges the recorded vectors do not reach."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.codec.document import Document
from localnet.rules import coinbase, constants, fees, registration, stake, weights
from localnet.rules.errors import RuleError
from localnet.rules.fixed import ONE32, ONE64, U64_MAX, exp32, from_float32, from_float64
from localnet.rules.weights import TimelockPayload, WeightRules

U64 = st.integers(0, U64_MAX)
AMOUNT = st.integers(0, 21 * 10**15)


# --- coinbase -------------------------------------------------------------------------------------


@given(AMOUNT, AMOUNT)
def test_block_emission_never_rises_with_issuance(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert coinbase.block_emission(low) >= coinbase.block_emission(high)


@given(st.integers(0, 10**10), st.integers(0, 65_535), st.integers(0, ONE32))
def test_alpha_is_split_without_surplus(alpha: int, cut: int, root: int) -> None:
    parts = coinbase.split_alpha_out(alpha, cut, root)
    total = parts.owner + parts.server + parts.validator + parts.root
    assert alpha - 4 <= total <= alpha


def ungated(subnets: list[coinbase.SubnetWeight]) -> dict[int, int]:
    return coinbase.subnet_shares(coinbase.demand_shares(subnets), subnets, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 10 * ONE32), st.integers(0, ONE32), st.booleans()), max_size=10))
def test_subnet_shares_add_up_to_one_or_nothing(subnets: list[tuple[int, int, bool]]) -> None:
    shares = ungated([coinbase.SubnetWeight(i, *subnet) for i, subnet in enumerate(subnets)])
    total = sum(shares.values())
    assert total == 0 or abs(total - ONE64) < 2 * ONE32
    assert all(shares[i] == 0 for i, (_, _, enabled) in enumerate(subnets) if not enabled)


def test_subnet_shares_follow_price_and_what_miners_were_paid() -> None:
    half = coinbase.SubnetWeight(1, ONE32, miner_burned=ONE32 // 2)
    full = coinbase.SubnetWeight(2, ONE32)
    shares = ungated([half, full])
    assert shares[2] == pytest.approx(2 * shares[1], abs=4)
    burned = [coinbase.SubnetWeight(n, ONE32, miner_burned=ONE32) for n in (1, 2)]
    assert ungated(burned) == coinbase.price_shares(burned)
    emissions = coinbase.emissions_of(shares, 10**9)
    assert abs(sum(emissions.values()) - (10**9 << 32)) < 1 << 8


def test_injection_is_capped_by_root_s_share_and_the_rest_buys() -> None:
    free = coinbase.injection(10**9 << 32, 10**9, ONE64 // 2, ONE32)
    assert (free.tao_in, free.alpha_in, free.excess) == (500_000_000, 10**9, 500_000_000)
    small = coinbase.injection(10**8 << 32, 10**9, ONE64, ONE32)
    assert (small.tao_in, small.alpha_in, small.excess, small.alpha_out) == (10**8, 10**8, 0, 10**9)
    assert coinbase.injection(10**9 << 32, 10**9, ONE64, 0).excess == 10**9


def test_epochs_are_due_by_tempo_by_request_and_when_overdue() -> None:
    due = coinbase.epoch_due
    assert not due(0, 10**6, 0) and not due(360, 359, 0) and due(360, 360, 0)
    assert due(360, 100, 50, pending_at=100) and not due(360, 99, 50, pending_at=100)
    assert due(65_535, 60_000, 59_999, since_last_step=50_401)
    assert not due(65_535, 60_000, 59_999, since_last_step=50_400)
    assert coinbase.next_epoch_block(360, 10) == 370 and coinbase.next_epoch_block(360, 10, 99) == 99
    assert coinbase.next_epoch_block(0, 10) is None


def test_owner_settings_freeze_before_an_epoch() -> None:
    frozen = coinbase.is_admin_frozen
    assert not frozen(360, 350, 0, 0, 10) and frozen(360, 351, 0, 0, 10)
    assert frozen(360, 5, 0, 6, 10) and not frozen(0, 5, 0, 6, 10)
    assert frozen(10, 1, 0, 0, 10) and not frozen(10, 1, 0, 0, 0)


HOLDERS = st.dictionaries(st.integers(0, 5), st.tuples(AMOUNT, AMOUNT, st.integers(0, 10**12)), min_size=1)


@given(HOLDERS, st.integers(0, 10**12), st.integers(0, 10**12))
def test_distribution_pays_out_the_pools_and_no_more(
    holders: dict[int, tuple[int, int, int]], pool: int, root_pool: int
) -> None:
    stakes = {key: (alpha, root) for key, (alpha, root, _) in holders.items()}
    dividends = {key: dividend for key, (_, _, dividend) in holders.items()}
    paid = coinbase.distribute(dividends, stakes, pool, root_pool, stake.tao_weight(constants.NETWORK.tao_weight))
    alpha, root = sum(part.alpha for part in paid.values()), sum(part.root for part in paid.values())
    assert alpha <= pool << 32 and root <= root_pool << 32
    assert alpha == 0 or alpha >= (pool << 32) - len(holders) * (pool + 1)
    assert all(part.root == 0 for key, part in paid.items() if stakes[key][1] == 0)


def test_root_s_part_of_who_has_no_seat_goes_to_those_who_have_one_and_alpha_stays_as_it_is() -> None:
    """Half of each dividend counts to root (weight 1); without a seat that half is nobody's and not alpha's either."""
    dividends, stakes = {"a": 600, "b": 200}, {"a": (100, 100), "b": (50, 50)}
    both = coinbase.distribute(dividends, stakes, 800, 400, ONE32)
    assert both == {"a": coinbase.Dividends(600 << 32, 300 << 32), "b": coinbase.Dividends(200 << 32, 100 << 32)}
    one = coinbase.distribute(dividends, stakes, 800, 400, ONE32, {"a"})
    assert one == {"a": coinbase.Dividends(600 << 32, 0), "b": coinbase.Dividends(200 << 32, 400 << 32)}
    none = coinbase.distribute(dividends, stakes, 800, 400, ONE32, {"a", "b"})
    assert [part.root for part in none.values()] == [0, 0] and none["a"].alpha == 600 << 32


def test_takes_and_pools_for_validators() -> None:
    assert coinbase.take_split(1000 << 32, 65_535) == (1000, 0)
    assert coinbase.take_split(1000 << 32, 11_796) == (179, 820)
    assert coinbase.validator_pool(5, 7, 0) == 12 and coinbase.validator_pool(5, 7, 1) == 5
    assert coinbase.miner_burned(1, 2) == ONE32 // 2 and coinbase.miner_burned(0, 0) == 0


# --- stake ----------------------------------------------------------------------------------------


@given(AMOUNT, st.lists(st.integers(0, U64_MAX // 5), max_size=5))
def test_what_is_given_to_children_is_what_they_inherit(own: int, given_away: list[int]) -> None:
    kept = stake.inherited(own, given_away, [])
    handed = sum(stake.inherited(0, [], [(own, share)]) for share in given_away)
    assert own - len(given_away) - 1 <= kept + handed <= own + 1


def test_dividends_return_to_parents_less_the_childkey_take() -> None:
    weight = from_float32(0.5)
    own = stake.self_contribution(100, 0, [], weight)
    parents = [
        stake.Parent("other", alpha=100, root=0, proportion=U64_MAX, same_owner=False),
        stake.Parent("same", alpha=0, root=400, proportion=U64_MAX, same_owner=True),
    ]
    split = stake.split_dividend(4_000_000, own, parents, child_take=6_554, weight=weight)
    assert dict(split.parents)["other"] == pytest.approx(900_000, abs=20)
    assert dict(split.parents)["same"] == pytest.approx(2_000_000, abs=20)
    assert split.own == pytest.approx(1_100_000, abs=20) and split.burned == 0
    burning = stake.split_dividend(4_000_000, own, parents, 0, weight, burn=from_float32(0.25))
    assert burning.burned == pytest.approx(250_000, abs=2)
    assert dict(burning.parents)["other"] == pytest.approx(750_000, abs=20)


@given(
    st.integers(0, 10**12),
    st.lists(st.tuples(AMOUNT, AMOUNT, U64, st.booleans()), max_size=4),
    st.integers(0, 65_535),
    st.integers(0, ONE32),
)
def test_a_split_dividend_never_grows(
    dividend: int, parents: list[tuple[int, int, int, bool]], take: int, weight: int
) -> None:
    listed = [stake.Parent(i, *parent) for i, parent in enumerate(parents)]
    split = stake.split_dividend(dividend, 10**9, listed, take, weight)
    assert split.own + sum(amount for _, amount in split.parents) <= dividend


def test_tao_weight_of_the_chain() -> None:
    assert stake.tao_weight(constants.NETWORK.tao_weight) / ONE32 == pytest.approx(0.05268, abs=1e-5)
    assert stake.stake_weight(5, 2, ONE32 // 2) == 6 * ONE64


# --- registration ---------------------------------------------------------------------------------


@given(st.integers(1, 36_100), st.integers(0, 10**11))
def test_price_is_at_most_half_after_a_half_life(half_life: int, price: int) -> None:
    factor = registration.decay_factor_q32(half_life)
    assert registration.pow_q32(factor, half_life) <= 1 << 31 < registration.pow_q32(factor + 1, half_life)
    assert registration.decay_price(price, half_life, 0, U64_MAX, 2) <= price


def test_price_bounds_and_first_block() -> None:
    assert registration.decay_price(10**12, 1, 500, 10**11, 1) == 10**11
    assert registration.decay_price(600, 1, 500, 10**11, 2) == 500
    assert registration.bump_price(1_000, ONE64 // 2, 0, U64_MAX) == 1_000
    assert registration.bump_price(10**9, constants.DEFAULTS.burn_increase_mult, 0, U64_MAX) == 1_260_000_000


def test_owner_uids_are_immortal_oldest_first() -> None:
    owned = [(50, 3), (10, 7), (10, 2)]
    assert registration.immortal_uids(owned, None, 2) == [2, 7]
    assert registration.immortal_uids(owned, 3, 2) == [3, 2]
    assert registration.immortal_uids(owned, 2, 1) == [2]


def test_subnet_price_doubles_and_falls_back() -> None:
    cost = registration.lock_cost
    assert cost(5, 10**12, 0, 10**12, 100_800) == 10**12
    assert cost(100, 10**12, 100, 10**12, 100_800) == 2 * 10**12
    assert cost(100 + 50_400, 10**12, 100, 10**12, 100_800) == pytest.approx(1.5 * 10**12, abs=10**6)
    assert cost(10**7, 10**12, 100, 10**12, 100_800) == 10**12
    assert registration.lock_reduction_interval(100_800, 500_000_000) == 50_400


def test_initial_pool_uses_the_median_price() -> None:
    assert registration.median_price([]) == ONE64
    assert registration.median_price([0, ONE64, 3 * ONE64]) == 2 * ONE64
    assert registration.median_price([5 * ONE64, ONE64, 3 * ONE64]) == 3 * ONE64
    pool = registration.initial_pool(10**12, 10**12, ONE64 // 4)
    assert (pool.tao, pool.alpha, pool.recycled) == (10**12, 4 * 10**12, 0)


def test_the_cheapest_oldest_subnet_past_immunity_makes_room() -> None:
    subnets = [(1, 50, 10), (2, 20, 30), (3, 20, 20), (4, 1, 95)]
    assert registration.subnet_to_prune(subnets, 100, 50) == 3
    assert registration.subnet_to_prune(subnets, 100, 200) is None


def test_root_gives_up_the_least_stake_that_is_not_immune() -> None:
    assert registration.root_uid_to_replace([5, 3, 3], [0, 0, 0], 10, 10) == 1
    assert registration.root_uid_to_replace([5, 3, 4], [0, 1, 0], 10, 10) == 2
    assert registration.root_uid_to_replace([5, 3, 3], [1, 1, 1], 10, 10) is None


def test_rate_limits() -> None:
    passed = registration.rate_limit_passed
    assert passed(None, 5, 10) and passed(0, 5, 10) and passed(5, 5, 0)
    assert not passed(5, 14, 10) and passed(5, 15, 10)


# --- weights and fees -----------------------------------------------------------------------------

ROW = st.lists(st.integers(0, 65_535), max_size=80).map(tuple)


@given(st.binary(max_size=40), ROW, ROW, U64)
def test_timelock_payload_reads_back(
    hotkey: bytes, uids: tuple[int, ...], values: tuple[int, ...], version: int
) -> None:
    payload = TimelockPayload(hotkey, uids, values, version)
    assert weights.parse_timelock_payload(weights.timelock_payload(payload)) == payload


def test_timelock_payload_without_hotkey_is_read_and_rubbish_is_refused() -> None:
    old = weights.timelock_payload(TimelockPayload(b"", (1, 2), (3, 4), 9))[1:]
    assert weights.parse_timelock_payload(old) == TimelockPayload(b"", (1, 2), (3, 4), 9)
    for rubbish in (b"", b"\xff" * 50, old[:-1], old + b"\0"):
        with pytest.raises(RuleError):
            weights.parse_timelock_payload(rubbish)


def test_commit_hash_is_over_scale_bytes() -> None:
    body = bytes(32) + b"\x01\x00" + b"\x04\x07\x00" + b"\x04\xff\xff" + b"\x00" + (4).to_bytes(8, "little")
    assert weights.commit_hash(bytes(32), 1, [7], [65_535], [], 4) == hashlib.blake2b(body, digest_size=32).digest()
    with pytest.raises(RuleError, match="32 bytes"):
        weights.commit_hash(b"short", 1, [], [], [], 0)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=50))
def test_upscaled_weights_top_out_and_keep_their_order(values: list[int]) -> None:
    scaled = weights.max_upscale(values)
    assert max(scaled) == (65_535 if any(values) else 0)
    assert [scaled[i] for i in sorted(range(len(values)), key=values.__getitem__)] == sorted(scaled)


@given(st.integers(0, 10**15), st.integers(1, 16), st.lists(st.integers(0, 4_000), min_size=1, max_size=16))
def test_mechanisms_share_everything(total: int, count: int, split: list[int]) -> None:
    assert sum(weights.split_emission(total, count)) == total
    if len(split) <= count:
        assert sum(weights.split_emission(total, count, split)) == total


@given(st.integers(0, 4095), st.integers(0, 15))
def test_storage_index_is_reversible(netuid: int, mecid: int) -> None:
    assert weights.split_storage_index(weights.storage_index(netuid, mecid)) == (netuid, mecid)


OPEN = WeightRules(10, 1, 65_535, weights_version=0, rate_limit=100, stake_threshold=0, owner_uid=None)
GOOD = {"uid": 1, "stake_weight": 5, "permit": True, "last_update": 50, "block": 200, "version": 0}


@pytest.mark.parametrize(
    ("name", "rules", "author", "uids", "values"),
    [
        ("WeightVecNotEqualSize", {}, {}, [1, 2], [1]),
        ("UidsLengthExceedUidsInSubNet", {"n": 1}, {}, [0, 1], [1, 1]),
        ("NotEnoughStakeToSetWeights", {"stake_threshold": 6}, {}, [2], [1]),
        ("IncorrectWeightVersionKey", {"weights_version": 3}, {"version": 2}, [2], [1]),
        ("SettingWeightsTooFast", {}, {"last_update": 101}, [2], [1]),
        ("NeuronNoValidatorPermit", {}, {"permit": False}, [2], [1]),
        ("DuplicateUids", {}, {}, [2, 2], [1, 1]),
        ("UidVecContainInvalidOne", {}, {}, [10], [1]),
        ("WeightVecLengthIsLow", {"min_allowed_weights": 3}, {}, [2, 3], [1, 1]),
        ("MaxWeightExceeded", {"max_weights_limit": 30_000}, {}, [2, 3], [1, 1]),
        (None, {"max_weights_limit": 32_768}, {}, [2, 3], [1, 1]),
        (None, {"min_allowed_weights": 3}, {"permit": False}, [1], [9]),
        (None, {"stake_threshold": 6, "owner_uid": 1}, {"permit": False}, [2], [1]),
        (None, {}, {"last_update": 0, "block": 1}, [2], [1]),
        (None, {}, {"last_update": 199, "check_rate": False}, [2], [1]),
    ],
)
def test_weight_rules(
    name: str | None, rules: dict[str, int], author: dict[str, int], uids: list[int], values: list[int]
) -> None:
    merged = WeightRules(**{**OPEN.__dict__, **rules})
    scaled, broken = weights.check_weights(merged, uids=uids, values=values, **{**GOOD, **author})  # type: ignore[arg-type]
    assert broken == name
    assert (max(scaled) == 65_535) if name is None else scaled == []


def test_fees() -> None:
    assert fees.fee(224_051_000, 144) == 166_247  # as recorded
    assert fees.fee(224_051_000, 144, tip=5) == 166_252
    assert fees.alpha_fee(100, ONE64 // 2, 1_000) == 200
    assert fees.alpha_fee(100, ONE64 // 2, 150) == 150
    assert fees.alpha_fee(100, 0, 150) == 0


# --- figures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> Document:
    return Document.load()


@pytest.mark.parametrize("field", [f for f in constants.STORAGE_NAMES if f != "tempo"])
def test_defaults_are_the_metadata_s(document: Document, field: str) -> None:
    entry = document.storage["SubtensorModule", constants.STORAGE_NAMES[field]]
    value = document.registry.decode(entry.value, entry.default)
    value = value["bits"] if isinstance(value, dict) else value
    assert value == getattr(constants.DEFAULTS, field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("InitialTempo", constants.FAST.default_tempo),
        ("InitialMaxEpochsPerBlock", constants.FAST.max_epochs_per_block),
        ("InitialColdkeySwapAnnouncementDelay", constants.FAST.coldkey_swap_announcement_delay),
        ("InitialColdkeySwapReannouncementDelay", constants.FAST.coldkey_swap_reannouncement_delay),
        ("InitialTxChildKeyTakeRateLimit", constants.FAST.childkey_take_rate_limit),
        ("HotkeySwapOnSubnetInterval", constants.FAST.hotkey_swap_on_subnet_interval),
        ("InitialTaoWeight", constants.NETWORK.tao_weight),
        ("InitialMinStake", constants.NETWORK.min_stake),
        ("InitialMinTransfer", constants.NETWORK.min_transfer),
        ("InitialNetworkMinLockCost", constants.NETWORK.min_lock_cost),
        ("InitialNetworkLockReductionInterval", constants.NETWORK.lock_reduction_interval),
        ("InitialNetworkImmunityPeriod", constants.NETWORK.network_immunity_period),
        ("InitialNetworkRateLimit", constants.NETWORK.network_rate_limit),
        ("InitialSubnetOwnerCut", constants.NETWORK.owner_cut),
        ("InitialEmaPriceHalvingPeriod", constants.NETWORK.price_halving_blocks),
        ("KeySwapCost", constants.NETWORK.key_swap_cost),
        ("KeySwapOnSubnetCost", constants.NETWORK.key_swap_on_subnet_cost),
        ("MinTempo", constants.NETWORK.owner_min_tempo),
        ("MaxTempo", constants.NETWORK.owner_max_tempo),
    ],
)
def test_network_figures_are_the_metadata_s(document: Document, name: str, value: int) -> None:
    assert document.constants["SubtensorModule", name] == value


def test_the_exponential_is_close_to_the_true_one() -> None:
    for x in (-5.0, -1.0, -0.25, 0.5, 1.0, 2.0):
        assert exp32(from_float32(x)) / ONE32 == pytest.approx(2.718281828459045**x, rel=1e-6)
    assert exp32(from_float32(99.0)) == exp32(20 << 32) and from_float64(0.5) == ONE64 // 2
