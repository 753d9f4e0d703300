"""What the scenario's steps do: one function each, on a stage (see stage.py), in the order of the scenario.

What would make a subnet's life last for days (rate limits, the freeze window, the delay before a start) is held still
by writing storage, as root: `STILL`. Everything else is done by the chain's own calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from localnet import calls as forms
from localnet.calls import PALLET, Form
from localnet.client import public_key
from localnet.errors import MetadataError
from localnet.net import Localnet
from localnet.rehearsal.stage import NoForm, Said, Stage, Want, by_names, first_of
from localnet.rules.weights import commit_hash

TAO = 10**9  # rao
TEMPO = 10  # blocks
MARGIN = 2  # blocks that an epoch may come later than a tempo after the last one
OWNER, NOMINATOR, HEIR = "//Rehearsal//owner", "//Rehearsal//nominator", "//Rehearsal//heir"
VALIDATORS = tuple(f"//Rehearsal//validator{index}" for index in range(3))
MINERS = tuple(f"//Rehearsal//miner{index}" for index in range(4))
EVERYBODY = (OWNER, NOMINATOR, HEIR, *VALIDATORS, *MINERS)
STAKES = (1_000 * TAO, 600 * TAO, 250 * TAO)
POCKET = 20_000 * TAO

STILL: Mapping[str, Any] = {  # what would slow a life down, chain-wide
    "NetworkRateLimit": 0, "AdminFreezeWindow": 0, "StartCallDelay": 0, "TxRateLimit": 0,
    "TxDelegateTakeRateLimit": 0, "TxChildkeyTakeRateLimit": 0, "PendingChildKeyCooldown": 0,
    "OwnerHyperparamRateLimit": 0, "WeightsVersionKeyRateLimit": 0, "NetworkRegistrationStartBlock": 0,
    "NominatorMinRequiredStake": 0, "StakeThreshold": 0,
}  # fmt: skip
STILL_ON_SUBNET: Mapping[str, Any] = {
    "ServingRateLimit": 0, "BurnIncreaseMult": {"bits": 1 << 64}, "MaxRegistrationsPerBlock": 100,
    "TargetRegistrationsPerInterval": 100, "NetworkRegistrationAllowed": True,
}  # fmt: skip
HYPERPARAMETERS: Mapping[str, Any] = {
    "tempo": TEMPO, "kappa": 32_767, "bonds_moving_average": 900_000, "immunity_period": 50, "min_allowed_weights": 1,
    "max_weight_limit": 65_535, "activity_cutoff": 500, "weights_set_rate_limit": 0, "max_allowed_validators": 8,
    "commit_reveal_weights_enabled": False, "max_allowed_uids": 64, "min_burn": TAO // 1000,
    "bonds_penalty": 65_535, "subnet_emission_enabled": True, "serving_rate_limit": 0,
}  # fmt: skip
GRID: Mapping[str, Mapping[str, Any]] = {
    "Yuma 2, slow bonds": {"yuma3_enabled": False, "liquid_alpha_enabled": False, "bonds_moving_average": 975_000},
    "Yuma 2, low kappa, half a penalty": {"kappa": 16_384, "bonds_penalty": 32_767},
    "Yuma 3": {"yuma3_enabled": True, "kappa": 32_767, "bonds_penalty": 65_535},
    "Yuma 3, liquid alpha": {"liquid_alpha_enabled": True, "alpha_values": (45_875, 58_982)},
    "Yuma 3, liquid alpha, steep": {"alpha_sigmoid_steepness": 2_000, "alpha_values": (6_554, 58_982)},
    "liquid alpha without Yuma 3": {"yuma3_enabled": False},
    "two validators": {"liquid_alpha_enabled": False, "max_allowed_validators": 2},
    "short activity": {"max_allowed_validators": 8, "activity_cutoff": 360},
}

OTHERS: Mapping[str, Any] = {  # set once, for what setting them does and says
    "rho": 20, "max_burn": 100 * TAO, "adjustment_interval": 112, "adjustment_alpha": 1 << 60,
    "target_registrations_per_interval": 3, "max_registrations_per_block": 3, "min_difficulty": 10_000,
    "max_difficulty": 10**12, "difficulty": 20_000, "weights_version_key": 0, "alpha_sigmoid_steepness": 1_000,
    "toggle_transfer": True, "bonds_reset_enabled": True, "ema_price_halving_period": 1_000,
    "owner_immune_neuron_limit": 2, "network_registration_allowed": True, "network_pow_registration_allowed": False,
    "commit_reveal_weights_interval": 1, "rao_recycled": 0, "subtoken_enabled": True, "recycle_or_burn": "Burn",
}  # fmt: skip
OWNERS = ("alpha_values",)  # hyperparameters that some versions let nobody but the subnet's owner set


def hot(uri: str) -> str:
    return f"{uri}//hot"


async def call(stage: Stage, origin: str, name: str, /, **arguments: Any) -> Said:
    """A call of SubtensorModule that has had one form ever since it exists."""
    return await stage.send(Want(name, origin, by_names(PALLET, name, **arguments)))


async def hold(stage: Stage, items: Mapping[str, Any], *keys: Any) -> None:
    """Write items of SubtensorModule, those that the runtime has in this form, as root."""

    def make(net: Localnet) -> Form:
        words, written = net.client.vocabulary, []
        for item, value in items.items():
            entry = words.document.storage.get((PALLET, item))
            if entry is not None and len(entry.keys) == len(keys):
                written.append(words.storage_write(PALLET, item, keys, value))
        return "System", "set_storage", {"items": written}

    await stage.send(Want("hold " + ", ".join(items), "root", make))


async def set_hyperparameter(stage: Stage, name: str, value: Any) -> None:
    """By AdminUtils, or by SubtensorModule where that is older. One that a runtime does not know is left as it is."""
    values = value if isinstance(value, tuple) else (value,)

    def make(net: Localnet) -> Form:
        for pallet in ("AdminUtils", PALLET):
            names = net.client.document.calls.get(pallet, {}).get(f"sudo_set_{name}", ())
            if "netuid" in names and len(names) == len(values) + 1:
                given = dict(zip([one for one in names if one != "netuid"], values, strict=True))
                return pallet, f"sudo_set_{name}", {"netuid": stage.notes.netuid, **given}
        raise MetadataError(f"there is no hyperparameter {name}")

    try:
        await stage.send(Want(f"sudo_set_{name}", OWNER if name in OWNERS else "root", make))
    except NoForm:
        stage.notes.unknown.add(name)


async def epochs(stage: Stage, count: int = 1) -> None:
    """As many blocks as that many epochs take in every version."""
    await stage.mine(count * (TEMPO + MARGIN))


async def weights(stage: Stage, validator: str, values: Mapping[int, int]) -> Said:
    return await call(
        stage, hot(validator), "set_weights", netuid=stage.notes.netuid, dests=list(values),
        weights=list(values.values()), version_key=0,
    )  # fmt: skip


def uid_of(stage: Stage, uri: str) -> int | None:
    found = stage.net.query(PALLET, "Uids", stage.notes.netuid, public_key(hot(uri)))
    return None if found is None else int(found)


def miner_uids(stage: Stage) -> list[int]:
    """Of those that could register. Raises NoForm when there is none."""
    uids = [uid for uid in (uid_of(stage, uri) for uri in MINERS) if uid is not None]
    if not uids:
        raise NoForm("no miner has a uid: there is nobody to give weights to")
    return uids


def stake_on(stage: Stage, hotkey: str, netuid: int | None = None) -> int:
    """Alpha of a hotkey on the subnet, rao where stake has no subnet."""
    netuid = stage.notes.netuid if netuid is None else netuid
    if (PALLET, "TotalHotkeyAlpha") in stage.net.client.document.storage:
        return int(stage.net.query(PALLET, "TotalHotkeyAlpha", public_key(hotkey), netuid))
    if (PALLET, "TotalHotkeyStake") in stage.net.client.document.storage:
        return int(stage.net.query(PALLET, "TotalHotkeyStake", public_key(hotkey)))
    raise NoForm("the runtime keeps stake in a form that is not known here")


# -- the steps ------------------------------------------------------------------------------------------------------


async def fund(stage: Stage) -> None:
    for uri in EVERYBODY:
        who = public_key(uri)
        make = partial(_balance, who=who)
        await stage.send(Want(f"fund {uri}", "root", make))
    for uri in (*VALIDATORS, OWNER):  # hotkeys that sign
        await stage.send(Want(f"fund {hot(uri)}", "root", partial(_balance, who=public_key(hot(uri)))))


def _balance(net: Localnet, who: bytes) -> Form:
    return forms.balance(net.client.vocabulary, who, POCKET, net.query("System", "Account", who))


async def transfer(stage: Stage) -> None:
    target = {"dest": public_key(HEIR), "value": 5 * TAO}
    kept = [("Balances", name, target) for name in ("transfer_keep_alive", "transfer")]
    await stage.send(Want("transfer", NOMINATOR, first_of(kept)))
    everything = {"dest": public_key("//Rehearsal//nobody"), "value": 10**19}
    await stage.send(
        Want("transfer of too much", NOMINATOR, first_of([("Balances", "transfer_keep_alive", everything)]))
    )


async def found(stage: Stage) -> None:
    await hold(stage, STILL)
    net = stage.net
    before = {netuid for netuid, added in net.query_map(PALLET, "NetworksAdded").items() if added}
    hotkey = public_key(hot(OWNER))
    try:
        await stage.send(
            Want("register_network", OWNER, lambda net: forms.register_network(net.client.vocabulary, hotkey))
        )
    except NoForm:  # the first versions leave it to root
        await stage.send(Want("sudo_add_network", "root", _add_network))
    after = {netuid for netuid, added in stage.net.query_map(PALLET, "NetworksAdded").items() if added}
    if not after - before:
        raise NoForm("no subnet came into being: the steps on it have none")
    stage.notes.netuid = min(after - before)
    await hold(stage, STILL_ON_SUBNET, stage.notes.netuid)


def _add_network(net: Localnet) -> Form:
    """Root's call; where a subnet is bought instead, it is written: an alignment brings the settings of the other."""
    words, netuid = net.client.vocabulary, 1
    if "sudo_add_network" in words.document.calls[PALLET]:
        return PALLET, "sudo_add_network", {"netuid": netuid, "tempo": TEMPO, "modality": 0}
    count = net.query(PALLET, "TotalNetworks") + 1
    written = {"NetworksAdded": ((netuid,), True), "Tempo": ((netuid,), TEMPO), "TotalNetworks": ((), count)}
    writes = [words.storage_write(PALLET, item, keys, value) for item, (keys, value) in written.items()]
    return "System", "set_storage", {"items": writes}


async def hyperparameters(stage: Stage) -> None:
    for name, value in HYPERPARAMETERS.items():
        await set_hyperparameter(stage, name, value)


async def other_hyperparameters(stage: Stage) -> None:
    for name, value in OTHERS.items():
        await set_hyperparameter(stage, name, value)


async def start(stage: Stage) -> None:
    await stage.mine(2)
    first = {"FirstEmissionBlockNumber": stage.net.block + 2, "SubtokenEnabled": True}
    try:
        await call(stage, OWNER, "start_call", netuid=stage.notes.netuid)
    except NoForm:  # subnets that run from the beginning: one that needs a start has it written
        await hold(stage, first, stage.notes.netuid)
        raise
    if (PALLET, "StartCallDelay") not in stage.net.client.document.storage:  # it cannot be waited for: the same
        await hold(stage, first, stage.notes.netuid)


async def register(stage: Stage) -> None:
    for uri in (*VALIDATORS, *MINERS):
        await call(stage, uri, "burned_register", netuid=stage.notes.netuid, hotkey=public_key(hot(uri)))
    await call(stage, MINERS[0], "burned_register", netuid=stage.notes.netuid, hotkey=public_key(hot(MINERS[0])))


async def stake(stage: Stage) -> None:
    pairs = [*zip(VALIDATORS, VALIDATORS, STAKES, strict=True), (NOMINATOR, VALIDATORS[0], 100 * TAO)]
    for cold, validator, rao in pairs:
        hotkey = public_key(hot(validator))
        make = partial(_add_stake, netuid=stage.notes.netuid, hotkey=hotkey, rao=rao)
        await stage.send(Want("add_stake", cold, make))
    too_much = partial(_add_stake, netuid=stage.notes.netuid, hotkey=public_key(hot(VALIDATORS[0])), rao=10**16)
    await stage.send(Want("add_stake of too much", NOMINATOR, too_much))


def _add_stake(net: Localnet, netuid: int, hotkey: bytes, rao: int) -> Form:
    return forms.add_stake(net.client.vocabulary, netuid, hotkey, rao)


async def take(stage: Stage) -> None:
    hotkey = public_key(hot(VALIDATORS[0]))
    for name, value in (("decrease_take", 6_000), ("increase_take", 8_000)):
        await call(stage, VALIDATORS[0], name, hotkey=hotkey, take=value)
    await call(stage, VALIDATORS[1], "set_childkey_take", hotkey=public_key(hot(VALIDATORS[1])),
               netuid=stage.notes.netuid, take=3_000)  # fmt: skip


async def children(stage: Stage) -> None:
    given = [(1 << 62, public_key(hot(VALIDATORS[2])))]
    await call(stage, VALIDATORS[0], "set_children", hotkey=public_key(hot(VALIDATORS[0])),
               netuid=stage.notes.netuid, children=given)  # fmt: skip


async def serve(stage: Stage) -> None:
    place = {"netuid": stage.notes.netuid, "version": 1, "ip": 3_232_235_777, "port": 8_091, "ip_type": 4}
    for uri in MINERS[:2]:
        await stage.send(Want("fund hotkey", "root", partial(_balance, who=public_key(hot(uri)))))
        await call(stage, hot(uri), "serve_axon", **place, protocol=4, placeholder1=0, placeholder2=0)
    await call(stage, hot(MINERS[0]), "serve_prometheus", **place)
    await call(stage, hot(MINERS[1]), "serve_axon", **{**place, "ip": 0}, protocol=4, placeholder1=0, placeholder2=0)


async def identities(stage: Stage) -> None:
    said = {"url": b"https://example.org", "github_repo": b"", "image": b"", "discord": b"", "description": b"a",
            "additional": b""}  # fmt: skip
    await call(stage, VALIDATORS[0], "set_identity", name=b"validator", **said)
    subnet = {"netuid": stage.notes.netuid, "subnet_name": b"rehearsal", "github_repo": b"", "subnet_contact": b"",
              "subnet_url": b"", "discord": b"", "description": b"", "additional": b""}  # fmt: skip
    with_logo = (PALLET, "set_subnet_identity", {**subnet, "logo_url": b""})
    await stage.send(Want("set_subnet_identity", OWNER, first_of([with_logo, (PALLET, "set_subnet_identity", subnet)])))


async def open_weights(stage: Stage) -> None:
    await epochs(stage)
    miners = miner_uids(stage)
    for turn, validator in enumerate(VALIDATORS):
        values = {uid: (40_000 + 7_919 * (turn + 1) * (place + 1)) % 65_536 for place, uid in enumerate(miners)}
        await weights(stage, validator, values)
    await weights(stage, VALIDATORS[0], {60_000: 1})
    await weights(stage, MINERS[3], {miners[0]: 65_535})
    await epochs(stage, 2)


async def commit_reveal(stage: Stage) -> None:
    miners = miner_uids(stage)
    await set_hyperparameter(stage, "commit_reveal_weights_enabled", True)
    salt, values = [4, 6, 1], [65_535 - 10_000 * place for place in range(len(miners))]
    await weights(stage, VALIDATORS[2], {miners[0]: 1})
    for validator in VALIDATORS[:2]:
        digest = commit_hash(public_key(hot(validator)), stage.notes.netuid, miners, values, salt, 0)
        await call(stage, hot(validator), "commit_weights", netuid=stage.notes.netuid, commit_hash=digest)
        await stage.mine(TEMPO - 1)  # the reveal is one tempo after the commit, in the next epoch
        await call(stage, hot(validator), "reveal_weights", netuid=stage.notes.netuid, uids=miners, values=values,
                   salt=salt, version_key=0)  # fmt: skip
    await epochs(stage)
    await set_hyperparameter(stage, "commit_reveal_weights_enabled", False)


async def settings(stage: Stage, hyper: Mapping[str, Any]) -> None:
    """Another consensus: two epochs under it, with new weights in between."""
    for name, value in hyper.items():
        await set_hyperparameter(stage, name, value)
    await epochs(stage)
    miners = miner_uids(stage)
    for turn, validator in enumerate(VALIDATORS[:2]):
        await weights(stage, validator, {uid: 1_000 + 9_000 * ((place + turn) % 4) for place, uid in enumerate(miners)})
    await epochs(stage)


async def move_stake(stage: Stage) -> None:
    netuid, hotkeys = stage.notes.netuid, [public_key(hot(uri)) for uri in VALIDATORS]
    amount = stake_on(stage, hot(VALIDATORS[0])) // 10
    one_subnet = {"origin_netuid": netuid, "destination_netuid": netuid, "alpha_amount": amount}
    await call(
        stage, VALIDATORS[0], "move_stake", origin_hotkey=hotkeys[0], destination_hotkey=hotkeys[1], **one_subnet
    )
    await call(stage, VALIDATORS[0], "transfer_stake", destination_coldkey=public_key(HEIR), hotkey=hotkeys[0],
               **one_subnet)  # fmt: skip
    await call(stage, VALIDATORS[0], "swap_stake", hotkey=hotkeys[0], **{**one_subnet, "destination_netuid": 0})


async def remove_stake(stage: Stage) -> None:
    hotkey, amount = public_key(hot(VALIDATORS[1])), stake_on(stage, hot(VALIDATORS[1])) // 4
    told = {"hotkey": hotkey, "amount_unstaked": amount}
    kinds: list[Form] = [
        (PALLET, "remove_stake", {**told, "netuid": stage.notes.netuid}),
        (PALLET, "remove_stake", told),
    ]
    await stage.send(Want("remove_stake", VALIDATORS[1], first_of(kinds)))
    await call(stage, NOMINATOR, "unstake_all", hotkey=public_key(hot(VALIDATORS[0])))
    await epochs(stage)


async def mechanisms(stage: Stage) -> None:
    await set_hyperparameter(stage, "mechanism_count", 2)
    miners = miner_uids(stage)
    for mecid, validator in enumerate(VALIDATORS[:2]):
        await call(stage, hot(validator), "set_mechanism_weights", netuid=stage.notes.netuid, mecid=mecid,
                   dests=miners, weights=[65_535 - mecid * uid for uid in miners], version_key=0)  # fmt: skip
    await epochs(stage, 2)


async def root(stage: Stage) -> None:
    hotkey = public_key(hot(VALIDATORS[1]))
    await hold(stage, {"SubtokenEnabled": True}, 0)
    await call(stage, VALIDATORS[1], "root_register", hotkey=hotkey)
    await stage.send(
        Want("add_stake on root", VALIDATORS[1], partial(_add_stake, netuid=0, hotkey=hotkey, rao=50 * TAO))
    )
    await epochs(stage, 2)


async def commitment(stage: Stage) -> None:
    info = {"fields": [("Raw5", b"hello")]}

    def make(net: Localnet) -> Form:
        return "Commitments", "set_commitment", {"netuid": stage.notes.netuid, "info": info}

    await stage.send(Want("set_commitment", hot(VALIDATORS[0]), make))


async def bare_call(stage: Stage) -> None:
    """What an unprivileged account may not do, and a call that changes nothing."""
    await stage.send(Want("remark", NOMINATOR, by_names("System", "remark", remark=b"rehearsal")))
    await call(stage, NOMINATOR, "set_weights", netuid=stage.notes.netuid, dests=[0], weights=[1], version_key=0)
