"""Emission: the block's TAO and alpha on their way to the subnets, before any epoch.

    mint        the block's TAO: into issuance as far as subnets take it up, the rest is recycled in the same block
    eligible    the subnets that take part
    emit        shares of the TAO (moving prices, miners not paid, the gate, switches) -> for each subnet a purchase
                with what may not be injected, an injection at an unchanged price, alpha that waits for the epoch
    follow      moving prices and root proportions, after everything else in the block step

The arithmetic is `localnet.rules.coinbase`, `emission_gate`, `reservoir` and `swap`. With thirty subnets this is most
of what a block costs, so a subnet's pool is read once, changed in a local record and written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localnet.rules import coinbase, emission_gate, reservoir
from localnet.rules import stake as stake_rules
from localnet.rules import swap as market
from localnet.rules.errors import SwapError
from localnet.rules.fixed import ONE64, U64F64, U96F32, sub_floor0
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import networks, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


@dataclass
class _Block:
    """What all subnets of a block share, and what they add up to."""

    left: int  # TAO not taken up yet, rao
    root_tao: int
    tao_weight: U96F32
    root_sells: bool
    owner_cut: int  # of 65535
    issued: int = 0  # rao created
    staked: int = 0  # rao that became part of pools
    alpha_emission: int = 0  # of the subnet evaluated last

    def take(self, tao: int) -> bool:
        """Spend part of the block's TAO; False, and nothing is spent, when less is left."""
        if tao > self.left:
            return False
        self.left -= tao
        return True

    def root_share(self, alpha_issuance: int) -> U96F32:
        return coinbase.root_proportion(self.root_tao, alpha_issuance, self.tao_weight)


@dataclass
class Market:
    """A subnet's pool while the block's emission goes through it; written back once. Rao and alpha-rao."""

    netuid: int
    stable: bool
    pool: market.Pool
    alpha_out: int
    tao_waiting: int
    alpha_waiting: int
    bought: int = 0  # alpha the chain bought
    excess: int = 0  # TAO it bought with
    tao_in: int = 0
    alpha_in: int = 0

    def stored(self) -> tuple[int, int, int, int, int, int]:
        """The parts that storage keeps."""
        pool = self.pool
        return pool.tao, pool.alpha, self.alpha_out, self.tao_waiting, self.alpha_waiting, pool.quote_weight

    @property
    def issuance(self) -> int:
        """All alpha of the subnet."""
        return self.pool.alpha + self.alpha_out + self.alpha_waiting

    @property
    def price(self) -> U64F64:
        """TAO per alpha."""
        return ONE64 if self.stable else market.price(self.pool)


# -- the block's TAO ------------------------------------------------------------------------------------------------


def mint(p: Subtensor) -> int:
    """The block's new TAO, rao. BlockEmission notes this evaluation of the curve, and later those of subnets' alpha."""
    issued = p.TotalIssuance.get()
    curve = coinbase.block_emission(issued)
    if p.BlockEmission.get() != curve:
        p.BlockEmission.put(curve)
    emission = max(min(curve, coinbase.TOTAL_SUPPLY - issued), 0)
    if emission:
        p.rt.balances.emit("Issued", amount=emission)
    return emission


def eligible(p: Subtensor, netuid: int) -> bool:
    """Started, with its token enabled and registration open."""
    first = p.FirstEmissionBlockNumber[netuid]
    return first is not None and coinbase.is_eligible(
        first, p.SubtokenEnabled[netuid], p.NetworkRegistrationAllowed[netuid]
    )


def emit(p: Subtensor, emitting: Sequence[int], block_tao: int) -> list[Market]:
    """Give the eligible subnets their TAO and alpha of this block. Returns their pools afterwards."""
    if not emitting:
        return []
    weights = [
        coinbase.SubnetWeight(
            netuid, staking.moving_price(p, netuid), p.MinerBurned[netuid]["bits"], p.SubnetEmissionEnabled[netuid]
        )
        for netuid in emitting
    ]
    block = _Block(
        left=block_tao,
        root_tao=p.SubnetTAO[networks.ROOT],
        tao_weight=stake_rules.tao_weight(p.TaoWeight.get()),
        root_sells=coinbase.root_sells([subnet.moving_price for subnet in weights]),
        owner_cut=p.SubnetOwnerCut.get(),
    )
    parts = coinbase.emissions_of(_shares(p, weights), block_tao)
    markets = [_emit_to(p, netuid, tao, block) for netuid, tao in parts.items()]
    if block.issued:
        for total in (p.TotalIssuance, p.rt.balances.TotalIssuance):
            total.put(total.get() + block.issued)
    if block.staked:
        p.TotalStake.put(p.TotalStake.get() + block.staked)
    if p.BlockEmission.get() != block.alpha_emission:
        p.BlockEmission.put(block.alpha_emission)
    return markets


def _shares(p: Subtensor, weights: Sequence[coinbase.SubnetWeight]) -> dict[int, U64F64]:
    """Each subnet's part of the block's TAO, behind the gate. Every now and then the bar moves first."""
    demand = coinbase.demand_shares(weights)
    bar = p.EmissionGateBar.get()["bits"]
    if emission_gate.is_bar_due(bar, p.rt.number):
        moved = emission_gate.bar(demand.values(), p.EmissionBarRank.get(), p.EmissionBarQuantile.get()["bits"])
        if moved and moved != bar:
            bar = moved
            p.EmissionGateBar.put({"bits": bar})
    return coinbase.subnet_shares(demand, weights, bar, p.EmissionGateExponent.get()["bits"])


# -- one subnet -----------------------------------------------------------------------------------------------------


def _emit_to(p: Subtensor, netuid: int, tao: U96F32, block: _Block) -> Market:
    m = Market(
        netuid,
        staking.is_stable(p, netuid),
        staking.pool_of(p, netuid),
        p.SubnetAlphaOut[netuid],
        p.rt.swap.BalancerTaoReservoir[netuid],
        p.rt.swap.BalancerAlphaReservoir[netuid],
    )
    before = m.stored()
    block.alpha_emission = coinbase.block_emission(m.issuance)
    plan = coinbase.injection(tao, block.alpha_emission, m.price, block.root_share(m.issuance))
    _buy_with_excess(p, m, plan.excess, block)
    _inject(p, m, plan, block)
    root = _accrue(p, m, plan.alpha_out, block)
    _write(p, m, before)
    p.rt.alpha_assets.mint(netuid, plan.alpha_in + plan.alpha_out)
    if not block.root_sells:  # root's part goes out of circulation instead of to its stakers
        p.rt.alpha_assets.recycle(netuid, root)
    return m


def _buy_with_excess(p: Subtensor, m: Market, tao: int, block: _Block) -> None:
    """The chain buys alpha that nobody holds, free of fee. A pool too small to trade: the TAO stays with the block."""
    if not tao or not block.take(tao):
        return
    try:
        swap = market.Swap(tao, tao, 0) if m.stable else market.buy(m.pool, tao, fee_rate=0)
    except SwapError:
        block.left += tao
        return
    _credit(p, m.netuid, tao, block)
    m.bought, m.excess = swap.paid_out, swap.paid_in
    m.pool = replace(m.pool, tao=m.pool.tao + swap.paid_in, alpha=sub_floor0(m.pool.alpha, swap.paid_out))
    m.alpha_out += swap.paid_out
    block.staked += swap.paid_in
    p.SubnetVolume[m.netuid] = p.SubnetVolume[m.netuid] + tao
    p.SubnetProtocolAlpha[m.netuid] = p.SubnetProtocolAlpha[m.netuid] + swap.paid_out


def _inject(p: Subtensor, m: Market, plan: coinbase.Injection, block: _Block) -> None:
    """TAO and alpha join the pool at an unchanged price; what its weights cannot take waits beside it."""
    tao = plan.tao_in if block.take(plan.tao_in) else 0
    if tao:
        _credit(p, m.netuid, tao, block)
    done = reservoir.add_liquidity(m.pool, tao, plan.alpha_in, m.tao_waiting, m.alpha_waiting)
    m.pool, m.tao_in, m.alpha_in = done.pool, done.tao, done.alpha
    m.tao_waiting, m.alpha_waiting = done.tao_waiting, done.alpha_waiting
    block.staked += done.tao


def _credit(p: Subtensor, netuid: int, tao: int, block: _Block) -> None:
    """New TAO for the subnet's account."""
    p.rt.balances.deposit(staking.subnet_account(p, netuid), tao)
    block.issued += tao


def _accrue(p: Subtensor, m: Market, alpha_out: int, block: _Block) -> int:
    """The block's alpha for participants waits in pending counters for the epoch. Returns root's part of it."""
    m.alpha_out += alpha_out
    cut = block.owner_cut if p.OwnerCutEnabled[m.netuid] else 0
    parts = coinbase.split_alpha_out(alpha_out, cut, block.root_share(m.issuance))
    for item, amount in (
        (p.PendingOwnerCut, parts.owner),
        (p.PendingServerEmission, parts.server),
        (p.PendingValidatorEmission, parts.validator),
        (p.PendingRootAlphaDivs, parts.root if block.root_sells else 0),
    ):
        if amount:
            item[m.netuid] = item[m.netuid] + amount
    put(p.SubnetAlphaOutEmission, m.netuid, alpha_out)
    return parts.root


def put(item: StorageMap[int], netuid: int, value: int) -> None:
    """Write only what changes: most counters of a block are the same as the block before."""
    if item[netuid] != value:
        item[netuid] = value


def _write(p: Subtensor, m: Market, before: tuple[int, int, int, int, int, int]) -> None:
    netuid, swap, now = m.netuid, p.rt.swap, m.stored()
    items = (p.SubnetTAO, p.SubnetAlphaIn, p.SubnetAlphaOut, swap.BalancerTaoReservoir, swap.BalancerAlphaReservoir)
    for item, new, old in zip(items, now, before, strict=False):
        if new != old:
            item[netuid] = new
    if now[-1] != before[-1]:
        swap.SwapBalancer[netuid] = {"quote": now[-1]}
    put(p.SubnetExcessTao, netuid, m.excess)
    put(p.SubnetTaoInEmission, netuid, m.tao_in)
    put(p.SubnetAlphaInEmission, netuid, m.alpha_in)
    if m.excess or m.tao_in:
        p.SubnetProtocolFlow[netuid] = p.SubnetProtocolFlow[netuid] + m.excess + m.tao_in


# -- after the epochs -----------------------------------------------------------------------------------------------


def follow(p: Subtensor, markets: Sequence[Market]) -> None:
    """Moving prices come closer to the spot price; root proportions are noted for readers.

    Nobody has traded since `emit`, but epochs and dividends may have taken alpha out of circulation.
    """
    if not markets:
        return
    alpha = p.SubnetMovingAlpha.get()["bits"] << 32
    root_tao, weight = p.SubnetTAO[networks.ROOT], stake_rules.tao_weight(p.TaoWeight.get())
    for m in markets:
        _update_moving_price(p, m.netuid, alpha, m.price)
        m.alpha_out = p.SubnetAlphaOut[m.netuid]
        share = coinbase.root_proportion(root_tao, m.issuance, weight)
        if p.RootProp[m.netuid]["bits"] != share:
            p.RootProp[m.netuid] = {"bits": share}


def _update_moving_price(p: Subtensor, netuid: int, alpha: U64F64, spot: U64F64) -> None:
    first = p.FirstEmissionBlockNumber[netuid] or 0
    old = p.SubnetMovingPrice[netuid]["bits"]
    blocks = max(p.rt.number - max(first - 1, 0), 0)
    new = coinbase.moving_price(old, spot, blocks, alpha, p.EMAPriceHalvingBlocks[netuid])
    if new != old:
        p.SubnetMovingPrice[netuid] = {"bits": new}
    fast = p.SubnetFastMovingPrice[netuid]
    moved = coinbase.fast_moving_price(None if fast is None else fast["bits"], spot)
    if fast is None or moved != fast["bits"]:
        p.SubnetFastMovingPrice[netuid] = {"bits": moved}
