"""Runtime APIs every Substrate chain has: the slot duration and the author."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.runtime.apis.registry import api

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


@api("AuraApi_slot_duration")
def slot_duration(rt: SpecRuntime) -> int:
    """Milliseconds."""
    return int(rt.document.constants["Aura", "SlotDuration"])


@api("AuraApi_authorities")
def authorities(rt: SpecRuntime) -> list[bytes]:
    return rt.aura.Authorities.get()
