"""`touchstone audit --epoch N`: did the chain pay what the rule says?

Reads everything the epoch read, at the block before it, through substrate-interface: a second client with its own
decoder, so that nothing of the SDK and nothing of the local chain's code is trusted. Recomputes incentive, dividends
and emission with `protocol.consensus`, and compares with what the chain holds right after the epoch's block. Exit
status 0 when they agree, 1 when they do not.

Epochs are numbered as the chain does (SubnetEpochIndex). Subnets with several mechanisms or with commit-reveal weights
are refused by name: their inputs are not all visible at the block before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurons.output import console, print_json, print_table
from protocol.consensus import U16, EpochInputs, EpochShares, LiquidAlpha, recompute
from template.chain import ChainError, endpoint_of

TOLERANCE = 2  # units of 1/65535: the distance floats keep from the chain's fixed-point arithmetic
EMISSION_TOLERANCE = 1e-4  # of the epoch's emission: floors at every step, and the share of a unit
ROOT = 0
WHOLE = float(2**64 - 1)  # of a child's proportion, and of TaoWeight


class CannotAudit(ChainError):
    """The epoch cannot be recomputed from here; the message says why."""


@dataclass(frozen=True)
class Line:
    """One uid: recomputed beside paid. Incentive and dividends in units of 1/65535, emission in alpha-rao."""

    uid: int
    hotkey: str
    incentive: tuple[int, int]
    dividends: tuple[int, int]
    emission: tuple[int, int]

    def agrees(self, total: int) -> bool:
        near = all(abs(ours - paid) <= TOLERANCE for ours, paid in (self.incentive, self.dividends))
        return near and abs(self.emission[0] - self.emission[1]) <= max(1.0, EMISSION_TOLERANCE * total)


async def audit(network: str, netuid: int, *, epoch: int | None, as_json: bool) -> int:
    """Print the comparison; 0 when the chain paid what the rule says. Raises ChainError."""
    index, block, lines = await asyncio.to_thread(_audit, endpoint_of(network), netuid, epoch)
    total = sum(line.emission[1] for line in lines)
    wrong = [line.uid for line in lines if not line.agrees(total)]
    if as_json:
        rows = [
            {
                "uid": line.uid,
                "hotkey": line.hotkey,
                "agrees": line.agrees(total),
                **{
                    name: {"recomputed": getattr(line, name)[0], "paid": getattr(line, name)[1]}
                    for name in ("incentive", "dividends", "emission")
                },
            }
            for line in lines
        ]
        print_json({"netuid": netuid, "epoch": index, "block": block, "ok": not wrong, "neurons": rows})
        return 1 if wrong else 0
    columns = ["uid>", "hotkey", "incentive>", "paid>", "dividends>", "paid>", "emission>", "paid>", ""]
    table = [
        [
            str(line.uid),
            line.hotkey[:10] + "...",
            *(str(value) for pair in (line.incentive, line.dividends, line.emission) for value in pair),
            "" if line.agrees(total) else "DIFFERS",
        ]
        for line in lines
    ]
    print_table(f"subnet {netuid}, epoch {index}, block {block}: recomputed beside what the chain paid", columns, table)
    if wrong:
        console.print(f"[red]the chain did not pay what the rule says to uids {wrong}[/red]")
    else:
        console.print("the chain paid what the rule says")
    return 1 if wrong else 0


def _audit(url: str, netuid: int, epoch: int | None) -> tuple[int, int, list[Line]]:
    reader = Reader(url)
    try:
        index, block = reader.find_epoch(netuid, epoch)
        before, after = reader.at(block - 1), reader.at(block)
        inputs = before.inputs(netuid, block)
        return index, block, _compare(recompute(inputs), after, netuid, before.keys(netuid))
    finally:
        reader.close()


def _compare(shares: EpochShares, after: View, netuid: int, hotkeys: Mapping[int, str]) -> list[Line]:
    incentive = after.get("Incentive", netuid)
    dividends = after.get("Dividends", netuid)
    emission = after.get("Emission", netuid)
    total = sum(emission)
    return [
        Line(
            uid,
            hotkey,
            (int(shares.incentive[uid] * U16), incentive[uid]),
            (int(shares.dividends[uid] * U16), dividends[uid]),
            (int(shares.combined[uid] * total), emission[uid]),
        )
        for uid, hotkey in sorted(hotkeys.items())
    ]


class Reader:
    """Storage by name through substrate-interface. Blocking."""

    def __init__(self, url: str) -> None:
        from substrateinterface import SubstrateInterface

        try:
            self.substrate = SubstrateInterface(url=url, ss58_format=42)
        except OSError as error:
            raise ChainError(f"cannot reach {url}: {error}", remedy="start a chain or check --network") from None

    def close(self) -> None:
        self.substrate.close()

    def at(self, block: int | None) -> View:
        """The state after `block`; None for the newest. Raises CannotAudit."""
        block_hash = self.substrate.get_block_hash(block)
        if block_hash is None:
            raise CannotAudit(f"block {block} does not exist on this chain")
        return View(self.substrate, block_hash)

    def find_epoch(self, netuid: int, epoch: int | None) -> tuple[int, int]:
        """Index and block of an epoch, going back from the newest. Raises CannotAudit."""
        view = self.at(None)
        if not view.get("NetworksAdded", netuid):
            raise CannotAudit(f"subnet {netuid} does not exist", remedy="check --netuid and --network")
        index, block = view.get("SubnetEpochIndex", netuid), view.get("LastEpochBlock", netuid)
        if epoch is not None and not 1 <= epoch <= index:
            raise CannotAudit(f"epoch {epoch} has not run; the newest is {index}")
        if index == 0:
            raise CannotAudit(f"no epoch has run on subnet {netuid} yet")
        while epoch is not None and index > epoch:
            view = self.at(block - 1)
            index, block = view.get("SubnetEpochIndex", netuid), view.get("LastEpochBlock", netuid)
        return index, block


@dataclass(frozen=True)
class View:
    """Chain state at one block."""

    substrate: Any
    block_hash: str

    def get(self, item: str, *params: Any) -> Any:
        from substrateinterface.exceptions import SubstrateRequestException

        try:
            return self.substrate.query("SubtensorModule", item, list(params), block_hash=self.block_hash).value
        except SubstrateRequestException as error:
            remedy = "old state needs an archive node; choose a newer epoch or another --network"
            raise CannotAudit(f"cannot read {item}: {error}", remedy=remedy) from None

    def rows(self, item: str, *params: Any) -> dict[int, dict[int, float]]:
        """A map of uid -> [(uid, u16)]."""
        found = self.substrate.query_map("SubtensorModule", item, list(params), block_hash=self.block_hash)
        return {int(key.value): {int(j): float(v) for j, v in value.value} for key, value in found}

    def keys(self, netuid: int) -> dict[int, str]:
        """uid -> hotkey."""
        found = self.substrate.query_map("SubtensorModule", "Keys", [netuid], block_hash=self.block_hash)
        return {int(uid.value): str(hotkey.value) for uid, hotkey in found}

    def inputs(self, netuid: int, block: int) -> EpochInputs:
        """What the epoch of `block` read, as far as this view (the block before) shows it. Raises CannotAudit."""
        if self.get("MechanismCountCurrent", netuid) > 1:
            raise CannotAudit("this subnet has several mechanisms; the audit knows one")
        if self.get("CommitRevealWeightsEnabled", netuid):
            raise CannotAudit(
                "commit-reveal is on: weights revealed in the epoch's own block are not visible before it"
            )
        hotkeys = self.keys(netuid)
        owner = self.get("SubnetOwnerHotkey", netuid)
        tempo = self.get("Tempo", netuid)
        low, high = self.get("AlphaValues", netuid)
        liquid = LiquidAlpha(low / U16, high / U16, float(self.get("AlphaSigmoidSteepness", netuid)))
        return EpochInputs(
            block=block,
            tempo=tempo,
            last_step=self.get("LastMechansimStepBlock", netuid),
            stake=[self.stake_weight(netuid, hotkeys[uid]) for uid in sorted(hotkeys)],
            last_update=self.get("LastUpdate", netuid),
            registered_at=[self.get("BlockAtRegistration", netuid, uid) for uid in sorted(hotkeys)],
            permits=self.get("ValidatorPermit", netuid),
            weights=self.rows("Weights", netuid),
            bonds=self.rows("Bonds", netuid),
            kappa=self.get("Kappa", netuid) / U16,
            bonds_rate=1 - self.get("BondsMovingAverage", netuid) / 1e6,
            bonds_penalty=self.get("BondsPenalty", netuid) / U16,
            activity_cutoff=max(1, self.get("ActivityCutoffFactorMilli", netuid) * tempo // 1000),
            stake_threshold=self.get("StakeThreshold"),
            owner_uid=next((uid for uid, hotkey in hotkeys.items() if hotkey == owner), None),
            yuma3=bool(self.get("Yuma3On", netuid)),
            liquid=liquid if self.get("LiquidAlphaOn", netuid) else None,
        )

    def stake_weight(self, netuid: int, hotkey: str) -> float:
        """Alpha plus root stake times TaoWeight, each less what children hold and more what parents gave. In rao."""
        children, parents = self.get("ChildKeys", hotkey, netuid), self.get("ParentKeys", hotkey, netuid)
        given = sum(share for share, _ in children) / WHOLE
        total = 0.0
        for pool, factor in ((netuid, 1.0), (ROOT, self.get("TaoWeight") / WHOLE)):
            own = self.get("TotalHotkeyAlpha", hotkey, pool) * (1 - given)
            inherited = sum(self.get("TotalHotkeyAlpha", parent, pool) * share / WHOLE for share, parent in parents)
            total += factor * (own + inherited)
        return total
