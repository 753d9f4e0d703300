"""Pure rules: a file of weights, a row of them, and two epochs side by side.

    read_weights     {uid or hotkey: weight} as JSON, or CSV lines of the two
    by_uid, scaled   weights of uids as the SDK hands them to `set_weights`: the largest is 65535, zeros are left out
    cuts             what the consensus cut of a row
    compare          the neurons for which two epochs ended differently

An epoch's results are vectors by uid, under the names that the chain has for them (`RESULTS`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from localnet.errors import ConfigError

U16_MAX = 65_535
MAX_FILE = 4 * 2**20  # characters; 65536 lines of a hotkey and a number are less
RESULTS = (
    "Incentive",
    "Consensus",
    "Trust",
    "Rank",
    "ValidatorTrust",
    "Dividends",
    "Emission",
    "ValidatorPermit",
    "Active",
)
"""Of SubtensorModule, by uid. Shares are u16 of 65535; Emission is rao, of the subnet's alpha where it has one."""

Named: TypeAlias = "dict[str, float]"  # by uid (digits) or hotkey (an address)
Row: TypeAlias = "list[tuple[int, int]]"  # (uid, u16)
Results: TypeAlias = "Mapping[str, Sequence[int]]"


# -- a file of weights ----------------------------------------------------------------------------------------------


def read_weights(text: str, name: str = "the file") -> Named:
    """Weights by uid or hotkey. Raises ConfigError that names what is wrong, and where."""
    if not text.strip():
        raise ConfigError(f'{name} is empty: weights are JSON {{"uid or hotkey": weight}}, or CSV lines of the two')
    if len(text) > MAX_FILE:
        raise ConfigError(f"{name} is too large for weights: {len(text)} characters, at most {MAX_FILE}")
    pairs = _json(text, name) if text.lstrip().startswith(("{", "[")) else _csv(text, name)
    found: Named = {}
    for who, weight, where in pairs:
        if who in found:
            raise ConfigError(f"{name}, {where}: {who} has a weight already")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"{name}, {where}: the weight of {who} is no number: {weight!r}")
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(f"{name}, {where}: the weight of {who} is {weight}: finite and not negative, please")
        found[who] = weight
    if not any(found.values()):
        raise ConfigError(f"{name} has no weight above 0: there is nothing to set")
    return found


Entries: TypeAlias = "list[tuple[str, Any, str]]"  # who, weight, where it stands


def _json(text: str, name: str) -> Entries:
    try:
        pairs = json.loads(text, object_pairs_hook=list, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no JSON: {error}") from error
    if not text.lstrip().startswith("{"):
        raise ConfigError(f'{name} is a list: an object is needed, {{"uid": weight}} or {{"hotkey": weight}}')
    return [(who.strip(), weight, f"entry {index}") for index, (who, weight) in enumerate(pairs, 1)]


def _whole(digits: str) -> int | float:
    """Numbers beyond all weights are floats: a million digits are not worth converting."""
    return int(digits) if len(digits) <= 20 else float(digits)


def _csv(text: str, name: str) -> Entries:
    found: Entries = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = [part.strip().strip('"') for part in line.split(",")]
        if parts == [""] or line.lstrip().startswith("#"):
            continue
        if len(parts) != 2 or not parts[0]:
            raise ConfigError(f"{name}, line {number}: {line[:60]!r} is no `uid,weight` or `hotkey,weight`")
        try:
            found.append((parts[0], float(parts[1]), f"line {number}"))
        except ValueError:
            if found or not parts[0].isalpha():  # a first line may be a heading
                raise ConfigError(f"{name}, line {number}: the weight {parts[1][:40]!r} is no number") from None
    return found


def by_uid(weights: Named, hotkeys: Sequence[bytes], account: Callable[[str], bytes]) -> dict[int, float]:
    """`hotkeys`: of the subnet, by uid; `account`: an address as 32 bytes. Raises ConfigError for who is not there."""
    uids = {hotkey: uid for uid, hotkey in enumerate(hotkeys)}
    found: dict[int, float] = {}
    for who, weight in weights.items():
        uid = find_uid(who, uids, account)
        if uid in found:
            raise ConfigError(f"uid {uid} has two weights, one of them by its hotkey")
        found[uid] = weight
    return found


def find_uid(who: str, uids: Mapping[bytes, int], account: Callable[[str], bytes]) -> int:
    """Raises ConfigError."""
    if who.isdecimal():
        if len(who) > 5 or int(who) >= len(uids):
            raise ConfigError(f"there is no uid {who[:20]}: the subnet has {len(uids)} uids at that block, from 0 on")
        return int(who)
    try:
        hotkey = account(who)
    except ValueError as error:
        raise ConfigError(f"{who[:80]!r} is neither a uid nor a hotkey: {error.__cause__ or 'no address'}") from error
    if hotkey not in uids:
        raise ConfigError(
            f"{who} is no hotkey of the subnet at that block: give the uid, or the hotkey registered then"
        )
    return uids[hotkey]


def scaled(weights: Mapping[int, float]) -> Row:
    """As the SDK does it (bittensor 11, intents/weights.py, normalize): share of the largest in 65535ths, rounded, in
    the order given, zeros left out. Some weight is above 0."""
    top = max(weights.values())
    row = [(uid, round(weight / top * U16_MAX)) for uid, weight in weights.items()]
    return [(uid, value) for uid, value in row if value]


# -- two epochs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """What the consensus leaves of one weight. Fractions of 1; `consensus` as stored, so exact to 1/65535."""

    uid: int
    share: float
    consensus: float

    @property
    def cut(self) -> float:
        return max(0.0, self.share - self.consensus)


def cuts(row: Row, consensus: Sequence[int], without: int | None) -> list[Cut]:
    """A row's shares against the consensus. `without`: the uid whose own weight on itself does not count."""
    counted = [(uid, value) for uid, value in row if uid != without]
    total = sum(value for _, value in counted)
    if not total:
        return []
    return [Cut(uid, value / total, cell(consensus, uid) / U16_MAX) for uid, value in counted]


def cell(vector: Sequence[int], uid: int) -> int:
    return int(vector[uid]) if uid < len(vector) else 0


@dataclass(frozen=True)
class Change:
    """One neuron's results that differ: name -> (before, after)."""

    uid: int
    values: dict[str, tuple[int, int]]


def compare(before: Results, after: Results) -> list[Change]:
    """Neurons for which something differs, by uid. Both have the same names."""
    size = max((len(vector) for results in (before, after) for vector in results.values()), default=0)
    found = []
    for uid in range(size):
        pairs = {name: (cell(before[name], uid), cell(after[name], uid)) for name in before}
        values = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if values:
            found.append(Change(uid, values))
    return found


def moved(before: Row, after: Row) -> list[tuple[int, int, int]]:
    """(uid, before, after) of entries that differ, the largest move first."""
    old, new = dict(before), dict(after)
    pairs = [(uid, old.get(uid, 0), new.get(uid, 0)) for uid in sorted({*old, *new})]
    return sorted((one for one in pairs if one[1] != one[2]), key=lambda one: -abs(one[2] - one[1]))
