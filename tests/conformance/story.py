"""A story in which every intent of the SDK has its place, so that each finds what it needs; see test_every_call.py.

A step names what comes of it: "ok", the chain's own error, or what is absent. Between the steps stands what no intent
can do: root's settings, blocks, and calls that the SDK has no intent for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import bittensor as bt
from bittensor.intents import build

from localnet import Localnet
from localnet.node.blocks import blake2_256
from tests.conformance.clients.base import ALICE, TAO, Actor

ROOT, FIRST, SECOND = 0, 2, 3  # the root network, and the two that OWNER registers
OWNER, MINER, FRIEND, POOR, SWAPPER, SURE, DISPUTED, THIRD = (
    Actor.named(f"story-{name}")
    for name in ("owner", "miner", "friend", "poor", "swapper", "sure", "disputed", "third")
)
RICH = (OWNER, MINER, FRIEND, SWAPPER, SURE, DISPUTED, THIRD)
EVM_ADDRESS = "0x" + "11" * 20
SWAP_DELAY = 60  # blocks; an announced swap waits 50 at most, and may be announced again 10 later
LEASE, LEASED_FOR = 10_000, 100  # TAO and blocks of a leased subnet
LATER = "no such call in the metadata"  # the call came after spec 461: the SDK itself finds none

TRANSFER = {"op": "transfer", "dest_ss58": FRIEND.cold, "amount_tao": 0.1}
PAY = {"dest": ("Id", bytes(FRIEND.coldkey.public_key)), "value": TAO // 10}
OPEN = {"threshold": 2, "other_signatories": [FRIEND.cold], "call": TRANSFER}
AXON = {"netuid": FIRST, "ip": "203.0.113.5", "port": 8091}
MOVE = {"origin_netuid": FIRST, "amount_alpha": 2.0}
CROWDLOAN = {"deposit_tao": 100, "min_contribution_tao": 1, "target_ss58": FRIEND.cold}

HYPERPARAMETERS: dict[str, Any] = {  # name -> value; the others are in REFUSED_HYPERPARAMETERS
    "immunity_period": 42, "min_allowed_weights": 1, "weights_version": 1, "activity_cutoff_factor": 2000,
    "min_burn": 1_000_000, "max_burn": 10**10, "bonds_moving_avg": 800_000, "bonds_penalty": 1000,
    "serving_rate_limit": 0, "commit_reveal_period": 2, "max_allowed_uids": 64, "burn_increase_mult": 2 << 64,
    "burn_half_life": 100, "collateral_lock_share": 1000, "collateral_drain_ratio": 2, "adjustment_alpha": 1,
    "rho": 11, "max_difficulty": 10**7, "alpha_sigmoid_steepness": 100, "min_childkey_take": 1,
    "owner_immune_neuron_limit": 2, "liquid_alpha_enabled": True, "alpha_low": 20_000, "alpha_high": 50_000,
    "commit_reveal_weights_enabled": True, "registration_allowed": True, "yuma3_enabled": True,
    "bonds_reset_enabled": True, "transfers_enabled": True, "owner_cut_enabled": True,
    "owner_cut_auto_lock_enabled": False, "tempo": 360, "network_pow_registration_allowed": True,
    "epoch_consensus": "Yuma",
}  # fmt: skip
REFUSED_HYPERPARAMETERS = {
    "registration_allowed": "BadOrigin",  # the owner may since proof of work came back, after spec 461
    "network_pow_registration_allowed": "POWRegistrationDisabled",
    "epoch_consensus": LATER,
}


@dataclass
class Scene:
    net: Localnet
    client: bt.Client


@dataclass(frozen=True)
class Step:
    """One intent: who signs it, with what, and what comes of it. A function in `args` is given the scene."""

    op: str
    who: Actor
    args: dict[str, Any]
    comes: str = "ok"


def step(op: str, who: Actor = OWNER, /, comes: str = "ok", **args: Any) -> Step:
    return Step(op, who, args, comes)


Preparation = Callable[[Scene], Awaitable[Any]]


def admin(call: str, /, **args: Any) -> Preparation:
    return lambda scene: scene.net.sudo("AdminUtils", call, **args)


def mine(blocks: int) -> Preparation:
    return lambda scene: scene.net.mine(blocks)


def announce(scene: Scene) -> Awaitable[Any]:
    """What `execute_proxy_announced` then executes."""
    call = scene.net.client.encode_call("Balances", "transfer_keep_alive", PAY)
    real = ("Id", bytes(OWNER.coldkey.public_key))
    return scene.net.extrinsic(FRIEND.cold_uri, "Proxy", "announce", real=real, call_hash=blake2_256(call))


async def fund_shared(scene: Scene) -> None:
    shared = await scene.client.multisig([OWNER.cold, FRIEND.cold], 1)
    await scene.net.fund(shared.address, TAO)


def timepoint(scene: Scene) -> dict[str, int]:
    operations = scene.net.query_map("Multisig", "Multisigs").values()
    mine = next(o for o in operations if o["depositor"] in (OWNER.cold, bytes(OWNER.coldkey.public_key)))
    return dict(mine["when"])


def within(blocks: int) -> Callable[[Scene], int]:
    return lambda scene: scene.net.block + blocks


def leased(scene: Scene) -> dict[str, Any]:
    return {"op": "register_leased_network", "emissions_share": 20, "end_block": scene.net.block + LEASED_FOR}


def absent(pallet: str, call: str) -> str:
    return f"{pallet}.{call} is not implemented"


STORY: list[Step | Preparation] = [
    step("transfer", dest_ss58=POOR.cold, amount_tao=2.0),
    step("transfer_all", POOR, dest_ss58=OWNER.cold),
    step("batch", intents=[TRANSFER, TRANSFER]),
    # a subnet and what its owner does
    step("register_subnet"),
    step("register_subnet", hotkey_ss58=SWAPPER.hot),
    step("start_call", netuid=FIRST),
    step("start_call", netuid=SECOND),
    step("set_subnet_identity", netuid=FIRST, subnet_name="story"),
    step("update_symbol", netuid=FIRST, symbol="ω"),
    step("trim_subnet", netuid=FIRST, max_n=64),
    step("trim_null_subnet_batch", netuid=FIRST, target=64, comes=LATER),
    step("set_mechanism_count", netuid=FIRST, mechanism_count=2),
    *(
        step("set_hyperparameter", netuid=SECOND, name=name, value=value, comes=REFUSED_HYPERPARAMETERS.get(name, "ok"))
        for name, value in HYPERPARAMETERS.items()
    ),
    step("set_subnet_emission_enabled", ALICE, netuids=[FIRST], enabled=True),
    # a neuron
    step("set_identity", name="story"),
    step("associate_hotkey", FRIEND, hotkey_ss58=FRIEND.hot),
    step("burned_register", MINER, netuid=FIRST),
    step("pow_register", MINER, netuid=FIRST, work_block=1, nonce=0, work_hex="ab" * 32, comes=LATER),
    admin("sudo_set_serving_rate_limit", netuid=FIRST, serving_rate_limit=0),
    step("serve_axon", MINER, **AXON),
    step("serve_axon_tls", MINER, **AXON, certificate="0x" + "ab" * 32),
    step("serve_prometheus", MINER, **AXON),
    step("reset_axon", MINER, netuid=FIRST),
    # stake
    step("add_stake", hotkey_ss58=OWNER.hot, netuid=FIRST, amount_tao=20.0),
    step("add_stake_limit", hotkey_ss58=OWNER.hot, netuid=SECOND, amount_tao=20.0, limit_price_rao=10**10),
    step("remove_stake", hotkey_ss58=OWNER.hot, netuid=FIRST, amount_alpha=1.0),
    step("remove_stake_limit", hotkey_ss58=OWNER.hot, netuid=FIRST, amount_alpha=1.0, limit_price_rao=1),
    step("move_stake", origin_hotkey_ss58=OWNER.hot, dest_hotkey_ss58=MINER.hot, dest_netuid=FIRST, **MOVE),
    step("move_swap_stake", origin_hotkey_ss58=OWNER.hot, dest_hotkey_ss58=MINER.hot, dest_netuid=SECOND, **MOVE),
    step("swap_stake", hotkey_ss58=OWNER.hot, dest_netuid=SECOND, **MOVE),
    step("transfer_stake", dest_coldkey_ss58=FRIEND.cold, hotkey_ss58=OWNER.hot, dest_netuid=FIRST, **MOVE),
    step("unstake_all_alpha", FRIEND, hotkey_ss58=OWNER.hot),
    step("stake_burn", netuid=FIRST, amount_tao=1.0, limit_price=10**10),
    step("set_auto_stake", netuid=FIRST, hotkey_ss58=OWNER.hot),
    step("set_children", netuid=FIRST, children=[[2**63, MINER.hot]]),
    step("set_childkey_take", MINER, netuid=FIRST, take=1000),
    step("decrease_take", take=500),
    step("increase_take", take=1000),
    step("set_take", take=900),
    step("lock_stake", netuid=FIRST, amount_alpha=1.0),
    step("set_perpetual_lock", netuid=FIRST, enabled=True),
    step("move_lock", netuid=FIRST, destination_hotkey_ss58=MINER.hot),
    step("set_reject_locked_alpha", FRIEND, enabled=True),
    step("add_stake", MINER, hotkey_ss58=MINER.hot, netuid=FIRST, amount_tao=5.0),
    step("add_collateral", MINER, netuid=FIRST, amount_alpha=1.0),
    step("set_min_collateral", MINER, netuid=FIRST, min_alpha=0.5),
    step("unstake_all", MINER, hotkey_ss58=MINER.hot),
    # weights
    admin("sudo_set_weights_set_rate_limit", netuid=FIRST, weights_set_rate_limit=0),
    admin("sudo_set_commit_reveal_weights_enabled", netuid=FIRST, enabled=False),
    step("set_weights", netuid=FIRST, uids=[1], weights=[1.0]),
    admin("sudo_set_commit_reveal_weights_enabled", netuid=FIRST, enabled=True),
    step("commit_weights", netuid=FIRST, uids=[1], weights=[1.0]),
    # the SDK commits with a timelock: there is no salted commit to open
    step("reveal_weights", netuid=FIRST, uids=[1], weights=[1.0], salt=[1, 2, 3], comes="NoWeightsCommitFound"),
    # root
    step("root_register"),
    step("stake_into_basket", hotkey_ss58=OWNER.hot, amount_tao=10.0),
    admin("sudo_set_basket_trading_enabled", enabled=True),
    # a trade has to stay near the moving prices, which start far below the price of a young subnet
    step("swap_basket", hotkey_ss58=OWNER.hot, origin_netuid=ROOT, dest_netuid=FIRST, amount=0.1,
         comes="SlippageTooHigh"),
    step("swap_basket_many", hotkey_ss58=OWNER.hot, legs=[{"origin_netuid": 1, "dest_netuid": 0, "amount": 1.0}],
         comes=LATER),
    step("claim_root", subnets=[FIRST]),
    step("claim_root_with_hotkey", hotkey_ss58=OWNER.hot),
    step("set_root_claim_threshold", ALICE, threshold=0.0005),
    # proxies and multisig
    step("add_proxy", delegate_ss58=FRIEND.cold, proxy_type="Transfer"),
    announce,
    step("execute_proxy_announced", FRIEND, delegate_ss58=FRIEND.cold, real_ss58=OWNER.cold, inner_op="transfer",
         inner_args={"dest_ss58": FRIEND.cold, "amount_tao": 0.1}),
    step("remove_proxy", delegate_ss58=FRIEND.cold, proxy_type="Transfer"),
    step("remove_proxies"),
    step("create_pure_proxy"),
    step("kill_pure_proxy", spawner_ss58=OWNER.cold, comes="NoPermission"),  # only the pure account itself may
    fund_shared,
    step("multisig_threshold_1", other_signatories=[FRIEND.cold], call=TRANSFER),
    step("multisig_execute", **OPEN),
    step("multisig_approve", THIRD, **OPEN),
    step("multisig_cancel", **OPEN, timepoint=timepoint),
    # crowdloans and leases
    step("create_crowdloan", **CROWDLOAN, cap_tao=101, end=within(2000)),
    step("update_crowdloan_cap", crowdloan_id=0, new_cap_tao=102),
    step("update_crowdloan_end", crowdloan_id=0, new_end=within(3000)),
    step("update_crowdloan_min_contribution", crowdloan_id=0, new_min_contribution_tao=1.5),
    step("set_crowdloan_max_contribution", crowdloan_id=0, new_max_contribution_tao=101),
    step("contribute_crowdloan", MINER, crowdloan_id=0, amount_tao=2.0),
    step("finalize_crowdloan", crowdloan_id=0),
    step("create_crowdloan", **CROWDLOAN, cap_tao=1000, end=within(2000)),
    step("contribute_crowdloan", MINER, crowdloan_id=1, amount_tao=2.0),
    step("withdraw_crowdloan", MINER, crowdloan_id=1),
    step("refund_crowdloan", crowdloan_id=1),
    step("dissolve_crowdloan", crowdloan_id=1),
    step("register_leased_network", emissions_share=20, end_block=10**6, comes="InvalidCrowdloanId"),  # not in one
    step("create_crowdloan", deposit_tao=100, min_contribution_tao=1, cap_tao=LEASE, end=within(100), call=leased),
    step("contribute_crowdloan", FRIEND, crowdloan_id=2, amount_tao=LEASE),
    step("finalize_crowdloan", crowdloan_id=2),
    mine(LEASED_FOR),
    step("terminate_lease", lease_id=0, hotkey_ss58=OWNER.hot),
    # the EVM's side
    step("fund_evm_key", evm_address=EVM_ADDRESS, amount_tao=1.0),
    step("evm_withdraw", amount_tao=1.0, comes=absent("EVM", "withdraw")),
    step("associate_evm_key", netuid=FIRST, evm_key=EVM_ADDRESS, block_number=1, signature="0x" + "22" * 65,
         comes="InvalidIdentity"),  # nobody's signature
    # keys that change hands
    step("swap_hotkey", MINER, new_hotkey_ss58=THIRD.hot, hotkey_ss58=MINER.hot),
    step("announce_coldkey_swap", SWAPPER, new_coldkey_ss58=POOR.cold),
    step("announce_coldkey_swap", SURE, new_coldkey_ss58=ALICE.hot),
    step("announce_coldkey_swap", DISPUTED, new_coldkey_ss58=POOR.cold),
    step("dispute_coldkey_swap", DISPUTED),
    mine(SWAP_DELAY),
    step("clear_coldkey_swap_announcement", SWAPPER),
    step("swap_coldkey_announced", SURE, new_coldkey_ss58=ALICE.hot),
]  # fmt: skip

PARAMETERS: dict[str, Any] = {
    "coldkey_ss58": OWNER.cold, "hotkey_ss58": OWNER.hot, "account_ss58": OWNER.cold, "coldkey_ss58s": [OWNER.cold],
    "hotkey_ss58s": [OWNER.hot], "netuid": FIRST, "netuids": [ROOT, FIRST], "uid": 0, "mechid": 0, "lite": False,
    "block": 1, "amount_tao": 1.0, "amount_alpha": 0.5, "crowdloan_id": 0, "lease_id": 0,
    "call_hash": "0x" + "00" * 32, "address": OWNER.cold, "addresses": [OWNER.cold], "commitments": True,
}  # fmt: skip


async def take(scene: Scene, part: Step) -> str:
    """Send the intent; once more after "Stale": a shielded extrinsic uses two nonces, of which this SDK sees one."""
    args = {name: value(scene) if callable(value) else value for name, value in part.args.items()}
    try:
        result = await scene.client.execute(build(part.op, args), part.who)
        if result.error is not None and result.error.name == "Stale":
            result = await scene.client.execute(build(part.op, args), part.who)
    except (bt.ChainError, bt.PolicyError, ValueError) as error:  # what the SDK finds out before it sends
        text = str(error)
        return LATER if text.startswith("call ") and text.endswith(" not found") else f"{type(error).__name__}: {text}"
    if result.success:
        return "ok"
    message = str(result.message)
    if " is not implemented by the specification runtime" in message:
        return message.split("trap: ")[-1].removesuffix(" by the specification runtime")
    return str(result.error.name) if result.error is not None and result.error.name else message
