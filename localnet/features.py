"""What of the chain is here, and what is not: `python -m localnet --features`.

Nothing is counted by hand. The metadata says which calls and runtime APIs a released node of this version has; what the
runtime has registered says which of them are here; the node's own table says which JSON-RPC methods it answers. Written
by hand are two tables: the JSON-RPC methods of a released node (`RELEASED_METHODS`; no metadata lists them), and why
something is not here (`REASONS`). Something absent without a reason is a gap, and the tests find it.

A call that is absent is refused by the pool, by name. So is a runtime API, and a method is not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from localnet.runtime.runtime import SpecRuntime
from localnet.sync import SyncLocalnet

EVM = "no EVM runs here: contracts and precompiles need the released runtime (--runtime)"
NO_ETHEREUM = "Ethereum's own JSON-RPC; with --runtime the EVM runs too, and is reached by calls of EVM and state_call"
NO_CONTRACTS = "no WebAssembly contracts run here: they need a released runtime that has them (--runtime)"
NO_PEERS = "one author, no network: nothing is voted on and nobody misbehaves"
NO_IMPORT = "blocks are built here, never imported"
ONE_RUNTIME = (
    "the runtime is a Python program: it does not change under a running chain. Upgrades need the released runtime "
    "(--runtime)"
)
STORED_CALLS = "sealed calls stored for a later block; clients use submit_encrypted"
ONE_GENESIS = "genesis has one form, and options of Localnet; presets come with a released runtime (--preset)"
NO_WORKER = "no worker runs beside the blocks"
NO_PROOFS = "proofs of single values are for light clients: none are given"
NEWER_RPC = "the newer JSON-RPC; the released clients speak the older"
SAME_BYTES = "the same bytes come from state_call with the runtime API behind it"
GAP = "not implemented"
WASM = (
    "This is the specification runtime. With --runtime, or on a --fork, the chain's own released runtime runs: calls "
    "and runtime APIs are then those that it has, EVM, contracts and upgrades with them (localnet runtime FILE lists "
    "them, and what clients will miss). The methods are the same; explain works where storage has the same layout."
)

REASONS = {
    # pallets and calls
    "Grandpa": NO_PEERS,
    "AdminUtils.swap_authorities": NO_PEERS,
    "AdminUtils.schedule_grandpa_change": NO_PEERS,
    "System.set_code": ONE_RUNTIME,
    "System.set_code_without_checks": ONE_RUNTIME,
    "System.authorize_upgrade": ONE_RUNTIME,
    "System.authorize_upgrade_without_checks": ONE_RUNTIME,
    "System.apply_authorized_upgrade": ONE_RUNTIME,
    "System.set_heap_pages": ONE_RUNTIME,
    "Ethereum": EVM,
    "EVM": EVM,
    "BaseFee": EVM,
    "AdminUtils.sudo_set_evm_chain_id": EVM,
    "AdminUtils.sudo_toggle_evm_precompile": EVM,
    "Contracts": NO_CONTRACTS,
    "SafeMode": "an emergency brake for a public chain; stop the node instead",
    "LimitOrders": "orders are signed and matched off chain by a service that no subnet runs",
    "MevShield.store_encrypted": STORED_CALLS,
    "MevShield.set_max_pending_extrinsics_number": STORED_CALLS,
    "MevShield.set_on_initialize_weight": STORED_CALLS,
    "MevShield.set_stored_extrinsic_lifetime": STORED_CALLS,
    "MevShield.set_max_extrinsic_weight": STORED_CALLS,
    # runtime APIs
    "GrandpaApi": NO_PEERS,
    "BabeApi": NO_PEERS,
    "SessionKeys": NO_PEERS,
    "EthereumRuntimeRPCApi": EVM,
    "ConvertTransactionRuntimeApi": EVM,
    "ContractsApi": NO_CONTRACTS,
    "Core_execute_block": NO_IMPORT,
    "BlockBuilder_check_inherents": NO_IMPORT,
    "GenesisBuilder_get_preset": ONE_GENESIS,
    "GenesisBuilder_preset_names": ONE_GENESIS,
    "OffchainWorkerApi": NO_WORKER,
    "ShieldApi_try_unshield_tx": "the node opens sealed extrinsics itself, it holds the keys",
    # JSON-RPC: a method, or a family of them
    "archive": NEWER_RPC,
    "chainHead": NEWER_RPC,
    "chainSpec": NEWER_RPC,
    "transaction": NEWER_RPC,
    "transactionWatch": NEWER_RPC,
    "eth": NO_ETHEREUM,
    "net": NO_ETHEREUM,
    "web3": NO_ETHEREUM,
    "txpool": NO_ETHEREUM,
    "debug": NO_ETHEREUM,
    "grandpa": NO_PEERS,
    "offchain": NO_WORKER,
    "childstate": "only contracts have child tries, and clients read them by runtime APIs",
    "subnetInfo": SAME_BYTES,
    "stakeInfo": SAME_BYTES,
    "swap": SAME_BYTES,
    "author_hasKey": NO_PEERS,
    "author_hasSessionKeys": NO_PEERS,
    "author_insertKey": NO_PEERS,
    "author_rotateKeys": NO_PEERS,
    "author_removeExtrinsic": "a transaction is replaced by one with the same nonce, or expires with its era",
    "dev_getBlockStats": "witness sizes of a trie; `dev_` here is what a developer may do",
    "state_getReadProof": NO_PROOFS,
    "state_getChildReadProof": NO_PROOFS,
    "state_trieMigrationStatus": "state is kept in versions, of one form",
    "state_traceBlock": "dev_trace says what a block did",
    "system_addReservedPeer": NO_PEERS,
    "system_removeReservedPeer": NO_PEERS,
    "system_reservedPeers": NO_PEERS,
    "system_unstable_networkState": NO_PEERS,
    "system_addLogFilter": "the log level is an option of the command",
    "system_resetLogFilter": "the log level is an option of the command",
    "system_dryRun": "dev_dryRun says more",
    "system_dryRunAt": "dev_dryRun says more",
}

RELEASED_METHODS = {  # family -> methods; "*" for a family of which nothing is here
    "account": "nextIndex",
    "archive": "*",
    "author": "hasKey hasSessionKeys insertKey pendingExtrinsics removeExtrinsic rotateKeys submitAndWatchExtrinsic "
              "submitExtrinsic unwatchExtrinsic",
    "chain": "getBlock getBlockHash getFinalisedHead getFinalizedHead getHead getHeader getRuntimeVersion "
             "subscribeAllHeads subscribeFinalisedHeads subscribeFinalizedHeads subscribeNewHead subscribeNewHeads "
             "subscribeRuntimeVersion unsubscribeAllHeads unsubscribeFinalisedHeads unsubscribeFinalizedHeads "
             "unsubscribeNewHead unsubscribeNewHeads unsubscribeRuntimeVersion",
    "chainHead": "*",
    "chainSpec": "*",
    "childstate": "*",
    "debug": "*",
    "delegateInfo": "getDelegate getDelegated getDelegates",
    "dev": "getBlockStats",
    "eth": "*",
    "grandpa": "*",
    "net": "*",
    "neuronInfo": "getNeuron getNeuronLite getNeurons getNeuronsLite",
    "offchain": "*",
    "payment": "queryFeeDetails queryInfo",
    "rpc": "methods",
    "stakeInfo": "getColdkeyLock",
    "state": "call callAt getChildReadProof getKeys getKeysPaged getKeysPagedAt getMetadata getPairs getReadProof "
             "getRuntimeVersion getStorage getStorageAt getStorageHash getStorageHashAt getStorageSize "
             "getStorageSizeAt queryStorage queryStorageAt subscribeRuntimeVersion subscribeStorage traceBlock "
             "trieMigrationStatus unsubscribeRuntimeVersion unsubscribeStorage",
    "subnetInfo": "getAllDynamicInfo getAllMechagraphs getAllMetagraphs getColdkeyAutoStakeHotkey getDynamicInfo "
                  "getLockCost getMechagraph getMetagraph getSelectiveMechagraph getSelectiveMetagraph "
                  "getSubnetAccountId getSubnetHyperparams getSubnetInfo getSubnetState getSubnetToPrune "
                  "getSubnetsInfo",
    "swap": "*",
    "system": "accountNextIndex addLogFilter addReservedPeer chain chainType dryRun dryRunAt health "
              "localListenAddresses localPeerId name nodeRoles peers properties removeReservedPeer reservedPeers "
              "resetLogFilter syncState unstable_networkState version",
    "transaction": "*",
    "transactionWatch": "*",
    "txpool": "*",
    "web3": "*",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A pallet, a runtime API or a family of methods: the names that are here, and why the others are not."""

    kind: str  # "calls", "runtime APIs" or "methods"
    name: str
    present: tuple[str, ...]
    absent: dict[str, str]


def reason(part: str, separator: str, name: str) -> str:
    """Why this call, runtime API or method is not here: its own reason, or that of everything beside it."""
    return REASONS.get(f"{part}{separator}{name}") or REASONS.get(part) or GAP


def features() -> list[Part]:
    """Everything a released node of this version has, part by part, compared with a chain of ours."""
    runtime = SpecRuntime()
    with SyncLocalnet(mining="manual", runtime=runtime) as chain:
        methods = list(chain.net.rpc.methods)
    return [*_calls(runtime), *_apis(runtime), *_methods(methods)]


def _part(kind: str, part: str, separator: str, names: Iterable[str], here: Iterable[str]) -> Part:
    here = set(here)
    absent = {name: reason(part, separator, name) for name in names if name not in here}
    return Part(kind, part, tuple(name for name in names if name in here), absent)


def _calls(runtime: SpecRuntime) -> Iterator[Part]:
    for pallet, calls in runtime.document.calls.items():
        if calls:
            yield _part("calls", pallet, ".", calls, [name for name in calls if (pallet, name) in runtime.calls])


def _apis(runtime: SpecRuntime) -> Iterator[Part]:
    exports = runtime.exports()
    for api, methods in _families(runtime.document.apis).items():
        yield _part("runtime APIs", api, "_", methods, [name for name in methods if f"{api}_{name}" in exports])


def _methods(names: Iterable[str]) -> Iterator[Part]:
    ours = _families(sorted(names))
    for family in sorted({*RELEASED_METHODS, *ours}):
        here = ours.get(family, [])
        released = RELEASED_METHODS.get(family, "").split()
        yield _part("methods", family, "_", dict.fromkeys([*here, *released]), here)


def _families(names: Iterable[str]) -> dict[str, list[str]]:
    """Names taken apart at their first underscore: Api_method, family_method."""
    out: defaultdict[str, list[str]] = defaultdict(list)
    for full in names:
        family, _, name = full.partition("_")
        out[family].append(name)
    return dict(out)


def as_json(parts: Iterable[Part]) -> dict[str, Any]:
    """Kind -> part -> {"present": names, "absent": name -> reason}."""
    out: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for part in parts:
        out[part.kind][part.name] = {"present": list(part.present), "absent": part.absent}
    return dict(out)


def as_text(parts: Iterable[Part]) -> Iterator[str]:
    """Lines to read: counts per part, and what is absent grouped by the reason."""
    kind = ""
    for part in parts:
        if part.kind != kind:
            yield f"{'' if not kind else chr(10)}{part.kind}"
            kind = part.kind
        total = len(part.present) + len(part.absent)
        known = f"{len(part.present)} of {total}" if "*" not in part.absent else "none"
        yield f"  {part.name:<28} {known}"
        grouped: defaultdict[str, list[str]] = defaultdict(list)
        for name, why in part.absent.items():
            grouped[why].append(name)
        for why, names in grouped.items():
            everything = len(names) == total
            yield f"    {'' if everything else ', '.join(names) + ': '}{why}"
    yield f"\n{WASM}"
