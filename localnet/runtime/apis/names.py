"""The name of a subnet whose owner has not set one: the chain carries a fixed list by netuid.

Recorded from the public runtime (spec 425, pallets/subtensor/src/subnets/symbols.rs) up to the largest netuid a chain
with 128 subnets can give out; beyond that, and where the list has a gap, the name is `unknown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

BUILT_IN = (  # noqa: SIM905 - easier to compare with the source than a list
    "root apex omron templar targon kaito infinite subvortex ptn pretrain sturdy dippy horde dataverse palaidn deval "
    "bitads 3gen cortex inference bitagent any-any meta social omega protein alchemy compute oracle coldint bet "
    "naschain itsai ready mind logic automata tuning distributed edge chunk sportsensor masa graphite score gen42 "
    "neural condense nextplace automl audio celium dojo frontier safescan unknown gradients gaia dippy-speach "
    "agent-arena unknown red_team agentao lean-in chutes sad dad ta dha ain ghayn fa qaf kaf lam mim nun ha waw ya "
    "alef fehu uruz thurisaz ansuz raidho kaunan cyr_yeru algiz berkanan ogham beith luis fearn sail nion forfeda ani "
    "bani gani doni eni vini ayp ben gim da ech za armeni grave io dje gje ie dze hard_sign alfa alfas vida "
    "vida_small gamma gamma_small brahmi_a brahmi_aa brahmi_i brahmi_ii brahmi_u la"
).split()
RED_TEAM = 61  # the one name with a space in it
UNKNOWN = b"unknown"


def built_in_name(netuid: int) -> bytes:
    if netuid == RED_TEAM:
        return b"red team"
    return BUILT_IN[netuid].encode() if netuid < len(BUILT_IN) else UNKNOWN


def subnet_name(p: Subtensor, netuid: int) -> bytes:
    """The name in the subnet's identity when there is one, else the built-in."""
    identity = p.SubnetIdentitiesV3[netuid]
    return bytes(identity["subnet_name"]) if identity and identity["subnet_name"] else built_in_name(netuid)
