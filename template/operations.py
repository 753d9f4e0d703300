"""What an operator does with a coldkey: register, stake, create a subnet. Never used by a running neuron.

    ops = Operator(chain, wallet)
    netuid = await ops.create_subnet()               # register_network, then start_call
    uid = await ops.register(netuid, hotkey_ss58)    # burned_register, shielded as the SDK demands
    await ops.stake(0, hotkey_ss58, 1000.0)          # TAO on root, or TAO for alpha on a subnet
    await ops.split_emission(netuid, [0.7, 0.3])     # two mechanisms

Each step looks first and acts only where something is missing, so a set-up that was interrupted can be run again.
`tune` needs the chain's sudo key, which only a development chain gives away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from template.chain import Chain, ChainError, ChainRefused, ChainTimeout

RAO = 10**9  # rao per TAO
WHOLE = 65535  # a subnet's emission, in the chain's unit of its split
UIDS = 256  # of a subnet, over all its mechanisms (chain constant)
_ROOT_ONLY = {
    "tempo": ("sudo_set_tempo", "tempo"),
    "weights_rate_limit": ("sudo_set_weights_set_rate_limit", "weights_set_rate_limit"),
    "serving_rate_limit": ("sudo_set_serving_rate_limit", "serving_rate_limit"),
    "immunity_period": ("sudo_set_immunity_period", "immunity_period"),
    "commit_reveal": ("sudo_set_commit_reveal_weights_enabled", "enabled"),
    "emission_enabled": ("sudo_set_subnet_emission_enabled", "enabled"),
    "max_allowed_validators": ("sudo_set_max_allowed_validators", "max_allowed_validators"),
    "bonds_moving_average": ("sudo_set_bonds_moving_average", "bonds_moving_average"),
}


@dataclass(frozen=True)
class Operator:
    """A coldkey at work. `wallet` is the SDK's handle from `template.keys.open_wallet`, or a development keypair."""

    chain: Chain
    wallet: Any

    async def transfer(self, to: str, tao: float) -> None:
        await self.chain.execute("transfer", {"dest_ss58": to, "amount_tao": tao}, self.wallet)

    async def fund_to(self, address: str, tao: float) -> bool:
        """Bring `address` to at least `tao` free TAO; False when it has that already."""
        missing = tao - await self.chain.balance(address) / RAO
        if missing <= 0:
            return False
        await self.transfer(address, missing)
        return True

    async def create_subnet(self, owner_hotkey: str) -> int:
        """Register a subnet with this coldkey as owner and activate it. The netuid."""
        receipt = await self.chain.execute("register_subnet", {"hotkey_ss58": owner_hotkey}, self.wallet)
        netuid = int(receipt.data["netuid"])
        await self.chain.execute("start_call", {"netuid": netuid}, self.wallet)
        return netuid

    async def register(self, netuid: int, hotkey: str, *, attempts: int = 4) -> int:
        """The hotkey's uid, registering it first when it has none. Raises ChainRefused.

        A shielded extrinsic lives for 8 blocks, so on a fast or busy chain it can miss its moment; it is then sent
        again.
        """
        for attempt in range(1, attempts + 1):
            uid = await self.chain.uid(netuid, hotkey)
            if uid is not None:
                return uid
            try:
                await self.chain.execute("burned_register", {"netuid": netuid, "hotkey_ss58": hotkey}, self.wallet)
            except (ChainRefused, ChainTimeout) as error:
                if attempt == attempts or not _may_pass(error):
                    raise
                await asyncio.sleep(0.5 * attempt)
        uid = await self.chain.uid(netuid, hotkey)
        if uid is None:
            raise ChainRefused(f"{hotkey} is still not registered on subnet {netuid} after {attempts} attempts")
        return uid

    async def stake(self, netuid: int, hotkey: str, tao: float) -> None:
        args: dict[str, Any] = {"hotkey_ss58": hotkey, "netuid": netuid, "amount_tao": tao}
        if netuid != 0:
            args["slippage_protection"] = False  # a young pool is shallow: the first stakes always move its price
        await self.chain.execute("add_stake", args, self.wallet)

    async def split_emission(self, netuid: int, shares: Sequence[float]) -> bool:
        """Give the subnet, which this coldkey owns, as many mechanisms as there are shares, and divide its emission so.

        False when it is so already. The chain allows 256 uids over all mechanisms, so more mechanisms mean fewer uids
        for each. Raises ChainRefused, and ValueError for shares that are none.
        """
        wanted, count = split_of(shares), len(shares)
        limit = UIDS // count
        if int(await self.chain.query("MechanismCountCurrent", netuid)) != count:
            if int(await self.chain.query("MaxAllowedUids", netuid)) > limit:
                await self._owner("sudo_set_max_allowed_uids", {"netuid": netuid, "max_allowed_uids": limit})
            await self._owner("sudo_set_mechanism_count", {"netuid": netuid, "mechanism_count": count})
        elif await self.chain.query("MechanismEmissionSplit", netuid) == wanted:
            return False
        await self._owner("sudo_set_mechanism_emission_split", {"netuid": netuid, "maybe_split": wanted})
        return True

    async def _owner(self, function: str, params: Mapping[str, Any]) -> None:
        await self.chain.submit("AdminUtils", function, params, self.wallet)

    async def tune(self, netuid: int, values: Mapping[str, Any]) -> None:
        """Set hyperparameters by name as root (development chains only). Unknown names raise ChainError."""
        unknown = sorted(set(values) - set(_ROOT_ONLY))
        if unknown:
            raise ChainError(f"unknown hyperparameter {unknown[0]!r}", remedy=f"one of {', '.join(sorted(_ROOT_ONLY))}")
        for name, value in values.items():
            function, argument = _ROOT_ONLY[name]
            await self.chain.sudo("AdminUtils", function, {"netuid": netuid, argument: value}, self.wallet)

    async def admin(self, function: str, params: Mapping[str, Any]) -> None:
        """One chain-wide AdminUtils call as root (development chains only)."""
        await self.chain.sudo("AdminUtils", function, params, self.wallet)


def split_of(shares: Sequence[float]) -> list[int]:
    """The chain's form of emission shares: whole numbers that sum to 65535. Raises ValueError unless they are
    positive."""
    if not shares or not all(0.0 < share < math.inf for share in shares):
        raise ValueError("shares of the emission are positive numbers")
    total = math.fsum(shares)
    ends = [round(WHOLE * math.fsum(shares[: number + 1]) / total) for number in range(len(shares))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _may_pass(error: ChainError) -> bool:
    """Whether trying again can help: the pool's transient refusals, not a "no" of the chain's rules."""
    return isinstance(error, ChainTimeout) or (isinstance(error, ChainRefused) and not error.name)
