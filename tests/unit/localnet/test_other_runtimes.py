"""Developer powers on a runtime that is not the specification's: old metadata, other extensions, other calls, upgrades.

`Other` is the specification runtime behind a face of its own: nothing is shared, everything is asked for, and its
metadata is an edited one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from localnet import calls
from localnet.abi import State
from localnet.beginning import load_runtime
from localnet.codec import metadata
from localnet.codec.document import Document
from localnet.codec.scale import compact, opaque
from localnet.developer import in_rhythm
from localnet.errors import ChainError, MetadataError, RuntimeApiMissing, ScaleError
from localnet.net import TAO, Localnet
from localnet.node.documents import layout_of
from localnet.node.extrinsic import USUAL, parse
from localnet.node.marks import marked
from localnet.node.runtime_api import CODE, read_version
from localnet.runtime.runtime import SpecRuntime
from localnet.vocabulary import Vocabulary, keypair, public_key

Edit = Callable[[metadata.Tree], None]
EPOCH_API = "SubnetInfoRuntimeApi_get_next_epoch_start_block"


def edited(data: bytes, *edits: Edit) -> bytes:
    tree = metadata.decode(data)
    for edit in edits:
        edit(tree)
    return metadata.encode(tree)


class Other:
    """`by_code`: metadata (version 14, and 15 or nothing) of further code that may be set; `hidden`: not exported."""

    def __init__(self, *hidden: str, v15: bool = True, edits: tuple[Edit, ...] = ()) -> None:
        self._spec, self._hidden = load_runtime("fast"), {*hidden, "DevApi_explain"}
        assert isinstance(self._spec, SpecRuntime)
        known = self._spec.document
        self.v14 = edited(known.v14, *edits)
        self.v15 = edited(known.v15, *edits) if v15 else b""
        self.by_code: dict[bytes, tuple[bytes, bytes]] = {}

    def call(self, method: str, data: bytes, state: State) -> bytes:
        if method in self._hidden:
            raise RuntimeApiMissing(f"Exported method {method} is not found")
        v14, v15 = self.by_code.get(state.get(CODE) or b"", (self.v14, self.v15))
        if method == "Metadata_metadata":
            return opaque(v14)
        if method == "Metadata_metadata_at_version":
            if not v15:
                raise RuntimeApiMissing(f"Exported method {method} is not found")
            return b"\1" + opaque(v15) if data[:1] == b"\x0f" else b"\0"
        return self._spec.call(method, data, state)


def run(runtime: Any, scenario: Callable[[Localnet], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with Localnet(runtime=runtime, mining="manual") as net:
            await scenario(net)

    asyncio.run(whole())


# -- metadata -------------------------------------------------------------------------------------------------------


def test_version_14_alone_is_enough_for_everything_but_runtime_apis_by_name() -> None:
    async def scenario(net: Localnet) -> None:
        await net.fund("//Zoe", 5 * TAO)
        await net.extrinsic("//Zoe", "Balances", "transfer_keep_alive", dest="//Bob", value=TAO)
        assert (await net.impersonate("//Zoe", "System", "remark", remark=b"")).success
        assert net.dry_run("root", "System", "remark", remark=b"").success
        subnet = await net.subnet(miners=1, validators=1)
        assert net.query("SubtensorModule", "SubnetworkN", subnet.netuid) == 3
        with pytest.raises(MetadataError, match="cannot be called by name: the runtime's metadata is of version 14"):
            subnet.metagraph()

    run(Other(v15=False), scenario)


def test_old_blocks_are_read_by_the_metadata_of_their_time_and_new_ones_by_the_new() -> None:
    """The new metadata calls the event of a remark otherwise; the runtime behind both is the same."""

    def rename(tree: metadata.Tree) -> None:
        system = next(pallet for pallet in tree["pallets"] if pallet["name"] == "System")
        events = tree["types"][system["event"]]["def"]["variant"]
        next(event for event in events if event["name"] == "Remarked")["name"] = "Noted"

    runtime = Other()
    runtime.by_code[b"new code"] = (edited(runtime.v14, rename), b"")

    def names(net: Localnet, block: int | None = None) -> list[str]:
        return [event["name"] for event in net.events(block)]

    async def scenario(net: Localnet) -> None:
        old = net.client.document
        for _ in range(2):
            await net.impersonate("//Bob", "System", "remark_with_event", remark=b"")
        await net.developer.write({CODE: b"new code"})  # the last block that the old runtime makes
        switched = net.block
        assert net.client.document is not old and not net.client.document.describes_apis
        assert net.client.made(switched).document is old and net.client.after(switched - 1).document is old
        assert "Remarked" in names(net, switched - 1) and net.query("System", "Number") == switched
        tried = net.dry_run("//Bob", "System", "remark_with_event", remark=b"")
        before = net.dry_run("//Bob", "System", "remark_with_event", remark=b"", block=switched - 1)
        assert [one["name"] for one in tried.events if one["name"] in ("Noted", "Remarked")] == ["Noted"]
        assert [one["name"] for one in before.events if one["name"] in ("Noted", "Remarked")] == ["Remarked"]
        await net.impersonate("//Bob", "System", "remark_with_event", remark=b"")
        assert "Noted" in names(net) and "Remarked" in names(net, switched - 1)
        assert "Noted" in str(net.trace()["steps"]) and "Noted" not in str(net.trace(switched - 1)["steps"])
        await net.set_head(switched - 1)
        assert net.client.document is old

    run(runtime, scenario)


def test_metadata_that_cannot_be_used_is_said_and_the_node_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    runtime = Other()
    runtime.v14 = runtime.v15 = b"meta\x0d" + bytes(9)
    runtime.by_code.clear()

    async def scenario(net: Localnet) -> None:
        spec = Document.load()
        nonce, genesis = 0, net.chain.genesis_hash
        await net.mine(2)
        with pytest.raises(MetadataError, match="version 13 is not supported"):
            net.query("System", "Number")
        raw = _transfer(spec, nonce, genesis)
        net.chain.submit(raw)  # signed elsewhere: the runtime checks it
        await net.mine()
        assert raw in (net.chain.head.extrinsics or [])
        assert "not looked into" in caplog.text

    run(runtime, scenario)


def _transfer(document: Document, nonce: int, genesis: bytes) -> bytes:
    words, version = Vocabulary(document), document.constants["System", "Version"]
    call = words.encode_call("Balances", "transfer_keep_alive", {"dest": "//Bob", "value": TAO})
    extra = b"\0" + compact(nonce) + b"\0\0"
    numbers = (version[name].to_bytes(4, "little") for name in ("spec_version", "transaction_version"))
    payload = call + extra + b"".join(numbers) + genesis + genesis + b"\0"
    pair = keypair("//Alice")
    return opaque(b"\x84\0" + bytes(pair.public_key) + b"\1" + bytes(pair.sign(payload)) + extra + call)


# -- extensions -----------------------------------------------------------------------------------------------------


def _without(*names: str) -> Edit:
    def edit(tree: metadata.Tree) -> None:
        kept = [one for one in tree["extrinsic"]["extensions"] if one["id"] not in names]
        tree["extrinsic"]["extensions"] = kept

    return edit


def _renamed(old: str, new: str) -> Edit:
    def edit(tree: metadata.Tree) -> None:
        next(one for one in tree["extrinsic"]["extensions"] if one["id"] == old)["id"] = new

    return edit


def document(*edits: Edit) -> Document:
    tree = metadata.decode(Document.load().v14)
    for edit in edits:
        edit(tree)
    return Document(b"", b"", tree)


def test_the_layout_of_an_extrinsic_follows_the_extensions() -> None:
    assert layout_of(Document.read(Document.load().v14)) == layout_of(Document.load()) == USUAL
    old = document(_without("CheckMetadataHash", "DrandPriority", "SudoTransactionExtension"))
    assert layout_of(old) == ("era", "nonce", "tip")
    assert layout_of(document(_renamed("ChargeTransactionPayment", "ChargeTransactionPaymentWrapper"))) == USUAL
    call, who = b"\0\1\0", bytes(32)
    raw = opaque(b"\x84\0" + who + b"\1" + bytes(64) + b"\0" + compact(5) + compact(70) + call)
    found = parse(raw, layout_of(old))
    assert (found.nonce, found.tip, found.era, found.call) == (5, 70, None, call)
    unknown = layout_of(document(_renamed("CheckMetadataHash", "Fresh")))  # a byte of a kind that nobody knows
    assert [part for part in unknown if isinstance(part, str)] == ["era", "nonce", "tip"] and len(unknown) == 4
    with_byte = raw[:1] and opaque(
        b"\x84\0" + who + b"\1" + bytes(64) + b"\0" + compact(5) + compact(70) + b"\0" + call
    )
    assert parse(with_byte, unknown).call == parse(with_byte).call == call
    assert parse(raw, None).who == who and parse(raw, None).call == b""


def test_an_unknown_extension_that_wants_nothing_is_fine_and_one_that_wants_something_is_refused_by_name() -> None:
    known = {
        "CheckNonce": (compact(1), b""), "CheckMortality": (b"\0", bytes(32)), "CheckGenesis": (b"", bytes(32)),
        "CheckSpecVersion": (b"", bytes(4)), "CheckTxVersion": (b"", bytes(4)),
        "CheckMetadataHash": (b"\0", b"\0"), "ChargeTransactionPayment": (b"\0", b""),
    }  # fmt: skip
    words = Vocabulary(document(_renamed("DrandPriority", "CommitmentsSignedExtension")))
    assert words.signed_parts(known)[0] == b"\0\4\0\0"
    with pytest.raises(MetadataError, match="AskForFees"):
        Vocabulary(document(_renamed("ChargeTransactionPayment", "AskForFees"))).signed_parts(known)
    with pytest.raises(MetadataError, match="CheckGeneses"):  # wants something in the signed bytes only
        Vocabulary(document(_renamed("CheckGenesis", "CheckGeneses"))).signed_parts(known)

    def newer(tree: metadata.Tree) -> None:
        tree["extrinsic"]["version"] = 5

    with pytest.raises(MetadataError, match="format 5"):
        Vocabulary(document(newer)).signed_parts(known)


# -- calls ----------------------------------------------------------------------------------------------------------


def _pallet(tree: metadata.Tree, name: str) -> list[Any]:
    pallet = next(one for one in tree["pallets"] if one["name"] == name)
    return list(tree["types"][pallet["calls"]]["def"]["variant"])


def _old_calls(tree: metadata.Tree) -> None:
    """As before subnets had a currency, and before balances could be set alone."""
    balances, subtensor = _pallet(tree, "Balances"), _pallet(tree, "SubtensorModule")
    found = {call["name"]: call for call in balances + subtensor}
    free = found["force_set_balance"]
    free["name"] = "set_balance"
    free["fields"].append({**free["fields"][1], "name": "new_reserved"})
    found["register_network"]["fields"].clear()
    stake = found["add_stake"]["fields"]
    stake[:] = [one for one in stake if one["name"] != "netuid"]


def test_calls_are_chosen_by_what_the_metadata_has() -> None:
    now, old, who = Vocabulary(Document.load()), Vocabulary(document(_old_calls)), public_key("//Bob")
    account = {"data": {"free": 1, "reserved": 3}}
    assert calls.balance(now, who, 5, account)[1:] == ("force_set_balance", {"who": ("Id", who), "new_free": 5})
    assert calls.balance(old, who, 5, account)[2]["new_reserved"] == 3
    assert (calls.register_network(now, who)[2], calls.register_network(old, who)[2]) == ({"hotkey": who}, {})
    assert calls.add_stake(now, 7, who, 5)[2]["netuid"] == 7 and "netuid" not in calls.add_stake(old, 7, who, 5)[2]
    for words in (now, old):
        for form in (calls.balance(words, who, 5, account), calls.add_stake(words, 7, who, 5)):
            assert words.encode_call(*form)

    def gone(tree: metadata.Tree) -> None:
        next(call for call in _pallet(tree, "Balances") if call["name"] == "force_set_balance")["name"] = "set_it"

    with pytest.raises(MetadataError, match=r"Balances.force_set_balance\(who, new_free\) or"):
        calls.balance(Vocabulary(document(gone)), who, 5, account)


def test_without_an_api_for_it_the_next_epoch_follows_the_block_number() -> None:
    """The pallet's own table (blocks_until_next_epoch): tempo, netuid, first block with an epoch."""
    table = [(1, 0, 0), (1, 1, 1), (2, 0, 1), (2, 1, 0), (100, 0, 99), (100, 1, 98)]
    assert [in_rhythm(netuid, tempo, 0) for tempo, netuid, _ in table] == [first for *_, first in table]
    assert [in_rhythm(1, 10, block) for block in (8, 9, 19, 20)] == [8, 19, 19, 30]

    def unscheduled(tree: metadata.Tree) -> None:
        pallet = next(one for one in tree["pallets"] if one["name"] == "SubtensorModule")
        entries = pallet["storage"]["entries"]
        pallet["storage"]["entries"] = [one for one in entries if one["name"] != "LastEpochBlock"]

    async def scenario(net: Localnet) -> None:
        tempo = net.query("SubtensorModule", "Tempo", 1)
        assert net.developer.next_epoch(1) == in_rhythm(1, tempo, net.block + 1)
        await net.set_storage("SubtensorModule", "Tempo", 1, value=0)
        with pytest.raises(ChainError, match="tempo is 0"):
            net.developer.next_epoch(1)

    async def neither(net: Localnet) -> None:
        with pytest.raises(RuntimeApiMissing):
            net.developer.next_epoch(1)

    run(Other(EPOCH_API, edits=(unscheduled,)), scenario)
    run(Other(EPOCH_API), neither)


def test_the_version_of_a_runtime_from_before_state_versions_is_read() -> None:
    apis = compact(1) + bytes(8) + (3).to_bytes(4, "little")
    raw = opaque(b"node") + opaque(b"node") + b"".join(n.to_bytes(4, "little") for n in (1, 106, 1)) + apis
    raw += (4).to_bytes(4, "little")
    assert (read_version(raw)["stateVersion"], read_version(raw + b"\1")["stateVersion"]) == (0, 1)
    assert read_version(raw)["transactionVersion"] == 4
    with pytest.raises(ScaleError, match="inside its list of APIs"):
        read_version(raw[:22] + compact(1 << 40) + bytes(12))


def test_a_key_that_cannot_be_read_is_shown_as_it_is() -> None:
    """One that holds a hash without the key, and one with something behind it."""

    def hashed(tree: metadata.Tree) -> None:
        entries = next(one for one in tree["pallets"] if one["name"] == "SubtensorModule")["storage"]["entries"]
        next(one for one in entries if one["name"] == "Tempo")["hashers"] = ["Twox128"]

    usual, opaquely = Vocabulary(document()), Vocabulary(document(hashed))
    for words, more in ((usual, b"more"), (opaquely, b"")):
        key = words.storage_key("SubtensorModule", "Tempo", 1) + more
        shown = words.names.show(key, None, b"\x01\0")
        assert shown["item"] == "Tempo" and shown["key"] == "0x" + key.hex() and shown["after"] == "0x0100"
    assert usual.names.show(usual.storage_key("SubtensorModule", "Tempo", 1), None, b"\x01\0")["keys"] == [1]


# -- root -----------------------------------------------------------------------------------------------------------


def test_sudo_is_root_without_a_signature_where_the_sudo_key_is_not_alices() -> None:
    async def scenario(net: Localnet) -> None:
        await net.sudo("System", "set_storage", items=[(b"signed", b"1")])
        assert marked(net.chain.head.header) == {} and net.chain.storage(b"signed") == b"1"
        await net.set_storage("Sudo", "Key", value="//Bob")
        await net.sudo("System", "set_storage", items=[(b"marked", b"1")])
        assert [name for _, name in marked(net.chain.head.header)["impersonated"]] == ["root"]
        assert net.chain.storage(b"marked") == b"1"
        refused = await net.sudo("Balances", "force_transfer", source="//Bob", dest="//Zoe", value=10**19, check=False)
        assert not refused.success

    run(None, scenario)


# -- explaining -----------------------------------------------------------------------------------------------------


def test_the_specification_explains_a_runtime_with_the_same_storage_and_names_what_differs_otherwise() -> None:
    reports = []

    async def scenario(net: Localnet) -> None:
        subnet = await net.subnet(miners=2, validators=1)
        await subnet.set_weights(0, {2: 1, 3: 3})
        await subnet.epochs(1)
        before = dict(net.chain.state.head)
        reports.append(subnet.explain(3))
        assert subnet.explain(3, preview=True)["as_on_chain"] is None
        assert dict(net.chain.state.head) == before
        await net.set_storage("SubtensorModule", "Dividends", subnet.netuid, value=[1, 2, 3, 4])
        assert subnet.explain(3)["as_on_chain"] is False

    def fewer(tree: metadata.Tree) -> None:
        """Without constants that no epoch asks for."""
        next(one for one in tree["pallets"] if one["name"] == "Crowdloan")["constants"] = []

    run(Other(edits=(fewer,)), scenario)
    run(None, scenario)
    assert reports[0] == reports[1] and reports[0]["as_on_chain"]

    def otherwise(tree: metadata.Tree) -> None:
        pallet = next(one for one in tree["pallets"] if one["name"] == "SubtensorModule")
        entries = {one["name"]: one for one in pallet["storage"]["entries"]}
        entries["Kappa"]["value"] = entries["Rho"]["value"] = entries["SubnetOwner"]["value"]
        entries["Axons"]["value"] = entries["SubnetOwner"]["value"]  # no explanation reads it

    async def refused(net: Localnet) -> None:
        with pytest.raises(ChainError) as error:
            net.explain(1, 0, preview=True)
        assert "storage SubtensorModule.Kappa" in str(error.value) and "AccountId32" in str(error.value)
        assert "SubtensorModule.Axons" not in str(error.value)

    run(Other(edits=(otherwise,)), refused)
