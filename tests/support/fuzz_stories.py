"""Likely sequences: what random calls never get right, because a later one needs what an earlier one made.

A story is a generator of steps: `(signer, call)`, or a number of blocks to pass. Whoever runs it puts random calls in
between; each step may fail, and the next is tried all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from localnet.rules.weights import commit_hash

if TYPE_CHECKING:
    from tests.support.fuzz_chain import World

Step = tuple[str, Any] | int
Story = Callable[["World"], Iterator[Step]]
REMARK = ("System", ("remark", {"remark": b"story"}))
TAO = 10**9


def call(pallet: str, function: str, **arguments: Any) -> Any:
    return (pallet, (function, arguments) if arguments else function)


def sub(function: str, **arguments: Any) -> Any:
    return call("SubtensorModule", function, **arguments)


def sudo(inner: Any) -> Step:
    return "//Alice", call("Sudo", "sudo", call=inner)


def hashed(world: World, inner: Any) -> bytes:
    encoded = world.rt.document.registry.encode(world.rt.document.call_type, inner)
    return blake2b(encoded, digest_size=32).digest()


def crowdloan(world: World) -> Iterator[Step]:
    """Raised, changed, paid out or paid back."""
    loan, dest = world.rt.crowdloan.NextCrowdloanId.get(), world.sampler.accounts["//Dave"]
    spend = world.rng.choice((None, sub("register_leased_network", emissions_share=30, end_block=None)))
    target = dest if spend is None else None
    amounts = {"deposit": 10 * TAO, "min_contribution": TAO // 10, "cap": 2000 * TAO}
    end = world.rt.number + 60
    yield "//Bob", call("Crowdloan", "create", **amounts, end=end, call=spend, target_address=target)
    for who, tao in (("//Charlie", 500), ("//Alice", 2500), ("//Eve", 1)):
        yield who, call("Crowdloan", "contribute", crowdloan_id=loan, amount=tao * TAO)
    yield "//Eve", call("Crowdloan", "withdraw", crowdloan_id=loan)
    yield "//Bob", call("Crowdloan", "update_min_contribution", crowdloan_id=loan, new_min_contribution=TAO)
    yield "//Bob", call("Crowdloan", "set_max_contribution", crowdloan_id=loan, new_max_contribution=2900 * TAO)
    yield "//Bob", call("Crowdloan", "update_end", crowdloan_id=loan, new_end=end + 5)
    if world.rng.random() < 0.7:
        yield "//Bob", call("Crowdloan", "finalize", crowdloan_id=loan)
        yield 12
    else:
        yield "//Bob", call("Crowdloan", "update_cap", crowdloan_id=loan, new_cap=3000 * TAO)
        yield 66
        yield "//Bob", call("Crowdloan", "refund", crowdloan_id=loan)
        yield "//Bob", call("Crowdloan", "withdraw", crowdloan_id=loan)
        yield "//Bob", call("Crowdloan", "dissolve", crowdloan_id=loan)


def proxies(world: World) -> Iterator[Step]:
    bob, charlie = (("Id", world.sampler.accounts[who]) for who in ("//Bob", "//Charlie"))
    for delay, kind in ((0, "Any"), (2, world.rng.choice(("Any", "Staking", "Transfer")))):
        terms = {"proxy_type": kind, "delay": delay}
        yield "//Bob", call("Proxy", "add_proxy", delegate=charlie, **terms)
        inner = world.sampler.call()
        acting = {"real": bob, "force_proxy_type": None, "call": inner}
        yield "//Charlie", call("Proxy", "proxy", **acting)
        yield "//Charlie", call("Proxy", "announce", real=bob, call_hash=hashed(world, inner))
        yield 3
        yield "//Charlie", call("Proxy", "proxy_announced", delegate=charlie, **acting)
        yield "//Charlie", call("Proxy", "announce", real=bob, call_hash=bytes(32))
        yield "//Bob", call("Proxy", "reject_announcement", delegate=charlie, call_hash=bytes(32))
        yield "//Charlie", call("Proxy", "announce", real=bob, call_hash=bytes(32))
        yield "//Charlie", call("Proxy", "remove_announcement", real=bob, call_hash=bytes(32))
        yield "//Bob", call("Proxy", "remove_proxy", delegate=charlie, **terms)


def multisig(world: World) -> Iterator[Step]:
    members = {who: world.sampler.accounts[who] for who in ("//Alice", "//Bob", "//Charlie")}

    def terms(who: str, point: Any) -> dict[str, Any]:
        others = sorted(account for name, account in members.items() if name != who)
        return {"threshold": 2, "other_signatories": others, **point}

    weight = {"max_weight": {"ref_time": 10**12, "proof_size": 10**6}}
    inner = world.sampler.call()
    first = {"maybe_timepoint": None, "call_hash": hashed(world, inner), **weight}
    for second in ("execute", "cancel"):
        yield "//Bob", call("Multisig", "approve_as_multi", **terms("//Bob", first))
        point = {"height": world.rt.number, "index": (world.rt.system.ExtrinsicCount.get() or 1) - 1}
        if second == "execute":
            last = terms("//Alice", {"maybe_timepoint": point, "call": inner, **weight})
            yield "//Alice", call("Multisig", "as_multi", **last)
        else:
            last = terms("//Bob", {"timepoint": point, "call_hash": hashed(world, inner)})
            yield "//Bob", call("Multisig", "cancel_as_multi", **last)


def preimages_and_schedule(world: World) -> Iterator[Step]:
    inner = world.sampler.call()
    data = world.rt.document.registry.encode(world.rt.document.call_type, inner)
    digest = blake2b(data, digest_size=32).digest()
    yield "//Bob", call("Preimage", "note_preimage", bytes=data)
    yield sudo(call("Preimage", "request_preimage", hash=digest))
    yield "//Bob", call("Preimage", "unnote_preimage", hash=digest)
    yield sudo(call("Preimage", "unrequest_preimage", hash=digest))
    when, name = world.rt.number + 4, world.rng.randbytes(32)
    task = {"maybe_periodic": world.rng.choice((None, (2, 3))), "priority": 1, "call": inner}
    yield sudo(call("Scheduler", "schedule_named", id=name, when=when, **task))
    yield sudo(call("Scheduler", "set_retry_named", id=name, retries=2, period=1))
    yield sudo(call("Scheduler", "schedule", when=when, **task))
    yield sudo(call("Scheduler", "set_retry", task=(when, 0), retries=2, period=1))
    if world.rng.random() < 0.5:
        yield sudo(call("Scheduler", "cancel_retry", task=(when, 0)))
        yield sudo(call("Scheduler", "cancel_named", id=name))
        yield sudo(call("Scheduler", "cancel", when=when, index=1))
    yield 12


def commit_and_reveal(world: World) -> Iterator[Step]:
    """Hashed weights, in time and too late."""
    hotkey = "//hot/2"
    yield sudo(call("AdminUtils", "sudo_set_commit_reveal_weights_enabled", netuid=2, enabled=True))
    shown = {"uids": [0, 1], "values": [1, 2], "salt": [7], "version_key": 0}
    digest = commit_hash(world.sampler.accounts[hotkey], 2, [0, 1], [1, 2], [7], 0)
    for wait in (4, 12):
        yield hotkey, sub("commit_weights", netuid=2, commit_hash=digest)
        yield hotkey, sub("commit_mechanism_weights", netuid=2, mecid=0, commit_hash=digest)
        yield wait
        yield hotkey, sub("reveal_weights", netuid=2, **shown)
        yield hotkey, sub("reveal_mechanism_weights", netuid=2, mecid=0, **shown)
    sealed = {"commit": world.rng.randbytes(60), "reveal_round": 5, "commit_reveal_version": 4}
    yield hotkey, sub("commit_timelocked_weights", netuid=2, **sealed)
    yield 8
    yield sudo(call("AdminUtils", "sudo_set_commit_reveal_weights_enabled", netuid=2, enabled=False))


def swapped_keys(world: World) -> Iterator[Step]:
    new = world.sampler.accounts["//Pauper"]
    yield sudo(call("AdminUtils", "sudo_set_coldkey_swap_announcement_delay", duration=2))
    digest = blake2b(new, digest_size=32).digest()
    yield "//Eve", sub("announce_coldkey_swap", new_coldkey_hash=digest)
    yield 3
    if world.rng.random() < 0.5:
        yield "//Eve", sub("swap_coldkey_announced", new_coldkey=new)
        yield sudo(sub("swap_coldkey", old_coldkey=new, new_coldkey=world.sampler.accounts["//Eve"], swap_cost=0))
    else:
        yield 12
        yield "//Eve", sub("clear_coldkey_swap_announcement")


def served(world: World) -> Iterator[Step]:
    address = {"netuid": 2, "version": 1, "ip": 0x01020304, "port": 8000, "ip_type": 4}
    more = {"protocol": 4, "placeholder1": 0, "placeholder2": 0}
    yield "//hot/2", sub("serve_axon", **address, **more)
    yield 1
    yield "//hot/3", sub("serve_axon_tls", **address, **more, certificate=b"\1" * 33)
    yield "//hot/3", sub("serve_prometheus", **address)


def ending(world: World) -> Iterator[Step]:
    """A subnet with stakes and children is dissolved, and another takes its place."""
    hot = world.sampler.accounts["//hot/4"]
    for netuid in (2, 3):
        yield (
            "//Charlie",
            sub("set_children", hotkey=hot, netuid=netuid, children=[(2**63, world.sampler.accounts["//hot/5"])]),
        )
        yield 25
        yield sudo(sub("root_dissolve_network", netuid=netuid))
        yield 6
        yield "//Alice", sub("register_network", hotkey=world.sampler.accounts["//hot/7"])
        yield 3


STORIES: tuple[Story, ...] = (
    crowdloan, proxies, multisig, preimages_and_schedule, commit_and_reveal, swapped_keys, served, ending,
)  # fmt: skip
