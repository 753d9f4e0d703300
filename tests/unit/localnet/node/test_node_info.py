"""Methods that SDKs up to 8 use: the same answers as the runtime's APIs give, whatever form the runtime has them in."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from localnet.abi import State
from localnet.codec.scale import opaque
from localnet.net import Localnet
from localnet.node.connection import Connection
from tests.unit.localnet.node.tiny_runtime import TinyRuntime

ALICE = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")


async def ask(net: Localnet, method: str, *params: Any) -> Any:
    request = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
    assert net._server is not None
    answer = await net._server.answer(Connection(local=False, subscribes=True), request)
    assert answer is not None
    return json.loads(answer)


@pytest.mark.parametrize(
    ("method", "params", "api", "data"),
    [
        ("delegateInfo_getDelegates", [], "DelegateInfoRuntimeApi_get_delegates", b""),
        ("delegateInfo_getDelegate", [list(ALICE)], "DelegateInfoRuntimeApi_get_delegate", ALICE),
        ("delegateInfo_getDelegated", [list(ALICE)], "DelegateInfoRuntimeApi_get_delegated", ALICE),
        ("neuronInfo_getNeurons", [1], "NeuronInfoRuntimeApi_get_neurons", b"\1\0"),
        ("neuronInfo_getNeuronsLite", [1], "NeuronInfoRuntimeApi_get_neurons_lite", b"\1\0"),
        ("neuronInfo_getNeuron", [1, 0], "NeuronInfoRuntimeApi_get_neuron", b"\1\0\0\0"),
        ("neuronInfo_getNeuronLite", [1, 0], "NeuronInfoRuntimeApi_get_neuron_lite", b"\1\0\0\0"),
        ("subnetInfo_getSubnetInfo", [1], "SubnetInfoRuntimeApi_get_subnet_info", b"\1\0"),
        ("subnetInfo_getSubnetsInfo", [], "SubnetInfoRuntimeApi_get_subnets_info", b""),
        ("subnetInfo_getSubnetHyperparams", [1], "SubnetInfoRuntimeApi_get_subnet_hyperparams", b"\1\0"),
    ],
)
async def test_answers_are_those_of_the_runtime_api(method: str, params: list[Any], api: str, data: bytes) -> None:
    async with Localnet(mining="manual") as net:
        told, wanted = await ask(net, method, *params), await ask(net, "state_call", api, data.hex())
        if "error" in wanted:  # the specification runtime has not all of them
            assert told["error"]["code"] == wanted["error"]["code"]
        else:
            assert "0x" + bytes(told["result"]).hex() == wanted["result"]
            assert (await ask(net, method, *params, net.genesis_hash))["result"]


class Older(TinyRuntime):
    """Takes and gives bytes, as runtimes did before they had types for this, with metadata that nobody here reads."""

    def _DelegateInfoRuntimeApi_get_delegate(self, data: bytes, state: State) -> bytes:
        assert data[0] == 32 << 2
        return opaque(b"about " + data[1:])

    def _DelegateInfoRuntimeApi_get_delegates(self, data: bytes, state: State) -> bytes:
        return b"\x0cab"


async def test_bytes_are_unwrapped_where_a_runtime_gives_bytes() -> None:
    async with Localnet(runtime=Older(), mining="manual") as net:
        told = await ask(net, "delegateInfo_getDelegate", list(ALICE))
        assert bytes(told["result"]) == b"about " + ALICE
        damaged = await ask(net, "delegateInfo_getDelegates")
        assert damaged["error"]["code"] == 4003 and "2 follow a length of 3" in json.dumps(damaged)


async def test_what_is_no_argument_is_refused() -> None:
    async with Localnet(mining="manual") as net:
        assert (await ask(net, "subnetInfo_getLockCost"))["result"] > 0
        for account in (list(ALICE[1:]), ["a"] * 32, [256] * 32, [True] * 32, "0x" + ALICE.hex(), None):
            assert (await ask(net, "delegateInfo_getDelegate", account))["error"]["code"] == -32602
        assert (await ask(net, "neuronInfo_getNeurons", 1 << 16))["error"]["code"] == -32602
