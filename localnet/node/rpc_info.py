"""delegateInfo_*, neuronInfo_* and subnetInfo_*: what SDKs up to 8 ask a node for, beside the runtime's APIs.

Each is one runtime API. Arguments and answers are SCALE, the answer as a JSON list of byte values. Runtimes that newer
metadata describes answer with types of their own, older ones with bytes that hold the same; callers get what is inside.
Source: pallets/subtensor/rpc of the chain's public repository, with the methods that it has had since 2023.
"""

from __future__ import annotations

from typing import Any

from localnet.codec.document import Document
from localnet.codec.scale import opaque, read_compact
from localnet.errors import MetadataError, RpcError, RuntimeTrap, ScaleError
from localnet.node.blocks import Block
from localnet.node.connection import Connection
from localnet.node.jsonrpc import INVALID_PARAMS, method
from localnet.node.rpc import Group

ACCOUNT = 32  # bytes
MAX_U16 = (1 << 16) - 1


class InfoMethods(Group):
    @method("delegateInfo_getDelegates")
    def delegates(self, connection: Connection, at: Block | None = None) -> list[int]:
        return self._ask("DelegateInfoRuntimeApi_get_delegates", b"", at)

    @method("delegateInfo_getDelegate")
    def delegate(self, connection: Connection, account: Any, at: Block | None = None) -> list[int]:
        return self._ask("DelegateInfoRuntimeApi_get_delegate", _account(account), at)

    @method("delegateInfo_getDelegated")
    def delegated(self, connection: Connection, account: Any, at: Block | None = None) -> list[int]:
        return self._ask("DelegateInfoRuntimeApi_get_delegated", _account(account), at)

    @method("neuronInfo_getNeurons")
    def neurons(self, connection: Connection, netuid: int, at: Block | None = None) -> list[int]:
        return self._ask("NeuronInfoRuntimeApi_get_neurons", _u16(netuid), at)

    @method("neuronInfo_getNeuronsLite")
    def neurons_lite(self, connection: Connection, netuid: int, at: Block | None = None) -> list[int]:
        return self._ask("NeuronInfoRuntimeApi_get_neurons_lite", _u16(netuid), at)

    @method("neuronInfo_getNeuron")
    def neuron(self, connection: Connection, netuid: int, uid: int, at: Block | None = None) -> list[int]:
        return self._ask("NeuronInfoRuntimeApi_get_neuron", _u16(netuid) + _u16(uid), at)

    @method("neuronInfo_getNeuronLite")
    def neuron_lite(self, connection: Connection, netuid: int, uid: int, at: Block | None = None) -> list[int]:
        return self._ask("NeuronInfoRuntimeApi_get_neuron_lite", _u16(netuid) + _u16(uid), at)

    @method("subnetInfo_getSubnetInfo")
    def subnet(self, connection: Connection, netuid: int, at: Block | None = None) -> list[int]:
        return self._ask("SubnetInfoRuntimeApi_get_subnet_info", _u16(netuid), at)

    @method("subnetInfo_getSubnetsInfo")
    def subnets(self, connection: Connection, at: Block | None = None) -> list[int]:
        return self._ask("SubnetInfoRuntimeApi_get_subnets_info", b"", at)

    @method("subnetInfo_getSubnetHyperparams")
    def hyperparams(self, connection: Connection, netuid: int, at: Block | None = None) -> list[int]:
        return self._ask("SubnetInfoRuntimeApi_get_subnet_hyperparams", _u16(netuid), at)

    @method("subnetInfo_getLockCost")
    def lock_cost(self, connection: Connection, at: Block | None = None) -> int:
        """Rao."""
        name = "SubnetRegistrationRuntimeApi_get_network_registration_cost"
        return int.from_bytes(bytes.fromhex(self.node.api.call_hex(name, b"", self.stated(at))[2:]), "little")

    def _ask(self, name: str, data: bytes, at: Block | None) -> list[int]:
        number = self.stated(at)
        takes_bytes, gives_bytes = self._forms(name, number)
        if takes_bytes and len(data) == ACCOUNT:
            data = opaque(data)
        answer = bytes.fromhex(self.node.api.call_hex(name, data, number)[2:])
        if not gives_bytes:
            return list(answer)
        try:
            size, offset = read_compact(answer, 0)
        except ScaleError as error:
            raise RuntimeTrap(f"{name} gave no bytes: {error}") from error
        if size != len(answer) - offset:
            raise RuntimeTrap(f"{name} gave no bytes: {len(answer) - offset} follow a length of {size}")
        return list(answer[offset:])

    def _forms(self, name: str, number: int) -> tuple[bool, bool]:
        """Whether an account is handed over, and the answer given, as bytes that hold it."""
        try:
            document = self.chain.documents.at(number)
        except MetadataError:
            return True, True  # older than the metadata that is known here
        if not document.describes_apis or name not in document.apis:
            return True, True
        entry = document.apis[name]
        return any(_is_bytes(document, one) for one in entry.inputs), _is_bytes(document, entry.output)


def _is_bytes(document: Document, index: int) -> bool:
    types = document.tree["types"]
    inside = types[index]["def"].get("sequence")
    return inside is not None and types[inside["type"]]["def"].get("primitive") == "u8"


def _u16(value: int) -> bytes:
    if value > MAX_U16:
        raise RpcError(INVALID_PARAMS, "Invalid params", f"expected a number of 16 bits, not {value}")
    return value.to_bytes(2, "little")


def _account(value: Any) -> bytes:
    """32 bytes as a list of numbers."""
    if not isinstance(value, list) or len(value) != ACCOUNT or not all(type(v) is int and 0 <= v < 256 for v in value):
        raise RpcError(INVALID_PARAMS, "Invalid params", f"expected a list of {ACCOUNT} byte values")
    return bytes(value)
