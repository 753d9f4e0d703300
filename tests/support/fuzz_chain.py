"""A chain that is checked after every step: the specification runtime on the node's own state, without a node.

    world = World(seed)
    world.step()           one random extrinsic, or now and then a block (`Finding` says what a check saw)

What holds, always:

    money        all accounts together hold Balances.TotalIssuance; the two issuance counters drift apart only by burns
                 and balances that root sets; a subnet's account holds what its pool says
    alpha        holders' floored parts never exceed their pool; SubnetAlphaOut covers pools and pending emission, and
                 what it has beyond them (burned, floored away) only grows
    failure      an extrinsic that fails changes nothing but its signer's nonce and fee
    storage      every changed key is an entry of the metadata; key and value decode and encode to the same bytes
    liveness     no extrinsic and no block breaks off
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localnet.abi import State
from localnet.codec.document import StorageEntry
from localnet.codec.scale import opaque
from localnet.errors import RuntimeApiMissing, RuntimeTrap, ScaleError
from localnet.node.author import inherent_data
from localnet.node.blocks import ZERO, Header, slot_item
from localnet.node.extrinsic import split_vector
from localnet.node.shield import INHERENT, Shield
from localnet.node.state import VersionedState
from localnet.runtime.apis.registry import API_FUNCTIONS
from localnet.runtime.framework import HASHERS
from localnet.runtime.profile import FAST, Profile
from localnet.runtime.runtime import SpecRuntime
from localnet.runtime.runtime_call import split_call
from localnet.runtime.subtensor import staking
from tests.support.extrinsics import Draft
from tests.support.fuzz_stories import STORIES, Story
from tests.support.fuzz_values import COLDKEYS, HOTKEYS, SIGNERS, Sampler

PENDING = ("PendingServerEmission", "PendingValidatorEmission", "PendingRootAlphaDivs", "PendingOwnerCut")


CURES: dict[str, Callable[[bytes], Any]] = {
    "refused: 000700": lambda who: ("SubtensorModule", ("reset_coldkey_swap", {"coldkey": who})),  # swap announced
    "refused: 0001": lambda who: ("Balances", ("force_set_balance", {"who": ("Id", who), "new_free": 10**13})),
}


class Finding(AssertionError):
    """A check failed; the message says what and the journal how the chain came there."""


@dataclass(frozen=True)
class Books:
    """What must not leak, at one moment. Rao and alpha-rao."""

    issued: int  # Balances.TotalIssuance
    held: int  # by all accounts
    counted: int  # SubtensorModule.TotalIssuance
    slack: Mapping[int, int]  # netuid -> SubnetAlphaOut beyond positions and pending emission
    surplus: Mapping[int, int]  # netuid -> balance of the subnet's account beyond its pool


class World:
    """One chain; `seed` decides everything that happens to it."""

    def __init__(self, seed: int, profile: Profile = FAST) -> None:
        self.rng = random.Random(seed)
        self.rt = SpecRuntime(profile)
        self.state = VersionedState()
        self.journal: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.reached: Counter[tuple[str, str]] = Counter()  # calls that succeeded at least once
        self.apis = sorted(set(API_FUNCTIONS) & set(self.rt.document.apis))
        self.entries = {entry.prefix: entry for entry in self.rt.document.storage.values()}
        self._shield = Shield(bytes(32))
        self._run("GenesisBuilder_build_state", opaque(b"{}"))
        self.state.seal(0)
        self.rt.state: State = self.state
        self.sampler = Sampler(self.rt, self.rng)
        self.genesis, self.number, self.time = ZERO, 0, 1_700_000_000_000
        self._open()
        self._furnish()
        self.books = self.count()

    def _run(self, method: str, data: bytes) -> bytes:
        return self.rt.call(method, data, self.state)

    def _furnish(self) -> None:
        """Two subnets with neurons and stake, no waiting times: random calls then have something to work on."""
        for hotkey in HOTKEYS[::2]:
            dest = ("Id", self.sampler.accounts[hotkey])
            self._must("//Alice", "Balances", "transfer_keep_alive", dest=dest, value=10**12)
        settings = {
            "sudo_set_admin_freeze_window": {"window": 0},
            "sudo_set_tx_rate_limit": {"tx_rate_limit": 0},
            "sudo_set_owner_hparam_rate_limit": {"epochs": 0},
            "sudo_set_network_rate_limit": {"rate_limit": 0},
        }
        for name, arguments in settings.items():
            self._sudo("AdminUtils", name, **arguments)
        for owner, hotkey in (("//Alice", "//hot/0"), ("//Bob", "//hot/1")):
            self._must(owner, "SubtensorModule", "register_network", hotkey=self.sampler.accounts[hotkey])
        for netuid, owner in ((2, "//Alice"), (3, "//Bob")):
            self._must(owner, "SubtensorModule", "start_call", netuid=netuid)
            self._sudo("AdminUtils", "sudo_set_subnet_emission_enabled", netuid=netuid, enabled=True)
            self._sudo("AdminUtils", "sudo_set_commit_reveal_weights_enabled", netuid=netuid, enabled=False)
            self._sudo("AdminUtils", "sudo_set_weights_set_rate_limit", netuid=netuid, weights_set_rate_limit=0)
            self._sudo("AdminUtils", "sudo_set_tempo", netuid=netuid, tempo=4)
            for coldkey, hotkey in zip(COLDKEYS, HOTKEYS[2:], strict=False):
                hot = self.sampler.accounts[hotkey]
                self._must(coldkey, "SubtensorModule", "burned_register", netuid=netuid, hotkey=hot)
                stake = {"hotkey": hot, "netuid": netuid, "amount_staked": 10**11}
                self._must(coldkey, "SubtensorModule", "add_stake", **stake)

    def _must(self, who: str, pallet: str, function: str, **arguments: Any) -> None:
        outcome = self._apply(who, (pallet, (function, arguments)))
        if outcome != "ok":
            raise Finding(f"{pallet}.{function} while furnishing: {outcome}")

    def _sudo(self, pallet: str, function: str, **arguments: Any) -> None:
        self._must("//Alice", "Sudo", "sudo", call=(pallet, (function, arguments)))

    # -- steps

    def step(self) -> None:
        """One random extrinsic with all checks; now and then a story, a runtime API, or the end of the block."""
        pick = self.rng.random()
        if pick < 0.02:
            self.tell(self.rng.choice(STORIES))
        elif pick < 0.06:
            self.read()
        elif pick < 0.16:
            for _ in range(self.rng.choice((1, 1, 1, 4, 12))):
                self.block()
        else:
            self.extrinsic()

    def tell(self, story: Story) -> None:
        """A likely sequence, with random calls in between."""
        for step in story(self):
            if isinstance(step, int):
                for _ in range(step):
                    self.block()
            else:
                self.sampler.who = self.sampler.accounts[step[0]]
                self.send(*step)
            if self.rng.random() < 0.2:
                self.extrinsic()

    def extrinsic(self) -> None:
        who = self.rng.choice(SIGNERS if self.rng.random() < 0.2 else COLDKEYS)
        self.sampler.who = self.sampler.accounts[who]
        value = self.sampler.call()
        outcome = self.send(who, value)
        if outcome == "failed: BadOrigin" and self.rng.random() < 0.7:  # a call for root, perhaps
            self.send("//Alice", ("Sudo", ("sudo", {"call": value})))
        elif outcome in CURES:  # or nobody can do anything any more after a while
            self.send("//Alice", ("Sudo", ("sudo", {"call": CURES[outcome](self.sampler.who)})))

    def send(self, who: str, value: Any) -> str:
        """One extrinsic with all checks; what became of it (see `_apply`)."""
        self.journal.append(f"{who} {value!r:.2000}")
        self._keep_sudo()
        self.state.begin()
        mark = len(self.rt.events)
        outcome = self._apply(who, value)
        changed = self.state._journals[-1].copy()
        self.state.commit()
        self.outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("failed") or self._sudo_failed(mark):
            if not any(name.endswith(".TransactionFeePaidWithAlpha") for name, _ in self.events(mark)):
                self._check_untouched(who, changed, outcome)  # a fee in alpha is a sale, whatever becomes of the call
        elif outcome == "ok":
            self._reach(value)
        if "Corruption" in outcome:
            raise self._finding(f"a handler broke off: {outcome}")
        self._check_storage(changed)
        self._check_books(self._explained(mark))
        return outcome

    def _reach(self, value: Any) -> None:
        pallet, function, arguments = split_call(value)
        self.reached[pallet, function] += 1
        if pallet == "Sudo" and "call" in arguments:
            self._reach(arguments["call"])

    def read(self) -> None:
        """A random runtime API: it answers or refuses in the ABI's ways, and writes nothing that stays."""
        method = self.rt.document.apis[self.rng.choice(self.apis)]
        registry = self.rt.document.registry
        data = b"".join(registry.encode(type_id, self.sampler.value(type_id)) for type_id in method.inputs)
        self.journal.append(f"{method.name} 0x{data.hex():.400}")
        self.state.begin()
        try:
            answer = self._run(method.name, data)
            registry.decode(method.output, answer)
        except (RuntimeTrap, RuntimeApiMissing):
            self.outcomes["trap"] += 1
        except Exception as error:
            raise self._finding(f"{type(error).__name__} in {method.name}: {error}") from error
        finally:
            self.state.rollback()

    def _keep_sudo(self) -> None:
        """Alice keeps the sudo key and may use it, whatever a random call has done to either."""
        alice, p = self.sampler.accounts["//Alice"], self.rt.subtensor
        if self.rt.sudo.Key.get() != alice:
            self.rt.sudo.Key.put(alice)
        for item in (p.ColdkeySwapAnnouncements, p.ColdkeySwapDisputes):
            if alice in item:
                del item[alice]

    def _apply(self, who: str, value: Any) -> str:
        """Sign, apply, and say what became of it: "ok", "failed: error", "refused: reason"."""
        raw_call = self.rt.document.registry.encode(self.rt.document.call_type, value)
        nonce = self.rt.system.Account[self.sampler.accounts[who]]["nonce"]
        raw = Draft(self.rt, who, raw_call, nonce, self.rt.system.BlockHash[0]).sign()
        depth = self.state.depth
        self.state.begin()
        try:
            answer = self._run("BlockBuilder_apply_extrinsic", raw)
        except Exception as error:
            raise self._finding(f"{type(error).__name__} while an extrinsic was applied: {error}") from error
        if self.state.depth != depth + 1:
            raise self._finding(f"{self.state.depth - depth - 1} transactions left open")
        if answer[0]:
            self.state.rollback()
            return f"refused: {answer[1:].hex()}"  # the error's SCALE bytes
        self.state.commit()
        if answer[1] == 0:
            return "ok"
        return f"failed: {self.rt.document.registry.decode(self.rt._error_type, answer[2:])}"

    def block(self) -> None:
        """Close the block and open the next, with the checks of a block."""
        self.journal.append("block")
        try:
            self._run("BlockBuilder_finalize_block", b"")
            self._check_storage({key: None for key in self.state._journals[0]})
            self.state.seal(self.number)
            before = self.books
            self._open()
        except Finding:
            raise
        except Exception as error:
            raise self._finding(f"block {self.number}: {type(error).__name__}: {error}") from error
        self.books = before
        self._check_books(0)

    def _open(self) -> None:
        self.number, self.time = self.number + 1, self.time + self.rt.profile.slot_ms
        slot = self.time // self.rt.profile.slot_ms
        parent = self.number.to_bytes(32, "big")
        self._run("Core_initialize_block", Header(parent, self.number, ZERO, ZERO, (slot_item(slot),)).encode())
        items = {
            b"timstap0": self.time.to_bytes(8, "little"),
            b"auraslot": slot.to_bytes(8, "little"),
            INHERENT: self._shield.inherent(self.number),
        }
        for raw in split_vector(self._run("BlockBuilder_inherent_extrinsics", inherent_data(items))):
            answer = self._run("BlockBuilder_apply_extrinsic", raw)
            if answer != b"\0\0":
                raise self._finding(f"an inherent failed: {answer.hex()}")

    # -- checks

    def _finding(self, text: str) -> Finding:
        return Finding(text + "\nlast steps:\n  " + "\n  ".join(self.journal[-3:]))

    def _sudo_failed(self, mark: int) -> bool:
        events = list(self.events(mark))
        return any(name == "Sudo.Sudid" and fields["sudo_result"] != ("Ok", ()) for name, fields in events) and not any(
            name.startswith("Utility.") for name, _ in events
        )

    def events(self, mark: int) -> Iterator[tuple[str, Any]]:
        for raw in self.rt.events[mark:]:
            pallet, event = self.rt.document.registry.decode(self.rt._event_type, raw)["event"]
            name, fields = (event, None) if isinstance(event, str) else event
            yield f"{pallet}.{name}", fields

    def _check_untouched(self, who: str, changed: Mapping[bytes, bytes | None], outcome: str) -> None:
        system, balances = self.rt.system, self.rt.balances
        allowed = {
            system.Account.key(self.sampler.accounts[who]),
            balances.TotalIssuance.entry.prefix,
            self.rt.subtensor.TotalIssuance.entry.prefix,
            system.ExtrinsicCount.entry.prefix,
        }
        for key, old in changed.items():
            if key not in allowed and self.state.get(key) != old:
                raise self._finding(f"{outcome}, and yet {self._name(key)} changed")

    def _name(self, key: bytes) -> str:
        entry = self.entries.get(key[:32])
        return key.hex() if entry is None else f"{entry.pallet}.{entry.name} {key[32:].hex()}"

    def _check_storage(self, changed: Mapping[bytes, bytes | None]) -> None:
        for key in changed:
            entry = self.entries.get(key[:32])
            if entry is None:
                raise self._finding(f"0x{key.hex()} is no storage item of the metadata")
            raw, registry = self.state.get(key), self.rt.document.registry
            try:
                same = _rebuilt_key(self.rt, entry, key) == key
                same &= raw is None or registry.encode(entry.value, registry.decode(entry.value, raw)) == raw
            except ScaleError as error:
                raise self._finding(f"{self._name(key)} does not decode: {error}") from error
            if not same:
                raise self._finding(f"{self._name(key)} does not decode and encode to itself")

    def _explained(self, mark: int) -> int:
        """By how much the extrinsic may move Balances' issuance against SubtensorModule's, rao."""
        moved = 0
        for name, fields in self.events(mark):
            if name in ("Balances.Burned", "Balances.Rescinded"):  # fees and dust leave both records
                moved -= fields["amount"]
        return moved

    def count(self) -> Books:
        p, system = self.rt.subtensor, self.rt.system
        held = sum(data["data"]["free"] + data["data"]["reserved"] for _, data in system.Account.items())
        staked: Counter[int] = Counter()
        for (_, netuid), alpha in p.TotalHotkeyAlpha.items():
            staked[netuid] += alpha
        queued: Counter[int] = Counter()
        for (_, netuid), alpha in p.PendingBasketDeposits.items():
            queued[netuid] += alpha
        leaving = {*p.DissolveCleanupQueue.get()}  # taken apart over several blocks
        netuids = sorted({*p.NetworksAdded.keys(), *staked} - leaving)
        pending = {n: queued[n] + sum(getattr(p, name)[n] for name in PENDING) for n in netuids}
        return Books(
            issued=self.rt.balances.TotalIssuance.get(),
            held=held,
            counted=p.TotalIssuance.get(),
            slack={n: p.SubnetAlphaOut[n] - staked[n] - pending[n] for n in netuids},
            surplus={n: self.rt.balances.free(staking.subnet_account(p, n)) - p.SubnetTAO[n] for n in netuids},
        )

    def _check_books(self, explained: int) -> None:
        before, now = self.books, self.count()
        self.books = now
        if now.issued != now.held:
            raise self._finding(f"accounts hold {now.held}, {now.issued} are issued: {now.held - now.issued:+}")
        drift = (now.issued - now.counted) - (before.issued - before.counted)
        if drift != explained and not any("force_set_balance" in step for step in self.journal[-1:]):
            raise self._finding(f"the issuance counters drifted by {drift}, fees and burns explain {explained}")
        self._check_pools(now)
        burns_twice = self.journal[-1:] == ["block"] and self.rt.subtensor.CKBurn.get()
        for netuid, slack in now.slack.items():
            # As on the chain, what CKBurn takes leaves SubnetAlphaOut and is paid to the others all the same.
            if slack < before.slack.get(netuid, 0) and not burns_twice:
                raise self._finding(f"subnet {netuid}: alpha appeared, slack {before.slack.get(netuid)} -> {slack}")
        for netuid, surplus in now.surplus.items():
            if surplus < min(before.surplus.get(netuid, 0), 0):
                raise self._finding(f"subnet {netuid}: its account lacks {-surplus} rao of its pool")

    def _check_pools(self, now: Books) -> None:
        p = self.rt.subtensor
        parts: Counter[tuple[bytes, int]] = Counter()
        for hotkey, coldkey, netuid in p.AlphaV2.keys():
            parts[hotkey, netuid] += staking.stake_of(p, hotkey, coldkey, netuid)
        for (hotkey, netuid), whole in parts.items():
            if whole > p.TotalHotkeyAlpha[hotkey, netuid]:
                excess = whole - p.TotalHotkeyAlpha[hotkey, netuid]
                raise self._finding(
                    f"subnet {netuid}, hotkey 0x{hotkey.hex()}: holders own {excess} more than there is"
                )


def _rebuilt_key(rt: SpecRuntime, entry: StorageEntry, key: bytes) -> bytes:
    """The key built again from what it decodes to."""
    out, offset = entry.prefix, 32
    for name, type_id in zip(entry.hashers, entry.keys, strict=True):
        hasher, size = HASHERS[name]
        part, offset = rt.document.registry.decode_from(type_id, key, offset + size)
        out += hasher(rt.document.registry.encode(type_id, part))
    return out
