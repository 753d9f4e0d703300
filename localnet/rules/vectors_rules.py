"""One function per rule that vectors of kind "table" name: from a case's inputs to the value it must produce.

They only translate between the vectors' vocabulary (floats, short names) and the rules' own; they compute nothing
themselves. Every input of a case must be asked for (`Case`), so that none is silently ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from localnet.rules import (
    coinbase,
    constants,
    fees,
    null_consensus,
    registration,
    shares,
    stake,
    swap,
    weights,
    yuma,
)
from localnet.rules.errors import RuleError, SwapError
from localnet.rules.fixed import (
    U64_MAX,
    from_float32,
    from_float64,
    to_float32,
    to_float64,
    to_u64,
    u16_proportion,
)
from localnet.rules.vectorised import Ints

_REQUIRED = object()


class Case:
    """A case's inputs. Every input must be asked for: one that no rule reads is an error, not an ignored wish."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.read: set[str] = set()

    def get(self, *names: str, default: Any = _REQUIRED) -> Any:
        """The input under the first of these names that is there. Raises RuleError when it is missing and required."""
        self.read.update(names)
        for name in names:
            if name in self.values:
                return self.values[name]
        if default is _REQUIRED:
            raise RuleError(f"input {names[0]!r} is missing")
        return default

    def check_all_read(self) -> None:
        """Raises RuleError when an input was not used."""
        unread = sorted(set(self.values) - self.read)
        if unread:
            raise RuleError(f"this rule does not know the inputs {', '.join(map(repr, unread))}")


Rule = Callable[[Case], Any]


# --- fractions and names --------------------------------------------------------------------------


def _u64_share(value: float) -> int:
    """A proportion given as a fraction, or as the u64 itself when above 1."""
    return value if isinstance(value, int) and value > 1 else min(round(value * U64_MAX), U64_MAX)


def _weight18(value: float) -> int:
    """A pool weight in 10^-18, given as a fraction or in those units."""
    return value if isinstance(value, int) and value > 1 else round(value * swap.ACCURACY)


def _fixed32(values: Any) -> Ints:
    """Nested floats as an array of numbers with 32 fraction bits."""
    nested = np.array(values, dtype=np.float64)
    return np.array([from_float32(x) for x in nested.ravel().tolist()], dtype=np.int64).reshape(nested.shape)


def _floats(values: Ints) -> Any:
    return (values.astype(np.float64) / 2.0**32).tolist()


# --- epoch arithmetic -----------------------------------------------------------------------------


def _weighted_median(case: Case) -> float:
    stakes, scores = _fixed32(case.get("stake")), _fixed32(case.get("score")).reshape(-1, 1)
    return to_float32(int(yuma.weighted_median(stakes, scores, from_float32(case.get("majority")))[0]))


def _weighted_median_col(case: Case) -> Any:
    stakes, scores, majority = _fixed32(case.get("stake")), _fixed32(case.get("score")), case.get("majority")
    if scores.size == 0:
        return []
    return _floats(yuma.consensus_of_active(stakes, scores, from_float32(majority)))


def _max_upscale(case: Case) -> list[int]:
    return weights.max_upscale_fixed([from_float32(value) for value in case.get("values")])


def _vec_max_limited(case: Case) -> bool:
    return weights.max_is_limited(case.get("values"), case.get("limit", "max_limit"))


def _topk(case: Case) -> list[bool]:
    return yuma.top_k(case.get("values"), case.get("k"))


def _ema_elementwise(case: Case) -> Any:
    new, old, alpha = (_fixed32(case.get(name)) for name in ("new", "old", "alpha"))
    return _floats(yuma.ema_elementwise(new, old, alpha))


def _interpolate(case: Case) -> Any:
    a, b = _fixed32(case.get("a")), _fixed32(case.get("b"))
    return _floats(yuma.interpolate(a, b, from_float32(case.get("ratio"))))


def _alpha_bound(value: float) -> int:
    return u16_proportion(value) if isinstance(value, int) and value > 1 else from_float32(value)


def _sigmoid(case: Case) -> float:
    alpha = yuma.alpha_sigmoid(
        consensus=from_float32(case.get("consensus")),
        weight=from_float32(case.get("weight")),
        bond=from_float32(case.get("bond")),
        low=_alpha_bound(case.get("low", "alpha_low")),
        high=_alpha_bound(case.get("high", "alpha_high")),
        steepness=case.get("steepness", default=1_000),
    )
    return to_float32(alpha)


def _null_epoch(case: Case) -> list[list[int]]:
    rows = {int(u): [(int(j), w) for j, w in row.items()] for u, row in case.get("weights").items()}
    stakes = case.get("stakes", "stake")
    if len(stakes) != case.get("n"):
        raise RuleError(f"{len(stakes)} stakes for {case.get('n')} uids")
    return list(null_consensus.null_epoch(stakes, case.get("permits"), rows, case.get("budget")))


# --- registration ---------------------------------------------------------------------------------


def _burn_price(case: Case) -> int:
    price: int
    price, bounds = case.get("price"), (case.get("mn", default=0), case.get("mx", default=U64_MAX))
    bump = case.get("bump", default=None)
    if bump is not None:
        price = registration.bump_price(price, from_float64(bump), *bounds)
    for block in range(case.get("blocks", default=0)):
        price = registration.decay_price(price, case.get("hl", "half_life"), *bounds, block=block + 2)
    case.get("hl", "half_life", default=0)
    return price


def _prune(case: Case) -> int | None:
    neurons = case.get("neurons")
    return registration.uid_to_prune(
        [emission for emission, _ in neurons],
        [registered for _, registered in neurons],
        case.get("block"),
        case.get("immunity"),
        case.get("min_free", default=0),
        case.get("immortal", default=()),
    )


def _lock_cost(case: Case) -> int:
    return registration.lock_cost(
        block=case.get("block"),
        last_lock=case.get("last_lock", "last"),
        last_lock_block=case.get("last_lock_block", "last_block"),
        min_lock=case.get("min_lock", "min"),
        reduction_interval=case.get("interval", "reduction_interval"),
    )


# --- pool and shares ------------------------------------------------------------------------------


def _pool(case: Case) -> swap.Pool:
    return swap.Pool(case.get("tao"), case.get("alpha"), _weight18(case.get("wq", default=0.5)))


def _swap(case: Case) -> dict[str, Any]:
    pool, amount, rate = _pool(case), case.get("amount"), case.get("fee_rate", default=swap.DEFAULT_FEE_RATE)
    trades = {"buy": (swap.buy, swap.MAX_PRICE), "sell": (swap.sell, swap.MIN_PRICE)}
    if case.get("kind") not in trades:
        raise RuleError(f"a swap is 'buy' or 'sell', not {case.get('kind')!r}")
    trade, default_limit = trades[case.get("kind")]
    limit = case.get("limit", default=default_limit)
    try:
        done = trade(pool, amount, rate, limit if isinstance(limit, int) else round(limit * swap.PRICE_SCALE))
    except SwapError as error:
        return {"error": error.name}
    return {"fee": done.fee, "in_delta": done.paid_in, "out": done.paid_out}


def _pow_ratio(case: Case) -> float:
    return to_float64(swap.shrink_ratio(case.get("x"), case.get("dx"), case.get("num"), case.get("den")))


def _delta_in(case: Case) -> int:
    current, target = from_float64(case.get("p")), from_float64(case.get("target"))
    return swap.input_to_price(case.get("reserve"), current, target, _weight18(case.get("w")))


def _base_needed(case: Case) -> int:
    return swap.alpha_needed_for_tao(_pool(case), case.get("delta", "delta_tao", "amount", "dy"))


def _mul_round(case: Case) -> int:
    return swap.mul_weight_rounded(_weight18(case.get("p", "w", "weight", "parts")), case.get("value", "x"))


def _share_pool(case: Case) -> list[int]:
    value, denominator = case.get("value", default=0), shares.SafeFloat.normal(case.get("denom", default=0))
    held = {key: shares.SafeFloat.normal(share) for key, share in case.get("shares", default={}).items()}
    for step in case.get("script"):
        if step[0] == "one":
            key = step[1]
            pool = shares.update_one(shares.Shares(value, denominator, held.get(key, shares.ZERO)), step[2])
            value, denominator, held[key] = pool.value, pool.denominator, pool.share
        elif step[0] == "all":
            value = shares.update_all(value, step[1])
        else:
            raise RuleError(f"unknown share pool step {step[0]!r}")
    return [shares.holding(value, held.get(key, shares.ZERO), denominator) for key in case.get("keys")]


def _safefloat(case: Case) -> list[int]:
    number = shares.SafeFloat.normal(case.get("mantissa"), case.get("exponent"))
    return [number.mantissa, number.exponent]


# --- stake and coinbase ---------------------------------------------------------------------------


def _inherited_weight(case: Case) -> int:
    given = [_u64_share(share) for share in case.get("given", default=[])]
    received = [(alpha, root, _u64_share(share)) for alpha, root, share in case.get("received", default=[])]
    alpha = stake.inherited(case.get("alpha"), given, [(a, share) for a, _, share in received])
    root = stake.inherited(case.get("root"), given, [(r, share) for _, r, share in received])
    return to_u64(stake.stake_weight(alpha, root, from_float32(case.get("weight"))), 64)


def _child_split(case: Case) -> dict[str, Any]:
    """parents: [alpha, root, proportion, same_owner?] each."""
    weight = from_float32(case.get("weight"))
    given = [_u64_share(share) for share in case.get("given", default=[])]
    own = stake.self_contribution(case.get("alpha"), case.get("root"), given, weight)
    parents = [
        stake.Parent(i, p[0], p[1], _u64_share(p[2]), bool(p[3]) if len(p) > 3 else False)
        for i, p in enumerate(case.get("parents", "received"))
    ]
    burn = from_float32(case.get("burn", default=0))
    split = stake.split_dividend(case.get("dividend"), own, parents, case.get("take_u16", "take"), weight, burn)
    return {"own": split.own, "parents": [amount for _, amount in split.parents], "burned": split.burned}


def _owner_split(case: Case) -> dict[str, int]:
    split = coinbase.split_alpha_out(
        case.get("alpha_out"), case.get("owner_cut_u16"), from_float32(case.get("root_prop"))
    )
    return {"owner": split.owner, "server": split.server, "validator": split.validator, "root": split.root}


def _dividend_totals(case: Case) -> dict[str, float]:
    """stakes and dividends: mappings by hotkey, or lists in the same order."""
    dividends, stakes = (_by_key(case.get(name)) for name in ("dividends", "stakes"))
    paid = coinbase.distribute(
        dividends,
        {key: (alpha, root) for key, (alpha, root) in stakes.items()},
        case.get("pending_alpha", "alpha"),
        case.get("pending_root", "root"),
        from_float32(case.get("weight", "tao_weight")),
    )
    return {
        "alpha": to_float32(sum(part.alpha for part in paid.values())),
        "root": to_float32(sum(part.root for part in paid.values())),
    }


def _by_key(values: Any) -> dict[Any, Any]:
    return dict(values) if isinstance(values, Mapping) else dict(enumerate(values))


def _price_ema(case: Case) -> float:
    price = from_float32(case.get("old"))
    for _ in range(case.get("steps", default=1)):
        price = coinbase.moving_price(
            price, from_float64(case.get("price")), case.get("blocks"), from_float64(case.get("alpha"))
        )
    return to_float32(price)


def _root_proportion(case: Case) -> float:
    weight = stake.tao_weight(case.get("tao_weight_u64"))
    return to_float32(coinbase.root_proportion(case.get("root_tao"), case.get("alpha_issuance"), weight))


def _blocks_until_epoch(case: Case) -> int:
    return coinbase.blocks_until_epoch(case.get("tempo"), case.get("block"), case.get("last", "last_epoch", default=0))


# --- weights, fees, genesis -----------------------------------------------------------------------


def _hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _commit_hash(case: Case) -> str:
    account, index, version = _hex(case.get("account")), case.get("index"), case.get("version")
    return weights.commit_hash(account, index, case.get("uids"), case.get("values"), case.get("salt"), version).hex()


def _timelock_payload(case: Case) -> str:
    payload = weights.TimelockPayload(
        _hex(case.get("hotkey", default="")),
        tuple(case.get("uids")),
        tuple(case.get("values")),
        case.get("version", "version_key"),
    )
    encoded = weights.timelock_payload(payload)
    if weights.parse_timelock_payload(encoded) != payload:
        raise RuleError("the payload does not read back as it was written")
    return encoded.hex()


def _constant(case: Case) -> dict[str, Any]:
    """The genesis builder's own figures, as far as the vector names them."""
    figures = constants.genesis_figures()
    chosen: dict[str, Any] = {}
    for topic, names in case.get("value").items():
        if topic not in figures:
            raise RuleError(f"no genesis figures on {topic!r}; there are {', '.join(figures)}")
        unknown = sorted(set(names) - set(figures[topic]))
        if unknown:
            raise RuleError(f"the genesis figures on {topic} have no {', '.join(unknown)}")
        chosen[topic] = {name: figures[topic][name] for name in names}
    return chosen


RULES: Mapping[str, Rule] = {
    "weighted_median": _weighted_median,
    "weighted_median_col": _weighted_median_col,
    "max_upscale": _max_upscale,
    "vec_max_limited": _vec_max_limited,
    "topk": _topk,
    "ema_elementwise": _ema_elementwise,
    "interpolate": _interpolate,
    "sigmoid": _sigmoid,
    "null_epoch": _null_epoch,
    "burn_price": _burn_price,
    "decay_factor_q32": lambda case: registration.decay_factor_q32(case.get("half_life")),
    "prune": _prune,
    "lock_cost": _lock_cost,
    "swap": _swap,
    "pow_ratio": _pow_ratio,
    "price": lambda case: to_float64(swap.price(_pool(case))),
    "delta_in": _delta_in,
    "base_needed": _base_needed,
    "mul_round": _mul_round,
    "share_pool": _share_pool,
    "safefloat": _safefloat,
    "inherited_weight": _inherited_weight,
    "child_split": _child_split,
    "block_emission": lambda case: coinbase.block_emission(case.get("issuance")),
    "price_ema": _price_ema,
    "owner_split": _owner_split,
    "dividend_totals": _dividend_totals,
    "root_proportion": _root_proportion,
    "blocks_until_epoch": _blocks_until_epoch,
    "activity_cutoff": lambda case: coinbase.activity_cutoff(case.get("factor_milli"), case.get("tempo")),
    "split": lambda case: weights.split_emission(case.get("total"), case.get("n"), case.get("weights", default=None)),
    "storage_index": lambda case: weights.storage_index(case.get("netuid"), case.get("mecid")),
    "commit_hash": _commit_hash,
    "timelock_payload": _timelock_payload,
    "fee": lambda case: fees.inclusion_fee(case.get("ref_time"), case.get("length")),
    "constant": _constant,
}
