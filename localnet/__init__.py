"""A local Subtensor that lives in a Python process: `Localnet`, `SyncLocalnet`, `python -m localnet`.

    node/       blocks, state, pool, JSON-RPC; knows no pallet          net.py      the node put together
    runtime/    the pallets a subnet lives by, as a specification       client.py   names and values by metadata
    codec/      SCALE and metadata                                      cli.py      the command
    abi.py      the seam between node and runtime                       errors.py   the error tree
    powers.py   what developers may do (developer.py: how)              subnets.py  ready-made subnets
    explain.py  why a neuron earns what it earns                    timeline.py a subnet's last epochs
    economy/    what strategies earn, epoch after epoch             features.py what is here and what is not
    pytest_plugin.py  fixtures                                      sdk.py      the bittensor SDK in tests

Importing the package costs nothing; the names below load what they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localnet.client import Outcome
    from localnet.net import TAO, Localnet, RuntimeSource
    from localnet.sync import SyncLocalnet

__all__ = ["TAO", "Localnet", "Outcome", "RuntimeSource", "SyncLocalnet"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from localnet import net, sync

    return getattr(sync if name == "SyncLocalnet" else net, name)
