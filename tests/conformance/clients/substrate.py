"""substrate-interface 1.8.1: a client that knows Substrate and nothing of Bittensor.

It composes calls from version 14 of the metadata and reads storage; the operations are spelt out in `_OPERATIONS`, as a
user of this library would write them. It has no MEV shield: registrations go out in the clear.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

from substrateinterface import Keypair, SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException

from tests.conformance.clients.base import ALICE, CUSTOM_ERRORS, TAO, U16_MAX, Actor, NeuronRow, Outcome, normalised

U64_MAX = 2**64 - 1
Call = tuple[str, str, dict[str, Any], bool]  # pallet, function, arguments, signed by the hotkey


def _rao(amount: Any) -> int:
    return round(float(amount) * TAO)


def _identity(args: dict[str, Any]) -> Call:
    empty = dict.fromkeys(("url", "github_repo", "image", "discord", "description", "additional"), "")
    return "SubtensorModule", "set_identity", {**empty, **args}, False


def _subnet_identity(args: dict[str, Any]) -> Call:
    names = ("github_repo", "subnet_contact", "subnet_url", "discord", "description", "logo_url", "additional")
    return "SubtensorModule", "set_subnet_identity", {**dict.fromkeys(names, ""), **args}, False


def _axon(args: dict[str, Any]) -> Call:
    address = ipaddress.ip_address(args["ip"])
    values = {
        "netuid": args["netuid"], "version": 1, "ip": int(address), "port": args["port"], "ip_type": address.version,
        "protocol": 4, "placeholder1": 0, "placeholder2": 0,
    }  # fmt: skip
    return "SubtensorModule", "serve_axon", values, True


def _weights(args: dict[str, Any]) -> Call:
    pairs = sorted(zip(args["uids"], args["weights"], strict=True))
    top = max(value for _, value in pairs)
    values = {
        "netuid": args["netuid"], "dests": [uid for uid, _ in pairs], "version_key": 0,
        "weights": [round(value / top * U16_MAX) for _, value in pairs],
    }  # fmt: skip
    return "SubtensorModule", "set_weights", values, True


def _subtensor(function: str, hot: bool = False, **names: Callable[[dict[str, Any], Actor], Any]) -> Any:
    def build(args: dict[str, Any], actor: Actor) -> Call:
        return "SubtensorModule", function, {name: get(args, actor) for name, get in names.items()}, hot

    return build


def _arg(name: str) -> Callable[[dict[str, Any], Actor], Any]:
    return lambda args, actor: args[name]


def _own_hotkey(args: dict[str, Any], actor: Actor) -> Any:
    return args.get("hotkey_ss58", actor.hot)


_NETUID = _arg("netuid")
_OPERATIONS: dict[str, Callable[[dict[str, Any], Actor], Call]] = {
    "transfer": lambda args, actor: (
        "Balances", "transfer_keep_alive", {"dest": args["dest_ss58"], "value": _rao(args["amount_tao"])}, False,
    ),
    "transfer_all": lambda args, actor: (
        "Balances", "transfer_all", {"dest": args["dest_ss58"], "keep_alive": args["keep_alive"]}, False,
    ),
    "register_subnet": _subtensor("register_network", hotkey=_own_hotkey),
    "start_call": _subtensor("start_call", netuid=_NETUID),
    "burned_register": _subtensor("burned_register", netuid=_NETUID, hotkey=_own_hotkey),
    "root_register": _subtensor("root_register", hotkey=_own_hotkey),
    "add_stake": _subtensor(
        "add_stake", hotkey=_arg("hotkey_ss58"), netuid=_NETUID, amount_staked=lambda a, _: _rao(a["amount_tao"])
    ),
    "remove_stake": _subtensor(
        "remove_stake", hotkey=_arg("hotkey_ss58"), netuid=_NETUID, amount_unstaked=lambda a, _: _rao(a["amount_alpha"])
    ),
    "move_stake": _subtensor(
        "move_stake",
        origin_hotkey=_arg("origin_hotkey_ss58"),
        destination_hotkey=_arg("dest_hotkey_ss58"),
        origin_netuid=_arg("origin_netuid"),
        destination_netuid=_arg("dest_netuid"),
        alpha_amount=lambda a, _: _rao(a["amount_alpha"]),
    ),
    "transfer_stake": _subtensor(
        "transfer_stake",
        destination_coldkey=_arg("dest_coldkey_ss58"),
        hotkey=_arg("hotkey_ss58"),
        origin_netuid=_arg("origin_netuid"),
        destination_netuid=_arg("dest_netuid"),
        alpha_amount=lambda a, _: _rao(a["amount_alpha"]),
    ),
    "unstake_all": _subtensor("unstake_all", hotkey=_arg("hotkey_ss58")),
    "serve_axon": lambda args, actor: _axon(args),
    "set_weights": lambda args, actor: _weights(args),
    "set_identity": lambda args, actor: _identity(args),
    "set_subnet_identity": lambda args, actor: _subnet_identity(args),
    "set_take": _subtensor("decrease_take", hotkey=_own_hotkey, take=lambda a, _: round(a["take"] * U16_MAX)),
    "set_children": _subtensor(
        "set_children", hotkey=_own_hotkey, netuid=_NETUID,
        children=lambda a, _: [(round(share * U64_MAX), child) for share, child in a["children"]],
    ),
    "reveal_weights": _subtensor(
        "reveal_weights", True, netuid=_NETUID, uids=_arg("uids"), values=_arg("weights"), salt=_arg("salt"),
        version_key=lambda a, _: 0,
    ),
    "set_hyperparameter": lambda args, actor: _hyperparameter(args),
}  # fmt: skip


def _hyperparameter(args: dict[str, Any]) -> Call:
    netuid, value = args["netuid"], args["value"]
    name = f"sudo_set_{args['name']}"
    return "AdminUtils", name, {"netuid": netuid, args["name"]: value}, False


class Substrate:
    name = "substrate-interface"

    def __init__(self, endpoint: str) -> None:
        # This library takes balances for u128 where the metadata does not say otherwise; on this chain they are u64.
        self.chain = SubstrateInterface(endpoint, ss58_format=42, type_registry={"types": {"Balance": "u64"}})

    def close(self) -> None:
        self.chain.close()

    # -- writes -----------------------------------------------------------------------------------------------------

    def do(self, op: str, actor: Actor, **args: Any) -> Outcome:
        pallet, function, arguments, hot = _OPERATIONS[op](args, actor)
        return self.call(pallet, function, arguments, actor, hot=hot)

    def call(
        self, pallet: str, function: str, args: dict[str, Any], actor: Actor, *, hot: bool = False, sudo: bool = False
    ) -> Outcome:
        call = self.chain.compose_call(pallet, function, args)
        if sudo:
            call = self.chain.compose_call("Sudo", "sudo", {"call": call})
        keypair = Keypair.create_from_uri(actor.hot_uri if hot else actor.cold_uri)
        extrinsic = self.chain.create_signed_extrinsic(call, keypair, era={"period": 64})
        try:
            receipt = self.chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
        except SubstrateRequestException as error:
            return Outcome(False, _pool_error(error), str(error))
        happened = {event.value["event_id"]: event.value["attributes"] for event in receipt.triggered_events}
        if not receipt.is_success:
            # The receipt knows module errors and BadOrigin by name; others (Token) have to be taken from the event.
            known = receipt.error_message or {}
            name = known.get("name") or self._name(happened["ExtrinsicFailed"]["dispatch_error"])
            return Outcome(False, name, str(known), tuple(happened))
        result = happened.get("Sudid", {}).get("sudo_result", {})
        if "Err" in result:
            return Outcome(False, self._name(result["Err"]), str(result), tuple(happened))
        return Outcome(True, events=tuple(happened))

    def _name(self, error: Any) -> str:
        """Name of a decoded DispatchError."""
        if isinstance(error, str):
            return error
        ((kind, inner),) = error.items()
        if kind != "Module":
            return inner if isinstance(inner, str) else str(kind)
        index = bytes.fromhex(inner["error"].removeprefix("0x"))[0]
        return str(self.chain.metadata.get_module_error(inner["index"], index).name)

    # -- reads ------------------------------------------------------------------------------------------------------

    def block(self) -> int:
        return int(self.chain.get_block_number(self.chain.get_chain_head()))

    def storage(self, pallet: str, item: str, *keys: Any) -> Any:
        return self.chain.query(pallet, item, list(keys)).value

    def balance(self, address: str) -> int:
        return int(self.storage("System", "Account", address)["data"]["free"])

    def subnet_cost(self) -> int:
        """What registering a subnet costs now, rao."""
        name = "SubnetRegistrationRuntimeApi_get_network_registration_cost"
        answer = self.chain.rpc_request("state_call", [name, "0x"])["result"]
        return int.from_bytes(bytes.fromhex(answer.removeprefix("0x")), "little")

    def uid(self, netuid: int, hotkey: str) -> int | None:
        value = self.storage("SubtensorModule", "Uids", netuid, hotkey)
        return None if value is None else int(value)

    def stake(self, coldkey: str, hotkey: str, netuid: int) -> int:
        """From shares, by hand: the pool's value times the holder's part of all shares."""
        value = self.storage("SubtensorModule", "TotalHotkeyAlpha", hotkey, netuid)
        whole = _number(self.storage("SubtensorModule", "TotalHotkeySharesV2", hotkey, netuid))
        share = _number(self.storage("SubtensorModule", "AlphaV2", hotkey, coldkey, netuid))
        return int(value * share / whole) if whole else 0

    def neurons(self, netuid: int) -> list[NeuronRow]:
        vectors = {
            name: self.storage("SubtensorModule", name, netuid)
            for name in ("ValidatorPermit", "Incentive", "Dividends", "Emission")
        }
        rows = []
        for uid, hotkey in sorted((uid.value, key.value) for uid, key in self._map("Keys", netuid)):
            axon = self.storage("SubtensorModule", "Axons", netuid, hotkey)
            rows.append(
                NeuronRow(
                    uid, hotkey, vectors["ValidatorPermit"][uid], vectors["Incentive"][uid] / U16_MAX,
                    vectors["Dividends"][uid] / U16_MAX, vectors["Emission"][uid],
                    self.storage("SubtensorModule", "TotalHotkeyAlpha", hotkey, netuid),
                    f"{ipaddress.ip_address(axon['ip'])}:{axon['port']}" if axon else None,
                )
            )  # fmt: skip
        return rows

    def _map(self, item: str, *keys: Any) -> Any:
        return self.chain.query_map("SubtensorModule", item, list(keys))

    def weights(self, netuid: int) -> dict[int, dict[int, float]]:
        rows = {uid.value: row.value for uid, row in self._map("Weights", netuid)}
        return {uid: normalised({dest: float(value) for dest, value in row}) for uid, row in rows.items() if row}

    def identity(self, coldkey: str) -> str | None:
        value = self.storage("SubtensorModule", "IdentitiesV2", coldkey)
        return None if value is None else str(value["name"])

    def commitment(self, netuid: int, hotkey: str) -> str | None:
        value = self.storage("Commitments", "CommitmentOf", netuid, hotkey)
        if value is None:
            return None
        fields = value["info"]["fields"]
        return "".join(_text(data) for field in _leaves(fields) for data in field.values())

    def take(self, hotkey: str) -> float:
        return float(self.storage("SubtensorModule", "Delegates", hotkey)) / U16_MAX

    def children(self, netuid: int, hotkey: str) -> list[str]:
        return [str(child) for _, child in self.storage("SubtensorModule", "ChildKeys", hotkey, netuid)]

    def hyperparameter(self, netuid: int, name: str) -> Any:
        item = {"immunity_period": "ImmunityPeriod", "serving_rate_limit": "ServingRateLimit"}[name]
        return self.storage("SubtensorModule", item, netuid)


async def as_root(client: Substrate, function: str, **args: Any) -> None:
    """An AdminUtils call through Sudo, without stopping the event loop meanwhile."""
    outcome = await asyncio.to_thread(client.call, "AdminUtils", function, args, ALICE, sudo=True)
    outcome.expect()


def _text(data: str) -> str:
    return bytes.fromhex(data[2:]).decode() if data.startswith("0x") else data


def _leaves(fields: Any) -> Any:
    for entry in fields:
        if isinstance(entry, dict):
            yield entry
        else:
            yield from _leaves(entry)


def _number(value: dict[str, int]) -> float:
    return float(value["mantissa"]) * 10.0 ** value["exponent"]


def _pool_error(error: SubstrateRequestException) -> str:
    body = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    data = str(body.get("data", ""))
    if data.startswith("Custom error: "):
        number = int(data.removeprefix("Custom error: "))
        return CUSTOM_ERRORS.get(number, data)
    return data or str(body.get("message", error))
