"""Does the main job fit a released runtime? Asked before anything starts, from the runtime's metadata alone.

    runtime = examine("runtime.wasm", say)           # loads it as `localnet --runtime` does; Misfit when it does not
    misfits(document, exports)                       # the question itself: what is missing, by kind

`NEEDS` is what our code and the SDK touch on the main job's way, found by watching a chain while they did it;
tests/unit/scripts/test_fit.py watches again and fails when the list is not what it sees. Calls fit when they take the
arguments that they take in the metadata which the SDK was made for (it fills them in by name), storage items when they
have as many keys, runtime APIs when the module exports them. Values may have other types: an SDK reads those by the
metadata, so what differs is told and not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from localnet.codec.compare import compare
from localnet.codec.document import Document
from localnet.errors import LocalnetError
from template.errors import TemplateError

NEEDS: Mapping[str, tuple[str, ...]] = {
    "calls": (
        "AdminUtils.sudo_set_admin_freeze_window", "AdminUtils.sudo_set_commit_reveal_weights_enabled",
        "AdminUtils.sudo_set_immunity_period", "AdminUtils.sudo_set_max_allowed_uids",
        "AdminUtils.sudo_set_max_allowed_validators", "AdminUtils.sudo_set_mechanism_count",
        "AdminUtils.sudo_set_mechanism_emission_split", "AdminUtils.sudo_set_serving_rate_limit",
        "AdminUtils.sudo_set_subnet_emission_enabled", "AdminUtils.sudo_set_subtoken_enabled",
        "AdminUtils.sudo_set_tempo", "AdminUtils.sudo_set_weights_set_rate_limit", "Balances.transfer_keep_alive",
        "Commitments.set_commitment", "MevShield.submit_encrypted", "SubtensorModule.add_stake",
        "SubtensorModule.add_stake_limit", "SubtensorModule.burned_register", "SubtensorModule.register_network",
        "SubtensorModule.serve_axon", "SubtensorModule.set_mechanism_weights", "SubtensorModule.start_call",
        "Sudo.sudo",
    ),
    "storage items": (
        "Commitments.CommitmentOf", "MevShield.NextKey", "SubtensorModule.Burn", "SubtensorModule.CollateralLockShare",
        "SubtensorModule.CommitRevealWeightsEnabled", "SubtensorModule.Incentive", "SubtensorModule.LastEpochBlock",
        "SubtensorModule.LastUpdate", "SubtensorModule.MaxAllowedUids", "SubtensorModule.MaxWeightsLimit",
        "SubtensorModule.MechanismCountCurrent", "SubtensorModule.MechanismEmissionSplit",
        "SubtensorModule.MinAllowedWeights", "SubtensorModule.NetworksAdded", "SubtensorModule.SubnetEpochConsensus",
        "SubtensorModule.SubnetEpochIndex", "SubtensorModule.SubnetLocked", "SubtensorModule.SubtokenEnabled",
        "SubtensorModule.TokenSymbol", "SubtensorModule.TotalHotkeyAlpha", "SubtensorModule.Uids",
        "SubtensorModule.ValidatorPermit", "SubtensorModule.ValidatorTrust", "SubtensorModule.Weights",
        "SubtensorModule.WeightsSetRateLimit", "System.Account", "System.Events", "Timestamp.Now",
    ),
    "runtime APIs": (
        "SubnetInfoRuntimeApi_get_metagraph", "SwapRuntimeApi_current_alpha_price",
        "SwapRuntimeApi_sim_swap_tao_for_alpha", "TransactionPaymentApi_query_info",
    ),
}  # fmt: skip
REMEDY = "leave --runtime out, or take a runtime as new as the SDK; `localnet --runtime` runs this one, for older SDKs"
KINDS = {"calls": "call", "storage items": "storage", "runtime APIs": "api"}  # as `compare` calls them


class Misfit(TemplateError):
    """The main job cannot run on this runtime."""


@dataclass(frozen=True)
class Fitting:
    """A runtime that fits. `options`: what `localnet` is started with, so that it runs the very code that was examined,
    and //Alice has money and the sudo key, also where a chain specification says otherwise.
    `notes`: what differs and is read by the metadata."""

    options: tuple[str, ...]
    slot: float  # seconds from block to block by the runtime's constants
    notes: tuple[str, ...] = field(default=())


def examine(where: str, say: Callable[[str], None], slot: float | None = None) -> Fitting:
    """Blocking: loads and compiles. `slot`: seconds that the runtime's blocks must be apart, None for any.

    Raises Misfit, also for what is no runtime.
    """
    from localnet.node.documents import document_of
    from localnet.runtime.memory import MemoryState
    from localnet.wasm.binary import inspect  # here: without --runtime the engine is not needed
    from localnet.wasm.loading import load
    from localnet.wasm.runtime import WasmRuntime

    try:
        loaded = load(where)
        say(loaded.describe())
        document = document_of(WasmRuntime(loaded.code.stored, progress=say), MemoryState())
        exports = inspect(loaded.code.module).exports
    except LocalnetError as error:
        raise Misfit(f"the runtime cannot be used: {error}") from error
    missing, seconds = misfits(document, exports), slot_seconds(document)
    if missing:
        raise Misfit(_told(document, missing), remedy=REMEDY)
    if slot is not None and seconds != slot:
        raise Misfit(
            f"training keeps its clock by blocks of {slot:g} s here, and this runtime's are {seconds:g} s apart",
            remedy="run it with --mechanism inference, or take a runtime built with fast blocks",
        )
    options = ("--runtime", where, "--runtime-hash", f"0x{loaded.code.hash.hex()}", "--dev-accounts")
    return Fitting(options, seconds, notes(document))


def misfits(document: Document, exports: Container[str]) -> dict[str, list[str]]:
    """What the main job needs and a runtime lacks, by kind; without kinds of which nothing is lacking.

    document: the runtime's metadata. exports: names of functions that its module exports (what a runtime API is called
    by; metadata before version 15 does not list them).
    """
    found = {
        "calls": list(_calls(document, Document.load())),
        "storage items": list(_storage_items(document, Document.load())),
        "runtime APIs": [name for name in NEEDS["runtime APIs"] if name not in exports],
    }
    return {kind: names for kind, names in found.items() if names}


def _calls(document: Document, made_for: Document) -> Iterator[str]:
    for name in NEEDS["calls"]:
        pallet, _, call = name.partition(".")
        wanted, given = made_for.calls[pallet][call], document.calls.get(pallet, {}).get(call)
        if given is None:
            yield name
        elif tuple(given) != tuple(wanted):
            yield f"{name}({', '.join(wanted)}), which takes ({', '.join(given)}) there"


def _storage_items(document: Document, made_for: Document) -> Iterator[str]:
    for name in NEEDS["storage items"]:
        pallet, _, item = name.partition(".")
        wanted, given = made_for.storage[pallet, item], document.storage.get((pallet, item))
        if given is None:
            yield name
        elif len(given.keys) != len(wanted.keys):
            yield f"{name} by {len(wanted.keys)} keys, which has {len(given.keys)} there"


def notes(document: Document) -> tuple[str, ...]:
    """What differs, of what the main job touches, from the metadata that the SDK was made for. A sentence each."""
    used: Any = [(KINDS[kind], name) for kind, names in NEEDS.items() for name in names]
    changes = compare(Document.load(), document).touching(used)
    return tuple(str(change) for change in changes if change.what == "changed")


def slot_seconds(document: Document) -> float:
    """From block to block. Raises Misfit for a runtime whose blocks are not Aura's."""
    slot = document.constants.get(("Aura", "SlotDuration"))
    if slot is None:
        raise Misfit("this runtime has no Aura.SlotDuration: its metadata does not say how far its blocks are apart")
    return int(slot) / 1000


def spec_version(document: Document) -> int:
    return int(document.constants["System", "Version"]["spec_version"])


def _told(document: Document, missing: Mapping[str, list[str]]) -> str:
    lines = [
        f"the main job does not fit this runtime, spec {spec_version(document)}. It and SDK {version('bittensor')}, "
        f"which was made for spec {spec_version(Document.load())}, need"
    ]
    for kind, names in missing.items():
        lines.append(f"  {kind} that it does not have:")
        lines += [f"    {name}" for name in names]
    return "\n".join(lines) + "\n "
