"""What the lifecycle asks of a client, whichever program is behind it.

Operations have the names of the SDK's intents (`transfer`, `add_stake`, ...); `call` sends any pallet function. Both
answer with an `Outcome` whose `error` is the chain's own name for what went wrong. Reads are few and neutral, so that
one set of assertions holds for every client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import bittensor_core

TAO = 10**9
U16_MAX = 65_535

# Pool-level rejections reach clients as a number: InvalidTransaction::Custom(n).
CUSTOM_ERRORS = {
    1: "StakeAmountTooLow",
    3: "SubnetNotExists",
    4: "HotKeyAccountNotExists",
    6: "RateLimitExceeded",
    8: "SlippageTooHigh",
    10: "HotKeyNotRegisteredInNetwork",
    11: "InvalidIpAddress",
    12: "ServingRateLimitExceeded",
    13: "InvalidPort",
    16: "NoWeightsCommitFound",
    17: "RevealTooEarly",
    19: "HotKeyNotRegisteredInSubNet",
    25: "NonAssociatedColdKey",
    26: "DelegateTakeTooLow",
    27: "DelegateTakeTooHigh",
}


@lru_cache(maxsize=1024)
def keypair(uri: str) -> Any:
    """The key of a secret URI: the SDK asks a wallet for its keys twenty times an extrinsic, making one takes 2 ms."""
    return bittensor_core.Keypair.create_from_uri(uri)


@dataclass(frozen=True)
class Actor:
    """A coldkey and a hotkey from secret URIs; shaped like the SDK's wallet."""

    cold_uri: str
    hot_uri: str

    @classmethod
    def named(cls, name: str) -> Actor:
        return cls(f"//{name}", f"//{name}//hot")

    @property
    def coldkey(self) -> Any:
        return keypair(self.cold_uri)

    @property
    def hotkey(self) -> Any:
        return keypair(self.hot_uri)

    @property
    def coldkeypub(self) -> Any:
        return self.coldkey

    @property
    def cold(self) -> str:
        return str(self.coldkey.ss58_address)

    @property
    def hot(self) -> str:
        return str(self.hotkey.ss58_address)


ALICE = Actor("//Alice", "//Alice_hk")


@dataclass(frozen=True)
class Outcome:
    """What became of an operation. `events`: names of the events it caused, where the client shows them."""

    ok: bool
    error: str | None = None
    message: str = ""
    events: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def expect(self) -> Outcome:
        assert self.ok, f"{self.error}: {self.message}"
        return self


@dataclass(frozen=True)
class NeuronRow:
    """One uid as a client sees it. Scores are fractions of 1, emission is alpha-rao, stakes are rao."""

    uid: int
    hotkey: str
    permit: bool
    incentive: float
    dividends: float
    emission: int
    stake: int
    axon: str | None


class Client(Protocol):
    name: str

    def close(self) -> None: ...

    # writes
    def do(self, op: str, actor: Actor, **args: Any) -> Outcome: ...

    def call(
        self, pallet: str, function: str, args: dict[str, Any], actor: Actor, *, hot: bool = False, sudo: bool = False
    ) -> Outcome: ...

    # reads
    def block(self) -> int: ...

    def balance(self, address: str) -> int: ...

    def storage(self, pallet: str, item: str, *keys: Any) -> Any: ...

    def uid(self, netuid: int, hotkey: str) -> int | None: ...

    def stake(self, coldkey: str, hotkey: str, netuid: int) -> int: ...

    def neurons(self, netuid: int) -> list[NeuronRow]: ...

    def weights(self, netuid: int) -> dict[int, dict[int, float]]:
        """Rows of weights by uid, each row normalised to a sum of 1."""

    def identity(self, coldkey: str) -> str | None: ...

    def commitment(self, netuid: int, hotkey: str) -> str | None: ...

    def take(self, hotkey: str) -> float: ...

    def children(self, netuid: int, hotkey: str) -> list[str]: ...

    def hyperparameter(self, netuid: int, name: str) -> Any: ...


def normalised(row: dict[int, float]) -> dict[int, float]:
    total = sum(row.values())
    return {uid: value / total for uid, value in row.items()} if total else row
