"""Random values for any type of the metadata, and random calls for every call a runtime implements.

`Sampler` walks the type definition, so that a call added to the runtime is covered without being named here. Names
steer it: an `AccountId32` comes from a small pool, a `NetUid` is mostly one that exists, `hotkey` is mostly a hotkey,
an amount of money is spread over all magnitudes and is often exactly, or one off, what the caller has.

Everything is drawn from the `random.Random` given, so the same seed gives the same calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from localnet.runtime.runtime import SpecRuntime
from localnet.runtime.subtensor import staking
from tests.support.extrinsics import account

U64 = 2**64 - 1
COLDKEYS = ("//Alice", "//Bob", "//Charlie", "//Dave", "//Eve")
HOTKEYS = tuple(f"//hot/{number}" for number in range(8))
SIGNERS = (*COLDKEYS, *HOTKEYS, "//Pauper")
MONEY = ("TaoBalance", "AlphaBalance")
MONEY_NAMES = ("new_free", "value", "amount", "amount_staked", "amount_unstaked", "alpha_amount", "deposit", "cap")
MAX_NESTING = 3  # calls inside calls
LONG = 3000  # bytes of a string that is too long for most fields

# What root writes past all rules: the chain after it is the writer's doing. These calls are never drawn.
UNCHECKED = {
    *(("System", name) for name in ("set_storage", "kill_storage", "kill_prefix", "set_code", "set_heap_pages")),
    ("Balances", "force_adjust_total_issuance"), ("AdminUtils", "sudo_set_total_issuance"),
}  # fmt: skip
LIKELY = (
    "register_network", "start_call", "burned_register", "register_limit", "root_register", "add_stake",
    "add_stake_limit", "remove_stake", "remove_stake_limit", "remove_stake_full_limit", "unstake_all",
    "unstake_all_alpha", "move_stake", "transfer_stake", "swap_stake", "swap_stake_limit", "recycle_alpha",
    "burn_alpha", "add_stake_burn", "add_collateral", "set_min_collateral", "set_children", "set_childkey_take",
    "set_coldkey_auto_stake_hotkey", "set_weights", "set_mechanism_weights", "commit_weights", "reveal_weights",
    "swap_hotkey", "swap_hotkey_v2", "swap_coldkey", "announce_coldkey_swap", "swap_coldkey_announced",
    "dissolve_network", "root_dissolve_network", "claim_root", "set_root_weights", "increase_take", "decrease_take",
    "set_tempo",
)  # fmt: skip


class Sampler:
    """Values and calls for one runtime, looking at its state to find ones that do something."""

    def __init__(self, runtime: SpecRuntime, rng: random.Random) -> None:
        self.rt, self.rng = runtime, rng
        self.accounts = {uri: account(uri) for uri in SIGNERS}
        self.names = sorted(set(runtime.calls) - UNCHECKED)
        module = ("SubtensorModule", "Swap", "Balances")
        self.likely = [(pallet, name) for pallet, name in self.names if pallet in module and name in LIKELY]
        self.arguments = {
            (pallet["name"], variant["name"]): [(f["name"], f["type"]) for f in variant["fields"]]
            for pallet in runtime.document.tree["pallets"]
            if pallet["calls"] is not None
            for variant in runtime.document.tree["types"][pallet["calls"]]["def"]["variant"]
        }
        self.who = self.accounts["//Alice"]
        self._nesting = 0

    # -- calls

    def call(self) -> Any:
        """A RuntimeCall value."""
        name = self.rng.choice(self.likely if self.rng.random() < 0.5 else self.names)
        return self.fill(*name)

    def fill(self, pallet: str, function: str) -> Any:
        """That call with random arguments."""
        self._nesting += 1
        try:
            fields = {name: self.value(type_id, name) for name, type_id in self.arguments[pallet, function]}
        finally:
            self._nesting -= 1
        return (pallet, (function, fields) if fields else function)

    # -- values by type

    def value(self, type_id: int, name: str = "") -> Any:
        entry = self.rt.document.tree["types"][type_id]
        kind, body = next(iter(entry["def"].items()))
        path = entry["path"][-1] if entry["path"] else ""
        special: dict[str, Callable[[], Any]] = {
            "AccountId32": lambda: self.account(name),
            "MultiAddress": lambda: ("Id", self.account(name)) if self.rng.random() < 0.95 else ("Index", ()),
            "NetUid": self.netuid,
            "RuntimeCall": self._inner,
        }
        if path in special:
            return special[path]()
        if path in MONEY:
            return self.money(name)
        return self._plain(type_id, kind, body, name, path)

    def _plain(self, type_id: int, kind: str, body: Any, name: str, path: str) -> Any:
        if kind == "primitive":
            return self._primitive(body, name)
        if kind == "compact":
            return self.value(body, name)
        if kind == "composite":
            return self._fields(body, name)
        if kind == "tuple":
            return tuple(self.value(inner, name) for inner in body)
        if kind in ("sequence", "array"):
            return self._list(body, name)
        if kind == "variant" and path == "Option":
            return None if self.rng.random() < 0.4 else self._some(body[1]["fields"][0]["type"], name)
        if kind == "variant":
            choice = self.rng.choice(body)
            return choice["name"] if not choice["fields"] else (choice["name"], self._fields(choice["fields"], name))
        raise NotImplementedError(f"type {type_id}: {kind}")

    def _some(self, type_id: int, name: str) -> Any:
        value = self.value(type_id, name)
        return (value,) if self.rt.document.registry.is_option(type_id) else value

    def _fields(self, fields: list[dict[str, Any]], name: str) -> Any:
        if not fields:
            return ()
        if fields[0]["name"] is not None:
            return {field["name"]: self.value(field["type"], field["name"]) for field in fields}
        values = tuple(self.value(field["type"], name) for field in fields)
        return values[0] if len(values) == 1 else values

    def _list(self, body: dict[str, Any], name: str) -> Any:
        length = body.get("len")
        is_bytes = self.rt.document.tree["types"][body["type"]]["def"] == {"primitive": "u8"}
        if length is None:
            length = self.rng.choice((0, 1, 1, 2, 3, 5, 20, 70, LONG) if is_bytes else (0, 1, 1, 2, 2, 3, 4))
            if "uids" in name or "dests" in name or "weights" in name or "values" in name:
                length = 2  # vectors that belong together are as long as each other, most of the time
        if is_bytes and length == 32 and self.rng.random() < 0.7:
            return bytes((self.rng.randrange(3),)) * 32  # names and hashes that come up again
        if is_bytes:
            return self.rng.randbytes(length)
        if name in ("uids", "dests") and self.rng.random() < 0.8:
            return self.rng.sample(range(4), length)
        return [self.value(body["type"], name) for _ in range(length)]

    def _primitive(self, kind: str, name: str) -> Any:
        if kind == "bool":
            return self.rng.random() < 0.7
        if kind == "str":
            return self.rng.choice(("", "a", "Ω" * 40))
        bits = int(kind[1:])
        if kind[0] == "i":
            return self.rng.choice((0, 1, -1, 1000, -(1 << bits - 1), (1 << bits - 1) - 1, self.rng.randrange(1 << 15)))
        if bits >= 64 and name in MONEY_NAMES:
            return self.money(name)
        if bits >= 16 and (name.endswith("_id") or name in ("index", "id", "when", "height")):
            return self.rng.choice((0, 0, 1, 2, self.rt.number, self.rt.number + self.rng.randrange(20)))
        if name in ("mecid", "mecids"):
            return self.rng.choice((0, 0, 0, 1, 2, 255))
        if name == "version_key":
            return self.rng.choice((0, 0, 4, 1 << 63))
        if "price" in name or ("limit" in name and bits == 64):
            return self.rng.choice((0, U64, *(10**magnitude for magnitude in range(3, 16))))
        if self.rng.random() < 0.1:
            return (1 << bits) - 1
        return self.rng.randrange(1 << self.rng.randrange(bits + 1))

    # -- values by meaning

    def account(self, name: str) -> bytes:
        if self.rng.random() < 0.03 and name not in ("source", "who"):  # root acting as a subnet may empty its pool
            return self._odd_account()
        known = self.rt.subtensor.OwnedHotkeys[self.who]
        if "hot" in name and known and self.rng.random() < 0.6:
            return self.rng.choice(known)
        uris = HOTKEYS if "hot" in name or name == "children" else SIGNERS
        return self.accounts[self.rng.choice(uris)]

    def _odd_account(self) -> bytes:
        p = self.rt.subtensor
        odd = (bytes(32), staking.burn_account(p), staking.subnet_account(p, self.netuid()), b"\xff" * 32)
        return self.rng.choice(odd)

    def netuid(self) -> int:
        if self.rng.random() < 0.05:
            return self.rng.choice((4096, 4097, 65535, 60))
        return self.rng.choice([*self.rt.subtensor.NetworksAdded.keys(), 2, 3])

    def money(self, name: str = "") -> int:
        """0, everything, all magnitudes, and around what the caller has."""
        if name == "new_free":  # more than there may ever be saturates the issuance, and nothing adds up after that
            return int(10 ** self.rng.uniform(0, 15))
        pick = self.rng.random()
        if pick < 0.06:
            return self.rng.choice((0, 1, 499, 500, 501, U64, U64 - 1, 1 << 63))
        if pick < 0.6:
            return int(10 ** self.rng.uniform(0, 13))
        p = self.rt.subtensor
        have = [self.rt.balances.free(self.who), self.rt.balances.reducible(self.who)]
        have += [staking.stake_of(p, hot, self.who, net) for hot, _, net in self._positions()]
        amount = self.rng.choice(have)
        return max(0, min(U64, self.rng.choice((amount, amount // 2, amount - 1, amount + 1, amount // 1000))))

    def _positions(self) -> list[tuple[bytes, bytes, int]]:
        return [key for key in self.rt.subtensor.AlphaV2.keys() if key[1] == self.who]

    def _inner(self) -> Any:
        if self._nesting > MAX_NESTING:
            return ("System", ("remark", {"remark": b""}))
        return self.call()
