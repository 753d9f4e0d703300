"""Weights: how a vector is normalised, committed, and addressed.

    max_upscale          scale a vector so that its largest entry is 65535
    max_is_limited       is the largest share within the subnet's limit
    commit_hash          the hash a salted commit publishes, and what a reveal must reproduce
    timelock_payload     the plaintext of a timelocked commit, and `parse_timelock_payload` back
    read_opened_commit   what the chain makes of one
    storage_index        where mechanism m of a subnet keeps its weights, bonds, incentives; `split_storage_index` back
    split_emission       how a subnet's emission is divided over its mechanisms
    check_weights        the rules every weight vector passes before it is stored

Vectors are parallel sequences of u16 uids and u16 values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from localnet.rules.errors import RuleError
from localnet.rules.fixed import U16_MAX, div32, mul32

MECHANISM_STRIDE = 4096
"""Storage indices of one subnet's mechanisms are this far apart: netuids stay below it, mechanisms below 16."""

_HALF32 = 1 << 31
_U16_MAX32 = U16_MAX << 32
_UPSCALE_SWITCH = 32_768 << 32
"""Above this maximum the ratio is computed first, so that the product stays within 31 integer bits."""


def _rounded_u16(bits: int) -> int:
    """Nearest integer, half away from zero, saturating at 65535."""
    return min((bits + _HALF32) >> 32, U16_MAX)


def max_upscale_fixed(values: Sequence[int]) -> list[int]:
    """`max_upscale` for numbers with 32 fraction bits."""
    largest = max(values, default=0)
    if largest == 0:
        return [0] * len(values)
    if largest > _UPSCALE_SWITCH:
        ratio = div32(_U16_MAX32, largest)
        return [_rounded_u16(mul32(value, ratio)) for value in values]
    return [_rounded_u16(div32(mul32(value, _U16_MAX32), largest)) for value in values]


def max_upscale(values: Sequence[int]) -> list[int]:
    """u16 values scaled so that the largest is 65535, rounded half up. All zeros stay zeros."""
    return max_upscale_fixed([value << 32 for value in values])


def max_is_limited(values: Sequence[int], limit: int) -> bool:
    """True when, after the values are normalised to sum 1, the largest is at most limit/65535."""
    total = sum(values) << 32
    if total == 0:
        return True
    return div32(max(values) << 32, total) <= div32(limit << 32, _U16_MAX32)


# --- commits --------------------------------------------------------------------------------------


def _compact(number: int) -> bytes:
    """SCALE compact integer, the modes a length can need."""
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    if number < 1 << 30:
        return (number << 2 | 2).to_bytes(4, "little")
    raise RuleError(f"a vector of {number} entries does not fit a commit; the most is 2^30-1")


def _vec_u16(values: Sequence[int]) -> bytes:
    return _compact(len(values)) + b"".join(value.to_bytes(2, "little") for value in values)


def commit_hash(
    account: bytes, index: int, uids: Sequence[int], values: Sequence[int], salt: Sequence[int], version: int
) -> bytes:
    """blake2b-256 over the SCALE tuple (account, storage index u16, uids, values, salt as vectors of u16, version u64).

    Raises RuleError when the account is not 32 bytes.
    """
    if len(account) != 32:
        raise RuleError(f"an account id has 32 bytes, not {len(account)}")
    body = account + index.to_bytes(2, "little") + _vec_u16(uids) + _vec_u16(values) + _vec_u16(salt)
    return hashlib.blake2b(body + version.to_bytes(8, "little"), digest_size=32).digest()


@dataclass(frozen=True)
class TimelockPayload:
    """What a timelocked commit hides. `hotkey` is empty in the older form without it."""

    hotkey: bytes
    uids: tuple[int, ...]
    values: tuple[int, ...]
    version: int


def timelock_payload(payload: TimelockPayload) -> bytes:
    """SCALE of {hotkey: bytes, uids: Vec<u16>, values: Vec<u16>, version: u64}."""
    hotkey = _compact(len(payload.hotkey)) + payload.hotkey
    return hotkey + _vec_u16(payload.uids) + _vec_u16(payload.values) + payload.version.to_bytes(8, "little")


class _Reader:
    """Bytes read front to back; running out raises RuleError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise RuleError(f"payload ends at byte {len(self.data)}, {count} more wanted at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def length(self) -> int:
        first = self.take(1)[0]
        if first & 3 == 0:
            return first >> 2
        if first & 3 == 1:
            return (first | self.take(1)[0] << 8) >> 2
        if first & 3 == 2:
            return (first | int.from_bytes(self.take(3), "little") << 8) >> 2
        raise RuleError("payload claims a vector of more than 2^30 entries")

    def u16s(self) -> tuple[int, ...]:
        raw = self.take(2 * self.length())
        return tuple(int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2))


def _parse(data: bytes, with_hotkey: bool, exact: bool = True) -> TimelockPayload:
    reader = _Reader(data)
    hotkey = reader.take(reader.length()) if with_hotkey else b""
    uids, values = reader.u16s(), reader.u16s()
    version = int.from_bytes(reader.take(8), "little")
    if exact and reader.at != len(data):
        raise RuleError(f"{len(data) - reader.at} bytes after the end of the payload")
    return TimelockPayload(hotkey, uids, values, version)


def parse_timelock_payload(data: bytes) -> TimelockPayload:
    """The inverse of `timelock_payload`; reads the older form without a hotkey too. Raises RuleError otherwise."""
    try:
        return _parse(data, with_hotkey=True)
    except RuleError as error:
        try:
            return _parse(data, with_hotkey=False)
        except RuleError:
            raise error from None


def read_opened_commit(data: bytes, who: bytes) -> TimelockPayload:
    """What the chain takes from the opened commit of account `who`; bytes behind the end are not looked at.

    A payload that does not read with a hotkey, or whose hotkey is too short for an account, is read in the older form.
    Raises RuleError when it is neither, or names somebody else. (pallet_subtensor, coinbase/reveal_commits.rs)
    """
    try:
        payload = _parse(data, with_hotkey=True, exact=False)
    except RuleError:
        return _parse(data, with_hotkey=False, exact=False)
    if len(payload.hotkey) < len(who):
        return _parse(data, with_hotkey=False, exact=False)
    if payload.hotkey[: len(who)] != who:
        raise RuleError("the payload names another hotkey than the one that committed it")
    return payload


# --- mechanisms -----------------------------------------------------------------------------------


def storage_index(netuid: int, mecid: int) -> int:
    """Key of mechanism `mecid` of a subnet in Weights, Bonds, Incentive, LastUpdate and the commit maps.

    A mechanism id that has no room in 16 bits gets the last index, which is nobody's.
    """
    return min(mecid * MECHANISM_STRIDE + netuid, U16_MAX)


def split_storage_index(index: int) -> tuple[int, int]:
    """(netuid, mecid) of a storage index."""
    return index % MECHANISM_STRIDE, index // MECHANISM_STRIDE


def split_emission(total: int, count: int, split: Sequence[int] | None = None) -> list[int]:
    """A subnet's emission over its `count` mechanisms: floor(total*share/65535) each, equal parts when no split is set,
    nothing for mechanisms the split does not name; what rounding leaves over goes to mechanism 0.
    """
    parts = [total // count] * count if split is None else [total * share // U16_MAX for share in split]
    parts = (parts + [0] * count)[:count]
    if parts:
        parts[0] += max(total - sum(parts), 0)
    return parts


# --- the checks before a vector is stored ---------------------------------------------------------


def is_self_weight(uid: int, uids: Sequence[int]) -> bool:
    """A single weight on oneself: allowed without a permit and below the minimum length."""
    return list(uids) == [uid]


@dataclass(frozen=True)
class WeightRules:
    """What a subnet asks of a weight vector, and what is known about its author."""

    n: int
    min_allowed_weights: int
    max_weights_limit: int
    weights_version: int
    rate_limit: int
    stake_threshold: int
    owner_uid: int | None


def check_weights(
    rules: WeightRules,
    uid: int,
    stake_weight: int,
    permit: bool,
    last_update: int,
    block: int,
    uids: Sequence[int],
    values: Sequence[int],
    version: int,
    check_rate: bool = True,
) -> tuple[list[int], str | None]:
    """Apply the weight rules in the chain's order: (scaled values, None), or ([], name of the first broken rule).

    Not covered, because they need more than the author's own state: commit-reveal switch, root netuid, mechanism
    exists, hotkey registered. `stake_weight` in whole units; `check_rate` is False on the reveal paths.
    """
    is_owner = rules.owner_uid == uid
    alone = is_self_weight(uid, uids)
    broken = (
        ("WeightVecNotEqualSize", len(uids) != len(values)),
        ("UidsLengthExceedUidsInSubNet", len(uids) > rules.n),
        ("NotEnoughStakeToSetWeights", stake_weight < rules.stake_threshold and not is_owner),
        ("IncorrectWeightVersionKey", rules.weights_version != 0 and version < rules.weights_version),
        ("SettingWeightsTooFast", check_rate and last_update != 0 and block - last_update < rules.rate_limit),
        ("NeuronNoValidatorPermit", not (permit or alone or is_owner)),
        ("DuplicateUids", len(set(uids)) != len(uids)),
        ("UidVecContainInvalidOne", any(dest >= rules.n for dest in uids)),
        ("WeightVecLengthIsLow", len(uids) < min(rules.n, rules.min_allowed_weights) and not alone),
    )
    for name, failed in broken:
        if failed:
            return [], name
    scaled = max_upscale(values)
    if rules.max_weights_limit < U16_MAX and not alone and not max_is_limited(scaled, rules.max_weights_limit):
        return [], "MaxWeightExceeded"
    return scaled, None
