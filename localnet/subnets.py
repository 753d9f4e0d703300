"""A subnet with everybody on it, in two blocks and an epoch: what most tests start from.

    subnet = await net.subnet(miners=3, validators=2, stake=100 * TAO, tempo=20, hyperparameters={"kappa": 40_000})
    for validator in subnet.validators:                       # with this kappa, one of two is no majority
        await subnet.set_weights(validator, {uid: 1 for uid in subnet.uids("miner")})
    await subnet.epochs(2)
    subnet.metagraph()["incentives"]

Its keys are known secret URIs, so any client can sign for them; the SDK takes `Neuron.wallet`. With the label `Subnet2`
(the default of netuid 2):

    role        coldkey                         hotkey                              uid
    owner       //Subnet2//owner                //Subnet2//owner//hot               0
    validators  //Subnet2//validator0, ..1      //Subnet2//validator0//hot, ..      1 ..
    miners      //Subnet2//miner0, ..1          //Subnet2//miner0//hot, ..          after the validators

Everything is done by the chain's own calls (register_network, start_call, burned_register, add_stake, sudo_set_*), sent
without signatures (see `Localnet.impersonate`), while what would make it slow or dear stands still: rate limits, the
freeze window, the delay before a start, and the growth of the registration price. They are as before afterwards. Unless
asked otherwise weights are open, without a rate limit, the subnet takes part in the emission, and there are permits for
all validators.

Older runtimes are built on as far as they go: calls are chosen by what the metadata has (localnet.calls), an owner who
gets no uid by founding registers for one, and what a runtime does not know (a start, a freeze window) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from localnet import calls as forms
from localnet.client import Outcome, keypair, near, public_key
from localnet.errors import CallFailed, ChainError, ConfigError
from localnet.node.marks import Origin
from localnet.rules.constants import REGISTERED
from localnet.sdk import Wallet

if TYPE_CHECKING:
    from localnet.net import Localnet

TAO = 10**9  # rao
PALLET = "SubtensorModule"
DEFAULT_PERMITS = REGISTERED.max_validators  # of which the owner's hotkey takes one
POCKET = TAO  # rao that every coldkey has left for fees
SETTINGS: Mapping[str, Any] = {  # unless the plan says otherwise
    "commit_reveal_weights_enabled": False, "weights_set_rate_limit": 0, "subnet_emission_enabled": True,
}  # fmt: skip
MANY = 20_000  # three times as many, the most registrations an interval may have, still fit 16 bits
STILL: Mapping[str, Any] = {  # per subnet, held while everybody registers
    "BurnIncreaseMult": {"bits": 1 << 64},
    # limits that newer runtimes do not have any more
    "MaxRegistrationsPerBlock": MANY, "TargetRegistrationsPerInterval": MANY, "NetworkRegistrationAllowed": True,
}  # fmt: skip
LATE = (  # set when everybody is registered: what they are about stands still until then
    "burn_increase_mult", "max_registrations_per_block", "network_registration_allowed",
    "target_registrations_per_interval", "tempo",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """`stake`: rao that each validator stakes, or one amount each. `tempo`: blocks, None for the profile's default.

    `hyperparameters`: by the names of AdminUtils' calls without `sudo_set_`; several arguments as a tuple.
    `epochs`: how many run before it is handed over; validators hold permits after one.
    """

    miners: int = 3
    validators: int = 2
    stake: int | Sequence[int] = 100 * TAO
    tempo: int | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    epochs: int = 1

    def stakes(self) -> list[int]:
        """Raises ConfigError."""
        if self.miners < 0 or self.validators < 0 or self.epochs < 0:
            raise ConfigError("miners, validators and epochs cannot be negative")
        stakes = [self.stake] * self.validators if isinstance(self.stake, int) else list(self.stake)
        if len(stakes) != self.validators or min(stakes, default=0) < 0:
            raise ConfigError(f"stake is one amount or {self.validators} of them, one per validator, none negative")
        return stakes


@dataclass(frozen=True)
class Neuron:
    """Somebody on the subnet: the secret URIs of both keys. `index`: place among those of the role."""

    role: str
    index: int
    coldkey: str
    hotkey: str
    uid: int

    @property
    def address(self) -> str:
        """SS58 address of the hotkey."""
        return str(keypair(self.hotkey).ss58_address)

    @property
    def wallet(self) -> Wallet:
        """Both keys, as the bittensor SDK takes them."""
        return Wallet(self.coldkey, self.hotkey)


Call: TypeAlias = "tuple[Origin, str, str, dict[str, Any]]"  # origin, pallet, call, arguments
Calls: TypeAlias = list[Call]


@dataclass
class Subnet:
    """A subnet that `build` made."""

    net: Localnet
    netuid: int
    label: str
    owner: Neuron
    validators: list[Neuron]
    miners: list[Neuron]

    @property
    def neurons(self) -> list[Neuron]:
        """By uid."""
        return [self.owner, *self.validators, *self.miners]

    def uids(self, role: str | None = None) -> list[int]:
        """Of "owner", "validator", "miner", or of all."""
        return [one.uid for one in self.neurons if role is None or one.role == role]

    async def set_weights(
        self, validator: int | Neuron, weights: Mapping[int, float], *, mecid: int = 0, check: bool = True
    ) -> Outcome:
        """Weights by uid from a validator (its place among them, or any neuron), scaled so that the largest is 65535.

        Raises CallFailed unless `check` is False, ConfigError for weights that are negative or all 0.
        """
        who = self._validator(validator) if isinstance(validator, int) else validator
        if not isinstance(weights, Mapping):
            raise ConfigError(f"weights are given by uid, {{uid: weight}}, not as {weights!r}")
        largest = max(weights.values(), default=0)
        if largest <= 0 or min(weights.values()) < 0:
            raise ConfigError("weights are not negative, and one at least is above 0")
        arguments = {
            "netuid": self.netuid, "dests": list(weights), "version_key": self._query("WeightsVersionKey"),
            "weights": [round(65535 * weight / largest) for weight in weights.values()],
        }  # fmt: skip
        call = "set_mechanism_weights" if mecid else "set_weights"
        extra = {"mecid": mecid} if mecid else {}
        return await self.net.extrinsic(who.hotkey, PALLET, call, check=check, **arguments, **extra)

    def _validator(self, index: int) -> Neuron:
        if not -len(self.validators) <= index < len(self.validators):
            raise ConfigError(f"there are {len(self.validators)} validators, 0 is the first; no {index}")
        return self.validators[index]

    def _query(self, item: str) -> Any:
        return self.net.query(PALLET, item, self.netuid)

    def metagraph(self, block: int | None = None) -> dict[str, Any]:
        """What clients get: the runtime's own metagraph."""
        answer: dict[str, Any] = self.net.call("SubnetInfoRuntimeApi", "get_metagraph", self.netuid, block=block)
        return answer

    async def epochs(self, count: int = 1) -> int:
        """Mine until that many epochs have run; the block of the last."""
        for _ in range(count):
            await self.net.mine_epoch(self.netuid)
        return self.net.block

    def explain(self, uid: int, *, block: int | None = None, preview: bool = False) -> dict[str, Any]:
        return self.net.explain(self.netuid, uid, block=block, preview=preview)

    def timeline(self, epochs: int = 12) -> dict[str, Any]:
        return self.net.timeline(self.netuid, epochs)


class SyncSubnet:
    """The same for `SyncLocalnet`."""

    def __init__(
        self,
        subnet: Subnet,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        read: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self.subnet, self._run, self._read = subnet, run, read
        self.netuid, self.label = subnet.netuid, subnet.label
        self.owner, self.validators, self.miners = subnet.owner, subnet.validators, subnet.miners

    @property
    def neurons(self) -> list[Neuron]:
        return self.subnet.neurons

    def uids(self, role: str | None = None) -> list[int]:
        return self.subnet.uids(role)

    def set_weights(
        self, validator: int | Neuron, weights: Mapping[int, float], *, mecid: int = 0, check: bool = True
    ) -> Outcome:
        outcome: Outcome = self._run(self.subnet.set_weights(validator, weights, mecid=mecid, check=check))
        return outcome

    def metagraph(self, block: int | None = None) -> dict[str, Any]:
        return dict(self._read(lambda: self.subnet.metagraph(block)))

    def epochs(self, count: int = 1) -> int:
        return int(self._run(self.subnet.epochs(count)))

    def explain(self, uid: int, *, block: int | None = None, preview: bool = False) -> dict[str, Any]:
        return dict(self._read(lambda: self.subnet.explain(uid, block=block, preview=preview)))

    def timeline(self, epochs: int = 12) -> dict[str, Any]:
        return dict(self._read(lambda: self.subnet.timeline(epochs)))


# -- building -------------------------------------------------------------------------------------------------------


async def build(net: Localnet, plan: Plan) -> Subnet:
    """Raises ConfigError for a plan that makes no sense, MetadataError for a runtime in which only root founds subnets,
    CallFailed when a call fails; no block is left then."""
    forms.register_network(net.client.vocabulary, bytes(32))
    stakes, settings = plan.stakes(), _settings(net, plan)
    async with net.miner.hold():  # nobody else's block or transaction comes between, none is lost when this fails
        before = net.block
        try:
            subnet = await _found(net, plan)
            await _settle(net, subnet, plan.miners, stakes, settings)
        except BaseException:  # a cancelled one leaves nothing either
            if net.block > before:
                await net.miner.revert(before)
            raise
    await subnet.epochs(plan.epochs)
    return subnet


def _settings(net: Localnet, plan: Plan) -> dict[str, dict[str, Any]]:
    """Arguments of AdminUtils' calls, by hyperparameter; the tempo last. Raises ConfigError."""
    calls = net.client.document.calls.get("AdminUtils", {})
    known = {name.removeprefix("sudo_set_"): names for name, names in calls.items() if "netuid" in names}
    permits = {"max_allowed_validators": plan.validators + 1} if plan.validators >= DEFAULT_PERMITS else {}
    usual = {name: value for name, value in SETTINGS.items() if name in known}
    wanted = {**usual, **permits, **plan.hyperparameters}
    if plan.tempo is not None:
        wanted["tempo"] = plan.tempo
    out = {}
    for name, value in sorted(wanted.items(), key=lambda one: one[0] == "tempo"):
        if name not in known:
            raise ConfigError(f"there is no hyperparameter {name!r}{near(name, known)}")
        names = [argument for argument in known[name] if argument != "netuid"]
        values = list(value) if isinstance(value, tuple) else [value]
        if len(names) != len(values):
            raise ConfigError(f"hyperparameter {name} takes {', '.join(names)}; given: {value!r}")
        out[name] = dict(zip(names, values, strict=True))
    return out


async def _found(net: Localnet, plan: Plan) -> Subnet:
    """The subnet, owned but empty."""
    taken = {netuid for netuid, added in net.query_map(PALLET, "NetworksAdded").items() if added}
    label = plan.label or f"Subnet{next(netuid for netuid in range(1, 1 << 16) if netuid not in taken)}"
    owner = _neuron(label, "owner", 0, 0)
    found = forms.register_network(net.client.vocabulary, public_key(owner.hotkey))
    # The answer is an amount of rao in every version: it is read without metadata, which old runtimes lack for it.
    cost = int.from_bytes(net.chain.call("SubnetRegistrationRuntimeApi_get_network_registration_cost", b""), "little")
    calls: Calls = [_fund(net, owner, cost + 10 * POCKET), (public_key(owner.coldkey), *found)]
    outcomes = await _send(net, _hold(net, {("NetworkRateLimit",): 0}, calls))
    added = [event["fields"] for one in outcomes for event in one.events if event["name"] == "NetworkAdded"]
    if len(added) != 1:
        raise ChainError(f"register_network reported {len(added)} new subnets")
    return Subnet(net, int(added[0][0]), label, owner, [], [])


async def _settle(
    net: Localnet, subnet: Subnet, miners: int, stakes: Sequence[int], settings: Mapping[str, dict[str, Any]]
) -> None:
    """Set it up, start it, and register and stake everybody."""
    count = len(stakes)
    subnet.validators += [_neuron(subnet.label, "validator", index, 1 + index) for index in range(count)]
    subnet.miners += [_neuron(subnet.label, "miner", index, 1 + count + index) for index in range(miners)]
    room = settings.get("max_allowed_uids", {}).get("max_allowed_uids", subnet._query("MaxAllowedUids"))
    if len(subnet.neurons) > room:
        raise ConfigError(f"{len(subnet.neurons)} neurons do not fit: set max_allowed_uids, or ask for at most {room}")
    price = max(subnet._query("Burn"), settings.get("min_burn", {}).get("min_burn", 0))
    calls = _set(subnet, settings, lambda name: name not in LATE) + _start(subnet)
    registered = subnet._query("SubnetworkN")  # the owner is, by founding, except in old runtimes
    for neuron in subnet.neurons[registered:]:
        calls += _join(subnet, neuron, price, stakes[neuron.index] if neuron.role == "validator" else 0)
    calls = _hold(net, {(item, subnet.netuid): value for item, value in STILL.items()}, calls)
    calls += _set(subnet, settings, lambda name: name in LATE)
    await _send(net, _hold(net, {("AdminFreezeWindow",): 0, ("StartCallDelay",): 0}, calls))


def _start(subnet: Subnet) -> Calls:
    """Let the subnet run: nothing where it does anyway. Where the delay is built in, what a start writes is written."""
    words, netuid = subnet.net.client.vocabulary, subnet.netuid
    if not words.has_call(PALLET, "start_call"):
        return []
    if (PALLET, "StartCallDelay") in words.document.storage:
        return [(public_key(subnet.owner.coldkey), PALLET, "start_call", {"netuid": netuid})]
    first = {"FirstEmissionBlockNumber": subnet.net.block + 2, "SubtokenEnabled": True}
    items = [words.storage_write(PALLET, item, (netuid,), value) for item, value in first.items()]
    return [("root", "System", "set_storage", {"items": items})]


def _neuron(label: str, role: str, index: int, uid: int) -> Neuron:
    coldkey = f"//{label}//{role}" if role == "owner" else f"//{label}//{role}{index}"
    return Neuron(role, index, coldkey, f"{coldkey}//hot", uid)


def _fund(net: Localnet, neuron: Neuron, rao: int) -> Call:
    who = public_key(neuron.coldkey)
    account = net.query("System", "Account", who)
    return "root", *forms.balance(net.client.vocabulary, who, account["data"]["free"] + rao, account)


def _set(subnet: Subnet, settings: Mapping[str, dict[str, Any]], wanted: Callable[[str], bool]) -> Calls:
    chosen = {name: values for name, values in settings.items() if wanted(name)}
    return [("root", "AdminUtils", f"sudo_set_{n}", {"netuid": subnet.netuid, **v}) for n, v in chosen.items()]


def _join(subnet: Subnet, neuron: Neuron, price: int, staked: int) -> Calls:
    """Fund, register and stake one neuron."""
    cold, hot, where = public_key(neuron.coldkey), public_key(neuron.hotkey), {"netuid": subnet.netuid}
    calls: Calls = [_fund(subnet.net, neuron, price + staked + POCKET)]
    calls.append((cold, PALLET, "burned_register", {**where, "hotkey": hot}))
    if staked:
        calls.append((cold, *forms.add_stake(subnet.net.client.vocabulary, subnet.netuid, hot, staked)))
    return calls


def _hold(net: Localnet, still: Mapping[tuple[Any, ...], Any], calls: Calls) -> Calls:
    """The calls, with storage items (name and keys) of SubtensorModule, as far as there are such, held at a value."""
    known = {item: value for item, value in still.items() if (PALLET, item[0]) in net.client.document.storage}
    held = [net.client.storage_write(PALLET, item[0], item[1:], value) for item, value in known.items()]
    before = [(key, net.chain.storage(key)) for key, _ in held]
    was: Calls = [("root", "System", "set_storage", {"items": [one for one in before if one[1] is not None]})]
    gone: Calls = [("root", "System", "kill_storage", {"keys": [key for key, value in before if value is None]})]
    return [("root", "System", "set_storage", {"items": held}), *calls, *was, *gone]


async def _send(net: Localnet, calls: Calls) -> list[Outcome]:
    """All calls in one block of their own. Raises CallFailed that names the first that failed."""
    encoded = [(origin, net.client.encode_call(pallet, call, values)) for origin, pallet, call, values in calls]
    outcomes = await net.developer.impersonate(encoded, alone=True)
    for outcome, (_, pallet, call, values) in zip(outcomes, calls, strict=True):
        if not outcome.success:
            shown = ", ".join(f"{name}={value!r}" for name, value in values.items() if not isinstance(value, bytes))
            raise CallFailed(outcome.error or "unknown", f"{pallet}.{call}({shown})")
    return outcomes
