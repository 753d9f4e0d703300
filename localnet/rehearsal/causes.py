"""What in a block brought two chains apart: the hooks before its extrinsics, the inherents, the call, or the hooks
after them. The block is made again on both, part by part (see localnet.node.replay)."""

from __future__ import annotations

from typing import Any

from localnet.net import Localnet
from localnet.node import replay
from localnet.node.marks import impersonated_at
from localnet.rehearsal.changes import BEGIN
from localnet.rehearsal.comparable import Items

CALL, EARLIER = "the call", "an earlier block"
HOOKS = {"initialization": BEGIN, "finalization": "hooks after the extrinsics"}
PHASES = {name: phase.capitalize() for phase, name in HOOKS.items()}
ORDER = (HOOKS["initialization"], "inherents", CALL, HOOKS["finalization"])


class Causes:
    """Of one block, which both have."""

    def __init__(self, first: Localnet, second: Localnet, block: int) -> None:
        self._parts = [_parts(net, block) for net in (first, second)]
        self._events = [net.events(block) for net in (first, second)]

    def of(self, key: bytes, items: Items) -> str:
        """The first part after which the two do not hold the same under the key."""
        now = [next((part[key][0] for part in parts.values() if key in part), _SAME) for parts in self._parts]
        known = [one for one in now if one is not _SAME]
        if len(known) == 1:
            now = known * 2
        if not items.same_under(key, *now):
            return EARLIER
        for name in ORDER:
            now = [
                parts[name][key][1] if key in parts[name] else one for parts, one in zip(self._parts, now, strict=True)
            ]
            if not items.same_under(key, *now):
                return name
        return EARLIER

    def said(self, cause: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the events that the hooks of both deposited."""
        names = [
            tuple(f"{one['pallet']}.{one['name']}" for one in events if one["phase"] == PHASES.get(cause))
            for events in self._events
        ]
        return names[0], names[1]


_SAME: Any = object()


def _parts(net: Localnet, block: int) -> dict[str, replay.Changes]:
    """What each part of a block changed, without an alignment."""
    called = impersonated_at(net.chain.block(block).header)
    parts: dict[str, replay.Changes] = {name: {} for name in ORDER}
    for step in replay.trace(net.chain, block):
        if step.name != "storage":
            name = HOOKS.get(step.name) or (CALL if step.index in called else "inherents")
            parts[name] |= {key: (parts[name].get(key, pair)[0], pair[1]) for key, pair in step.changes.items()}
    return parts
