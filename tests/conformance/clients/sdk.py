"""The SDK, blocking (`bt.Subtensor`) and asynchronous (`bt.Client` on this test's own event loop)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import bittensor as bt

from tests.conformance.clients.base import Actor, NeuronRow, Outcome, normalised


def _outcome(result: Any) -> Outcome:
    error = result.error
    events = tuple(str(event.get("event_id")) for event in _plain(result.events))
    return Outcome(
        bool(result.success),
        None if error is None else str(error.name or error.code.value),
        result.message,
        events,
        dict(result.data),
    )


def _plain(events: list[Any]) -> list[dict[str, Any]]:
    values = [getattr(event, "value", event) for event in events or []]
    return [value for value in values if isinstance(value, dict)]


class _Sdk:
    """`run` turns what the underlying client returns into a value; the two clients differ in nothing else."""

    name = "sdk"

    def __init__(self, client: Any, run: Callable[[Any], Any]) -> None:
        self._client, self._run = client, run

    def _submit(self, make: Callable[[], Any]) -> Outcome:
        """Send; once more after "Stale": a shielded extrinsic uses two nonces, of which this SDK remembers one."""
        try:
            outcome = _outcome(self._run(make()))
            return _outcome(self._run(make())) if outcome.error == "Stale" else outcome
        except bt.ChainError as error:  # raised before anything is sent, by checks the client makes itself
            return Outcome(False, str(error.name or error.code.value), error.message)

    def do(self, op: str, actor: Actor, **args: Any) -> Outcome:
        return self._submit(lambda: self._client.execute_tool(op, args, actor))

    def call(
        self, pallet: str, function: str, args: dict[str, Any], actor: Actor, *, hot: bool = False, sudo: bool = False
    ) -> Outcome:
        call = bt.calls.Call(pallet, function, args)
        if sudo:
            call = bt.calls.Sudo.sudo(call=self._run(self._client.compose(call)))
        return self._submit(lambda: self._client.submit_call(call, actor, signer="hotkey" if hot else "coldkey"))

    def read(self, name: str, **params: Any) -> Any:
        return self._run(self._client.read(name, **params))

    def block(self) -> int:
        block = self._client.block
        return int(self._run(block() if callable(block) else block))

    def balance(self, address: str) -> int:
        return int(self.read("balance", coldkey_ss58=address).rao)

    def storage(self, pallet: str, item: str, *keys: Any) -> Any:
        return self._run(self._client.query((pallet, item), list(keys)))

    def uid(self, netuid: int, hotkey: str) -> int | None:
        value = self.read("uid", hotkey_ss58=hotkey, netuid=netuid)
        return None if value is None else int(value)

    def stake(self, coldkey: str, hotkey: str, netuid: int) -> int:
        position = self.read("stake", coldkey_ss58=coldkey, hotkey_ss58=hotkey, netuid=netuid)
        return int(position.rao)

    def neurons(self, netuid: int) -> list[NeuronRow]:
        graph = self._run(self._client.subnets.metagraph(netuid))
        return [
            NeuronRow(
                n.uid, n.hotkey, n.validator_permit, n.incentive, n.dividends, n.emission.rao, n.alpha_stake.rao, n.axon
            )
            for n in graph.neurons
        ]

    def weights(self, netuid: int) -> dict[int, dict[int, float]]:
        rows = self._run(self._client.query_map(bt.storage.SubtensorModule.Weights, [netuid]))
        return {int(uid): normalised({int(d): float(v) for d, v in row}) for uid, row in rows if row}

    def identity(self, coldkey: str) -> str | None:
        value = self.read("identity", coldkey_ss58=coldkey)
        return None if value is None else str(value["name"])

    def commitment(self, netuid: int, hotkey: str) -> str | None:
        value = self.read("commitment", netuid=netuid, hotkey_ss58=hotkey)
        return None if value is None else str(value.data)

    def take(self, hotkey: str) -> float:
        return float(self.read("delegate_take", hotkey_ss58=hotkey)["take"])

    def children(self, netuid: int, hotkey: str) -> list[str]:
        return [str(child) for _, child in self.read("children", hotkey_ss58=hotkey, netuid=netuid)]

    def hyperparameter(self, netuid: int, name: str) -> Any:
        return self.read("subnet_hyperparameters", netuid=netuid)[name]


class SyncSdk(_Sdk):
    name = "sdk"

    def __init__(self, endpoint: str) -> None:
        super().__init__(bt.Subtensor(endpoint), lambda value: value)

    def close(self) -> None:
        self._client.close()


class AsyncSdk(_Sdk):
    name = "sdk-async"

    def __init__(self, endpoint: str) -> None:
        self._loop = asyncio.new_event_loop()
        client = self._loop.run_until_complete(bt.Client(endpoint).connect())
        super().__init__(client, self._loop.run_until_complete)

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
