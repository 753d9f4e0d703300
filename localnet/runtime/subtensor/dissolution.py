"""The end of a subnet: taken off the list at once, taken apart at the end of the block.

    root_dissolve_network, dissolve_network   root only, as on chain; the owner cannot
    dissolve                                  the subnet is gone for every call from here on; its data wait in a queue
    clean_up                                  at the end of every block: the first subnet of the queue is paid out and
                                              cleared

The chain meters the clean-up and spreads it over blocks when it does not fit into what is left of one; a block here
always has room for one subnet, so CurrentDissolveCleanupStatus never holds a place to resume from. One subnet a block
is the chain's pace too: a second one that was dissolved in the same block waits in DissolveCleanupQueue.

The pool's TAO goes to the coldkeys that hold alpha, pro rata (`localnet.rules.dissolution`); what the chain itself
holds of it is recycled. An owner gets a lock back only on a subnet that is older than NetworkRegistrationStartBlock.
What the chain leaves behind stays here as well: AutoStakeDestination, the owner's switches for cut and recycling and a
few more, see `test_dissolution`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import dissolution as rules
from localnet.rules.fixed import sub_floor0
from localnet.rules.weights import storage_index
from localnet.runtime.framework import Origin, StorageMap, call, ensure_root
from localnet.runtime.subtensor import collateral, fund_moves, networks, positions, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

log = logging.getLogger("localnet.runtime")

REF_TIME = 119_000_000  # picoseconds, from the public chain
BY_NETUID = (  # items with one value a subnet that go with it
    "SubnetOwner", "SubnetworkN", "NetworkRegisteredAt", "Active", "Emission", "Consensus", "Dividends",
    "ValidatorPermit", "ValidatorTrust", "Tempo", "Kappa", "Difficulty", "MaxAllowedUids", "ImmunityPeriod",
    "ActivityCutoff", "MinAllowedWeights", "RegistrationsThisInterval", "POWRegistrationsThisInterval",
    "BurnRegistrationsThisInterval", "SubnetAlphaInEmission", "SubnetAlphaOutEmission", "SubnetTaoInEmission",
    "SubnetVolume", "SubnetMovingPrice", "SubnetTaoFlow", "SubnetEmaTaoFlow", "SubnetProtocolFlow",
    "SubnetEmaProtocolFlow", "SubnetExcessTao", "SubnetRootSellTao", "TokenSymbol", "SubnetMechanism",
    "SubnetOwnerHotkey", "NetworkRegistrationAllowed", "NetworkPowRegistrationAllowed", "TransferToggle",
    "SubnetLocked", "LargestLocked", "FirstEmissionBlockNumber", "PendingValidatorEmission", "PendingServerEmission",
    "PendingRootAlphaDivs", "PendingOwnerCut", "MinerBurned", "BlocksSinceLastStep", "LastMechansimStepBlock",
    "LastAdjustmentBlock", "ServingRateLimit", "Rho", "AlphaSigmoidSteepness", "MaxAllowedValidators",
    "BondsMovingAverage", "BondsPenalty", "BondsResetOn", "WeightsSetRateLimit", "ValidatorPruneLen", "ScalingLawPower",
    "TargetRegistrationsPerInterval", "CommitRevealWeightsEnabled", "BurnHalfLife", "BurnIncreaseMult", "Burn",
    "MinBurn", "MaxBurn", "MinDifficulty", "MaxDifficulty", "RegistrationsThisBlock", "EMAPriceHalvingBlocks",
    "RAORecycledForRegistration", "MaxRegistrationsPerBlock", "WeightsVersionKey", "LiquidAlphaOn", "Yuma3On",
    "AlphaValues", "LiquidAlphaConsensusMode", "SubtokenEnabled", "SubnetFastMovingPrice", "ImmuneOwnerUidsLimit",
    "StakeWeight", "LoadedEmission", "ActivityCutoffFactorMilli", "LastEpochBlock", "PendingEpochAt",
    "SubnetEpochIndex", "TotalVotingPower", "VotingPowerTrackingEnabled", "VotingPowerDisableAtBlock",
    "VotingPowerEmaAlpha", "TotalAlphaStaked", "RevealPeriodEpochs", "MechanismCountCurrent", "MechanismEmissionSplit",
    "OwnerLock", "DecayingOwnerLock", "OwnerCutAutoLockEnabled", "SubnetEpochConsensus",
)  # fmt: skip
UNDER_NETUID = (  # maps whose first key is the netuid
    "Keys", "Uids", "VotingPower", "BlockAtRegistration", "Axons", "NeuronCertificates", "Prometheus",
    "AlphaDividendsPerSubnet", "PendingChildKeys", "AssociatedEvmAddress", "AssociatedUidsByEvmAddress",
    "LastHotkeySwapOnNetuid", "HotkeySuccessor", "HotkeyRoot", "RootClaimed", "HotkeyLock", "DecayingHotkeyLock",
    "LockingColdkeys",
)  # fmt: skip
BY_INDEX = ("LastUpdate", "Incentive", "ConsensusByMechanism")  # one value a mechanism
UNDER_INDEX = (
    "WeightCommits", "TimelockedWeightCommits", "CRV3WeightCommits", "CRV3WeightCommitsV2", "Bonds", "Weights",
)  # fmt: skip
NETUID_SECOND = (  # maps whose second key is the netuid
    "ChildkeyTake", "ChildKeys", "ParentKeys", "LastHotkeyEmissionOnNetuid", "TotalHotkeyAlphaLastEpoch",
    "TransactionKeyLastBlock", "Lock", "DecayingLock",
)  # fmt: skip
OF_COMMITMENTS = ("CommitmentOf", "LastCommitment", "LastBondsReset", "RevealedCommitments", "UsedSpaceOf")
OF_SWAP = ("PalSwapInitialized", "FeeRate", "SwapBalancer")
OF_ALPHA_ASSETS = ("TotalAlphaIssuance", "AlphaBurned", "AlphaRecycled")


# -- calls ----------------------------------------------------------------------------------------------------------


@call(ref_time=REF_TIME)
def dissolve_network(p: Subtensor, origin: Origin, coldkey: bytes, netuid: int) -> None:
    """The former call of owners; `coldkey` means nothing any more."""
    ensure_root(origin)
    dissolve(p, netuid)


@call(ref_time=REF_TIME)
def root_dissolve_network(p: Subtensor, origin: Origin, netuid: int) -> None:
    ensure_root(origin)
    dissolve(p, netuid)


def dissolve(p: Subtensor, netuid: int) -> None:
    """Raises SubnetNotExists, NetworkDissolveAlreadyQueued."""
    if netuid == networks.ROOT:
        raise p.error("SubnetNotExists")
    networks.ensure_exists(p, netuid)
    queue = p.DissolveCleanupQueue.get()
    if netuid in queue:
        raise p.error("NetworkDissolveAlreadyQueued")
    _empty_reservoirs(p, netuid)
    del p.NetworksAdded[netuid]
    p.TotalNetworks.put(sub_floor0(p.TotalNetworks.get(), 1))
    p.TotalStake.put(sub_floor0(p.TotalStake.get(), p.SubnetTAO[netuid]))
    p.DissolveCleanupQueue.put([*queue, netuid])
    p.emit("NetworkRemoved", netuid)


def _empty_reservoirs(p: Subtensor, netuid: int) -> None:
    """Emission that never reached the pool is divided with it. The pool's weights stay, so its price moves."""
    tao, alpha = p.rt.swap.BalancerTaoReservoir[netuid], p.rt.swap.BalancerAlphaReservoir[netuid]
    del p.rt.swap.BalancerTaoReservoir[netuid]
    del p.rt.swap.BalancerAlphaReservoir[netuid]
    if not tao and not alpha:
        return
    p.SubnetTAO[netuid] = p.SubnetTAO[netuid] + tao
    p.SubnetAlphaIn[netuid] = p.SubnetAlphaIn[netuid] + alpha
    p.TotalStake.put(p.TotalStake.get() + tao)


# -- the end of a block ---------------------------------------------------------------------------------------------


def clean_up(p: Subtensor) -> None:
    """Take the first queued subnet apart. Costs one read when there is none."""
    queue = p.DissolveCleanupQueue.get()
    if not queue:
        return
    netuid = queue[0]
    _convert_funds(p, netuid)
    _forget_root_claims(p, netuid)
    _pay_out(p, netuid)
    _clear(p, netuid)
    p.emit("NetworkDissolveCleanupCompleted", netuid=netuid)
    p.DissolveCleanupQueue.put(queue[1:])


def _convert_funds(p: Subtensor, netuid: int) -> None:
    """The subnet's TAO left TotalStake when it was dissolved: a sale takes none from it, root's new stake adds some."""
    total, root = p.TotalStake.get(), p.SubnetTAO[networks.ROOT]
    fund_moves.convert_subnet(p, netuid)
    p.TotalStake.put(total + p.SubnetTAO[networks.ROOT] - root)


def _forget_root_claims(p: Subtensor, netuid: int) -> None:
    for hotkey, rates in list(p.RootClaimable.items()):
        left = [(one, rate) for one, rate in rates if one != netuid]
        if len(left) != len(rates):
            p.RootClaimable[hotkey] = left


# -- the pool -------------------------------------------------------------------------------------------------------


def _holdings(p: Subtensor, netuid: int) -> Iterator[tuple[bytes, bytes, int]]:
    """(hotkey, coldkey, alpha) of all who hold alpha of the subnet, in the order the chain walks them."""
    for hotkey in [hotkey for hotkey, one in p.TotalHotkeyAlpha.keys() if one == netuid]:
        rows = {*p.Alpha.keys(hotkey), *p.AlphaV2.keys(hotkey)}
        for coldkey in sorted(coldkey for coldkey, one in rows if one == netuid):
            alpha = staking.stake_of(p, hotkey, coldkey, netuid)
            alpha = alpha or staking.share_of(p, hotkey, coldkey, netuid).to_u64()  # a pool without its denominator
            if alpha:
                yield hotkey, coldkey, alpha


def _pay_out(p: Subtensor, netuid: int) -> None:
    """Divide the pool's TAO, delete the alpha, recycle what is left on the subnet's account."""
    holdings, pot = list(_holdings(p, netuid)), p.SubnetTAO[netuid]
    whole = rules.whole_alpha(
        sum(alpha for _, _, alpha in holdings),
        p.SubnetProtocolAlpha[netuid],
        p.SubnetAlphaIn[netuid],
        p.NetworkRegisteredAt[netuid],
        p.TaoInRefundDeploymentBlock.get(),
    )
    due: dict[bytes, int] = {}
    parts = rules.payouts(pot, [alpha for _, _, alpha in holdings], whole)
    for (_, coldkey, _), tao in zip(holdings, parts, strict=True):
        due[coldkey] = due.get(coldkey, 0) + tao
    for coldkey in sorted(due):
        if due[coldkey]:
            _pay(p, netuid, coldkey, due[coldkey])
    _delete_alpha(p, netuid)
    own = p.SubnetProtocolAlpha[netuid]
    _refund_owner(p, netuid, pot, sum(due.values()), pot * own // whole if whole else 0)
    for item in (p.SubnetAlphaIn, p.SubnetAlphaOut, p.SubnetProtocolAlpha, p.SubnetTAO):
        del item[netuid]
    account = staking.subnet_account(p, netuid)
    rest = p.rt.balances.reducible(account, keep_alive=True)
    if rest:
        positions.recycle_tao(p, account, rest)


def _pay(p: Subtensor, netuid: int, coldkey: bytes, tao: int) -> None:
    """Nobody's payout can stop the others': too little to open an account is recycled with the rest."""
    try:
        with p.rt.transaction():
            positions.pay_from_subnet(p, netuid, coldkey, tao)
    except DispatchError as error:
        log.info("subnet %d ends: %d rao not paid to %s: %s", netuid, tao, coldkey.hex(), error)


def _refund_owner(p: Subtensor, netuid: int, pot: int, paid: int, recycled: int) -> None:
    """The lock, less what the owner earned, on a subnet of the old kind; with it what nobody else got of the pool.

    `recycled`: the part of the pool that the chain's own alpha stands for.
    """
    if p.NetworkRegisteredAt[netuid] >= p.NetworkRegistrationStartBlock.get():
        return
    refund = rules.owner_refund(
        p.SubnetLocked[netuid],
        p.SubnetAlphaIn[netuid] + p.SubnetAlphaOut[netuid],
        p.SubnetOwnerCut.get(),
        staking.spot_price(p, netuid),
    )
    if not refund:
        return
    refund += sub_floor0(pot, paid + refund)
    balance = p.rt.balances.reducible(staking.subnet_account(p, netuid), keep_alive=False)
    _pay(p, netuid, p.SubnetOwner[netuid], min(refund, sub_floor0(balance, recycled)))


def _delete_alpha(p: Subtensor, netuid: int) -> None:
    for hotkey in [hotkey for hotkey, one in p.TotalHotkeyAlpha.keys() if one == netuid]:
        for item in (p.Alpha, p.AlphaV2):
            for coldkey, one in list(item.keys(hotkey)):
                if one == netuid:
                    del item[hotkey, coldkey, netuid]
        del p.TotalHotkeyAlpha[hotkey, netuid]
        del p.TotalHotkeyShares[hotkey, netuid]
        del p.TotalHotkeySharesV2[hotkey, netuid]
        staking.queue_parent_check(p, hotkey)


# -- everything else ------------------------------------------------------------------------------------------------


def _clear(p: Subtensor, netuid: int) -> None:
    for name in OF_SWAP:
        del getattr(p.rt.swap, name)[netuid]
    for name in OF_ALPHA_ASSETS:
        del getattr(p.rt.alpha_assets, name)[netuid]
    _clear_commitments(p, netuid)
    for _, hotkey in list(p.Keys.items(netuid)):
        del p.IsNetworkMember[hotkey, netuid]
    for mecid in range(p.MechanismCountCurrent[netuid]):
        for name in BY_INDEX:
            del getattr(p, name)[storage_index(netuid, mecid)]
        for name in UNDER_INDEX:
            getattr(p, name).clear(storage_index(netuid, mecid))
    for name in BY_NETUID:
        del getattr(p, name)[netuid]
    if p.SubnetIdentitiesV3[netuid] is not None:
        del p.SubnetIdentitiesV3[netuid]
        p.emit("SubnetIdentityRemoved", netuid)
    for name in UNDER_NETUID:
        getattr(p, name).clear(netuid)
    collateral.forget_subnet(p, netuid)
    _clear_lease(p, netuid)
    for name in NETUID_SECOND:
        _clear_second(getattr(p, name), netuid)


def _clear_commitments(p: Subtensor, netuid: int) -> None:
    commitments = p.rt.commitments
    for name in OF_COMMITMENTS:
        getattr(commitments, name).clear(netuid)
    index = commitments.TimelockedIndex.get()
    left = [entry for entry in index if entry[0] != netuid]
    if len(left) != len(index):
        commitments.TimelockedIndex.put(left)


def _clear_lease(p: Subtensor, netuid: int) -> None:
    lease = p.SubnetUidToLeaseId[netuid]
    if lease is not None:
        p.SubnetLeaseShares.clear(lease)
        del p.SubnetLeases[lease]
        del p.AccumulatedLeaseDividends[lease]
        del p.SubnetUidToLeaseId[netuid]


def _clear_second(item: StorageMap[Any], netuid: int) -> None:
    for keys in [keys for keys in item.keys() if keys[1] == netuid]:
        del item[keys]
