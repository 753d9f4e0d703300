"""`touchstone model`: the model a neuron would hold here, its root, and whether the subnet's owner committed it.

touchstone model                                    name, source, dtype, root; prepared first when it is not yet
touchstone model --netuid 2                         ... and what the owner committed; status 1 when that differs
touchstone model --netuid 2 --commit --wallet own   the owner's hotkey signs the commitment; no coldkey, no fee
touchstone model --tensor model.norm.weight         the proof that one tensor, or one document, is under the root
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons import models
from neurons.output import console, print_json
from protocol.model_root import COMMITMENT_PREFIX, TENSOR, ModelCommitment, inclusion_proof
from template.chain import Chain
from template.commitments import replaced
from template.errors import TemplateError
from template.keys import Hotkey

if TYPE_CHECKING:
    from template.inference.manifest import PreparedModel


@dataclass(frozen=True)
class OnChain:
    """The owner's word on one subnet."""

    netuid: int
    owner_hotkey: str
    committed: ModelCommitment | None
    agrees: bool | None  # None: nothing is committed


async def model(
    network: str,
    netuid: int | None,
    wallet: str,
    hotkey: str,
    wallet_path: Path,
    given: dict[str, str],
    *,
    commit: bool,
    tensor: str | None,
    as_json: bool,
) -> int:
    """Show, compare, commit or prove; 1 when the chain holds another model. `given` are neuron settings.

    Raises TemplateError.
    """
    if commit and netuid is None:
        raise TemplateError("which subnet's model shall be committed?", remedy="add --netuid")
    prepared = _prepared(given)
    if tensor is not None:
        print_json(proof_of(prepared, tensor))
        return 0
    on_chain = None
    if netuid is not None:
        async with Chain(network) as chain:
            if commit:
                own = Hotkey.load(wallet, hotkey, wallet_path.expanduser())
                await commit_model(chain, netuid, own, prepared)
            on_chain = await read(chain, netuid, prepared)
    _show(prepared, on_chain, as_json)
    return int(on_chain is not None and on_chain.agrees is False)


def _prepared(given: dict[str, str]) -> PreparedModel:
    """The model, without torch when it is ready; making it shows progress on standard error."""
    from template.inference.manifest import find_prepared

    settings = models.default_settings(**given)
    found = find_prepared(settings)
    if found is not None:
        return found
    from template.inference.models import prepare_model

    return prepare_model(settings, lambda text: print(text, file=sys.stderr, flush=True))


async def commit_model(chain: Chain, netuid: int, hotkey: Hotkey, prepared: PreparedModel) -> bool:
    """Commit the root; False when the chain holds it already. Raises TemplateError for anybody but the owner."""
    owner = (await chain.metagraph(netuid)).owner_hotkey
    if hotkey.ss58 != owner:
        raise TemplateError(
            f"{hotkey.ss58} is not the hotkey of subnet {netuid}'s owner, {owner}",
            remedy="name the owner's keys with --wallet and --hotkey; nobody reads a commitment of another hotkey",
        )
    text = ModelCommitment(prepared.identity.root, prepared.identity.dtype).encode()
    held = await chain.commitment(netuid, owner)
    if held is not None and text in held.texts:
        return False
    await chain.commit(netuid, hotkey, *replaced(held.texts if held else (), COMMITMENT_PREFIX, text))
    return True


async def read(chain: Chain, netuid: int, prepared: PreparedModel) -> OnChain:
    """What the owner committed, against what is prepared. Raises ChainError, and OtherModel for an unknown form."""
    owner = (await chain.metagraph(netuid)).owner_hotkey
    committed = await models.committed_model(chain, netuid, owner)
    own = ModelCommitment(prepared.identity.root, prepared.identity.dtype)
    return OnChain(netuid, owner, committed, None if committed is None else committed == own)


def proof_of(prepared: PreparedModel, name: str) -> dict[str, Any]:
    """Root, leaf and inclusion proof of a tensor, or of a document such as "config". Raises TemplateError."""
    leaves = {leaf.name: leaf for leaf in prepared.leaves}
    leaf = leaves.get(TENSOR + name) or leaves.get(name)
    if leaf is None:
        names = [known.removeprefix(TENSOR) for known in leaves]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.3) or names[:1]
        raise TemplateError(f"the model has no tensor {name!r}", remedy=f"did you mean {close[0]}?")
    proof = inclusion_proof(prepared.leaves, leaf.name)
    return {"root": prepared.identity.root, "leaf": asdict(leaf), "proof": asdict(proof)}


def _show(prepared: PreparedModel, on_chain: OnChain | None, as_json: bool) -> None:
    identity = prepared.identity
    if as_json:
        chain = None if on_chain is None else asdict(on_chain)
        print_json({**asdict(identity), "leaves": len(prepared.leaves), "path": str(prepared.path), "chain": chain})
        return
    rows = [
        ("model", identity.name),
        ("source", identity.source),
        ("dtype", identity.dtype),
        ("root", f"{identity.root} over {len(prepared.leaves)} leaves"),
    ]
    if on_chain is not None:
        committed = on_chain.committed
        said = f"{committed.root} in {committed.dtype}" if committed else f"no model; {models.HOW_TO_COMMIT}"
        verdict = {True: ": this model", False: ": ANOTHER MODEL, so neurons with this one refuse to start", None: ""}
        rows.append(("committed", said + verdict[on_chain.agrees]))
    for name, text in rows:
        console.print(f"{name:<10} {text}", markup=False, soft_wrap=True)
