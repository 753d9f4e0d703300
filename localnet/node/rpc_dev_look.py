"""dev_*: looking closely. Nothing here changes the chain."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from localnet.errors import RpcError
from localnet.explain import sentences
from localnet.node.connection import Connection
from localnet.node.jsonrpc import INVALID_PARAMS, hex_bytes, method
from localnet.node.rpc_dev import UNREADABLE, DevGroup, wrong
from localnet.timeline import DEFAULT_EPOCHS, MAX_EPOCHS, timeline


class DevLookMethods(DevGroup):
    @method("dev_dryRun", dev=True)
    def dry_run(self, connection: Connection, what: Any, at: Any = None) -> Any:
        """What an extrinsic would do on top of a block (default: the head): result, fee in rao, events, storage.

        what: a signed extrinsic "0x..", or {"origin": .., "call": ..} as `dev_impersonate` takes them.
        """
        number = self.number(at)
        try:
            if isinstance(what, str):
                trial = self.developer.try_extrinsic(hex_bytes(what), number)
            elif isinstance(what, dict) and set(what) == {"origin", "call"}:
                call = self.developer.client.read_call(what["call"])
                trial = self.developer.try_call(self.origin(what["origin"]), call, number)
            else:
                raise ValueError('expected "0x.." or {"origin": .., "call": ..}')
        except UNREADABLE as error:
            raise wrong("what", error) from error
        return {**asdict(trial), "events": self.developer.client.after(number).show_events(trial.events)}

    @method("dev_trace", dev=True)
    def trace(self, connection: Connection, at: Any = None) -> Any:
        """What each part of a block (default: the head) changed and reported: initialisation, every extrinsic,
        finalisation, and what a developer wrote."""
        return self.developer.trace(self.number(at))

    @method("dev_explain", dev=True)
    def explain(
        self, connection: Connection, netuid: int, uid: int, at: Any = None, preview: bool | None = None
    ) -> Any:
        """Why the neuron's weight, incentive, dividends and emission are what they are, in numbers and `words`.

        Of the newest epoch at a block (default: the head); with `preview` of the epoch as it would run now.
        """
        report = self.developer.explain(netuid, uid, self.number(at), bool(preview))
        return {**report, "words": sentences(report)}

    @method("dev_timeline", dev=True)
    def timeline(self, connection: Connection, netuid: int, epochs: int | None = None) -> Any:
        """The subnet's last epochs: weights, consensus, incentive, dividends, price; as far as history is kept."""
        wanted = DEFAULT_EPOCHS if epochs is None else epochs
        if not 1 <= wanted <= MAX_EPOCHS:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"epochs: between 1 and {MAX_EPOCHS}, not {wanted}")
        return timeline(self.developer.client, netuid, wanted)
