"""What the pool checks before it takes an extrinsic for this pallet, in the chain's order.

    coldkey swap -> weights (lengths, stake, commits) -> rate limits -> delegate take -> serving -> EVM keys

The checks are those of the calls themselves; here a failure is a transaction that never enters a block, and clients
know it by a number (`CODES`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError, InvalidTransaction
from localnet.rules.weights import storage_index
from localnet.runtime.subtensor import commits, delegation, evm_keys, networks, serving, timelocked, weights

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

Arguments = Mapping[str, Any]
Check = Callable[["Subtensor", bytes, Arguments], None]

CODES = {
    "ColdkeySwapAnnounced": 0, "NotEnoughStakeToSetWeights": 1, "SubnetNotExists": 3, "HotKeyAccountNotExists": 4,
    "SettingWeightsTooFast": 6, "CommittingWeightsTooFast": 6, "NetworkTxRateLimitExceeded": 6,
    "HotKeyNotRegisteredInNetwork": 10, "InvalidIpAddress": 11, "ServingRateLimitExceeded": 12, "InvalidPort": 13,
    "InvalidRevealRound": 15, "NoWeightsCommitFound": 16, "RevealTooEarly": 17, "InputLengthsUnequal": 18,
    "HotKeyNotRegisteredInSubNet": 19, "EvmKeyAssociateRateLimitExceeded": 20, "ColdkeySwapDisputed": 21,
    "NonAssociatedColdKey": 25, "DelegateTakeTooLow": 26, "DelegateTakeTooHigh": 27,
}  # fmt: skip
BAD_REQUEST = 255  # every other error
SWAP_CALLS = frozenset((  # what a coldkey that announced its swap may still call
    "announce_coldkey_swap", "swap_coldkey_announced", "dispute_coldkey_swap", "clear_coldkey_swap_announcement",
    "MevShield.submit_encrypted",
))  # fmt: skip


def validate(p: Subtensor, who: bytes, function: str, arguments: Arguments) -> None:
    """Raises InvalidTransaction."""
    try:
        ensure_no_swap(p, who, function)
        for check in CHECKS.get(function, ()):
            check(p, who, arguments)
    except DispatchError as error:
        raise InvalidTransaction(("Custom", CODES.get(error.name, BAD_REQUEST))) from error


def ensure_unbound(p: Subtensor, who: bytes, pallet: str, function: str) -> None:
    """The part that concerns the calls of every pallet: the coldkey swap. Raises InvalidTransaction."""
    try:
        ensure_no_swap(p, who, f"{pallet}.{function}")
    except DispatchError as error:
        raise InvalidTransaction(("Custom", CODES[error.name])) from error


def check(p: Subtensor, who: bytes, pallet: str, function: str, arguments: Arguments) -> None:
    """The same for a call that another call carries: what the pool cannot see is checked when it is dispatched, under
    the account it runs for. Raises the module's error (DispatchError).
    """
    ensure_no_swap(p, who, function if pallet == p.name else f"{pallet}.{function}")
    if pallet == p.name:
        for one in CHECKS.get(function, ()):
            one(p, who, arguments)


def ensure_no_swap(p: Subtensor, who: bytes, function: str) -> None:
    """Raises ColdkeySwapAnnounced or ColdkeySwapDisputed."""
    if p.ColdkeySwapAnnouncements[who] is None:
        return
    if p.ColdkeySwapDisputes[who] is not None:
        raise p.error("ColdkeySwapDisputed")
    if function not in SWAP_CALLS:
        raise p.error("ColdkeySwapAnnounced")


# -- weights --------------------------------------------------------------------------------------------------------


def _stake(p: Subtensor, who: bytes, arguments: Arguments) -> None:
    for netuid in arguments.get("netuids", [arguments.get("netuid")]):
        weights.ensure_min_stake(p, netuid, who)


def _equal_lengths(*names: str) -> Check:
    def check(p: Subtensor, who: bytes, arguments: Arguments) -> None:
        if len({len(arguments[name]) for name in names}) != 1:
            raise p.error("InputLengthsUnequal")

    return check


def _committed(p: Subtensor, who: bytes, netuid: int, mecid: int, shown: commits.Reveal) -> None:
    index = storage_index(netuid, mecid)
    digest = shown.hash(who, index)
    epoch = next((entry[1] for entry in p.WeightCommits[index, who] or [] if entry[0] == digest), None)
    if epoch is None:
        raise p.error("NoWeightsCommitFound")
    if not commits.is_revealable(p, netuid, epoch):
        raise p.error("RevealTooEarly")


def _commit_of_reveal(p: Subtensor, who: bytes, a: Arguments) -> None:
    shown = commits.Reveal(a["uids"], a["values"], a["salt"], a["version_key"])
    _committed(p, who, a["netuid"], a.get("mecid", weights.MAIN), shown)


def _commits_of_batch(p: Subtensor, who: bytes, a: Arguments) -> None:
    if p.WeightCommits[storage_index(a["netuid"], weights.MAIN), who] is None:
        raise p.error("NoWeightsCommitFound")
    for parts in zip(a["uids_list"], a["values_list"], a["salts_list"], a["version_keys"], strict=True):
        _committed(p, who, a["netuid"], weights.MAIN, commits.Reveal(*parts))


def _reveal_round(p: Subtensor, who: bytes, a: Arguments) -> None:
    timelocked.check_size(a["commit"])
    timelocked.ensure_round(p, a["reveal_round"])


# -- rate limits ----------------------------------------------------------------------------------------------------


def _rate(p: Subtensor, who: bytes, arguments: Arguments, error: str) -> None:
    uid = p.Uids[arguments["netuid"], who]
    if uid is not None:
        weights.ensure_rate(p, arguments["netuid"], arguments.get("mecid", weights.MAIN), uid, error)


def _set_rate(p: Subtensor, who: bytes, arguments: Arguments) -> None:
    if not p.CommitRevealWeightsEnabled[arguments["netuid"]]:
        _rate(p, who, arguments, "SettingWeightsTooFast")


def _commit_rate(p: Subtensor, who: bytes, arguments: Arguments) -> None:
    _rate(p, who, arguments, "CommittingWeightsTooFast")


def _network_rate(p: Subtensor, who: bytes, arguments: Arguments) -> None:
    if networks.registration_rate_limited(p):
        raise p.error("NetworkTxRateLimitExceeded")


# -- delegate take --------------------------------------------------------------------------------------------------


def _take(p: Subtensor, who: bytes, a: Arguments) -> None:
    delegation.ensure_take_allowed(p, who, a["hotkey"], a["take"])


# -- serving --------------------------------------------------------------------------------------------------------


def _axon(p: Subtensor, who: bytes, a: Arguments) -> None:
    serving.validate_axon(p, who, a["netuid"], a["ip"], a["port"], a["ip_type"])


def _prometheus(p: Subtensor, who: bytes, a: Arguments) -> None:
    serving.validate_prometheus(p, who, a["netuid"], a["ip"], a["port"], a["ip_type"])


# -- EVM keys -------------------------------------------------------------------------------------------------------


def _evm_rate(p: Subtensor, who: bytes, a: Arguments) -> None:
    evm_keys.ensure_rate(p, a["netuid"], evm_keys.uid_of(p, a["netuid"], who))


_BATCH_REVEAL = _equal_lengths("uids_list", "values_list", "salts_list", "version_keys")
CHECKS: Mapping[str, tuple[Check, ...]] = {
    "set_weights": (_stake, _set_rate),
    "set_mechanism_weights": (_stake, _set_rate),
    "batch_set_weights": (_equal_lengths("netuids", "weights", "version_keys"), _stake),
    "commit_weights": (_stake, _commit_rate),
    "commit_mechanism_weights": (_stake, _commit_rate),
    "batch_commit_weights": (_equal_lengths("netuids", "commit_hashes"), _stake),
    "reveal_weights": (_stake, _commit_of_reveal),
    "reveal_mechanism_weights": (_stake, _commit_of_reveal),
    "batch_reveal_weights": (_BATCH_REVEAL, _stake, _commits_of_batch),
    "commit_timelocked_weights": (_stake, _reveal_round),
    "commit_timelocked_mechanism_weights": (_stake, _reveal_round),
    "commit_crv3_mechanism_weights": (_stake, _reveal_round),
    "register_network": (_network_rate,),
    "increase_take": (_take,),
    "decrease_take": (_take,),
    "serve_axon": (_axon,),
    "serve_axon_tls": (_axon,),
    "serve_prometheus": (_prometheus,),
    "associate_evm_key": (_evm_rate,),
}
