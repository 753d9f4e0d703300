"""The block step: what the subnets do at the start of every block, before any extrinsic.

    registration prices decay -> the block's TAO is created -> subnets get their share, participants' alpha accrues ->
    subnets whose tempo is over run their epoch and pay out -> moving prices, root proportions -> pending children

Timelocked weights would be revealed before the emission; there are none here (see `commits`). Nothing in here fails a
block. A block in which no epoch is due only touches the counters of each subnet and the pools of those that emit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import coinbase, swap
from localnet.rules import stake as stake_rules
from localnet.rules.fixed import U96F32
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import children, clock, distribution, networks, registration, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def run(p: Subtensor) -> None:
    every = networks.netuids(p)
    subnets = [netuid for netuid in every if netuid != networks.ROOT]
    for netuid in every:
        registration.at_block_start(p, netuid)
    emission = _mint(p)
    emitting = [netuid for netuid in subnets if _is_eligible(p, netuid)]
    if emitting:
        _emit(p, emitting, emission)
    _run_epochs(p, subnets)
    for netuid in emitting:
        _update_moving_price(p, netuid)
    for netuid in emitting:
        p.RootProp[netuid] = {"bits": _root_proportion(p, netuid)}
    for netuid in subnets:
        if p.LastEpochBlock[netuid] == p.rt.number:
            children.apply_pending(p, netuid)


# -- emission -------------------------------------------------------------------------------------------------------


def _emission_of(p: Subtensor, issuance: int) -> int:
    """New units a block for this issuance. The chain notes every evaluation, of TAO and of alpha, in BlockEmission."""
    emission = coinbase.block_emission(issuance)
    if p.BlockEmission.get() != emission:
        p.BlockEmission.put(emission)
    return emission


def _mint(p: Subtensor) -> int:
    """The block's new TAO. It enters issuance as far as subnets take it up; the rest is recycled in the same block."""
    issued = p.TotalIssuance.get()
    emission = min(_emission_of(p, issued), coinbase.TOTAL_SUPPLY - issued)
    if emission > 0:
        p.rt.balances.emit("Issued", amount=emission)
    return max(emission, 0)


def _is_eligible(p: Subtensor, netuid: int) -> bool:
    first = p.FirstEmissionBlockNumber[netuid]
    if first is None:
        return False
    return coinbase.is_eligible(first, p.SubtokenEnabled[netuid], p.NetworkRegistrationAllowed[netuid])


def _root_proportion(p: Subtensor, netuid: int) -> U96F32:
    issuance = p.SubnetAlphaIn[netuid] + p.SubnetAlphaOut[netuid]
    weight = stake_rules.tao_weight(p.TaoWeight.get())
    return coinbase.root_proportion(p.SubnetTAO[networks.ROOT], issuance, weight)


def _emit(p: Subtensor, emitting: Sequence[int], block_tao: int) -> None:
    subnets = [
        coinbase.SubnetWeight(
            netuid,
            p.SubnetMovingPrice[netuid]["bits"],
            p.MinerBurned[netuid]["bits"],
            p.SubnetEmissionEnabled[netuid],
        )
        for netuid in emitting
    ]
    sells = coinbase.root_sells([subnet.moving_price for subnet in subnets])
    shares = coinbase.subnet_emissions(subnets, block_tao)
    plans = [(netuid, _plan(p, netuid, shares[netuid])) for netuid in emitting]
    left = block_tao
    for netuid, plan in plans:
        left -= _inject(p, netuid, plan, left)
    for netuid, plan in plans:
        _accrue(p, netuid, plan.alpha_out, sells)


def _plan(p: Subtensor, netuid: int, tao: U96F32) -> coinbase.Injection:
    alpha = _emission_of(p, p.SubnetAlphaIn[netuid] + p.SubnetAlphaOut[netuid])
    return coinbase.injection(tao, alpha, staking.spot_price(p, netuid), _root_proportion(p, netuid))


def _put(item: StorageMap[int], netuid: int, value: int) -> None:
    """Write only what changes: most counters of a block are the same as the block before."""
    if item[netuid] != value:
        item[netuid] = value


def _inject(p: Subtensor, netuid: int, plan: coinbase.Injection, left: int) -> int:
    """Put TAO and alpha into the subnet's pool at an unchanged price; spend the excess on alpha. Returns the TAO used.

    An injection that the pool's weights cannot take is left out, and its TAO is recycled.
    """
    after = swap.inject(staking.pool_of(p, netuid), plan.tao_in, plan.alpha_in)
    tao_in, alpha_in = (plan.tao_in, plan.alpha_in) if after is not None else (0, 0)
    if after is not None and p.rt.swap.SwapBalancer[netuid]["quote"] != after.quote_weight:
        p.rt.swap.SwapBalancer[netuid] = {"quote": after.quote_weight}
    excess = _buy_with_excess(p, netuid, min(plan.excess, left))
    tao_in = min(tao_in, left - excess)
    _put(p.SubnetAlphaInEmission, netuid, alpha_in)
    _put(p.SubnetTaoInEmission, netuid, tao_in)
    if alpha_in:
        p.SubnetAlphaIn[netuid] = p.SubnetAlphaIn[netuid] + alpha_in
    if tao_in:
        _credit(p, netuid, tao_in)
        p.SubnetTAO[netuid] = p.SubnetTAO[netuid] + tao_in
        p.TotalStake.put(p.TotalStake.get() + tao_in)
        p.SubnetProtocolFlow[netuid] = p.SubnetProtocolFlow[netuid] + tao_in
    return excess + tao_in


def _credit(p: Subtensor, netuid: int, tao: int) -> None:
    """New TAO for the subnet's account."""
    account = staking.subnet_account(p, netuid)
    p.rt.balances.mint(account, tao)
    p.rt.balances.emit("Deposit", who=account, amount=tao)
    p.TotalIssuance.put(p.TotalIssuance.get() + tao)


def _buy_with_excess(p: Subtensor, netuid: int, tao: int) -> int:
    """The chain buys alpha that nobody holds, free of fee. Returns the TAO that was created for it."""
    if not tao:
        _put(p.SubnetExcessTao, netuid, 0)
        return 0
    try:
        bought = staking.swap_tao_for_alpha(p, netuid, tao, with_fee=False)
    except DispatchError:  # a pool too small to trade: the TAO is recycled
        _put(p.SubnetExcessTao, netuid, 0)
        return 0
    _credit(p, netuid, tao)
    p.SubnetProtocolAlpha[netuid] = p.SubnetProtocolAlpha[netuid] + bought.paid_out
    _put(p.SubnetExcessTao, netuid, bought.paid_in)
    p.SubnetProtocolFlow[netuid] = p.SubnetProtocolFlow[netuid] + bought.paid_in
    return tao


def _accrue(p: Subtensor, netuid: int, alpha_out: int, root_sells: bool) -> None:
    """The block's alpha for participants waits in pending counters for the epoch."""
    _put(p.SubnetAlphaOutEmission, netuid, alpha_out)
    p.SubnetAlphaOut[netuid] = p.SubnetAlphaOut[netuid] + alpha_out
    cut = p.SubnetOwnerCut.get() if p.OwnerCutEnabled[netuid] else 0
    parts = coinbase.split_alpha_out(alpha_out, cut, _root_proportion(p, netuid))
    for item, amount in (
        (p.PendingOwnerCut, parts.owner),
        (p.PendingServerEmission, parts.server),
        (p.PendingValidatorEmission, parts.validator),
        (p.PendingRootAlphaDivs, parts.root if root_sells else 0),
    ):
        if amount:
            item[netuid] = item[netuid] + amount
    if not root_sells:
        distribution.recycle(p, netuid, parts.root)


def _update_moving_price(p: Subtensor, netuid: int) -> None:
    first = p.FirstEmissionBlockNumber[netuid] or 0
    new = coinbase.moving_price(
        p.SubnetMovingPrice[netuid]["bits"],
        staking.spot_price(p, netuid),
        max(p.rt.number - max(first - 1, 0), 0),
        p.SubnetMovingAlpha.get()["bits"] << 32,
        p.EMAPriceHalvingBlocks[netuid],
    )
    p.SubnetMovingPrice[netuid] = {"bits": new}


# -- epochs ---------------------------------------------------------------------------------------------------------


def _run_epochs(p: Subtensor, subnets: Sequence[int]) -> None:
    """Advance every subnet's clock; those whose epoch is due drain their pending alpha, then all of them pay out."""
    cap = p.MaxEpochsPerBlock.get()
    drained: list[tuple[int, distribution.Pending]] = []
    for netuid in subnets:
        p.BlocksSinceLastStep[netuid] = p.BlocksSinceLastStep[netuid] + 1
        if not clock.epoch_due(p, netuid):
            continue
        if len(drained) >= cap:
            _defer(p, netuid)
            continue
        if _has_distinct_hotkeys(p, netuid):
            p.BlocksSinceLastStep[netuid] = 0
            drained.append((netuid, _drain(p, netuid)))
        else:
            p.emit("EpochSkipped", netuid=netuid, block=p.rt.number)
        p.LastEpochBlock[netuid] = p.rt.number
        p.PendingEpochAt[netuid] = 0
        p.SubnetEpochIndex[netuid] = p.SubnetEpochIndex[netuid] + 1
    for netuid, pending in drained:
        distribution.run(p, netuid, pending)
        p.LastMechansimStepBlock[netuid] = p.rt.number


def _defer(p: Subtensor, netuid: int) -> None:
    p.PendingEpochAt[netuid] = p.rt.number + 1
    p.emit("EpochDeferred", netuid=netuid, from_block=p.rt.number, to_block=p.rt.number + 1)


def _has_distinct_hotkeys(p: Subtensor, netuid: int) -> bool:
    hotkeys = [hotkey for _, hotkey in p.Keys.items(netuid)]
    return len(set(hotkeys)) == len(hotkeys)


def _drain(p: Subtensor, netuid: int) -> distribution.Pending:
    pending = distribution.Pending(
        server=p.PendingServerEmission[netuid],
        validator=p.PendingValidatorEmission[netuid],
        root=p.PendingRootAlphaDivs[netuid],
        owner=p.PendingOwnerCut[netuid],
    )
    for item in (p.PendingServerEmission, p.PendingValidatorEmission, p.PendingRootAlphaDivs, p.PendingOwnerCut):
        _put(item, netuid, 0)
    return pending
