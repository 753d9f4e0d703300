"""How often something may be done, and when owners may not touch their subnet's settings.

A `Limit` says how many blocks must lie between two uses and where the block of the last use is remembered: by account,
subnet and transaction type, or by subnet and hyperparameter. The first use is always allowed.

The freeze window: shortly before an epoch a subnet's settings do not move (`ensure_window_open`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localnet.rules import coinbase
from localnet.rules.registration import rate_limit_passed

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

Blocks = Callable[["Subtensor", int], int]  # (pallet, netuid) -> blocks between two uses


@dataclass(frozen=True)
class Limit:
    """`kind`: a transaction type (kept per account and subnet), or None for a limit kept per subnet under `key`."""

    blocks: Blocks
    kind: int | None = None
    key: Callable[[int], Any] | None = None  # netuid -> RateLimitKey

    def last(self, p: Subtensor, who: bytes, netuid: int) -> int:
        """Block of the last use, 0 for never."""
        if self.key is not None:
            return p.LastRateLimitedBlock[self.key(netuid)]
        assert self.kind is not None
        return p.TransactionKeyLastBlock[who, netuid, self.kind]

    def passes(self, p: Subtensor, who: bytes, netuid: int) -> bool:
        return rate_limit_passed(self.last(p, who, netuid), p.rt.number, self.blocks(p, netuid))

    def ensure(self, p: Subtensor, who: bytes, netuid: int, error: str = "TxRateLimitExceeded") -> None:
        """Raises `error` when the last use is too recent."""
        if not self.passes(p, who, netuid):
            raise p.error(error)

    def record(self, p: Subtensor, who: bytes, netuid: int) -> None:
        """The current block is the last use."""
        if self.key is not None:
            p.LastRateLimitedBlock[self.key(netuid)] = p.rt.number
        else:
            p.TransactionKeyLastBlock[who, netuid, self.kind] = p.rt.number


def _by_profile(fast: int, mainnet: int) -> Blocks:
    """A limit compiled into the chain's build, not kept in storage."""

    def blocks(p: Subtensor, netuid: int) -> int:
        return {"fast": fast, "mainnet": mainnet}[p.rt.profile.name]

    return blocks


def _always(blocks: int) -> Blocks:
    return lambda p, netuid: blocks


def _childkey_take_blocks(p: Subtensor, netuid: int) -> int:
    return p.TxChildkeyTakeRateLimit.get()


def _version_key_blocks(p: Subtensor, netuid: int) -> int:
    return p.Tempo[netuid] * p.WeightsVersionKeyRateLimit.get()


def _owner_blocks(p: Subtensor, netuid: int) -> int:
    return p.Tempo[netuid] * p.OwnerHyperparamRateLimit.get()


def _least_tempo(p: Subtensor, netuid: int) -> int:
    return int(p.rt.document.constants[p.name, "MinTempo"])


# Transaction types are the chain's numbers: they are part of a storage key.
SET_CHILDREN = Limit(_always(150), kind=0)
SET_CHILDKEY_TAKE = Limit(_childkey_take_blocks, kind=1)
WEIGHTS_VERSION_KEY = Limit(_version_key_blocks, kind=4)
MECHANISM_COUNT = Limit(_by_profile(1, 7_200), kind=7)
MECHANISM_EMISSION = Limit(_by_profile(1, 7_200), kind=8)
UIDS_TRIMMING = Limit(_by_profile(1, 216_000), kind=9)
TEMPO_UPDATE = Limit(_least_tempo, kind=11)
OWNER_HOTKEY = Limit(_always(50_400), key=lambda netuid: ("SetSNOwnerHotkey", netuid))


def hyperparameter(name: str) -> Limit:
    """An owner may change each hyperparameter once in OwnerHyperparamRateLimit tempos. `name`: its variant's name."""
    return Limit(_owner_blocks, key=lambda netuid: ("OwnerHyperparamUpdate", (netuid, name)))


def is_frozen(p: Subtensor, netuid: int) -> bool:
    """Is the subnet's next epoch so near that its settings may not change?"""
    return coinbase.is_admin_frozen(
        p.Tempo[netuid], p.rt.number, p.LastEpochBlock[netuid], p.PendingEpochAt[netuid], p.AdminFreezeWindow.get()
    )


def ensure_window_open(p: Subtensor, netuid: int) -> None:
    """Raises AdminActionProhibitedDuringWeightsWindow."""
    if is_frozen(p, netuid):
        raise p.error("AdminActionProhibitedDuringWeightsWindow")
